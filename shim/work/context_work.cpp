#include "shim/work/context_work.h"

#include "core/base/rules.h"
#include "core/pool/pool_instance.h"
#include "shim/shake/shake.h"
#include "shim/state/captures.h"

namespace cmp {

constinit ContextWork g_no_work{nullptr};
constinit ContextWork g_work_of_several{nullptr, kNoStream};

void MakeNoStreamQuiet() { g_no_work.MakeNoStreamQuiet(); }

namespace {

// Contexts that owe something. Sequentially consistent, as who begins a capture reads it after it
// has said so, and who records a free's fence has looked for captures before (captures.h).
constinit std::atomic<int> g_debts{0};

// Counts what a change of the state does to `debt`, by its end. REQUIRES: the state's lock held
class DebtChange {
 public:
  explicit DebtChange(const WorkState& state) : state_(state), owed_(state.debt != 0) {}
  ~DebtChange() {
    const bool owes = state_.debt != 0;
    if (owes != owed_) g_debts.fetch_add(owes ? 1 : -1, std::memory_order_seq_cst);
  }
  DebtChange(const DebtChange&) = delete;
  DebtChange& operator=(const DebtChange&) = delete;

 private:
  const WorkState& state_;
  const bool owed_;
};

// Does a wait for the legacy stream wait for this one? (Measured; streams made with
// cudaStreamNonBlocking are not waited for.) To ask a capturing stream kills its capture
// (measured).
bool IsAfterLegacy(StreamName stream) {
  if (stream == kSeveralStreams) return false;
  if (IsOfCurrentContext(stream)) return true;
  const Driver* driver = LoadedDriver();
  if (driver == nullptr || driver->stream_flags == nullptr || !g_captures.EnterRecording()) {
    return false;
  }
  unsigned flags = CU_STREAM_NON_BLOCKING;
  driver->stream_flags(reinterpret_cast<CUstream>(stream), &flags);
  g_captures.LeaveRecording();
  return (flags & CU_STREAM_NON_BLOCKING) == 0;
}

// A stream under the name by which it is noted.
StreamName Named(StreamName stream) {
  static constinit std::atomic<StreamName> g_next{kUnnamedStream + 2};
  if (stream != kUnnamedStream) return stream;
  if (t_thread_stream == kUnnamedStream) {
    t_thread_stream = g_next.fetch_add(2, std::memory_order_relaxed);
  }
  return t_thread_stream;
}

}  // namespace

// ---- What others read without the lock

void ContextWork::PublishQuiet() {
  const StreamName quiet = state_.Quiet() & may_be_quiet_;
  // A wait that is on its way counts submissions, and is not told of those to a quiet stream: it
  // must not take all for finished.
  if (quiet != kNoStream) ++notes_;
  quiet_.store(quiet, std::memory_order_release);
}

void ContextWork::PublishUnfenced() {
  unordered_.store(true, std::memory_order_release);
  ++notes_;
  context_->fences().SetWorkSince(true);
  PublishQuiet();
}

// The last store is the one that a free reads first (FenceForOrder in free_sync.cpp).
void ContextWork::PublishFenced() {
  unordered_.store(false, std::memory_order_release);
  PublishQuiet();
  context_->fences().SetWorkSince(false);
}

void ContextWork::PublishVisible() {
  visible_count_.store(tracks_visible_ ? visible_.count() + tried_ : 0, std::memory_order_release);
}

// ---- Submissions

void ContextWork::Add(StreamName stream, Visible visible, bool after_legacy) {
  state_.Submitted(stream);
  if (visible != Visible::kNothing) {
    visible_.Add(stream, visible, after_legacy);
    PublishVisible();
  }
  PublishUnfenced();
}

void ContextWork::Note(StreamName stream, Visible visible) {
  if (context_ == nullptr) return;
  stream = Named(stream);
  Held held(lock_);
  Add(stream, visible, visible_.IsAfterLegacy(stream));  // as Enter found out, if it was called
}

void ContextWork::Enter(StreamName stream, bool overtakes, Visible visible) {
  if (context_ == nullptr) return;
  stream = Named(stream);
  const bool after_legacy = visible != Visible::kNothing && IsAfterLegacy(stream);
  uint64_t paying = 0;
  for (Pause pause;;) {
    const bool exits = g_pool.load(std::memory_order_acquire) == nullptr;
    {
      Held held(lock_);
      // In this order: who begins a capture, which waits until nobody records, finds nobody paying.
      if (paying != 0) {
        EndPaying(paying);
        g_captures.LeaveRecording();
      }
      if (!state_.Owes(stream, overtakes) || !RuleIsOn(Rule::kOrderOnSecondStream)) {
        return Add(stream, visible, after_legacy);
      }
      // Under the lock, and waits for nothing: where a capture begins, who began it pays, and must
      // not find that we are about to.
      const bool may_pay = !exits && !paying_ && g_captures.EnterRecording();
      paying = may_pay ? BeginPaying() : 0;
    }
    if (paying != 0) {
      LetDeviceWait(*LoadedDriver(), paying);
    } else if (exits) {
      End();
    } else {
      pause.Wait();
    }
  }
}

// ---- Debts

uint64_t ContextWork::BeginPaying() {
  if (paying_ || state_.debt == 0) return 0;
  paying_ = true;
  return state_.debt;
}

void ContextWork::EndPaying(uint64_t number) {
  paying_ = false;
  bool paid = false;
  {
    const DebtChange change(state_);
    paid = state_.Paid(number);
  }
  if (paid) PublishQuiet();
}

void ContextWork::LetDeviceWait(const Driver& driver, uint64_t number) {
  const ContextPool::User user(*context_);
  if (!user.entered()) return;
  // Often the work is done by now: a query (0.2 µs) is less than streams that wait for each other.
  const bool ask = unasked_ == 0;
  Fences& fences = context_->fences();
  const auto [ordered, passed] = fences.OrderAfter(driver, context_->handle(), number,
                                                   ask ? Fences::Ask::kFirst : Fences::Ask::kNo);
  unasked_ = passed ? 0 : ask ? kUnasked : unasked_ - 1;
  if (passed) return;
  // Refused for whatever reason: then the host waits in the device's place. A wait that is
  // refused as well is tried again, as nobody would see that the order was not kept.
  constexpr int kMostWaits = 16;
  int status = ordered;
  for (int i = 0; i < kMostWaits && status != kSuccess; ++i) {
    status = fences.Wait(driver, number - 1);
  }
  if (Pool* pool = g_pool.load(std::memory_order_acquire)) {
    pool->statistics().process().order_waits.AddShared(1);
  }
}

bool ContextWork::Settle(const Driver& driver) {
  uint64_t number = 0;
  {
    Held held(lock_);
    number = BeginPaying();
  }
  if (number == 0) return false;
  LetDeviceWait(driver, number);
  Held held(lock_);
  EndPaying(number);
  return true;
}

// ---- Fences

WorkState::Beginning ContextWork::Beginning(uint64_t number) const {
  const uint64_t passed = context_->fences().passed();
  return {number, context_->fences().started(), passed};
}

void ContextWork::FenceForOrderBegins(uint64_t number) {
  if (context_ == nullptr) return;
  Held held(lock_);
  const WorkState::Beginning fence = Beginning(number);
  visible_.FenceBegins(fence.begun);
  {
    const DebtChange change(state_);
    state_.FenceForOrderBegins(fence);
  }
  PublishFenced();
}

void ContextWork::FenceForReuseBegins(uint64_t number, bool shows_later) {
  if (context_ == nullptr) return;
  Held held(lock_);
  const WorkState::Beginning fence = Beginning(number);
  visible_.FenceBegins(fence.begun);
  state_.FenceForReuseBegins(fence, shows_later);
  // Where there are several contexts, what each has not fenced delays the reuse of all others'
  // blocks, and where somebody waits for idleness, that; frees that owe no order share the fence.
  // Else the next free fences this work once more, for order.
  if (!shows_later) return;
  PublishQuiet();
  context_->fences().SetWorkSince(false);
}

void ContextWork::FenceOwingNothingBegins() {
  if (context_ == nullptr) return;
  Held held(lock_);
  const WorkState::Beginning fence = Beginning(0);
  visible_.FenceBegins(fence.begun);
  state_.FenceOwingNothingBegins(fence);
  PublishFenced();
}

void ContextWork::FenceFailed() {
  if (context_ == nullptr) return;
  Held held(lock_);
  visible_.FenceFailed();
  {
    const DebtChange change(state_);
    state_.FenceFailed();
  }
  PublishUnfenced();
}

// ---- Streams and contexts that begin and end

void ContextWork::StreamEnds(StreamName stream) {
  Held held(lock_);
  state_.StreamEnds(stream);
  visible_.StreamEnds(stream);
  PublishVisible();
  PublishQuiet();
}

void ContextWork::AnyStreamEnds() {
  Held held(lock_);
  state_.AnyStreamEnds();
  visible_.StreamEnds(kSeveralStreams);
  PublishVisible();
  PublishQuiet();
}

void ContextWork::Begin(bool tracks_visible) {
  Held held(lock_);
  tried_ = TheShaker() == nullptr ? 0 : 1;
  may_be_quiet_ = tried_ != 0 ? kNoStream : kSeveralStreams;
  {
    const DebtChange change(state_);
    state_.Begin();
  }
  unordered_.store(true, std::memory_order_release);
  visible_.Restart();
  watch_.Clear();
  tracks_visible_ = tracks_visible;
  PublishVisible();
  PublishQuiet();
}

void ContextWork::End() {
  Held held(lock_);
  visible_.Clear();
  PublishVisible();
  {
    const DebtChange change(state_);
    state_.End();
  }
  PublishQuiet();
}

// ---- Visible work

VisibleWork::Pending ContextWork::PendingVisible() {
  Held held(lock_);
  const VisibleWork::Pending pending = visible_.Until(context_->fences().passed());
  PublishVisible();
  return pending;
}

RecordedPoint ContextWork::PointOf(StreamName stream) {
  if (context_ == nullptr || !MayHaveVisible()) return {};
  stream = Named(stream);
  Held held(lock_);
  return {this, stream, visible_.last()};
}

void ContextWork::FinishVisible(StreamName stream, uint64_t last) {
  visible_.Finished(stream, RuleIsOn(Rule::kFinishedIfBegunAfter) ? last : visible_.last());
  PublishVisible();
}

void ContextWork::Reached(const RecordedPoint& point) {
  Held held(lock_);
  FinishVisible(point.stream, point.submission);
}

// ---- Waits of the host

ContextWork::Waiting ContextWork::BeginWait(StreamName stream) {
  Held held(lock_);
  state_.WaitBegins(context_->fences().passed());
  const bool for_all = stream == kSeveralStreams || stream == state_.unfinished;
  // From now on every submission is noted.
  if (for_all) quiet_.store(kNoStream, std::memory_order_release);
  return {for_all, for_all ? kSeveralStreams : stream, notes_, context_->fences().published(),
          visible_.last()};
}

bool ContextWork::EndWait(const Waiting& waiting) {
  if (waiting.for_all) context_->fences().NoteWaited(waiting.fence);
  Held held(lock_);
  FinishVisible(waiting.stream, waiting.visible);
  if (!waiting.for_all) return false;
  // Neither a submission nor a fence came between.
  const bool finished = notes_ == waiting.notes && context_->fences().started() == waiting.fence;
  if (finished) {
    unordered_.store(false, std::memory_order_release);
    {
      const DebtChange change(state_);
      state_.AllFinished();
    }
    context_->fences().SetWorkSince(false);
  }
  PublishQuiet();
  return finished;
}

// ---- All contexts

bool AnyDebt() {
  // Nobody pays any more once the process exits.
  return g_debts.load(std::memory_order_seq_cst) != 0 &&
         g_pool.load(std::memory_order_acquire) != nullptr;
}

void ForgetDebts() { g_debts.store(0, std::memory_order_seq_cst); }

}  // namespace cmp
