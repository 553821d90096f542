#include "shim/free_sync.h"

#include "core/context_wait.h"
#include "core/pool_instance.h"
#include "shim/captures.h"

namespace cmp {

Settlement SettleFree(Pool& pool, const Driver& driver, Block* block) {
  ContextPool& context = *block->owner();
  if (!context.open() || g_exiting.load(std::memory_order_acquire)) return Settlement::kRealFree;
  ThreadCache* cache = pool.CacheFor(context);
  if (cache == nullptr) return Settlement::kRealFree;
  if (!g_captures.EnterRecording()) {
    pool.statistics().process().capture_real_calls.AddShared(1);
    return Settlement::kRealFree;
  }
  const uint64_t begin = NowNs();
  ContextWait wait(driver, *cache);
  int status = wait.Record();
  // With a recorded event the wait itself is harmless to captures; without, it is the wait that
  // must be kept from them.
  if (wait.recorded()) g_captures.LeaveRecording();
  if (status == kSuccess) status = wait.Wait();
  if (!wait.recorded()) g_captures.LeaveRecording();
  pool.statistics().CountWait(begin);
  if (status == kSuccess) return Settlement::kReady;
  // A capture that was begun where the shim cannot see it says nothing about the context. Any other
  // error does: from now on the program gets the real calls, and with them the real errors.
  if (!IsCaptureStatus(status)) pool.CloseContext(context);
  return Settlement::kRealFree;
}

bool ContextIsQuiet(Pool& pool, const Driver& driver, ContextPool& context) {
  ThreadCache* cache = pool.CacheFor(context);
  if (cache == nullptr || !g_captures.EnterRecording()) return false;
  ContextWait wait(driver, *cache);
  const bool marked = wait.Record() == kSuccess && wait.recorded();
  g_captures.LeaveRecording();
  return marked && wait.Done();
}

}  // namespace cmp
