#include "shim/work/free_sync.h"

#include <algorithm>

#include "core/pool/pool_instance.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"
#include "shim/state/deep_loads.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/context_work.h"
#include "shim/work/owed.h"
#include "shim/work/watch.h"

namespace cmp {

namespace {

// What a wait for `context` that did not succeed comes to. A broken context is closed by now: the
// program gets the real calls, and with them the real errors. Other errors (a capture that was
// begun where the shim cannot see it, a call from a host function, no memory for an event) say
// nothing about the context: this one free is real.
Settlement Failed(Pool& pool, int status) {
  if (status == Readiness::kCaptureUnderWay) {
    pool.statistics().process().capture_real_calls.AddShared(1);
  }
  return kRealFree;
}

// Waits for all work of `context`. Other contexts may use the block too (peer access and copies):
// their work only delays its reuse.
Settlement WaitForAll(Pool& pool, ContextPool& context) {
  const uint64_t begin = NowNs();
  const int status = pool.readiness().Finish(context);
  pool.statistics().CountWait(begin);
  if (status != kSuccess) return Failed(pool, status);
  return Settlement::Waited(pool.readiness().StampOfOthers(context));
}

// Drivers before 12.5 cannot mark a context's work: then one wait serves many frees.
bool IsTimeToWait() {
  constexpr unsigned kFrees = 64;
  static thread_local constinit unsigned t_frees = 0;
  return ++t_frees % kFrees == 0;
}

// A fence that covers all work from before the free, and that later work runs after; number 0 if
// none could be recorded.
uint64_t FenceForOrder(Pool& pool, ContextPool& context) {
  const Fences& fences = context.fences();
  // In this order (context_work.h). A fence that is still being recorded could fail.
  if (!fences.work_since() && !WorkIn(context).MayBeUnordered()) {
    if (const uint64_t newest = fences.started(); fences.published() >= newest) return newest;
  }
  const Fences::Recorded fence = pool.readiness().Record(context, FencePurpose::kOrder);
  return fence.status == kSuccess ? fence.number : 0;
}

Counter& CounterOf(ProcessCounters& process, Visible what) {
  // In the order of Visible.
  static constexpr Counter ProcessCounters::*kCounters[] = {
#define CMP_NAME(name, meaning) &ProcessCounters::name,
      CMP_WAIT_REASONS(CMP_NAME)
#undef CMP_NAME
  };
  static_assert(sizeof(kCounters) / sizeof(kCounters[0]) == size_t(Visible::kNothing));
  return process.*kCounters[static_cast<size_t>(what)];
}

// A host function may call nothing of CUDA: every call says so, this one too (measured). Where the
// free has something to record or to wait for, it is the driver that refuses that.
bool InHostFunction(const Driver& driver) {
  CUcontext context = nullptr;
  return driver.get_current(&context) == CUDA_ERROR_NOT_PERMITTED;
}

Settlement KeepOrder(Pool& pool, ContextPool& context) {
  const uint64_t fence = FenceForOrder(pool, context);
  if (fence == 0) return WaitForAll(pool, context);
  Owe(context, fence);
  return Settlement::Pooled(pool.readiness().StampFor(context, fence));
}

// Waits until the fence has passed, and counts for what. The status is the driver's.
int WaitForVisible(Pool& pool, ContextPool& context, VisibleWork::Pending wait_for) {
  const uint64_t begin = NowNs();
  const int status = pool.readiness().WaitFor(context, wait_for.fence);
  pool.statistics().CountWait(begin);
  CounterOf(pool.statistics().process(), wait_for.what).AddShared(1);
  return status;
}

// What the free must wait for. `watched`: another thread asked whether work is done, which a free
// would have waited for (watch.h).
VisibleWork::Pending WhatToWaitFor(ContextWork& work, uint64_t fence, bool watched) {
  if (const Visible what = g_visible_memory.Exists(); what != Visible::kNothing) {
    return {fence, what};
  }
  if (watched) return {fence, Visible::kWatched};
  if (!work.MayHaveVisible()) return {};
  VisibleWork::Pending pending = work.PendingVisible();
  // Another thread's may have begun since; this one covers all from before the free.
  pending.fence = std::min(pending.fence, fence);
  return pending;
}

// Waits for what the host could see of the context's work, and keeps the order of the rest.
Settlement KeepVisible(Pool& pool, ContextPool& context) {
  ContextWork& work = WorkIn(context);
  const Watcher self = ThisWatcher();
  const bool watched = work.watch().HasOthers(self);
  const uint64_t fence = &work == &g_no_work ? 0 : FenceForOrder(pool, context);
  if (fence == 0) return WaitForAll(pool, context);
  Fences& fences = context.fences();
  const VisibleWork::Pending wait_for = WhatToWaitFor(work, fence, watched);
  Settlement::End end = Settlement::End::kPooled;
  if (wait_for.fence > fences.passed()) {
    end = Settlement::End::kPooledAfterWait;
    const int status = WaitForVisible(pool, context, wait_for);
    if (status != kSuccess) return Failed(pool, status);
    work.PendingVisible();  // forgets what is done
  }
  if (fences.passed() < fence) {
    Owe(context, fence);
    fences.NoteSkipped(fence);
    // Now that it is published, and in this order: who asked meanwhile, and has not seen it, is
    // seen here.
    if (RuleIsOn(Rule::kWatchAfterSkip) && work.watch().HasOthers(self)) [[unlikely]] {
      end = Settlement::End::kPooledAfterWait;
      const int status = WaitForVisible(pool, context, {fence, Visible::kWatched});
      if (status != kSuccess) return Failed(pool, status);
    }
  }
  if (fences.passed() >= fence) return {end, pool.readiness().StampOfOthers(context)};
  work.watch().Leave(self);
  pool.statistics().process().skipped_waits.AddShared(1);
  return {end, pool.readiness().StampFor(context, fence)};
}

// A fence of a free that covers all work from before this one, and for which nothing is owed;
// number 0 if none could be recorded.
uint64_t FenceForBlock(Pool& pool, ContextPool& context) {
  const Fences& fences = context.fences();
  if (!fences.work_since()) {
    const uint64_t newest = fences.started();
    if (fences.published() >= newest && fences.newest_of_free() >= newest) return newest;
  }
  const Fences::Recorded fence = pool.readiness().Record(context, FencePurpose::kBlock);
  return fence.status == kSuccess ? fence.number : 0;
}

// Only the block waits, for the fence that the pool expects of each free in every mode but `none`
// (Readiness).
Settlement KeepBlock(Pool& pool, ContextPool& context) {
  const uint64_t fence = FenceForBlock(pool, context);
  if (fence == 0) return WaitForAll(pool, context);
  return Settlement::Pooled(pool.readiness().StampFor(context, fence));
}

// Where work is unfinished, `keep` decides.
template <typename Keep>
Settlement SettleBy(Pool& pool, const Driver& driver, ContextPool& context, Keep keep) {
  LookForDeepLoads();
  if (!context.open() || IsAside() || g_exiting.load(std::memory_order_acquire)) return kRealFree;
  if (g_captures.UnderWay() && RuleIsOn(Rule::kCapture)) [[unlikely]] {
    pool.statistics().process().capture_real_calls.AddShared(1);
    g_captures.Revisit(driver);
    return kRealFree;
  }
  const Stamp stamp = pool.readiness().StampNow(context);
  if (stamp == kReady) [[likely]]
    return Settlement::Pooled(kReady);
  if (InHostFunction(driver)) return kRealFree;
  const bool can_record = Readiness::HasContextEvents(driver);
  if (pool.options().free_sync == FreeSync::kNone && (can_record || !IsTimeToWait())) {
    return Settlement::Pooled(stamp);
  }
  return can_record ? keep(pool, context) : WaitForAll(pool, context);
}

// What CMP_FREE_SYNC says, of the modes but `none`.
Settlement KeepMode(Pool& pool, ContextPool& context) {
  const FreeSync mode = pool.options().free_sync;
  if (mode == FreeSync::kOrder) return KeepOrder(pool, context);
  if (mode == FreeSync::kAuto) return KeepVisible(pool, context);
  return WaitForAll(pool, context);
}

}  // namespace

Settlement SettleFree(Pool& pool, const Driver& driver, ContextPool& context) {
  return SettleBy(pool, driver, context, KeepMode);
}

Settlement SettleWithoutWait(Pool& pool, const Driver& driver, ContextPool& context) {
  return SettleBy(pool, driver, context, KeepBlock);
}

}  // namespace cmp
