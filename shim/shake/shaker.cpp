#include "shim/shake/shaker.h"

#include <stdio.h>

#include <algorithm>
#include <utility>

#include "core/base/own_thread.h"
#include "core/base/rules.h"
#include "core/base/thread_exit.h"
#include "core/base/warnings.h"
#include "shim/record/run.h"
#include "shim/record/shake_counts.h"
#include "shim/state/captures.h"

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

// What call(driver) says, or kCaptures: a capture is under way, which it could end.
constexpr CUresult kCaptures = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
template <typename Call>
CUresult UnlessCaptured(Call call) {
  if (!g_captures.EnterRecording()) return kCaptures;
  const CUresult status = call(*LoadedDriver());
  g_captures.LeaveRecording();
  return status;
}

// Of the process. Earlier than it can have been by what the kernel rounds off, never.
uint64_t BeginNs() {
  constexpr uint64_t kKernelTickNs = 10'000'000;
  const uint64_t now = NowNs();
  return now - std::min(now, std::max(ProcessAgeNs(), kKernelTickNs) - kKernelTickNs);
}

}  // namespace

bool Shaker::Begin(const Options& options) {
  records_ = options.shake == kShakeRecord;
  call_sites_.Begin();
  if (records_) return true;
  const auto kind = options.free_sync == FreeSync::kOrder ? ShakeKind::kHost : ShakeKind::kOrder;
  holding_.Begin(kind, options.shake, BeginNs());
  const char* wrong = options.shake_sites == nullptr ? "CMP_SHAKE_SITES names no file"
                                                     : sites_.Read(options.shake_sites);
  const Driver* driver = LoadedDriver();
  if (wrong == nullptr && (driver == nullptr || !holding_.words().Begin(*driver))) {
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

void Shaker::BeginReport(const char* pattern) {
  static constexpr Writer kWriter = {"cmp-sites", [](bool* is_changed) {
                                       *is_changed = false;  // the pause need not get shorter
                                       return TheShaker()->report_.Write(false);
                                     }};
  report_.Begin(pattern, kWriter);
}

void Shaker::End() {
  closed_.store(true, std::memory_order_seq_cst);
  if (!lock_.LockSoon()) return;
  {
    const Held held(lock_, Taken::kYes);
    if (RuleIsOn(Rule::kExitEndsHolds)) holding_.End(NowNs());
  }
  report_.Write(true);
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
    debts_.ThreadEnds(thread);
    holding_.ThreadEnds(thread);
  }
  threads_.End(thread);
}

// One name for the thread's own default stream, whether it has been named yet or not.
StreamName Shaker::OwnNameOf(StreamName stream) {
  const bool own = stream % 2 == 1 && stream != kSeveralStreams;
  return own ? 2 * StreamName{ThisThread()} + 1 : stream;
}

// To ask a capturing stream kills its capture (measured).
bool Shaker::AskIfBlocking(StreamName name, bool* blocking) {
  *blocking = true;
  const Driver* driver = LoadedDriver();
  if (IsOfCurrentContext(name) || driver == nullptr || driver->stream_flags == nullptr) return true;
  {
    const Held held(lock_);
    if (streams_.Find(name) != nullptr) return true;
  }
  unsigned flags = 0;
  const CUresult status = UnlessCaptured(
      [&](const Driver& asked) { return asked.stream_flags(HandleOf(name), &flags); });
  *blocking = (flags & CU_STREAM_NON_BLOCKING) == 0;
  return status != kCaptures;
}

void Shaker::StreamEnds(StreamName name) {
  const Held held(lock_);
  for (ShakeStream& stream : streams_) {
    if (stream.name == kNoStream || (stream.name != name && name != kSeveralStreams)) continue;
    holding_.StreamEnds(stream, NowNs());
    debts_.StreamEnds(stream);
    stream = {};
  }
}

// Which streams are its is not known.
void Shaker::ContextEnds() {
  StreamEnds(kSeveralStreams);
  registered_.store(false, std::memory_order_release);
}

// ---- Calls of the program

void Shaker::Before(const ShakenSubmission& submission, Shaken& shaken) {
  if (closed() || g_captures.UnderWay()) return;
  const uint32_t thread = ThisThread();
  const StreamName name = OwnNameOf(submission.stream);
  bool blocking = false;
  if (thread == 0 || name == kSeveralStreams || !AskIfBlocking(name, &blocking)) return;
  ShakeCall call = {submission.name, &kUnknownCallSite, thread};
  uint64_t who = threads_.NameOf(thread);
  if (submission.works || who == 0) call.where = call_sites_.Here();
  if (who == 0) who = threads_.Name(thread, call.where->hash);
  const bool ready = !records_ && ReadyToHold();
  HoldTarget begun;
  ShakeSite* site = nullptr;
  {
    const Held held(lock_);
    ShakeStream* const stream = streams_.Add(name, blocking, who);
    if (stream == nullptr) return;
    call.stream = stream->ordinal;
    call.who = MixShake(who, stream->who);
    if (records_) return debts_.Submit(submission, call, *stream);
    const uint64_t now = NowNs();
    holding_.Arrive(now, thread);
    if (!submission.works) return;
    site = holding_.Choose(call, now);
    if (holding_.Follow(call, *stream, submission.waits, now)) {
      shaken.is_later_ = true;
      shaken.later_of_ = holding_.target();
      shaken.stream_ = HandleOf(name);
      shaken.waits_ = submission.waits;
    } else if (site != nullptr && ready && !closed() &&
               !(submission.waits && RuleIsOn(Rule::kNoHoldOfWhatWaits))) {
      begun = holding_.Start(*site, *stream, now);
    }
  }
  if (shaken.is_later_) bell_.Ring();  // it may be for less time now
  if (begun.word != nullptr) Place(begun, *site, HandleOf(name));
}

void Shaker::After(Shaken& shaken) {
  const HoldTarget target = shaken.later_of_;
  const auto write = [&](const Driver& driver) {
    return driver.write_value(shaken.stream_, target.address(), target.value, 0);
  };
  const bool will_write = !shaken.waits_ && !closed() && UnlessCaptured(write) == CUDA_SUCCESS;
  const Held held(lock_);
  holding_.Followed(target, will_write, shaken.waits_, NowNs());
}

void Shaker::Free(size_t bytes) {
  if (closed()) return;
  const uint32_t thread = ThisThread();
  const CallSite* const where = call_sites_.Here();
  const Held held(lock_);
  if (records_) return debts_.Free(where, thread, bytes);
  holding_.Arrive(NowNs(), thread);
  holding_.Free(where, thread, bytes);
}

uint64_t Shaker::Wait(StreamName name) {
  if (closed()) return 0;
  name = OwnNameOf(name);
  const uint32_t thread = ThisThread();
  const Held held(lock_);
  if (records_) return debts_.number();
  const uint64_t now = NowNs();
  holding_.Arrive(now, thread);
  if (holding_.Wait(name, now)) bell_.Ring();
  return 0;
}

void Shaker::Waited(StreamName name, uint64_t begun) {
  if (!records_) return;
  name = OwnNameOf(name);
  const Held held(lock_);
  debts_.Waited(name, begun);
}

// ---- The device's side of holds, and their time

// It has begun before the call: until then the timer may let go what never waits.
void Shaker::Place(const HoldTarget& target, ShakeSite& site, CUstream stream) {
  const CUresult status = UnlessCaptured([&](const Driver& driver) {
    return driver.wait_value(stream, target.address(), target.value, CU_STREAM_WAIT_VALUE_GEQ);
  });
  {
    const Held held(lock_);
    if (status == CUDA_SUCCESS) {
      refused_ = 0;
      sites_.Count(g_shake_counts.holds, site.holds);
    } else {
      if (holding_.IsFor(target)) holding_.End(NowNs());
      registered_.store(false, std::memory_order_release);  // by a context that has ended, perhaps
      if (++refused_ < kMostRefused) return;
    }
  }
  if (status == CUDA_SUCCESS) return bell_.Ring();
  GiveUp("the driver refuses to let a stream wait for a value");
}

bool Shaker::ReadyToHold() {
  if (registered_.load(std::memory_order_acquire)) return true;
  const CUresult status =
      UnlessCaptured([this](const Driver& driver) { return holding_.words().Register(driver); });
  if (status == kCaptures) return false;
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

void Shaker::GiveUp(const char* why) {
  if (closed_.exchange(true, std::memory_order_acq_rel)) return;
  char line[160];
  snprintf(line, sizeof(line), "CMP_SHAKE does nothing any more: %s", why);
  PrintWarning(line);
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
  constexpr uint64_t kLookNs = 1'000'000;  // what came first is counted in a silent program, too
  constexpr long kIdleNs = 100'000'000;
  bool over = false;  // the main thread is; what others do then is held no more
  for (long sleep = kIdleNs;;) {
    bell_.Sleep(sleep);
    if (sleep == kIdleNs) TellWhetherMainThreadIsOver(&over);
    const Held held(lock_);
    const uint64_t now = NowNs();
    holding_.EndIfOver(now);
    if (holding_.is_none() && over) closed_.store(true, std::memory_order_release);
    if (holding_.is_none() && closed()) return;
    sleep =
        holding_.is_none() ? kIdleNs : static_cast<long>(std::min(holding_.end() - now, kLookNs));
  }
}

}  // namespace cmp
