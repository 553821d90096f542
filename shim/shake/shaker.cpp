#include "shim/shake/shaker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/base/own_thread.h"
#include "core/base/thread_exit.h"
#include "core/base/warnings.h"
#include "shim/record/run.h"
#include "shim/record/shake_counts.h"
#include "shim/record/writer.h"
#include "shim/state/captures.h"
#include "shim/visible/visible_memory.h"

namespace cmp {

namespace {

// 0: it has not called yet. No more than that: there is little room for what is thread-local.
thread_local constinit uint32_t t_thread = 0;
constinit ThreadExitHook g_shaken_thread_ends([] {
  const uint32_t thread = std::exchange(t_thread, 0);
  if (Shaker* shaker = TheShaker(); shaker != nullptr && thread != 0) shaker->ThreadEnds(thread);
});

CUstream HandleOf(StreamName name) {
  if (name == kLegacyStream) return CU_STREAM_LEGACY;
  return name % 2 == 1 ? CU_STREAM_PER_THREAD : reinterpret_cast<CUstream>(name);
}

uint64_t RandomOf(uint64_t seed, const ShakeSite& site) {
  return MixShake(MixShake(seed, site.id), site.count);
}

constexpr uint64_t kKernelTickNs = 10'000'000;

// Every eighth execution, by the seed. Where holds were in vain, fewer and fewer of those.
uint64_t OneIn(const ShakeSite& site) {
  constexpr uint32_t kInVainForFewer = 4;
  return uint64_t{8} << 2 * std::min(site.in_vain / kInVainForFewer, 3u);
}

// How long a hold may last: all of the time, a half, a quarter, by the seed. The longer ones are
// for programs that take their time; they leave fewer to the other sites.
uint64_t MostHeldNs(uint64_t random) { return Shaker::kMostHeldNs >> (random >> 32) % 3; }

// And how long behind the later work's submission, which usually is not long: it waits either for
// what is held, and then in vain, or only for what its stream had before.
uint64_t MostFollowedNs(const ShakeSite& site) {
  return Shaker::kLeastFollowedNs << std::min(site.in_vain, 5u);
}

}  // namespace

bool Shaker::Begin(const Options& options) {
  records_ = options.shake == kShakeRecord;
  seed_ = options.shake;
  kind_ = options.free_sync == FreeSync::kOrder ? ShakeKind::kHost : ShakeKind::kOrder;
  // Earlier than it can have been by what the kernel rounds off, never.
  const uint64_t now = NowNs();
  begin_ns_ = now - std::min(now, std::max(ProcessAgeNs(), kKernelTickNs) - kKernelTickNs);
  call_sites_.Begin();
  if (records_) return true;
  const char* wrong = options.shake_sites == nullptr ? "CMP_SHAKE_SITES names no file"
                                                     : sites_.Read(options.shake_sites);
  const Driver* driver = LoadedDriver();
  if (wrong == nullptr && (driver == nullptr || !words_.Begin(*driver))) {
    wrong = "the driver has no waits for values";
  }
  if (wrong == nullptr && !StartTimer()) {
    wrong = "no thread can be made";  // without which nothing would be let go in time
  }
  if (wrong == nullptr) return true;
  char line[256];
  snprintf(line, sizeof(line), "CMP_SHAKE does nothing: %.200s", wrong);
  PrintWarning(line);
  return false;
}

void Shaker::End() {
  closed_.store(true, std::memory_order_seq_cst);
  if (!lock_.LockSoon()) return;
  {
    const Held held(lock_, Taken::kYes);
    if (hold_.state != State::kNone) EndHold(NowNs(), false);
  }
  WriteReport(true);
}

// ---- The report

void Shaker::BeginReport(const char* pattern) {
  if (pattern == nullptr) return;
  if (!ExpandPath(pattern, report_)) {
    report_[0] = '\0';
    return PrintWarning("the name of CMP_SHAKE_REPORT is too long");
  }
  if (!WriteReport(false)) return;
  static constexpr Writer kWriter = {"cmp-sites", [](bool* is_changed) {
                                       *is_changed = false;  // the pause need not get shorter
                                       return TheShaker()->WriteReport(false);
                                     }};
  if (!StartWriter(kWriter)) {
    PrintWarning("no thread can be made: CMP_SHAKE_REPORT is written at the end alone");
  }
}

bool Shaker::WriteReport(bool ends) {
  if (!report_lock_.LockSoon()) return true;
  const Held held(report_lock_, Taken::kYes);
  if (report_[0] == '\0') return false;
  {
    const Held held_too(lock_);
    if (changes_ == reported_ && !ends) return true;
    reported_ = changes_;
    report_sites_.Follow(sites_);
  }
  const bool written = report_sites_.Write(report_, ends);
  if (!written) {
    char line[kMaxPath + 64];
    snprintf(line, sizeof(line), "CMP_SHAKE_REPORT=%s cannot be written: %s", report_,
             strerror(errno));
    PrintWarning(line);
  }
  if (ends || !written) report_[0] = '\0';
  return written;
}

// ---- Threads and streams

uint32_t Shaker::ThisThread() {
  if (t_thread == 0) {
    t_thread = threads_.Begin();
    if (t_thread != 0) g_shaken_thread_ends.Arm();
  }
  return t_thread;
}

void Shaker::ThreadEnds(uint32_t thread) {
  {
    const Held held(lock_);
    for (ShakeSite*& site : freed_hosts_) {
      if (site != nullptr && site->free_thread == thread) site = nullptr;
    }
    if (hold_.free_thread == thread) hold_.free_thread = 0;
  }
  threads_.End(thread);
}

// One name for the thread's own default stream, whether it has been named yet or not.
StreamName Shaker::OwnNameOf(StreamName stream) {
  const bool own = stream % 2 == 1 && stream != kSeveralStreams;
  return own ? 2 * StreamName{ThisThread()} + 1 : stream;
}

Shaker::Stream* Shaker::FindStream(StreamName name) {
  Stream* const found = std::find_if(streams_, StreamsEnd(),
                                     [=](const Stream& stream) { return stream.name == name; });
  return found == StreamsEnd() ? nullptr : found;
}

Shaker::Stream* Shaker::AddStream(StreamName name, bool blocking, uint64_t owner) {
  if (Stream* stream = FindStream(name)) return stream;
  Stream* stream = FindStream(kNoStream);
  if (stream == nullptr) {
    if (stream_places_ == kMostStreams) return nullptr;
    stream = &streams_[stream_places_++];
  }
  const auto any = [this](auto is) {
    return std::any_of(streams_, StreamsEnd(),
                       [=](const Stream& other) { return other.name != kNoStream && is(other); });
  };
  StreamOrdinal ordinal = 0;
  uint64_t who = 0;
  if (IsOfCurrentContext(name)) {
    ordinal = name == kLegacyStream ? kOrdinalLegacy : kOrdinalPerThread;
    who = static_cast<uint64_t>(ordinal);
  } else {
    while (any([=](const Stream& other) { return other.ordinal == ordinal; })) ++ordinal;
    uint64_t turn = 0;
    do {
      who = MixShake(owner, turn++);
    } while (any([=](const Stream& other) { return other.who == who; }));
  }
  *stream = {name, ordinal, who, blocking, {}, {}};
  return stream;
}

// To ask a capturing stream kills its capture (measured).
bool Shaker::AskIfBlocking(StreamName name, bool* blocking) {
  *blocking = true;
  const Driver* driver = LoadedDriver();
  if (IsOfCurrentContext(name) || driver == nullptr || driver->stream_flags == nullptr) return true;
  {
    const Held held(lock_);
    if (FindStream(name) != nullptr) return true;
  }
  if (!g_captures.EnterRecording()) return false;
  unsigned flags = 0;
  driver->stream_flags(reinterpret_cast<CUstream>(name), &flags);
  *blocking = (flags & CU_STREAM_NON_BLOCKING) == 0;
  g_captures.LeaveRecording();
  return true;
}

bool Shaker::AreOrdered(const Stream& one, const Stream& other) {
  if (one.name == other.name) return true;
  return (one.name == kLegacyStream && other.blocking) ||
         (other.name == kLegacyStream && one.blocking);
}

void Shaker::EndStream(Stream& stream) {
  if (hold_.state != State::kNone && hold_.stream == &stream) EndHold(NowNs(), false);
  debts_[&stream - streams_] = {};
  stream = {};
}

void Shaker::StreamEnds(StreamName name) {
  const Held held(lock_);
  for (Stream* at = streams_; at != StreamsEnd(); ++at) {
    const bool ends = at->name == name || name == kSeveralStreams;
    if (at->name != kNoStream && ends) EndStream(*at);
  }
}

// Which streams are its is not known.
void Shaker::ContextEnds() {
  StreamEnds(kSeveralStreams);
  registered_.store(false, std::memory_order_release);
}

// ---- Submissions

void Shaker::Before(const ShakenSubmission& submission, Shaken& shaken) {
  if (closed_.load(std::memory_order_acquire) || g_captures.UnderWay()) return;
  const uint32_t thread = ThisThread();
  const StreamName name = OwnNameOf(submission.stream);
  bool blocking = false;
  if (thread == 0 || name == kSeveralStreams || !AskIfBlocking(name, &blocking)) return;
  ShakeCall call = {submission.name, &kUnknownCallSite, thread};
  uint64_t who = threads_.NameOf(thread);
  if (submission.works || who == 0) call.where = call_sites_.Here();
  if (who == 0) who = threads_.Name(thread, call.where->hash);
  const bool ready = !records_ && ReadyToHold();
  HoldTarget place;
  ShakeSite* site = nullptr;
  {
    const Held held(lock_);
    Stream* const stream = AddStream(name, blocking, who);
    if (stream == nullptr) return;
    call.stream = stream->ordinal;
    call.who = MixShake(who, stream->who);
    if (records_) return Record(submission, call, *stream);
    const uint64_t now = NowNs();
    EndIfOver(now);
    if (kind_ == ShakeKind::kHost) NoteWentOn(call.thread);
    if (!submission.works) return;
    site = Choose(call, now);
    if (hold_.state == State::kFreed && kind_ == ShakeKind::kOrder &&
        !AreOrdered(*hold_.stream, *stream)) {
      hold_.state = State::kFollowed;
      hold_.later_waits = submission.waits;
      // in_vain counts this hold, too.
      if (!submission.waits) hold_.end = std::min(hold_.end, now + MostFollowedNs(*hold_.site));
      hold_.site->later = call;
      ++changes_;
      words_.DeviceWillWrite(hold_.target, true);
      shaken.is_later_ = true;
      shaken.later_of_ = hold_.target;
      shaken.stream_ = HandleOf(name);
      shaken.waits_ = submission.waits;
    } else if (hold_.state == State::kNone && site != nullptr && ready && !submission.waits &&
               !closed_.load(std::memory_order_acquire)) {
      place = words_.Take();
      if (place.word != nullptr) Start(*site, *stream, place, now);
    }
  }
  if (shaken.is_later_) bell_.Ring();  // it may be for less time now
  if (place.word != nullptr) PlaceHold(*site, place, HandleOf(name));
}

void Shaker::After(Shaken& shaken) {
  const HoldTarget target = shaken.later_of_;
  bool will_write = false;
  // What returns only once it is done needs no write: the host lets go, and that was in time.
  if (!shaken.waits_ && !closed_.load(std::memory_order_acquire) && g_captures.EnterRecording()) {
    const Driver* driver = LoadedDriver();
    will_write =
        driver->write_value(shaken.stream_, target.address(), target.value, 0) == CUDA_SUCCESS;
    g_captures.LeaveRecording();
  }
  const Held held(lock_);
  if (!will_write) words_.DeviceWillWrite(target, false);
  const bool same = hold_.state == State::kFollowed && hold_.target.word == target.word &&
                    hold_.target.value == target.value;
  if (!shaken.waits_ || !same) return;
  Count(*hold_.site, g_shake_counts.effective, &ShakeSite::effective);
  hold_.site->in_vain = 0;
  EndHold(NowNs(), false);
}

// ---- Recording

void Shaker::Record(const ShakenSubmission& submission, const ShakeCall& call, Stream& stream) {
  for (ShakeSite*& site : freed_hosts_) {
    if (site == nullptr || site->free_thread != call.thread) continue;
    site->later = call;
    ++changes_;
    site = nullptr;
  }
  if (!submission.works) return;
  for (size_t i = 0; i < stream_places_; ++i) {
    Debt& debt = debts_[i];
    if (debt.earlier.last.number == 0 || AreOrdered(*debt.stream, stream)) continue;
    Execute(ShakeKind::kOrder, debt, &call);
    debt = {};
  }
  const Submitted submitted = {call, ++number_};
  stream.work.Add(submitted);
  const bool visible = submission.visible || g_visible_memory.Exists() != Visible::kNothing;
  if (visible) stream.visible.Add(submitted);
}

void Shaker::Execute(ShakeKind kind, const Debt& debt, const ShakeCall* later) {
  const ShakeSite* before = nullptr;
  for (const Submitted* submitted : {&debt.earlier.last, &debt.earlier.first}) {
    ShakeSite* const site = sites_.Get(kind, submitted->call);
    if (site == nullptr || site == before) continue;
    before = site;
    site->free_where = debt.free_where;
    site->free_thread = debt.free_thread;
    site->free_bytes = debt.free_bytes;
    Count(*site, g_shake_counts.executions, &ShakeSite::count);
    if (later != nullptr) {
      site->later = *later;
      continue;
    }
    const auto place = std::find(std::begin(freed_hosts_), std::end(freed_hosts_), nullptr);
    if (place != std::end(freed_hosts_)) *place = site;
  }
}

void Shaker::Free(size_t bytes) {
  if (closed_.load(std::memory_order_acquire)) return;
  const uint32_t thread = ThisThread();
  const CallSite* const where = call_sites_.Here();
  const Held held(lock_);
  if (!records_) {
    EndIfOver(NowNs());
    if (kind_ == ShakeKind::kHost) NoteWentOn(thread);
    if (hold_.state != State::kHeld) return;
    hold_.state = State::kFreed;
    hold_.free_thread = thread;
    hold_.site->free_where = where;
    hold_.site->free_thread = thread;
    hold_.site->free_bytes = bytes;
    ++changes_;
    return;
  }
  for (Stream* at = streams_; at != StreamsEnd(); ++at) {
    Stream& stream = *at;
    Debt debt = {stream.work, where, thread, bytes, &stream};
    if (stream.work.last.number != 0) debts_[at - streams_] = debt;
    debt.earlier = stream.visible;
    if (stream.visible.last.number != 0) Execute(ShakeKind::kHost, debt, nullptr);
    stream.work = stream.visible = {};
  }
}

void Shaker::Waited(StreamName name, uint64_t begun) {
  if (!records_) return;
  name = OwnNameOf(name);
  const Held held(lock_);
  for (Stream* at = streams_; at != StreamsEnd(); ++at) {
    Stream& stream = *at;
    if (stream.name == kNoStream) continue;
    const bool legacy = name == kLegacyStream && stream.blocking;
    if (name != kSeveralStreams && name != stream.name && !legacy) continue;
    stream.work.Done(begun);
    stream.visible.Done(begun);
    Debt& debt = debts_[at - streams_];
    debt.earlier.Done(begun);
  }
}

void Shaker::Count(ShakeSite& site, Counter& counter, uint64_t ShakeSite::*of_site) {
  ++(site.*of_site);
  ++changes_;
  counter.AddShared(1);
  g_shake_counts.sites.Set(sites_.count());
}

// ---- Holds

ShakeSite* Shaker::Choose(const ShakeCall& call, uint64_t now) {
  ShakeSite* const site = sites_.Find(ShakeSites::IdOf(kind_, call));
  if (site == nullptr || !site->listed) return nullptr;
  if (site->earlier.name == nullptr) site->earlier = call;
  Count(*site, g_shake_counts.executions, &ShakeSite::count);
  if (RandomOf(seed_, *site) % OneIn(*site) != 0) return nullptr;
  // If it lasts as long as it may, then a third of the time was without holds.
  const uint64_t most = MostHeldNs(RandomOf(seed_, *site));
  return 3 * (held_ns_ + most) <= 2 * (now - begin_ns_ + most) ? site : nullptr;
}

void Shaker::Start(ShakeSite& site, const Stream& stream, const HoldTarget& target, uint64_t now) {
  const uint64_t end = now + MostHeldNs(RandomOf(seed_, site));
  hold_ = {State::kHeld, target, &site, &stream, now, end, 0, false, false};
  ++site.in_vain;
}

// It has begun before the call: until then the timer may let go what never waits.
void Shaker::PlaceHold(ShakeSite& site, const HoldTarget& target, CUstream stream) {
  CUresult status = CUDA_ERROR_NOT_PERMITTED;
  if (g_captures.EnterRecording()) {
    status = LoadedDriver()->wait_value(stream, target.address(), target.value,
                                        CU_STREAM_WAIT_VALUE_GEQ);
    g_captures.LeaveRecording();
  }
  {
    const Held held(lock_);
    if (status == CUDA_SUCCESS) {
      refused_ = 0;
      Count(site, g_shake_counts.holds, &ShakeSite::holds);
    } else {
      if (hold_.state != State::kNone && hold_.target.word == target.word) EndHold(NowNs(), false);
      registered_.store(false, std::memory_order_release);  // by a context that has ended, perhaps
      if (++refused_ < kMostRefused) return;
    }
  }
  if (status == CUDA_SUCCESS) return bell_.Ring();
  GiveUp("the driver refuses to let a stream wait for a value");
}

void Shaker::GiveUp(const char* why) {
  if (closed_.exchange(true, std::memory_order_acq_rel)) return;
  char line[160];
  snprintf(line, sizeof(line), "CMP_SHAKE does nothing any more: %s", why);
  PrintWarning(line);
}

// The host's side of kind `host`: the free returned, and its thread comes with the next call.
void Shaker::NoteWentOn(uint32_t thread) {
  if (hold_.state != State::kFreed || hold_.went_on) return;
  if (thread == 0 || hold_.free_thread != thread) return;  // 0: not known which
  hold_.went_on = true;
  hold_.site->in_vain = 0;
  Count(*hold_.site, g_shake_counts.effective, &ShakeSite::effective);
}

void Shaker::EndIfOver(uint64_t now) {
  if (hold_.state == State::kNone) return;
  const bool over = now >= hold_.end;
  if (over || HoldWords::DeviceHasWritten(hold_.target)) EndHold(now, over);
}

void Shaker::EndHold(uint64_t now, bool by_timer) {
  // What is seen too late may have happened because the hold was over.
  if (words_.LetGo(hold_.target) && !by_timer) {
    hold_.site->in_vain = 0;
    Count(*hold_.site, g_shake_counts.effective, &ShakeSite::effective);
  } else if (by_timer) {
    g_shake_counts.let_go_by_timer.AddShared(1);
  }
  const uint64_t held = std::min(now, hold_.end) - hold_.begin;
  held_ns_ += held;
  g_shake_counts.held_ns.AddShared(held);
  hold_ = {};
}

uint64_t Shaker::Wait(StreamName name) {
  if (closed_.load(std::memory_order_acquire)) return 0;
  name = OwnNameOf(name);
  const uint32_t thread = ThisThread();
  const Held held(lock_);
  if (records_) return number_;
  const uint64_t now = NowNs();
  EndIfOver(now);
  if (kind_ == ShakeKind::kHost) NoteWentOn(thread);
  if (hold_.state == State::kFollowed) {
    if (hold_.later_waits) return 0;
    hold_.end = std::min(hold_.end, now + kMoreAtWaitsNs);
    bell_.Ring();
  } else if (hold_.state != State::kNone) {
    const bool waits_for_it = name == kSeveralStreams || name == hold_.stream->name ||
                              (name == kLegacyStream && hold_.stream->blocking);
    if (waits_for_it) EndHold(now, false);
  }
  return 0;
}

bool Shaker::ReadyToHold() {
  if (registered_.load(std::memory_order_acquire)) return true;
  if (!g_captures.EnterRecording()) return false;
  const CUresult status = words_.Register(*LoadedDriver());
  g_captures.LeaveRecording();
  if (status == CUDA_SUCCESS || status == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED) {
    registered_.store(true, std::memory_order_release);
    return true;
  }
  // Of a thread without a context, perhaps: others may have one.
  bool often = false;
  {
    const Held held(lock_);
    often = ++refused_ >= kMostRefused;
  }
  if (often) GiveUp("the driver refuses its memory");
  return false;
}

bool Shaker::StartTimer() {
  bool over = false;  // who could not tell would keep the process for ever
  const auto run = [](void* of) -> void* {
    BeginOwnThread("cmp-shake");
    static_cast<Shaker*>(of)->RunTimer();
    return nullptr;
  };
  return TellWhetherMainThreadIsOver(&over) && StartOwnThread(run, this);
}

// Never a CUDA call, and lock_ for moments: whatever waits for the hold waits no longer than that.
// Once closed no hold begins (looked at under the lock); one that is on its way is still timed.
void Shaker::RunTimer() {
  constexpr long kIdleNs = 100'000'000;
  bool over = false;  // the main thread is; what others do then is held no more
  for (long sleep = kIdleNs;;) {
    bell_.Sleep(sleep);
    if (sleep == kIdleNs) TellWhetherMainThreadIsOver(&over);
    const Held held(lock_);
    const uint64_t now = NowNs();
    EndIfOver(now);
    const bool idle = hold_.state == State::kNone;
    if (idle && over) closed_.store(true, std::memory_order_release);
    if (idle && closed_.load(std::memory_order_acquire)) return;
    // It looks once a millisecond, so that what came first is counted where the program is silent.
    sleep = idle ? kIdleNs : static_cast<long>(std::min(hold_.end - now, kMoreAtWaitsNs));
  }
}

}  // namespace cmp
