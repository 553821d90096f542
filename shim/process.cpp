#include "shim/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/pool_face.h"
#include "core/warnings.h"
#include "shim/captures.h"
#include "shim/interposed.h"
#include "shim/owed.h"
#include "shim/own_files.h"
#include "shim/pitches.h"
#include "shim/programs.h"
#include "shim/report.h"
#include "shim/runtime_pool.h"
#include "shim/trace.h"
#include "shim/work.h"

namespace cmp {

namespace {

void Forked() {
  g_captures.Forget();
  ForgetWork();
  g_runtime_pool.Forget();
  g_pitches.Forget();
  ForgetReport();
  ForgetTrace();
  g_is_forked_child = true;
}

void Exiting() {
  PayAtExit();
  g_runtime_pool.Forbid();
}

Options StartOptions() {
  Options options = ReadShimOptions();
  if (!BeginTrace(options)) options.trace = nullptr;
  return options;
}

}  // namespace

Options ReadShimOptions() {
  WarnOfMisspelledOptions(environ, &PrintWarning);
  // secure_getenv: a set-user-id program takes no settings from its caller.
  Options options = ReadOptions([](const char* name) -> const char* { return secure_getenv(name); },
                                &PrintWarning);
  if (options.programs != nullptr && !IsServed(options.programs, ProgramName())) {
    if (options.verbose) PrintWarning("CMP_PROGRAMS leaves this program out: every call is real");
    options.mode = Mode::kOff;
    options.stats = options.trace = nullptr;
  }
  // compute-sanitizer watches every allocation by itself; blocks that the pool keeps would hide
  // from it what happens after a free.
  if (options.mode == Mode::kPool && secure_getenv("NV_SANITIZER_INJECTION_PORT_BASE") != nullptr) {
    PrintWarning("compute-sanitizer is attached: every call is real, so that it sees all errors");
    options.mode = Mode::kOff;
  }
  return options;
}

Pool* StartedPool() {
  static constexpr PoolStart kStart = {&StartOptions, &OpenStatisticsPage, &MoreStatistics, &Forked,
                                       &Exiting,      &kShimHost};
  return StartPool(kStart);
}

void CudaIsInitialised(const Driver& driver) {
  static constinit std::atomic<bool> g_done{false};
  if (g_done.load(std::memory_order_relaxed)) return;
  if (g_done.exchange(true, std::memory_order_relaxed)) return;
  WatchExit();
  Pool* pool = g_started.load(std::memory_order_acquire);
  if (pool == nullptr || !pool->options().verbose) return;
  const int runtime_version = g_runtime_version.load(std::memory_order_relaxed);
  char line[256];
  snprintf(line, sizeof(line), "version %s serves %s (pid %d): CUDA runtime %d.%d, %s", Version(),
           ProgramName(), static_cast<int>(getpid()), runtime_version / 1000,
           runtime_version % 1000 / 10,
           driver.record_context != nullptr ? "context events"
                                            : "no context events (driver before 12.5)");
  PrintWarning(line);
}

const char* Version() { return CMP_VERSION; }

}  // namespace cmp

// ---- What the shim exports besides the interposed names

CMP_EXPORT const char* cmp_preload_version() { return cmp::Version(); }
