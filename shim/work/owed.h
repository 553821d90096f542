// What frees left unfinished although the real ones would have waited for it, and who waits for it
// after all.
//
// A thread pays in full what its own frees left: before it submits to another context (in one
// context the device keeps the order), before it ends, when it asks whether work is done, when it
// destroys something, at the end of the process. The real free would have stopped it sooner.
//
// Who asks whether work is done looks at what was skipped once, and then only when it has skipped a
// wait itself: frees of other threads wait beside it (watch.h).
//
// What other threads' frees left it also waits for, where it could notice: it may have been told
// that they have returned. But the work may itself wait for what this thread does next (kernels of
// several devices that wait for each other, one thread for each), and the real call would then have
// stopped another thread. So the wait is short, but for work that uses what is destroyed.
#ifndef CMP_SHIM_WORK_OWED_H_
#define CMP_SHIM_WORK_OWED_H_

#include "core/base/rules.h"
#include "core/base/statistics.h"
#include "core/contexts/context_pool.h"

namespace cmp {

// All work before a fence of a context. One context at a time: who frees in another pays first.
// Once the context has ended, its record counts the fence as passed, whoever has that then.
struct Owed {
  ContextPool* context = nullptr;  // nullptr: nothing
  uint64_t fence = 0;
};
inline thread_local constinit Owed t_owed;

// This thread's free of a block of `context` leaves what is before the fence unfinished.
void OweOf(ContextPool& context, uint64_t fence);
inline void Owe(ContextPool& context, uint64_t fence) {
  if (t_owed.context != &context) [[unlikely]]
    return OweOf(context, fence);
  t_owed.fence = fence;
}
// Waits for it, and counts that.
void PayOwed(Counter ProcessCounters::*count);
// What this thread's questions need not look at any more in a context: what frees skipped up to
// this fence. It has passed, or was waited for as long as that is done.
inline thread_local constinit Owed t_settled;
// In a forked child: nothing of the parent's.
inline void ForgetOwed() { t_owed = t_settled = {}; }

// Waits for what frees skipped under CMP_FREE_SYNC=auto, and counts that: in full for this thread's
// own, for a while for those of others, but in full for these too in the context that fully()
// names. False: there was nothing to wait for.
bool PaySkipped(Counter ProcessCounters::*count, ContextHandle (*fully)() = nullptr);
// A question was answered "not ready". True: that may be so only because of what frees skipped,
// which is waited for by now, and it is to be asked again. In any context: whose work it is that
// the program asks about is not known of every event, and a stream's copies may be part of another
// context's work. The usual path is some loads.
bool PayBeforeAnswer();
// Before something ends that work may still use, in a call that does not wait by itself.
void PayBeforeDestruction();
// Before the process ends: what it leaves behind is what it would have left. A crash that is found
// then is said, as nobody could be told any more.
void PayAtExit();
// Before `context` ends in a call that waits by itself: what frees skipped is waited for. The error
// that their waits would have told of a crash, or success.
int PayBeforeContextEnds(ContextPool& context);

}  // namespace cmp

#endif  // CMP_SHIM_WORK_OWED_H_
