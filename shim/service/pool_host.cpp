#include "shim/service/pool_host.h"

#include "shim/lookup/lookup.h"
#include "shim/service/kept_pools.h"
#include "shim/service/page_locked.h"
#include "shim/shake/shake.h"
#include "shim/state/captures.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/made_contexts.h"
#include "shim/work/owed.h"
#include "shim/work/work_of_stream.h"

namespace cmp {

namespace {

bool Keeps(FreeSync mode) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  return pool != nullptr && pool->options().free_sync == mode;
}

void FenceBegins(ContextPool& context, uint64_t number, FencePurpose purpose) {
  ContextWork& work = WorkIn(context);
  const bool is_synchronisation = number == 0;
  if (is_synchronisation || !(Keeps(FreeSync::kOrder) || Keeps(FreeSync::kAuto))) {
    return work.FenceOwingNothingBegins();
  }
  if (purpose == FencePurpose::kOrder) return work.FenceForOrderBegins(number);
  const bool several = g_owner_of_all.load(std::memory_order_acquire).IsOneOfSeveral();
  work.FenceForReuseBegins(number, several || purpose != FencePurpose::kReuse);
}

void ContextOpened(ContextPool& context) {
  if (context.of_host == nullptr) {
    auto* made = context.arena().New<ContextWork>(&context);
    context.of_host = made == nullptr ? &g_no_work : made;
  }
  ContextWork& work = WorkIn(context);
  const bool tracks = Keeps(FreeSync::kAuto) || TheShaker() != nullptr;
  if (&work != &g_no_work) work.Begin(tracks);
  if (tracks) {
    g_tracks_visible.store(true, std::memory_order_release);
    if (context.identity().reaches_host_memory) {
      g_visible_memory.NoteForGood(Visible::kPageableAccess);
    }
  }
  ForgetStreams();
  ContextHasPool(work);
}

void ContextEnded(ContextPool& context) {
  ContextWork& work = WorkIn(context);
  work.End();
  g_visible_memory.ContextEnds(context.identity().id);
  ForgetStreams();
  ContextHasNoPool(work);
}

}  // namespace

constinit const PoolHost kShimHost = {
    &LoadedDriver,
    [] { return g_captures.EnterRecording(); },
    [] { g_captures.LeaveRecording(); },
    [] { return g_captures.EnterSynchronising(); },
    [] { g_captures.LeaveSynchronising(); },
    &FenceBegins,
    [](ContextPool& context) { WorkIn(context).FenceFailed(); },
    &FreesAreUnseen,
    [] { return g_visible_memory.managed_bytes(); },
    &DevicesWithKept,
    &ReleaseKept,
    &AgeKept,
    true,
    true,
    &ContextOpened,
    &ContextEnded,
    &kPageLockedCalls,
};

void ForgetWork() {
  ForgetContexts();
  ForgetOwed();
  ForgetDebts();
  g_tracks_visible.store(false, std::memory_order_release);
  g_visible_memory.Forget();
  g_events.Reset();
  ForgetStreams();
}

}  // namespace cmp
