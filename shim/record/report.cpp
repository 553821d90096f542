#include "shim/record/report.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/pool/pool_instance.h"
#include "shim/lookup/runtime_calls.h"
#include "shim/record/live.h"
#include "shim/record/own_files.h"
#include "shim/record/report_text.h"
#include "shim/record/run.h"
#include "shim/state/settings.h"

namespace cmp {

namespace {

// Where the report goes; empty: nowhere but stderr.
constinit char g_path[kMaxPath] = {};
constinit bool g_no_report = false;  // said already that there will be none

// Nothing is at the path, or a report of ours. False with a warning.
bool IsFree() {
  char target[1];
  const bool is_link = readlink(g_path, target, sizeof(target)) >= 0;
  if (!is_link && access(g_path, F_OK) != 0) return true;
  if (IsOwnFile(g_path, kJsonBeginning)) return true;
  WarnOfStatistics(g_path, "a file that is not a report of ours is there");
  return false;
}

// False, with a warning, where it cannot.
bool WriteFile(const Text& text) {
  char fresh[kMaxPath];
  snprintf(fresh, kMaxPath, "%.1000s.new", g_path);
  if (!IsFree()) return false;
  const int file = MakeFile(fresh, kJsonBeginning);
  if (file < 0) {
    WarnOfStatistics(g_path, strerror(errno));
    return false;
  }
  errno = 0;
  const bool written = text.WriteTo(file);
  close(file);
  if (!written || rename(fresh, g_path) != 0) {
    WarnOfStatistics(g_path, strerror(errno));
    unlink(fresh);
    return false;
  }
  return true;
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

// Of a process that used CUDA without the pool.
void TellUnreached(const char* stats, const char* reason) {
  Text text;
  if (strcmp(stats, "1") == 0) {
    AddUnreachedSummary(text, reason);
    text.WriteTo(STDERR_FILENO);
  } else if (ExpandPath(stats, g_path)) {
    AddUnreachedJson(text, reason);
    WriteFile(text);
  }
}

// The process ends. Counters are read, nothing of CUDA is called, nothing is freed.
__attribute__((destructor)) void Report() {
  Pool* pool = g_started.load(std::memory_order_acquire);
  // None of our entry points was reached. If the process used CUDA all the same, say so.
  const bool is_unreached = pool == nullptr;
  if (is_unreached &&
      (g_is_forked_child || secure_getenv("CMP_STATS") == nullptr || !DriverIsLoaded())) {
    return;
  }
  if (!is_unreached && pool->page_locked() != nullptr) {
    pool->page_locked()->TellStatistics(pool->statistics().process());
  }
  const WithoutWriteSignals without_signals;
  const Options options = is_unreached ? ReadShimOptions() : pool->options();
  if (options.stats == nullptr || g_no_report) return;
  if (g_left_out) {
    TellUnreached(options.stats, "CMP_PROGRAMS leaves it out");
  } else if (is_unreached) {
    if (options.mode == Mode::kOff) return;
    TellUnreached(options.stats,
                  "it allocated nothing with cudaMalloc or cuMemAlloc, or came to them past the "
                  "shim (RTLD_DEEPBIND, dlmopen, another preload's dlsym)");
  } else if (g_path[0] == '\0') {
    Text text;
    AddSummary(text, *pool);
    text.WriteTo(STDERR_FILENO);
  } else {
    Text text;
    AddJsonReport(text, *pool);
    if (WriteFile(text)) {
      RemoveLive();
    } else {
      WriteLive();  // which is all that there is
    }
  }
}

}  // namespace

void BeginReport(Pool& pool) {
  const char* stats = pool.options().stats;
  g_path[0] = '\0';
  if (stats == nullptr || g_left_out) return;
  DescribeRun(pool.statistics().header()->run);
  if (strcmp(stats, "1") == 0) return;
  char live[kMaxPath];
  if (!ExpandPath(stats, g_path)) {
    WarnOfStatistics(stats, "the name is too long");
  } else if (IsFree()) {
    snprintf(live, sizeof(live), "%.1000s.live", g_path);
    if (BeginLive(live, pool.statistics())) return;
    // Said once: where this file cannot be made, the report would not be written either.
    WarnOfStatistics(live, errno == EEXIST ? "a file that is not ours is there" : strerror(errno));
  }
  g_path[0] = '\0';
  g_no_report = true;
}

void ForgetReport() {
  g_path[0] = '\0';
  g_no_report = false;
  ForgetLive();
}

}  // namespace cmp
