#include "shim/record/report.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/warnings.h"
#include "core/pool/pool_instance.h"
#include "shim/lookup/runtime_calls.h"
#include "shim/record/own_files.h"
#include "shim/record/report_text.h"
#include "shim/record/run.h"
#include "shim/state/settings.h"

namespace cmp {

namespace {

constexpr const char* kLiveBeginning = "CMPSTAT";

// Where the report goes; empty: nowhere but stderr.
constinit char g_path[kMaxPath] = {};
constinit bool g_no_report = false;     // said already that there will be none
constinit bool g_live_is_ours = false;  // FILE.live was made by this process

void WarnOfFile(const char* path, const char* problem) {
  char line[400];
  snprintf(line, sizeof(line), "cannot write statistics to %.256s: %s", path, problem);
  PrintWarning(line);
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

// The page itself; the counters count in any case.
void* MakePage(const Options& options, size_t bytes) {
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
  const int file = MakeFile(live, kLiveBeginning);
  if (file < 0) {
    // Said once: where this file cannot be made, the report would not be written either.
    WarnOfFile(live, errno == EEXIST ? "a file that is not ours is there" : strerror(errno));
    g_path[0] = '\0';
    g_no_report = true;
    return MapPages(bytes);
  }
  void* page = MapMore(file, 0, bytes);
  const int problem = errno;
  close(file);
  if (page != nullptr) {
    g_live_is_ours = true;
    return page;
  }
  WarnOfFile(live, strerror(problem));
  unlink(live);
  g_path[0] = '\0';
  g_no_report = true;
  return MapPages(bytes);
}

}  // namespace

void* OpenStatisticsPage(const Options& options, size_t bytes) {
  void* page = MakePage(options, bytes);
  if (page != nullptr && options.stats != nullptr) {
    DescribeRun(static_cast<StatisticsHeader*>(page)->run);
  }
  return page;
}

void* MoreStatistics(size_t offset, size_t bytes) {
  if (!g_live_is_ours) return nullptr;
  const Uncancelled uncancelled;
  char live[kMaxPath];
  LivePath(live);
  const int file = IsOurs(live, kLiveBeginning) ? open(live, O_RDWR | O_NOFOLLOW | O_CLOEXEC) : -1;
  if (file < 0) return nullptr;
  void* pages = MapMore(file, offset, bytes);
  close(file);
  return pages;
}

void ForgetReport() {
  g_path[0] = '\0';
  g_no_report = false;
  g_live_is_ours = false;
}

}  // namespace cmp
