#include "core/pool/ageing.h"

#include "core/base/own_thread.h"
#include "core/base/owner_flag.h"
#include "core/base/warnings.h"
#include "core/driver/driver_api.h"
#include "core/pool/pool.h"

namespace cmp {

namespace {
constexpr uint64_t kMostSleepNs = 900'000'000;
constexpr uint64_t kFirstTickNs = 50'000'000;
constexpr int kMostPausesAtExit = 100;  // about a tenth of a second
}  // namespace

// While it lives the thread may make calls, unless the process exits.
class Ageing::Inside {
 public:
  // seq_cst on both sides: either Stop sees that calls are made, or this that they must not be.
  explicit Inside(Ageing& ageing) : ageing_(ageing) {
    ageing_.inside_.store(true, std::memory_order_seq_cst);
  }
  ~Inside() { ageing_.inside_.store(false, std::memory_order_seq_cst); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
  bool MayCall() const { return !ageing_.stopped(); }

 private:
  Ageing& ageing_;
};

Ageing::Ageing(Pool& pool, const Options& options, const PoolHost& host)
    : pool_(pool),
      host_(host),
      tick_ns_(options.decay_ns / kTicks),
      by_(options.decay_by == DecayBy::kNobody                             ? By::kNobody
          : options.decay_by == DecayBy::kThread && host.sees_contexts_end ? By::kNobodyYet
                                                                           : By::kFrees) {}

void Ageing::Begin() {
  By nobody = By::kNobodyYet;
  if (!by_.compare_exchange_strong(nobody, By::kThread, std::memory_order_seq_cst)) return;
  if (stopped()) return;
  const bool quiet = pool_.CanFreeQuietly();
  if (quiet && Spawn()) return;
  by_.store(By::kFrees, std::memory_order_seq_cst);
  if (quiet) PrintWarning("no thread can be made: idle memory goes back to the driver in cudaFree");
}

bool Ageing::Spawn() {
  const auto run = [](void* self) -> void* {
    BeginOwnThread("cmp-decay");
    static_cast<Ageing*>(self)->Run();
    return nullptr;
  };
  return StartOwnThread(run, this);
}

// Sleeps until then, or until TrimSoon rings. False: the process exits.
bool Ageing::Rest(uint64_t until_ns) {
  for (uint64_t now = NowNs(); now < until_ns && !stopped(); now = NowNs()) {
    const uint64_t left = until_ns - now;
    if (bell_.Sleep(static_cast<long>(left < kMostSleepNs ? left : kMostSleepNs))) break;
  }
  return !stopped();
}

const Driver* Ageing::DriverOfHost() {
  const Inside inside(*this);
  return inside.MayCall() ? host_.driver() : nullptr;
}

void Ageing::Run() {
  const Driver* there = DriverOfHost();
  if (there == nullptr) {  // all was over before this thread came to anything
    if (!stopped()) by_.store(By::kFrees, std::memory_order_seq_cst);
    return;
  }
  const Driver& driver = *there;
  const DriverApi api(driver);
  // The first one takes long; better here than in a call of the program's.
  BarrierOnEveryThread();
  // The first tick is soon, for what it pays once; but not for a process that is over by then.
  uint64_t tick_at = NowNs() + (tick_ns_ > kFirstTickNs ? kFirstTickNs : tick_ns_);
  // Page-locked memory has ticks of its own, faster ones.
  const uint64_t never = ~uint64_t{0};
  uint64_t page_locked_at =
      pool_.page_locked() == nullptr ? never : NowNs() + PageLockedPool::kTickNs;
  while (Rest(tick_at < page_locked_at ? tick_at : page_locked_at)) {
    // Each at its own time, however often the bell has rung since.
    const uint64_t now = NowNs();
    const bool tick = now >= tick_at;
    const bool page_locked_tick = now >= page_locked_at;
    bool idle = true;
    bool quiet = true;
    if (const Inside inside(*this); inside.MayCall()) {
      const RelaxedCaptureMode relaxed(driver);
      if (tick) idle = pool_.Age(api);
      pool_.TrimDue(api);
      if (page_locked_tick) idle |= pool_.AgePageLocked(stop_);
      quiet = pool_.CanFreeQuietly();
    }
    if (tick) tick_at = NowNs() + tick_ns_;
    if (page_locked_tick) page_locked_at = NowNs() + PageLockedPool::kTickNs;
    if (!quiet) {  // as it turned out
      by_.store(By::kFrees, std::memory_order_seq_cst);
      return;
    }
    if (!idle && Leave()) return;
  }
}

// Nothing is idle. True: the thread may end.
bool Ageing::Leave() {
  by_.store(By::kNobodyYet, std::memory_order_seq_cst);
  if (!pool_.HasIdle()) return true;
  By nobody = By::kNobodyYet;
  return !by_.compare_exchange_strong(nobody, By::kThread, std::memory_order_seq_cst);
}

void Ageing::DoWhatIsDue(ContextPool& context, size_t bytes, const DeviceApi& api, uint64_t now) {
  const Uncancelled uncancelled;
  if (inside_.exchange(true, std::memory_order_seq_cst)) return;  // another thread is at it
  if (!stopped()) {                                               // as in Run
    const uint64_t next = context.next_tick_ns.load(std::memory_order_relaxed);
    const bool tick = now >= next;
    if (tick) context.next_tick_ns.store(now + tick_ns_, std::memory_order_relaxed);
    if (!tick || next != 0) pool_.AgeInFree(context, tick, bytes, api);  // 0: the time begins
  }
  inside_.store(false, std::memory_order_seq_cst);
}

void Ageing::AgePageLocked() {
  const Uncancelled uncancelled;
  if (inside_.exchange(true, std::memory_order_seq_cst)) return;  // another thread is at it
  if (!stopped()) pool_.AgePageLocked(stop_);                     // as in Run
  inside_.store(false, std::memory_order_seq_cst);
}

void Ageing::Stop() {
  stop_.store(true, std::memory_order_seq_cst);
  Pause pause;
  for (int i = 0; i < kMostPausesAtExit && inside_.load(std::memory_order_seq_cst); ++i)
    pause.Wait();
}

}  // namespace cmp
