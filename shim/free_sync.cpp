#include "shim/free_sync.h"

#include "core/pool_instance.h"

namespace cmp {

namespace {

// Waits for all work of `context`. Other contexts may use the block too (peer access and copies):
// their work only delays its reuse.
Settlement WaitForAll(Pool& pool, ContextPool& context) {
  const uint64_t begin = NowNs();
  const int status = pool.readiness().Finish(context);
  pool.statistics().CountWait(begin);
  if (status == kSuccess) return {true, pool.readiness().StampOfOthers(context)};
  if (status == Readiness::kCaptureUnderWay) {
    pool.statistics().process().capture_real_calls.AddShared(1);
  }
  // A broken context is closed by now: the program gets the real calls, and with them the real
  // errors. Other errors (a capture that was begun where the shim cannot see it, a call from a host
  // function, no memory for an event) say nothing about the context: this one free is real.
  return kRealFree;
}

// Drivers before 12.5 cannot mark a context's work: then one wait serves many frees.
bool IsTimeToWait() {
  constexpr unsigned kFrees = 64;
  static thread_local constinit unsigned t_frees = 0;
  return ++t_frees % kFrees == 0;
}

Settlement KeepOrder(Pool& pool, ContextPool& context) {
  const Fences& fences = context.fences();
  // In this order; see FenceBegins. A fence that is still being recorded could fail.
  if (!fences.work_since()) {
    if (const uint64_t newest = fences.started(); fences.published() >= newest) {
      return {true, pool.readiness().StampFor(context, newest)};
    }
  }
  const Fences::Recorded fence = pool.readiness().Record(context, FencePurpose::kOrder);
  if (fence.status != kSuccess) return WaitForAll(pool, context);
  return {true, pool.readiness().StampFor(context, fence.number)};
}

}  // namespace

Settlement SettleFree(Pool& pool, const Driver& driver, Block* block) {
  ContextPool& context = *block->owner();
  if (!context.open() || g_exiting.load(std::memory_order_acquire)) return kRealFree;
  if (g_captures.UnderWay() && RuleIsOn(Rule::kCapture)) [[unlikely]] {
    pool.statistics().process().capture_real_calls.AddShared(1);
    g_captures.Revisit(driver);
    return kRealFree;
  }
  const FreeSync mode = pool.options().free_sync;
  const Stamp stamp = pool.readiness().StampNow(context);
  if (stamp == kReady) [[likely]]
    return {true, kReady};
  const bool can_record = Readiness::HasContextEvents(driver);
  if (mode == FreeSync::kNone && (can_record || !IsTimeToWait())) return {true, stamp};
  if (mode == FreeSync::kOrder && can_record) return KeepOrder(pool, context);
  return WaitForAll(pool, context);
}

}  // namespace cmp
