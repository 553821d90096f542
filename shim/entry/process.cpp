#include "shim/entry/process.h"

#include <stdio.h>
#include <unistd.h>

#include "core/base/warnings.h"
#include "core/library/pool_face.h"
#include "shim/lookup/interposed.h"
#include "shim/lookup/lookup.h"
#include "shim/record/held_up.h"
#include "shim/record/own_files.h"
#include "shim/record/report.h"
#include "shim/record/run.h"
#include "shim/record/trace.h"
#include "shim/service/kept_pools.h"
#include "shim/service/pitches.h"
#include "shim/service/pool_host.h"
#include "shim/service/verified.h"
#include "shim/shake/shake.h"
#include "shim/state/captures.h"
#include "shim/state/deep_loads.h"
#include "shim/state/runtime_pool.h"
#include "shim/state/settings.h"
#include "shim/work/owed.h"

namespace cmp {

namespace {

void Forked() {
  g_captures.Forget();
  ForgetDeepLoads();
  ForgetShake();
  ForgetWork();
  ForgetKeptPools();
  g_runtime_pool.Forget();
  g_pitches.Forget();
  g_context_pitches.Forget();
  ForgetReport();
  ForgetTrace();
  ForgetObserved();
  g_is_forked_child = true;
}

void Exiting() {
  EndShake();
  PayAtExit();
  g_runtime_pool.Forbid();
}

Options StartOptions() {
  Options options = ReadShimOptions();
  if (!BeginTrace(options)) options.trace = nullptr;
  BeginShake(options);
  return options;
}

}  // namespace

Pool* StartedPool() {
  static constexpr PoolStart kStart = {&StartOptions, &BeginReport, &Forked, &Exiting, &kShimHost};
  return StartPool(kStart);
}

void CudaIsInitialised(const Driver& driver) {
  static constinit std::atomic<bool> g_done{false};
  if (g_done.load(std::memory_order_relaxed)) return;
  if (g_done.exchange(true, std::memory_order_relaxed)) return;
  WatchExit();
  NameGpus(driver);
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

Pool* PoolForAlloc(bool odd) {
  if (odd || t_inside_real != 0) return nullptr;
  Pool* pool = StartedPool();
  const Driver* driver = LoadedDriver();
  if (pool == nullptr || driver == nullptr || CurrentContext(*driver) == nullptr) return nullptr;
  const bool observes = pool->options().mode == Mode::kObserve;
  if (!observes && g_pool.load(std::memory_order_acquire) == nullptr) return nullptr;
  CudaIsInitialised(*driver);
  if (!observes) VerifyLookups();
  return pool;
}

}  // namespace cmp

// ---- What the shim exports besides the interposed names

CMP_EXPORT const char* cmp_preload_version() { return cmp::Version(); }
