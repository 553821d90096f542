// What the process has submitted to each context since the context's newest fence, and what its
// later submissions owe: the order that a free promised.
//
//   since        nothing, one stream, or several: the streams with work submitted since the newest
//                fence
//   unfinished   likewise, since all work was last known to be done: a wait for the only such
//                stream is a wait for all. (That the order of a debt puts other streams' work first
//                is no help: a submission counts before its real call is made.)
//   debt         the fence of a free, and the streams that had work before it: a submission to any
//                other stream must be preceded by a wait for that fence, on the device
//
//   a submission to stream s:   debt, and it is not s alone that had work: cuCtxWaitEvent, no debt
//                               since += s
//   a free records a fence:     if since is not empty: debt = the fence, of the streams in since
//                               (and in a debt that was not paid); since = nothing
//   a wait for all has ended:   nothing is unfinished, if meanwhile nothing was submitted
//
// The usual submission changes nothing of this: its stream is `quiet`. It is one load and a branch,
// made before the real call and once more after it. Before, so that what is owed is paid first and
// a free that follows sees the work. After, because a fence may have been begun while the call was
// on its way, and may or may not cover it: then the stream is quiet no more and the work counts as
// submitted after the fence.
//
// Stream handles are reused: when a stream is destroyed, what is known of it counts as several.
//
// Under CMP_FREE_SYNC=auto also what of it the host could see (visible_work.h), and so what a free
// waits for.
#ifndef CMP_SHIM_WORK_WORK_H_
#define CMP_SHIM_WORK_WORK_H_

#include "core/base/lock.h"
#include "core/base/rules.h"
#include "core/base/statistics.h"
#include "core/driver/host.h"
#include "core/pool/pool.h"
#include "shim/visible/streams.h"
#include "shim/visible/visible_work.h"
#include "shim/work/events.h"
#include "shim/work/watch.h"

namespace cmp {

// One context's state. It belongs to the context's ContextPool, and is used again with it. Who
// still has a pointer from before does no harm: what is noted counts as submitted to either
// context, and what was seen to be finished has a number from before the later one began.
class alignas(64) ContextWork {
 public:
  explicit constexpr ContextWork(ContextPool* context, StreamName quiet = kSeveralStreams)
      : quiet_(quiet), context_(context) {}

  // True if a submission to `stream` changes nothing. acquire: a fence whose begin ended the quiet
  // is seen with what was done before it.
  bool IsQuiet(StreamName stream) const {
    const StreamName quiet = quiet_.load(std::memory_order_acquire);
    if (quiet == stream) [[likely]]
      return true;
    return quiet == kSeveralStreams;
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

  // Around the record of fence `number` (0: a synchronisation), by its recorder.
  void FenceBegins(uint64_t number, FencePurpose purpose, bool order);
  void FenceFailed();

  // Pays the debt. False: there is none, or another thread is paying it.
  // REQUIRES: no capture is under way or begins
  bool Settle(const Driver& driver);
  // The handle may mean another stream from now on.
  void StreamEnds(StreamName stream);
  void AnyStreamEnds();
  // A context got its pool; it ended, and with it what it owes.
  void Begin(bool tracks_visible);
  void End();
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
  static StreamName Join(StreamName one, StreamName other) {
    if (one == kNoStream || one == other) return other;
    return other == kNoStream ? one : kSeveralStreams;
  }
  // REQUIRES for all: lock_ held
  void SetQuiet();
  void SetDebt(uint64_t debt, StreamName of);
  void Add(StreamName stream, Visible visible, bool after_legacy);
  void ForgetFinished();
  void CountVisible();

  bool Pay();  // false: another thread does, or will

  std::atomic<StreamName> quiet_;
  std::atomic<bool> unordered_{true};  // since_ is not kNoStream
  ContextPool* const context_;

  alignas(64) Mutex lock_;
  StreamName since_ = kSeveralStreams;  // streams with work since the newest fence for order
  bool unnoted_ = false;  // a fence for reuse began since: the next submission is to be noted
  StreamName unfinished_ = kSeveralStreams;
  uint64_t begun_ = 0;  // once this fence has passed, only what is in since_ is unfinished
  uint64_t debt_ = 0;
  StreamName debt_of_ = kNoStream;
  bool paying_ = false;         // a thread is in the driver about it, and says when no longer
  uint64_t unpaid_before_ = 0;  // the debt when the fence that is being recorded began
  uint64_t notes_ = 0;  // grows with every submission noted, and when a stream becomes quiet
  bool tracks_visible_ = false;
  VisibleWork visible_;
  std::atomic<size_t> visible_count_{0};

  // Read by every question, written once a free beside it; apart from what submissions read.
  alignas(64) Watch watch_;
};

// Contexts as the program makes and ends them. One in which nothing was allocated gets its pool
// with its first submission: its work may use the blocks of others.
inline constexpr CUdevice kNotPrimary = -1;
void ContextIsThere(ContextHandle handle, CUdevice primary_of);
// The handle of a device's primary context, nullptr if the program has made none.
ContextHandle PrimaryMade(CUdevice device);

// A call is on its way that may end a context: no submission gives it a pool meanwhile.
class [[nodiscard]] ContextEnding {
 public:
  explicit ContextEnding(ContextHandle handle);
  ~ContextEnding();
  ContextEnding(const ContextEnding&) = delete;
  ContextEnding& operator=(const ContextEnding&) = delete;
  // It has ended; another thread's new context may have its handle by now.
  void Ended() { ended_ = true; }

 private:
  struct MadeContext* made_ = nullptr;
  uint64_t times_ = 0;
  bool ended_ = false;
};

// The only context, with a pool; the one that stands for none while none has a pool; nullptr when
// there are several contexts.
extern constinit ContextWork g_no_work;
// Stands for all contexts with a pool: for work of which it is not known whose it is (a stream of a
// green context says neither its own nor the primary one's handle). Never quiet.
extern constinit ContextWork g_any_work;
inline constinit OwnLine<ContextWork*> g_only_work{&g_no_work};
// One of several: whose stream it is. Never nullptr.
ContextWork* FindWork(StreamName stream);
inline ContextWork* WorkOf(StreamName stream) {
  ContextWork* work = g_only_work.load(std::memory_order_acquire);
  return work != nullptr ? work : FindWork(stream);
}

// The look after the real call, for who found `only` in g_only_work before it: another context may
// have got a pool meanwhile.
inline bool IsToBeNoted(const ContextWork* only, const ContextWork* work, StreamName stream) {
  return g_only_work.load(std::memory_order_acquire) != only || !work->IsQuiet(stream);
}
void NoteSubmitted(const ContextWork* only, ContextWork* work, StreamName stream,
                   Visible visible = Visible::kNothing);

// The same as FindWork, for who is about to submit: pays first what the thread owes elsewhere.
ContextWork* FindWorkToSubmit(StreamName stream);

// Notes a submission to a context's stream that may run in others: in those of `devices`, but for
// its own.
void NoteElsewhere(StreamName stream, Visible visible, Devices devices);

// A submission on its way: lives across the real call.
class [[nodiscard]] Submission {
 public:
  explicit Submission(StreamName stream, bool overtakes = false,
                      Visible visible = Visible::kNothing)
      : only_(g_only_work.load(std::memory_order_acquire)),
        work_(only_ != nullptr ? only_ : FindWorkToSubmit(stream)),
        stream_(stream),
        visible_(visible) {
    if (!work_->IsQuiet(stream) || overtakes || visible != Visible::kNothing) [[unlikely]]
      work_->Enter(stream, overtakes, visible);
  }
  ~Submission() {
    if (visible_ != Visible::kNothing || IsToBeNoted(only_, work_, stream_)) [[unlikely]]
      NoteSubmitted(only_, work_, stream_, visible_);
  }
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

 private:
  ContextWork* only_;
  ContextWork* work_;
  StreamName stream_;
  Visible visible_;
};

// The same beside it for one that may run in other contexts than its stream's: those of the devices
// that devices() says, which is asked only where there are several contexts.
class [[nodiscard]] SubmissionElsewhere {
 public:
  template <typename DevicesOf>
  SubmissionElsewhere(StreamName stream, Visible visible, DevicesOf devices)
      : devices_(g_only_work.load(std::memory_order_acquire) == nullptr ? devices() : 0),
        stream_(stream),
        visible_(visible) {
    if (devices_ != 0) NoteElsewhere(stream_, visible_, devices_);
  }
  ~SubmissionElsewhere() {
    if (devices_ != 0) NoteElsewhere(stream_, visible_, devices_);
  }
  SubmissionElsewhere(const SubmissionElsewhere&) = delete;
  SubmissionElsewhere& operator=(const SubmissionElsewhere&) = delete;

 private:
  Devices devices_;
  StreamName stream_;
  Visible visible_;
};

// Is it to be noted what the host could see? From the first context with a pool on, under
// CMP_FREE_SYNC=auto; that one's work from before counts as visible.
inline constinit OwnLine<bool> g_tracks_visible{false};

// The shim as the pool's host.
extern const PoolHost kShimHost;

// A capture is about to begin, after whose real begin Captures::AfterBegin is to be called: no
// fence is recorded any more, and no context owes any order.
void BeforeCapture();
// Pays the debts of all contexts. For whoever begins a capture while none is under way.
void SettleDebts();
// Is anything owed anywhere, that will be paid?
bool AnyDebt();
// The stream is about to be destroyed.
void StreamEnds(CUstream stream);
// A context is about to end, and its streams with it.
void ForgetStreams();
// Streams are about to be destroyed, and which is not known.
void SomeStreamsEnd();
// In a forked child: nothing of the parent's.
void ForgetWork();

// A call that waits on the host, on its way: for one stream, or kSeveralStreams for all work of the
// current context.
class [[nodiscard]] HostWait {
 public:
  explicit HostWait(StreamName stream);
  // For all work of this context.
  explicit HostWait(ContextHandle context);
  // The call returned.
  CUresult Done(CUresult status) {
    if (status == CUDA_SUCCESS && work_ != nullptr) finished_ = work_->EndWait(waiting_);
    return status;
  }
  // Did it finish all work of the context?
  bool finished() const { return finished_; }

 private:
  void Begin(ContextWork* work, StreamName stream);

  bool finished_ = false;
  ContextWork* work_ = nullptr;
  ContextWork::Waiting waiting_ = {};
};

// A submission by call() that returns only once it, and with it all earlier work of its stream, is
// done: a synchronous copy to the host (CUDA runtime API, "API synchronization behavior").
template <typename Call>
CUresult SubmitAndWait(StreamName stream, Call call) {
  ContextWork* only = g_only_work.load(std::memory_order_acquire);
  ContextWork* work = only != nullptr ? only : FindWorkToSubmit(stream);
  if (!work->IsQuiet(stream)) work->Enter(stream, false, Visible::kNothing);
  HostWait wait(stream);
  const CUresult status = wait.Done(call());
  if (!wait.finished() && IsToBeNoted(only, work, stream)) NoteSubmitted(only, work, stream);
  return status;
}

}  // namespace cmp

#endif  // CMP_SHIM_WORK_WORK_H_
