// What is known of one context's submitted work: work_state.h behind a lock, and beside it what the
// host could see of the work (visible_work.h), and who asks about it (watch.h).
//
// The usual submission changes nothing of this: its stream is quiet. It is one load and a branch,
// before its real call and once more after it. Before: so that what is owed is paid first, and a
// free that follows counts the work. After: because a fence may have begun while the call was on
// its way, and it is not known whether it covers the work. The stream is not quiet any more then,
// and the work counts as submitted after the fence. (submission.h)
//
// The state changes under lock_, under which no CUDA call is made. What others read without it is
// written under it, after a change, with release; they read with acquire, and so see what was done
// before the value was written:
//
//   quiet_           by every submission
//   visible_count_   is there work that the host could see? By frees, and records of events
//   unordered_       is there work since the newest fence for order? By frees, which look at the
//                    fences' work_since() before: is there any since the newest fence? A
//                    submission sets unordered_ and then work_since(); a fence for order,
//                    when it begins, clears unordered_ and then work_since(). So a free that finds
//                    both false finds in the fences' started() the number of the fence that covers
//                    all work before it
#ifndef CMP_SHIM_WORK_CONTEXT_WORK_H_
#define CMP_SHIM_WORK_CONTEXT_WORK_H_

#include "core/base/lock.h"
#include "core/base/own_line.h"
#include "core/contexts/context_pool.h"
#include "core/driver/driver.h"
#include "shim/visible/streams.h"
#include "shim/visible/visible_work.h"
#include "shim/work/events.h"
#include "shim/work/watch.h"
#include "shim/work/work_state.h"

namespace cmp {

// It belongs to the context's ContextPool, and is used again with it. Who still has a pointer from
// before does no harm: what is noted counts as submitted to either context, and what was seen to be
// finished has a number from before the later one began.
class alignas(64) ContextWork {
 public:
  explicit constexpr ContextWork(ContextPool* context, StreamName quiet = kSeveralStreams)
      : quiet_(quiet), context_(context) {}

  // True if no work is known to be unfinished: who waits for it need tell nobody. Loads.
  bool IsIdle() const {
    return context_ != nullptr && context_->fences().Idle() && !MayHaveVisible();
  }

  // True if a submission to `stream` changes nothing.
  bool IsQuiet(StreamName stream) const {
    const StreamName quiet = quiet_.load(std::memory_order_acquire);
    return quiet == stream || quiet == kSeveralStreams;
  }
  // Before a submission to a stream that is not quiet, one that may overtake earlier work of its
  // own stream, or one that the host could see: pays what is owed, and notes it.
  void Enter(StreamName stream, bool overtakes, Visible visible);
  // Notes a submission.
  void Note(StreamName stream, Visible visible);

  // May there be work since the newest fence for order? A fence for reuse covers it, but nobody
  // owes order for that.
  bool MayBeUnordered() const { return unordered_.load(std::memory_order_acquire); }

  // May there be work whose end the host could see? One load.
  bool MayHaveVisible() const { return visible_count_.load(std::memory_order_acquire) != 0; }
  // What of it a free that is covered by a fence must wait for.
  VisibleWork::Pending PendingVisible();
  // An event is about to be recorded on `stream`: what it will stand for.
  RecordedPoint PointOf(StreamName stream);
  // It was waited for.
  void Reached(const RecordedPoint& point);

  // Which threads ask whether the context's work is done.
  Watch& watch() { return watch_; }
  const Watch& watch() const { return watch_; }

  // A fence is about to be recorded; by its recorder, before the driver's call.
  // The one of a free in a mode that keeps order: what is submitted later runs after it.
  void FenceForOrderBegins(uint64_t number);
  // One for the reuse of blocks. Where order is kept, none is owed for it: what was submitted since
  // the last free may have to run beside what is submitted next.
  // `shows_later`: what is submitted after it shows at once, though nobody frees.
  void FenceForReuseBegins(uint64_t number, bool shows_later);
  // One in a mode that keeps no order, or a synchronisation of the context, which has no number.
  void FenceOwingNothingBegins();
  // It could not be recorded.
  void FenceFailed();

  // Pays the debt. False: there is none, or another thread is paying it.
  // REQUIRES: no capture is under way or begins
  bool Settle(const Driver& driver);
  // The handle may mean another stream from now on.
  void StreamEnds(StreamName stream);
  // So may every handle.
  void AnyStreamEnds();
  // A context got its pool; it ended, and with it what it owes.
  void Begin(bool tracks_visible);
  void End();
  void MakeNoStreamQuiet() { quiet_.store(kNoStream, std::memory_order_release); }
  const ContextPool* context() const { return context_; }
  bool IsOf(ContextHandle handle) const {
    return context_ != nullptr && context_->handle() == handle;
  }

  // Around a call that waits on the host for all work of the context, or of one stream. The second
  // takes what the first returned, if the call succeeded.
  struct Waiting {
    bool for_all;  // the wait covers everything submitted before it
    StreamName stream;
    uint64_t notes;
    uint64_t fence;
    uint64_t visible;  // the newest visible submission
  };
  Waiting BeginWait(StreamName stream);
  // True if nothing is unfinished now.
  bool EndWait(const Waiting& waiting);

 private:
  // REQUIRES for all: lock_ held
  WorkState::Beginning Beginning(uint64_t number) const;
  // Lets others see what the state is now: there is work since the newest fence, there is none, or
  // that has not changed.
  void PublishUnfenced();
  void PublishFenced();
  void PublishQuiet();
  void PublishVisible();
  void Add(StreamName stream, Visible visible, bool after_legacy);
  // Up to this visible submission all of the stream are done.
  void FinishVisible(StreamName stream, uint64_t last);

  // The debt, for this thread to pay; 0: there is none, or another thread is paying it.
  uint64_t BeginPaying();
  void EndPaying(uint64_t number);
  // In between, without the lock. REQUIRES: no capture is under way or begins
  void LetDeviceWait(const Driver& driver, uint64_t number);

  std::atomic<StreamName> quiet_;
  std::atomic<bool> unordered_{true};  // state_.since is not kNoStream
  ContextPool* const context_;

  alignas(64) Mutex lock_;
  WorkState state_;
  bool paying_ = false;  // a thread is in the driver about the debt, and says when no longer
  // For who is paying: how many debts are paid without a question first. Streams that have to wait
  // for each other once will again: the answer (0.2 µs) would be "not yet" each time.
  static constexpr unsigned kUnasked = 15;
  unsigned unasked_ = 0;
  uint64_t notes_ = 0;  // grows with every submission noted, and when a stream becomes quiet
  bool tracks_visible_ = false;
  // While CMP_SHAKE tries the order, no stream is quiet, and it is as if one more were visible: so
  // every submission and every wait is told of.
  StreamName may_be_quiet_ = kSeveralStreams;  // what of a stream's name counts
  size_t tried_ = 0;
  VisibleWork visible_;
  std::atomic<size_t> visible_count_{0};

  // Read by every question, written once a free beside it; apart from what submissions read.
  alignas(64) Watch watch_;
};

// Two without a context, in which nothing is ever noted. The one of contexts that have none of
// their own (no pool, or there was no memory for another one): every stream is quiet.
extern constinit ContextWork g_no_work;
// From now on none is, for CMP_MODE=observe, where no context gets a pool: every submission takes
// the unusual path.
void MakeNoStreamQuiet();
// The one that stands for one of several contexts (work_owner.h): no stream is quiet.
extern constinit ContextWork g_work_of_several;

inline ContextWork& WorkIn(const ContextPool& context) {
  return *static_cast<ContextWork*>(context.of_host);
}

// Is it to be noted what the host could see? From the first context with a pool on, under
// CMP_FREE_SYNC=auto; that one's work from before counts as visible.
inline constinit OwnLine<bool> g_tracks_visible{false};

// Is anything owed in any context, that will be paid?
bool AnyDebt();
// In a forked child: nothing of the parent's.
void ForgetDebts();

}  // namespace cmp

#endif  // CMP_SHIM_WORK_CONTEXT_WORK_H_
