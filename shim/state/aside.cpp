#include "shim/state/aside.h"

#include <stdio.h>

#include "core/base/warnings.h"
#include "core/driver/driver_api.h"
#include "core/pool/pool_instance.h"
#include "shim/state/runtime_pool.h"

namespace cmp {

namespace {

constinit char g_text[400] = {};
constinit std::atomic<const char*> g_reason{nullptr};

// Threads forget the caches that they remember, and whoever frees now makes a real free
// (SettleFree). What is idle goes before the contexts are closed, as nobody could give it back
// later.
void GiveEverythingBack(Pool& pool) {
  ForgetWhatThreadsRemember();
  const Driver* driver = LoadedDriver();
  if (driver != nullptr && !g_exiting.load(std::memory_order_acquire)) {
    const RelaxedCaptureMode relaxed(*driver);
    pool.ReleaseThreadCaches(DriverApi(*driver));
    SleepNs(1'000'000);  // calls that were on their way
    pool.ReleaseThreadCaches(DriverApi(*driver));
    if (pool.page_locked() != nullptr) pool.page_locked()->ReleaseForMemory(~size_t{0});
  }
  pool.ForEachContext([&](ContextPool& context) { pool.CloseContext(context); });
}

}  // namespace

void StepAside(AsideIs what, const char* reason) {
  // seq_cst: who opens a context's pool looks here afterwards (ServingContext), and we at all
  // contexts afterwards. One of the two sees the other.
  if (g_aside.exchange(true, std::memory_order_seq_cst)) return;
  g_runtime_pool.Forbid();
  snprintf(g_text, sizeof(g_text), "%s", reason);
  g_reason.store(g_text, std::memory_order_release);
  if (what == AsideIs::kWrong) {
    char line[440];
    snprintf(line, sizeof(line), "every call is real: %s", reason);
    PrintWarning(line);
  }
  if (Pool* pool = g_pool.load(std::memory_order_acquire)) GiveEverythingBack(*pool);
}

const char* AsideReason() { return g_reason.load(std::memory_order_acquire); }

}  // namespace cmp
