#include "shim/work/work.h"

#include "core/base/rules.h"
#include "core/pool/pool_instance.h"
#include "shim/lookup/lookup.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/owed.h"

namespace cmp {

constinit ContextWork g_no_work{nullptr};
constinit ContextWork g_any_work{nullptr, kNoStream};

namespace {

// Contexts that owe something.
constinit std::atomic<int> g_debts{0};

// The contexts that have a pool, for g_only_work: how many, and the sum of their works' addresses,
// which is the address if there is one.
constinit Mutex g_contexts_lock;
constinit size_t g_open_count = 0;
constinit uintptr_t g_open_sum = 0;

}  // namespace

// All contexts, by what the program made.
struct MadeContext {
  ContextHandle handle = nullptr;  // nullptr: no context
  CUdevice primary_of = kNotPrimary;
  int endings = 0;     // calls on their way that may end it
  uint64_t times = 0;  // grows whenever the program makes it, or retains it
};

namespace {

// Places for them; more are mapped when these are all in use, and stay.
struct MadePlaces {
  MadeContext made[170];
  MadePlaces* more = nullptr;
};
static_assert(sizeof(MadePlaces) <= 4096, "a page");
constinit MadePlaces g_made;
constinit int g_openings = 0;  // contexts that are getting a pool because of a submission
// Grows when one of them may have no pool; as far as all have got theirs.
constinit std::atomic<uint64_t> g_made_changes{0};
constinit std::atomic<uint64_t> g_opened_changes{0};
void NoteMadeChanged() { g_made_changes.fetch_add(1, std::memory_order_acq_rel); }

// The first place for which is(made), or nullptr. REQUIRES: g_contexts_lock held
template <typename Condition>
MadeContext* FindPlace(Condition is) {
  for (MadePlaces* places = &g_made; places != nullptr; places = places->more) {
    for (MadeContext& made : places->made) {
      if (is(made)) return &made;
    }
  }
  return nullptr;
}
// A place without a context, nullptr when memory is exhausted. REQUIRES: g_contexts_lock held
MadeContext* FreePlace() {
  const auto is_free = [](const MadeContext& made) { return made.handle == nullptr; };
  if (MadeContext* place = FindPlace(is_free)) return place;
  void* memory = MapPages(sizeof(MadePlaces));
  if (memory == nullptr) return nullptr;
  auto* more = new (memory) MadePlaces;
  more->more = g_made.more;
  g_made.more = more;
  return &more->made[0];
}
// The entry of a context, nullptr if there is none. REQUIRES: g_contexts_lock held
MadeContext* FindMade(ContextHandle handle) {
  if (handle == nullptr) return nullptr;
  return FindPlace([&](const MadeContext& made) { return made.handle == handle; });
}

// A context is getting a pool because of a submission. It does not end meanwhile.
class [[nodiscard]] Opening {
 public:
  explicit Opening(ContextHandle handle) {
    Held held(g_contexts_lock);
    const MadeContext* made = FindMade(handle);
    allowed_ = made != nullptr && made->endings == 0;
    if (allowed_) ++g_openings;
  }
  ~Opening() {
    if (!allowed_) return;
    Held held(g_contexts_lock);
    --g_openings;
  }
  Opening(const Opening&) = delete;
  Opening& operator=(const Opening&) = delete;
  // False: it ends, or is not known.
  bool allowed() const { return allowed_; }

 private:
  bool allowed_;
};

// REQUIRES: g_contexts_lock held
void FindOnly() {
  ContextWork* only = g_open_count == 0 ? &g_no_work : reinterpret_cast<ContextWork*>(g_open_sum);
  const auto is_another = [&](const MadeContext& made) {
    return made.handle != nullptr && !only->IsOf(made.handle);
  };
  const bool several = g_open_count > 1 || (g_open_count == 1 && FindPlace(is_another) != nullptr);
  g_only_work.store(several ? nullptr : only, std::memory_order_release);
}

// REQUIRES: g_contexts_lock held
void CountOpen(const ContextWork* work, int change) {
  if (work == &g_no_work) return;
  const auto by = static_cast<uintptr_t>(change);
  g_open_count += by;
  g_open_sum += by * reinterpret_cast<uintptr_t>(work);
}

// Where streams belong, as this thread found out; valid while no stream was destroyed since.
struct KnownStream {
  StreamName stream;
  uint64_t epoch;
  ContextWork* work;
};
constexpr size_t kKnownStreams = 8;
thread_local constinit KnownStream t_known[kKnownStreams] = {};
constinit std::atomic<uint64_t> g_stream_epoch{1};

ContextWork* WorkOfContext(ContextHandle handle) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  ContextWork* work = &g_no_work;
  if (pool == nullptr || handle == nullptr) return work;
  pool->contexts().Glance([&](const ContextPool& context) {
    if (context.handle() == handle) work = static_cast<ContextWork*>(context.of_host);
  });
  return work;
}

template <typename Visitor>
void ForEachWork(Visitor visit) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr) return;
  pool->contexts().Glance(
      [&](const ContextPool& context) { visit(*static_cast<ContextWork*>(context.of_host)); });
}

bool Keeps(FreeSync mode) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  return pool != nullptr && pool->options().free_sync == mode;
}
bool KeepsOrder() { return Keeps(FreeSync::kOrder) || Keeps(FreeSync::kAuto); }

// Does a wait for the legacy stream wait for this one? (Measured; streams made with
// cudaStreamNonBlocking are not waited for.) To ask a capturing stream kills its capture
// (measured).
bool IsAfterLegacy(StreamName stream) {
  if (stream == kSeveralStreams) return false;
  if (stream == kLegacyStream || stream % 2 == 1) return true;
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

void ContextIsThere(ContextHandle handle, CUdevice primary_of) {
  Held held(g_contexts_lock);
  MadeContext* place = FindPlace([&](const MadeContext& made) {
    return made.handle != nullptr &&
           (primary_of == kNotPrimary ? made.handle == handle : made.primary_of == primary_of);
  });
  if (place == nullptr) place = FreePlace();
  if (place == nullptr) return;
  *place = {handle, primary_of, primary_of == kNotPrimary ? 0 : place->endings, place->times + 1};
  NoteMadeChanged();
  FindOnly();
}

ContextHandle PrimaryMade(CUdevice device) {
  Held held(g_contexts_lock);
  const MadeContext* found = FindPlace(
      [&](const MadeContext& made) { return made.handle != nullptr && made.primary_of == device; });
  return found == nullptr ? nullptr : found->handle;
}

ContextEnding::ContextEnding(ContextHandle handle) {
  {
    Held held(g_contexts_lock);
    made_ = FindMade(handle);
    if (made_ == nullptr) return;
    ++made_->endings;
    times_ = made_->times;
  }
  for (Pause pause;; pause.Wait()) {
    Held held(g_contexts_lock);
    if (g_openings == 0) return;
  }
}

ContextEnding::~ContextEnding() {
  if (made_ == nullptr) return;
  Held held(g_contexts_lock);
  const bool same = made_->times == times_;
  if (!same && made_->primary_of == kNotPrimary) return;  // another thread's new context
  --made_->endings;
  // Retained meanwhile, it may be alive again.
  if (ended_ && same) *made_ = {.times = times_ + 1};
  NoteMadeChanged();  // who came meanwhile was turned away
  FindOnly();
}

namespace {

// A context's work, once it has a pool; `otherwise` if it gets none (a green one).
ContextWork* OpenWorkOf(const Driver& driver, CUcontext context, ContextWork* otherwise) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr || IsAside()) return otherwise;
  const Uncancelled uncancelled;
  const Opening opening(context);
  if (!opening.allowed()) return otherwise;
  const bool current = CurrentContext(driver) == context;
  if (!current && driver.push_current(context) != CUDA_SUCCESS) return otherwise;
  const HeldContext opened = ServingContext(*pool, driver);
  CUcontext popped = nullptr;
  if (!current) driver.pop_current(&popped);
  return opened ? static_cast<ContextWork*>(opened->of_host) : otherwise;
}

// Two threads may do it at once: each sees all of them opened.
void OpenAll() {
  const uint64_t made = g_made_changes.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  if (made == g_opened_changes.load(std::memory_order_acquire) || driver == nullptr) return;
  for (const MadePlaces* places = &g_made; places != nullptr;) {
    MadePlaces now;
    {
      Held held(g_contexts_lock);
      now = *places;
    }
    for (const MadeContext& place : now.made) {
      if (place.handle != nullptr && WorkOfContext(place.handle) == &g_no_work) {
        OpenWorkOf(*driver, static_cast<CUcontext>(place.handle), nullptr);
      }
    }
    places = now.more;
  }
  g_opened_changes.store(made, std::memory_order_release);
}

}  // namespace

ContextWork* FindWork(StreamName stream) {
  const Driver* driver = LoadedDriver();
  if (driver == nullptr) return &g_no_work;
  if (stream % 2 == 1 || stream == kLegacyStream) {
    const ContextHandle current = CurrentContext(*driver);
    ContextWork* work = WorkOfContext(current);
    if (work != &g_no_work) [[likely]]
      return work;
    if (current == nullptr) return work;  // the real call will say so
    return OpenWorkOf(*driver, static_cast<CUcontext>(current), &g_any_work);
  }
  const uint64_t epoch = g_stream_epoch.load(std::memory_order_acquire);
  KnownStream& known = t_known[(stream >> 4 ^ stream >> 9) % kKnownStreams];
  if (known.stream == stream && known.epoch == epoch) return known.work;
  CUcontext context = nullptr;
  if (driver->stream_context(reinterpret_cast<CUstream>(stream), &context) != CUDA_SUCCESS) {
    return &g_no_work;  // not a stream: the real call will say so
  }
  ContextWork* work = WorkOfContext(context);
  if (work == &g_no_work) return OpenWorkOf(*driver, context, &g_any_work);
  known = KnownStream{stream, epoch, work};
  return work;
}

ContextWork* FindWorkToSubmit(StreamName stream) {
  ContextWork* work = FindWork(stream);
  const ContextPool* owed = t_owed.context;
  if (owed != nullptr && owed->of_host != work) [[unlikely]]
    PayOwed(&ProcessCounters::paid_by_other_contexts);
  return work;
}

void NoteSubmitted(const ContextWork* only, ContextWork* work, StreamName stream, Visible visible) {
  const bool always = visible != Visible::kNothing;
  if (always || !work->IsQuiet(stream)) work->Note(stream, visible);
  if (g_only_work.load(std::memory_order_acquire) == only) return;
  ContextWork* now = WorkOf(stream);
  if (now != work && (always || !now->IsQuiet(stream))) now->Note(stream, visible);
}

// Default streams have the same name in each context.
void NoteElsewhere(StreamName stream, Visible visible, Devices devices) {
  if (!RuleIsOn(Rule::kCopiesInEveryContext)) return;
  OpenAll();
  const bool is_default = stream == kLegacyStream || stream % 2 == 1;
  const ContextWork* own = WorkOf(stream);
  ForEachWork([&](ContextWork& work) {
    if (&work == own || work.context() == nullptr ||
        (DeviceBit(work.context()->device()) & devices) == 0)
      return;
    const StreamName name = is_default ? kSeveralStreams : stream;
    if (visible != Visible::kNothing || !work.IsQuiet(name)) work.Note(name, visible);
  });
}

// ---- One context

void ContextWork::SetQuiet() {
  StreamName quiet = since_;
  if (debt_ != 0 && (debt_of_ != since_ || since_ == kSeveralStreams)) quiet = kNoStream;
  if (unnoted_) quiet = kNoStream;
  if (quiet != kNoStream) ++notes_;  // who waits learns no more of every submission
  quiet_.store(quiet, std::memory_order_release);
}

void ContextWork::SetDebt(uint64_t debt, StreamName of) {
  if ((debt_ == 0) != (debt == 0)) {
    g_debts.fetch_add(debt == 0 ? -1 : 1, std::memory_order_seq_cst);
  }
  debt_ = debt;
  debt_of_ = of;
}

void ContextWork::Add(StreamName stream, Visible visible, bool after_legacy) {
  since_ = Join(since_, stream);
  unordered_.store(true, std::memory_order_release);
  unnoted_ = false;
  unfinished_ = Join(unfinished_, stream);
  ++notes_;
  if (visible != Visible::kNothing) {
    visible_.Add(stream, visible, after_legacy);
    CountVisible();
  }
  context_->fences().SetWorkSince(true);
  SetQuiet();
}

void ContextWork::Note(StreamName stream, Visible visible) {
  if (this == &g_any_work) {
    return ForEachWork([&](ContextWork& work) { work.Note(stream, visible); });
  }
  if (context_ == nullptr) return;
  stream = Named(stream);
  Held held(lock_);
  Add(stream, visible, visible_.IsAfterLegacy(stream));  // as Enter found out, if it was called
}

void ContextWork::Enter(StreamName stream, bool overtakes, Visible visible) {
  if (this == &g_any_work) {
    return ForEachWork([&](ContextWork& work) { work.Enter(stream, overtakes, visible); });
  }
  if (context_ == nullptr) return;
  stream = Named(stream);
  const bool after_legacy = visible != Visible::kNothing && IsAfterLegacy(stream);
  for (Pause pause;;) {
    {
      Held held(lock_);
      const bool owes = debt_ != 0 && (debt_of_ != stream || overtakes);
      if (!owes || !RuleIsOn(Rule::kOrderOnSecondStream)) {
        return Add(stream, visible, after_legacy);
      }
    }
    if (!Pay()) pause.Wait();
  }
}

bool ContextWork::Pay() {
  if (g_pool.load(std::memory_order_acquire) == nullptr) {  // the process exits
    End();
    return true;
  }
  if (!g_captures.EnterRecording()) return false;  // who began the capture pays, or has paid
  const Driver* driver = LoadedDriver();
  const bool paid = driver != nullptr && Settle(*driver);
  g_captures.LeaveRecording();
  return paid;
}

bool ContextWork::Settle(const Driver& driver) {
  uint64_t number = 0;
  {
    Held held(lock_);
    if (!paying_) number = debt_;
    paying_ |= number != 0;
  }
  if (number == 0) return false;
  Fences& fences = context_->fences();
  // Often the work is done by now: a query (0.2 µs) is less than streams that wait for each other.
  const ContextPool::User user(*context_);
  if (user.entered() && fences.Poll(driver, number - 1) != kSuccess) {
    int status = fences.OrderAfter(driver, context_->handle(), number);
    // Refused for whatever reason: then the host waits in the device's place. A wait that is
    // refused as well is tried again, as nobody would see that the order was not kept.
    constexpr int kMostWaits = 16;
    for (int i = 0; i < kMostWaits && status != kSuccess; ++i) {
      status = fences.Wait(driver, number - 1);
    }
    if (Pool* pool = g_pool.load(std::memory_order_acquire)) {
      pool->statistics().process().order_waits.AddShared(1);
    }
  }
  Held held(lock_);
  paying_ = false;
  if (debt_ != number) return true;
  SetDebt(0, kNoStream);
  SetQuiet();
  return true;
}

void ContextWork::ForgetFinished() {
  if (context_->fences().passed() >= begun_) unfinished_ = since_;
}

void ContextWork::FenceBegins(uint64_t number, FencePurpose purpose, bool order) {
  if (context_ == nullptr) return;
  Held held(lock_);
  ForgetFinished();
  begun_ = context_->fences().started();
  unpaid_before_ = debt_;
  visible_.FenceBegins(begun_);
  // Where order is owed, only the fence of a free says for what: what was submitted since may have
  // to run beside what is submitted next. But for reuse it covers that, and where there are several
  // contexts each delays the reuse of all others' blocks.
  if (order && number != 0 && purpose == FencePurpose::kReuse) {
    if (g_only_work.load(std::memory_order_acquire) != nullptr) return;
    unnoted_ = true;
    SetQuiet();
    context_->fences().SetWorkSince(false);
    return;
  }
  if (order && number != 0 && since_ != kNoStream) {
    SetDebt(number, debt_ == 0 ? since_ : Join(debt_of_, since_));
  }
  since_ = kNoStream;
  unordered_.store(false, std::memory_order_release);
  SetQuiet();
  context_->fences().SetWorkSince(false);
}

void ContextWork::FenceFailed() {
  if (context_ == nullptr) return;
  Held held(lock_);
  // Of which streams is not known any more: they may have ended meanwhile.
  SetDebt(unpaid_before_, kSeveralStreams);
  visible_.FenceFailed();
  Add(kSeveralStreams, Visible::kNothing, false);
}

void ContextWork::StreamEnds(StreamName stream) {
  Held held(lock_);
  if (since_ == stream) since_ = kSeveralStreams;
  if (unfinished_ == stream) unfinished_ = kSeveralStreams;
  if (debt_of_ == stream) debt_of_ = kSeveralStreams;
  visible_.StreamEnds(stream);
  CountVisible();
  SetQuiet();
}

void ContextWork::AnyStreamEnds() {
  Held held(lock_);
  if (since_ != kNoStream) since_ = kSeveralStreams;
  if (unfinished_ != kNoStream) unfinished_ = kSeveralStreams;
  if (debt_ != 0) debt_of_ = kSeveralStreams;
  visible_.StreamEnds(kSeveralStreams);
  CountVisible();
  SetQuiet();
}

void ContextWork::Begin(bool tracks_visible) {
  Held held(lock_);
  since_ = kSeveralStreams;
  unordered_.store(true, std::memory_order_release);
  unnoted_ = false;
  unfinished_ = kSeveralStreams;
  begun_ = 0;
  SetDebt(0, kNoStream);
  visible_.Restart();
  watch_.Clear();
  tracks_visible_ = tracks_visible;
  CountVisible();
  SetQuiet();
}

void ContextWork::CountVisible() {
  visible_count_.store(tracks_visible_ ? visible_.count() : 0, std::memory_order_release);
}

VisibleWork::Pending ContextWork::PendingVisible() {
  Held held(lock_);
  const VisibleWork::Pending pending = visible_.Until(context_->fences().passed());
  CountVisible();
  return pending;
}

RecordedPoint ContextWork::PointOf(StreamName stream) {
  if (context_ == nullptr || !MayHaveVisible()) return {};
  stream = Named(stream);
  Held held(lock_);
  return {this, stream, visible_.last()};
}

void ContextWork::Reached(const RecordedPoint& point) {
  Held held(lock_);
  const bool begun_after = RuleIsOn(Rule::kFinishedIfBegunAfter);
  visible_.Finished(point.stream, begun_after ? point.submission : visible_.last());
  CountVisible();
}

void ContextWork::End() {
  Held held(lock_);
  visible_.Clear();
  CountVisible();
  SetDebt(0, kNoStream);
  SetQuiet();
}

ContextWork::Waiting ContextWork::BeginWait(StreamName stream) {
  Held held(lock_);
  ForgetFinished();
  const bool for_all = stream == kSeveralStreams || stream == unfinished_;
  // From now on every submission is noted.
  if (for_all) quiet_.store(kNoStream, std::memory_order_release);
  return {for_all, for_all ? kSeveralStreams : stream, notes_, context_->fences().published(),
          visible_.last()};
}

bool ContextWork::EndWait(const Waiting& waiting) {
  if (waiting.for_all) context_->fences().NoteWaited(waiting.fence);
  Held held(lock_);
  const bool begun_after = RuleIsOn(Rule::kFinishedIfBegunAfter);
  visible_.Finished(waiting.stream, begun_after ? waiting.visible : visible_.last());
  CountVisible();
  if (!waiting.for_all) return false;
  const bool finished = notes_ == waiting.notes && context_->fences().started() == waiting.fence;
  if (finished) {
    since_ = kNoStream;
    unordered_.store(false, std::memory_order_release);
    unfinished_ = kNoStream;
    SetDebt(0, kNoStream);
    context_->fences().SetWorkSince(false);
  }
  SetQuiet();
  return finished;
}

// The default streams are those of the current context, and so is "all".
HostWait::HostWait(StreamName stream) {
  const Driver* driver = LoadedDriver();
  ContextWork* work = WorkOf(stream == kSeveralStreams ? kLegacyStream : stream);
  if (driver == nullptr || work == &g_no_work || work == &g_any_work) return;
  const bool of_current = stream == kSeveralStreams || stream == kLegacyStream || stream % 2 == 1;
  Begin(work, stream);
  // Afterwards: if it is its work now, then what Begin found is not another context's.
  if (of_current && !work->IsOf(CurrentContext(*driver))) work_ = nullptr;
}

HostWait::HostWait(ContextHandle context) {
  ContextWork* work = WorkOfContext(context);
  if (work == &g_no_work) return;
  Begin(work, kSeveralStreams);
  if (!work->IsOf(context)) work_ = nullptr;
}

void HostWait::Begin(ContextWork* work, StreamName stream) {
  work_ = work;
  waiting_ = work->BeginWait(stream);
}

// ---- All contexts

void BeforeCapture() {
  if (g_captures.BeforeBegin()) SettleDebts();
  for (Pause pause; AnyDebt();) pause.Wait();
}

void SettleDebts() {
  if (const Driver* driver = LoadedDriver()) {
    ForEachWork([&](ContextWork& work) { work.Settle(*driver); });
  }
}

bool AnyDebt() {
  // Nobody pays any more once the process exits.
  return g_debts.load(std::memory_order_seq_cst) != 0 &&
         g_pool.load(std::memory_order_acquire) != nullptr;
}

void StreamEnds(CUstream stream) {
  if (IsDefaultStream(stream)) return;
  g_stream_epoch.fetch_add(1, std::memory_order_acq_rel);
  ForEachWork([&](ContextWork& work) { work.StreamEnds(reinterpret_cast<StreamName>(stream)); });
}

void ForgetStreams() { g_stream_epoch.fetch_add(1, std::memory_order_acq_rel); }

void SomeStreamsEnd() {
  ForgetStreams();
  ForEachWork([](ContextWork& work) { work.AnyStreamEnds(); });
}

void ForgetWork() {
  new (&g_contexts_lock) Mutex;
  g_open_count = 0;
  g_open_sum = 0;
  FindPlace([](MadeContext& made) {
    made = {};
    return false;
  });
  g_openings = 0;
  ForgetOwed();
  g_only_work.store(&g_no_work, std::memory_order_release);
  g_debts.store(0, std::memory_order_seq_cst);
  g_tracks_visible.store(false, std::memory_order_release);
  g_visible_memory.Forget();
  g_events.Reset();
  g_stream_epoch.fetch_add(1, std::memory_order_acq_rel);
}

constinit const PoolHost kShimHost = {
    &LoadedDriver,
    [] { return g_captures.EnterRecording(); },
    [] { g_captures.LeaveRecording(); },
    [] { return g_captures.EnterSynchronising(); },
    [] { g_captures.LeaveSynchronising(); },
    [](ContextPool& context, uint64_t number, FencePurpose purpose) {
      static_cast<ContextWork*>(context.of_host)->FenceBegins(number, purpose, KeepsOrder());
    },
    [](ContextPool& context) { static_cast<ContextWork*>(context.of_host)->FenceFailed(); },
    &FreesAreUnseen,
    [] { return g_visible_memory.managed_bytes(); },
    true,
    [](ContextPool& context) {
      if (context.of_host == nullptr) {
        auto* made = context.arena().New<ContextWork>(&context);
        context.of_host = made == nullptr ? &g_no_work : made;
      }
      auto* work = static_cast<ContextWork*>(context.of_host);
      const bool tracks = Keeps(FreeSync::kAuto);
      if (work != &g_no_work) work->Begin(tracks);
      if (tracks) {
        g_tracks_visible.store(true, std::memory_order_release);
        if (context.identity().reaches_host_memory) {
          g_visible_memory.NoteForGood(Visible::kPageableAccess);
        }
      }
      Held held(g_contexts_lock);
      CountOpen(work, 1);
      g_stream_epoch.fetch_add(1, std::memory_order_acq_rel);
      FindOnly();
    },
    [](ContextPool& context) {
      static_cast<ContextWork*>(context.of_host)->End();
      g_visible_memory.ContextEnds(context.identity().id);
      Held held(g_contexts_lock);
      CountOpen(static_cast<ContextWork*>(context.of_host), -1);
      NoteMadeChanged();  // a reset one may be used again
      g_stream_epoch.fetch_add(1, std::memory_order_acq_rel);
      FindOnly();
    },
};

}  // namespace cmp
