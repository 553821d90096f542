#include "shim/work/owed.h"

#include "core/base/thread_exit.h"
#include "core/base/warnings.h"
#include "core/pool/pool_instance.h"
#include "shim/shake/shake.h"
#include "shim/work/work_owner.h"

namespace cmp {

namespace {

// For what another thread's free left, counted from the context's newest fence.
constexpr uint64_t kPatienceNs = 100'000'000;
constexpr long kBetweenQuestionsNs = 50'000;

// In one context the device keeps the order, whichever thread submits, and under
// CMP_FREE_SYNC=order nobody else is promised anything.
void PayAtThreadEnd() {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const bool is_auto = pool != nullptr && pool->options().free_sync == FreeSync::kAuto;
  if (is_auto || g_owner_of_all.load(std::memory_order_acquire).IsOneOfSeveral()) {
    PayOwed(&ProcessCounters::paid_by_thread_ends);
  }
}
constinit ThreadExitHook g_thread_ends(&PayAtThreadEnd);

void WaitInFull(Pool& pool, ContextPool& context, uint64_t fence) {
  // A wait that is refused is tried again: nobody would see that it was not kept. If that fails the
  // context has failed or ended, and with it the work.
  constexpr int kMostWaits = 16;
  Pause pause;
  for (int i = 0; i < kMostWaits; ++i) {
    if (context.fences().passed() >= fence) return;
    if (pool.readiness().WaitFor(context, fence) == kSuccess) return;
    pause.Wait();  // closed for the time of a call that may end it
  }
}

// Asks again and again: a wait in the driver has no limit. Frees beside it wait, where they would
// beside the question that this is about.
void WaitForAWhile(const Driver& driver, ContextPool& context, uint64_t fence, uint64_t until_ns) {
  Fences& fences = context.fences();
  Watch& watch = WorkIn(context).watch();
  while (fences.passed() < fence && NowNs() < until_ns) {
    watch.Keep(ThisWatcher());
    {
      const ContextPool::User user(context);
      if (!user.entered() || fences.Poll(driver, fence - 1) != kNotReady) return;
    }
    SleepNs(kBetweenQuestionsNs);
  }
}

int CountOpen(Pool& pool) {
  int open = 0;
  pool.ForEachContext([&](const ContextPool& context) { open += context.open() ? 1 : 0; });
  return open;
}

bool IsOwed(const ContextPool& context) {
  return t_owed.context == &context && context.fences().passed() < t_owed.fence;
}

// Until when what other threads skipped in the context is waited for.
uint64_t PatienceEnds(const ContextPool& context) {
  return context.fences().newest_ns() + kPatienceNs;
}

// Waits for what frees skipped in `context`. False: it is too late to wait for others'.
bool PayIn(Pool& pool, const Driver& driver, ContextPool& context, uint64_t until_ns,
           Counter ProcessCounters::*count, bool in_full) {
  const uint64_t skipped = context.fences().skipped();
  const uint64_t begin = NowNs();
  if (!in_full && !IsOwed(context) && begin >= until_ns) return false;
  if (IsOwed(context)) WaitInFull(pool, context, t_owed.fence);
  if (in_full) WaitInFull(pool, context, skipped);
  WaitForAWhile(driver, context, skipped, until_ns);
  pool.readiness().CountSkipped(context);
  ProcessCounters& process = pool.statistics().process();
  process.paid_ns.AddShared(NowNs() - begin);
  (process.*count).AddShared(1);
  return true;
}

// After the answer "not ready". True: ask again. In this order: the mark, then what was skipped
// (watch.h).
bool LookAtSkipped(Pool& pool, const Driver& driver, ContextPool& context, Watcher self) {
  ContextWork& work = WorkIn(context);
  if (&work == &g_no_work) return false;  // no free skips its wait there
  const Fences& fences = context.fences();
  bool again = false;
  while (!work.watch().Renew(self)) {
    const uint64_t skipped = fences.skipped();
    // What it waited for is settled; but a free of its own may owe the same fence since.
    const uint64_t settled = t_settled.context == &context ? t_settled.fence : 0;
    if (!IsOwed(context) && skipped <= settled) break;
    // What has passed by now may not have when the question was answered.
    again |= RuleIsOn(Rule::kAskAgain);
    if (fences.passed() < skipped) {
      const uint64_t until = PatienceEnds(context);  // later fences prolong nothing
      again |= PayIn(pool, driver, context, until, &ProcessCounters::paid_by_queries, false);
      if (fences.passed() < skipped && (IsOwed(context) || NowNs() < until)) {
        work.watch().Leave(self);  // cut short: the next question looks again
        break;
      }
    }
    t_settled = {&context, skipped};
  }
  return again;
}

}  // namespace

void OweOf(ContextPool& context, uint64_t fence) {
  PayOwed(&ProcessCounters::paid_by_other_contexts);
  t_owed = {&context, fence};
  if (!g_thread_ends.Arm()) PayAtThreadEnd();  // there is no later moment
}

void PayOwed(Counter ProcessCounters::*count) {
  const Owed owed = t_owed;
  t_owed = {};
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr || owed.context == nullptr) return;
  if (owed.context->fences().passed() >= owed.fence || !RuleIsOn(Rule::kOrderAcrossContexts)) {
    return;
  }
  const uint64_t begin = NowNs();
  WaitInFull(*pool, *owed.context, owed.fence);
  ProcessCounters& process = pool->statistics().process();
  process.paid_ns.AddShared(NowNs() - begin);
  (process.*count).AddShared(1);
}

bool PaySkipped(Counter ProcessCounters::*count, ContextHandle (*fully)()) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  if (pool == nullptr || driver == nullptr) return false;
  bool waited = false;
  const auto skips = [](const ContextPool& context) {
    return context.open() && context.fences().passed() < context.fences().skipped();
  };
  pool->contexts().ForEachIf(skips, [&](ContextPool& context) {
    const bool in_full = fully != nullptr && context.identity().handle == fully();
    waited |= PayIn(*pool, *driver, context, PatienceEnds(context), count, in_full);
  });
  return waited;
}

bool PayBeforeAnswer() {
  if (!g_tracks_visible.load(std::memory_order_acquire)) return false;  // nothing is skipped
  const Watcher self = ThisWatcher();
  const WorkOwner of_all = g_owner_of_all.load(std::memory_order_acquire);
  if (of_all.work().watch().Stands(self)) [[likely]]
    return false;
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  if (pool == nullptr || driver == nullptr) return false;
  bool again = false;
  const auto unwatched = [=](const ContextPool& context) {
    return context.open() && !WorkIn(context).watch().Stands(self);
  };
  pool->contexts().ForEachIf(unwatched, [&](ContextPool& context) {
    again |= LookAtSkipped(*pool, *driver, context, self);
  });
  return again;
}

void PayBeforeDestruction() {
  ShakeWait(kSeveralStreams);  // some of what follows waits
  if (!RuleIsOn(Rule::kPayBeforeDestruction)) return;
  PaySkipped(&ProcessCounters::paid_by_destruction, [] { return CurrentContext(*LoadedDriver()); });
}

int PayBeforeContextEnds(ContextPool& context) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const uint64_t skipped = context.fences().skipped();
  if (pool == nullptr || !context.open() || context.fences().passed() >= skipped) return kSuccess;
  const int status = pool->readiness().WaitFor(context, skipped);
  return IsBrokenContextStatus(status) ? status : kSuccess;
}

void PayAtExit() {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr) return;
  const int open = CountOpen(*pool);
  if (RuleIsOn(Rule::kPayAtExit)) PaySkipped(&ProcessCounters::paid_at_exit);
  if (CountOpen(*pool) < open) {  // closed by what the wait returned
    PrintWarning(
        "GPU work before the last cudaFree has failed, which the real cudaFree would have "
        "reported; see CMP_FREE_SYNC=wait");
  }
  pool->ForEachContext([&](ContextPool& context) { pool->readiness().CountSkipped(context); });
}

}  // namespace cmp
