#include "shim/free_sync.h"

#include "core/pool_instance.h"

namespace cmp {

namespace {

// Waits for all work of `context`, and of the process's other contexts, which may use the block too
// (peer access and copies). That it waits for those is more than the real call is known to do.
Settlement WaitForAll(Pool& pool, ContextPool& context) {
  Readiness& readiness = pool.readiness();
  const uint64_t begin = NowNs();
  int status = readiness.Finish(context);
  if (pool.contexts().count() > 1) {
    pool.ForEachContext([&](ContextPool& other) {
      if (&other == &context || !other.open() || status != kSuccess) return;
      // A broken context's work is over.
      const int waited = readiness.Finish(other);
      status = IsBrokenContextStatus(waited) ? kSuccess : waited;
    });
  }
  pool.statistics().CountWait(begin);
  if (status == kSuccess) return {true, kReady};
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
  const Fences::Recorded fence = pool.readiness().Record(context);
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
