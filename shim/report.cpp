#include "shim/report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <initializer_list>

#include "core/pool_instance.h"
#include "core/warnings.h"
#include "shim/process.h"
#include "shim/real_calls.h"
#include "shim/report_text.h"

namespace cmp {

namespace {

constexpr size_t kMaxPath = 1024;

// Where the report goes; empty: nowhere but stderr.
constinit char g_path[kMaxPath] = {};
constinit bool g_no_report = false;     // said already that there will be none
constinit bool g_live_is_ours = false;  // FILE.live was made by this process
constinit bool g_is_forked_child = false;

void WarnOfFile(const char* path, const char* problem) {
  char line[400];
  snprintf(line, sizeof(line), "cannot write statistics to %.256s: %s", path, problem);
  PrintWarning(line);
}

const char* Rank() {
  for (const char* name :
       {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID", "RANK"}) {
    if (const char* rank = secure_getenv(name)) return rank;
  }
  return "0";
}

// `pattern` with %p, %h, %r and %% replaced. False if it does not fit.
bool ExpandPath(const char* pattern, char (&path)[kMaxPath]) {
  size_t length = 0;
  for (const char* at = pattern; *at != '\0'; ++at) {
    char number[16];
    char host[256];
    const char* piece = number;
    if (*at != '%' || at[1] == '\0') {
      snprintf(number, sizeof(number), "%c", *at);
    } else {
      switch (*++at) {
        case 'p':
          snprintf(number, sizeof(number), "%d", static_cast<int>(getpid()));
          break;
        case 'h':
          if (gethostname(host, sizeof(host)) != 0) strcpy(host, "host");
          host[sizeof(host) - 1] = '\0';
          piece = host;
          break;
        case 'r':
          piece = Rank();
          break;
        case '%':
          strcpy(number, "%");
          break;
        default:
          snprintf(number, sizeof(number), "%%%c", *at);
          break;
      }
    }
    const size_t added = strlen(piece);
    if (length + added + 32 > kMaxPath) return false;
    memcpy(path + length, piece, added);
    length += added;
  }
  // A forked child has its own report: of the same name it would replace its parent's.
  if (g_is_forked_child && strstr(pattern, "%p") == nullptr) {
    length += static_cast<size_t>(snprintf(path + length, 32, ".%d", static_cast<int>(getpid())));
  }
  path[length] = '\0';
  return true;
}

// Does the file begin as one that the shim wrote?
bool IsOurs(const char* path, const char* beginning) {
  const int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return false;
  char found[32] = {};
  const size_t length = strlen(beginning);
  const bool ours = read(file, found, length) == static_cast<ssize_t>(length) &&
                    memcmp(found, beginning, length) == 0;
  close(file);
  return ours;
}

// A new private file; an older one of ours is replaced. -1 with errno.
int MakeFile(const char* path, const char* beginning) {
  constexpr int kHow = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const int file = open(path, kHow, 0600);
  if (file >= 0 || errno != EEXIST) return file;
  if (!IsOurs(path, beginning)) {
    errno = EEXIST;
    return -1;
  }
  unlink(path);
  return open(path, kHow, 0600);
}

void LivePath(char (&path)[kMaxPath]) { snprintf(path, kMaxPath, "%.1000s.live", g_path); }

void WriteFile(const Text& text) {
  char fresh[kMaxPath];
  snprintf(fresh, kMaxPath, "%.1000s.new", g_path);
  char target[1];
  const bool is_link = readlink(g_path, target, sizeof(target)) >= 0;
  if ((is_link || access(g_path, F_OK) == 0) && !IsOurs(g_path, kJsonBeginning)) {
    WarnOfFile(g_path, "a file that is not a report of ours is there");
    return;
  }
  const int file = MakeFile(fresh, kJsonBeginning);
  if (file < 0) {
    WarnOfFile(g_path, strerror(errno));
    return;
  }
  errno = 0;
  const bool written = text.WriteTo(file);
  close(file);
  if (!written || rename(fresh, g_path) != 0) {
    WarnOfFile(g_path, strerror(errno));
    unlink(fresh);
    return;
  }
  if (g_live_is_ours) {
    char live[kMaxPath];
    LivePath(live);
    unlink(live);
  }
}

// What a write of ours may raise: nobody reads stderr any more, a file is beyond the process's
// limit. That must not change how the process ends.
class WithoutWriteSignals {
 public:
  WithoutWriteSignals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGPIPE);
    sigaddset(&signals_, SIGXFSZ);
    sigprocmask(SIG_BLOCK, &signals_, &before_);
  }
  ~WithoutWriteSignals() {
    constexpr timespec kNow = {};
    while (sigtimedwait(&signals_, nullptr, &kNow) > 0) {
    }
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  WithoutWriteSignals(const WithoutWriteSignals&) = delete;
  WithoutWriteSignals& operator=(const WithoutWriteSignals&) = delete;

 private:
  sigset_t signals_;
  sigset_t before_;
};

// The process ends. Counters are read, nothing of CUDA is called, nothing is freed.
__attribute__((destructor)) void Report() {
  Pool* pool = g_started.load(std::memory_order_acquire);
  const WithoutWriteSignals without_signals;
  Text text;
  if (pool != nullptr) {
    const char* stats = pool->options().stats;
    if (stats == nullptr || g_no_report) return;
    if (g_path[0] != '\0') {
      AddJsonReport(text, *pool);
      WriteFile(text);
    } else {
      AddSummary(text, *pool);
      text.WriteTo(STDERR_FILENO);
    }
    return;
  }
  // None of our entry points was reached. If the process used CUDA all the same, say so.
  if (g_is_forked_child || secure_getenv("CMP_STATS") == nullptr || !DriverIsLoaded()) return;
  const Options options = ReadShimOptions();
  const char* stats = options.stats;
  if (stats == nullptr || options.mode == Mode::kOff) return;
  const char* reason =
      "it allocated nothing with cudaMalloc or cuMemAlloc, or came to them past the shim "
      "(RTLD_DEEPBIND, dlmopen, another preload's dlsym)";
  if (strcmp(stats, "1") == 0) {
    AddUnreachedSummary(text, reason);
    text.WriteTo(STDERR_FILENO);
  } else if (ExpandPath(stats, g_path)) {
    AddUnreachedJson(text, reason);
    WriteFile(text);
  }
}

}  // namespace

void* OpenStatisticsPage(const Options& options, size_t bytes) {
  g_path[0] = '\0';
  if (options.stats == nullptr || strcmp(options.stats, "1") == 0) return MapPages(bytes);
  if (!ExpandPath(options.stats, g_path)) {
    g_path[0] = '\0';
    g_no_report = true;
    WarnOfFile(options.stats, "the name is too long");
    return MapPages(bytes);
  }
  char live[kMaxPath];
  LivePath(live);
  const int file = MakeFile(live, "CMPSTAT");
  if (file < 0) {
    // Said once: where this file cannot be made, the report would not be written either.
    WarnOfFile(live, errno == EEXIST ? "a file that is not ours is there" : strerror(errno));
    g_path[0] = '\0';
    g_no_report = true;
    return MapPages(bytes);
  }
  // All of its room is taken now: a page that the disk has no room for would kill the process when
  // it is counted on, and so would a file beyond the process's limit.
  void* page = MAP_FAILED;
  rlimit most;
  const bool fits = getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur >= bytes;
  errno = fits ? posix_fallocate(file, 0, static_cast<off_t>(bytes)) : EFBIG;
  if (errno == 0) {
    page = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  const int problem = errno;
  close(file);
  if (page != MAP_FAILED) {
    g_live_is_ours = true;
    return page;
  }
  WarnOfFile(live, strerror(problem));
  unlink(live);
  g_path[0] = '\0';
  g_no_report = true;
  return MapPages(bytes);
}

void ForgetReport() {
  g_path[0] = '\0';
  g_no_report = false;
  g_live_is_ours = false;
  g_is_forked_child = true;
}

}  // namespace cmp
