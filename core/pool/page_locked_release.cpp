// How much page-locked memory may be idle, and how it goes back.
#include "core/driver/driver.h"
#include "core/driver/memory_limit.h"
#include "core/pool/page_locked_api.h"
#include "core/pool/page_locked_pool.h"

namespace cmp {

namespace {
// Released by one free to make room for its block.
constexpr uint32_t kMostReleased = 16;
// With pauses of at most a millisecond: ten seconds, as readiness.cpp.
constexpr int kMostQuestionsForMemory = 10'000;

// The driver frees page-locked memory for who has a context, whichever; a thread of the pool's own
// has none.
class InContext {
 public:
  InContext(const Driver& driver, ContextHandle context)
      : driver_(driver),
        pushed_(CurrentContext(driver) == nullptr &&
                driver.push_current(static_cast<CUcontext>(context)) == CUDA_SUCCESS) {}
  ~InContext() {
    CUcontext popped = nullptr;
    if (pushed_) driver_.pop_current(&popped);
  }
  InContext(const InContext&) = delete;
  InContext& operator=(const InContext&) = delete;

 private:
  const Driver& driver_;
  const bool pushed_;
};
}  // namespace

// ---- How much may be idle

size_t PageLockedPool::IdleBytes() const {
  size_t bytes = leaving_.load(std::memory_order_acquire);
  ForEachHeap([&](PageLockedHeap& heap) {
    // In this order: what becomes ready, or comes from a cache, is counted twice meanwhile.
    bytes += heap.allowed() + heap.global().retired_bytes() + heap.global().ready_bytes();
  });
  return bytes;
}

// What a real allocation counts against is seen by the first one.
void PageLockedPool::LearnWhatCounts(size_t bytes) {
  if (options_.page_locked != kPageLockedAuto ||
      knows_what_counts_.exchange(true, std::memory_order_relaxed)) {
    return;
  }
  const size_t limit = LockedMemoryLimit();
  if (limit == kNoMemoryLimit || LockedMemory() < bytes) return;
  if (limit / kShareOfLimit < bound()) {
    bound_.store(limit / kShareOfLimit, std::memory_order_relaxed);
  }
}

// A cache may hold more, where the bound has room. REQUIRES: the calling thread's
void PageLockedPool::AllowMore(PageLockedHeap& heap, ThreadCache& cache, size_t bytes,
                               size_t large_bytes) {
  Held held(lock_);
  const size_t more = bytes + large_bytes - cache.most_bytes() - cache.most_large_bytes();
  if (IdleBytes() + more <= bound()) (void)heap.Allow(cache, bytes, large_bytes);
}

void PageLockedPool::EmptyAllCaches() {
  ForEachHeap([](PageLockedHeap& heap) { heap.EmptyCaches(); });
}

// Idle blocks go on the heap's lists. False: there is no room for them.
bool PageLockedPool::Put(PageLockedHeap& heap, Batch batch) {
  const size_t bytes = BytesIn(batch);
  const auto put = [&] {
    Held held(lock_);
    if (IdleBytes() + bytes > bound() && RuleIsOn(Rule::kPageLockedBound)) return false;
    heap.global().Put(batch);
    return true;
  };
  return put() || (MakeRoom(heap, bytes) && put());
}

// In a free of the program's: its real free would have waited for the device, as those here do.
bool PageLockedPool::MakeRoom(PageLockedHeap& heap, size_t bytes) {
  if (bytes > bound()) return false;
  EmptyAllCaches();  // what they may hold and do not is room, too
  uint32_t left = kMostReleased;
  const Takers::Taking taking(takers());
  const auto release = [&](PageLockedHeap& from) {
    while (left != 0) {
      Batch oldest;
      {
        Held held(lock_);
        const size_t now = IdleBytes() + bytes;
        if (now <= bound()) return;
        oldest = from.global().TakeOldest(now - bound(), GlobalPool::kAnyTime, 1);
        leaving_.fetch_add(BytesIn(oldest), std::memory_order_acq_rel);
      }
      if (oldest.count == 0) return;
      left -= oldest.count < left ? oldest.count : left;
      Destroy(from, oldest);
    }
  };
  release(heap);
  ForEachHeap([&](PageLockedHeap& other) {
    if (&other != &heap && other.context_ == heap.context_) release(other);
  });
  Held held(lock_);
  return IdleBytes() + bytes <= bound();
}

// Really frees idle blocks that are on no list, and counted as leaving.
size_t PageLockedPool::Destroy(PageLockedHeap& heap, Batch batch) {
  const size_t bytes = BytesIn(batch);
  size_t freed = 0;
  {
    const ContextPool::User user(heap.context());
    const ContextPool::Unasked unasked(heap.context(), ContextPool::When::kAtOnce);
    const Uncancelled uncancelled;
    if (unasked.allowed()) {
      const BlockSource::Hand hand(source_, heap);
      const InContext in_context(*host_.driver(), heap.context().handle());
      freed = source_.Free(heap, batch, PageLockedApi(calls_, heap));
    } else {
      heap.global().Put(batch);
    }
  }
  leaving_.fetch_sub(bytes, std::memory_order_acq_rel);
  return freed;
}

void PageLockedPool::PromotePassed(PageLockedHeap& heap) {
  GlobalPool& global = heap.global();
  if (global.retired_bytes() == 0) return;
  const unsigned small_tiers = tiers_.TierOf(kLargeGranule);
  for (unsigned tier = 0; tier <= small_tiers; ++tier) {
    const Stamp oldest = global.OldestStamp(tier);
    if (oldest == kReady) continue;
    if (!readiness_.AllPassed(heap, oldest) && !readiness_.AskAll(heap, oldest)) continue;
    global.Promote(tier, [&](Stamp stamp) { return readiness_.AllPassed(heap, stamp); });
  }
}

// ---- How idle memory goes back

// (What a cuMemFreeHost does to one is not known.)
bool PageLockedPool::IsCaptureUnderWay() const {
  if (!host_.enter_recording()) return true;
  host_.leave_recording();
  return false;
}

// Is all work done that was submitted to any context before this call? Asks, for ten seconds at
// most: the real free would wait for what is submitted since, too, and that may wait for what the
// caller does next. Where no fence tells, the real free has to wait.
bool PageLockedPool::AwaitWork(PageLockedHeap& heap) {
  const Stamp before = readiness_.StampOfAll(heap);
  if (!RuleIsOn(Rule::kPageLockedQuietly)) return true;
  if (IsCaptureUnderWay()) return false;
  if (before == kReady || !Readiness::HasContextEvents(*host_.driver())) return true;
  Pause pause;
  for (int i = 0; !readiness_.AskAll(heap, before); ++i) {
    if (i == kMostQuestionsForMemory || IsCaptureUnderWay()) return false;
    pause.Wait();
  }
  return true;
}

size_t PageLockedPool::ReleaseForMemory(size_t bytes) {
  size_t released = 0;
  bool done = true;
  ForEachHeap([&](PageLockedHeap& heap) {
    if (released >= bytes || !heap.HasIdle() || !done || !(done = AwaitWork(heap))) return;
    heap.EmptyCaches();
    PromotePassed(heap);
    const Takers::Taking taking(takers());
    Batch oldest;
    {
      Held held(lock_);
      oldest = heap.global().TakeOldest(bytes - released);
      leaving_.fetch_add(BytesIn(oldest), std::memory_order_acq_rel);
    }
    if (oldest.count != 0) released += Destroy(heap, oldest);
  });
  return released;
}

bool PageLockedPool::AwaitReleases() {
  takers().Await();
  return source_.OthersReleaseJustNow();
}

bool PageLockedPool::HasIdle() {
  bool idle = false;
  ForEachHeap([&](PageLockedHeap& heap) { idle |= heap.open() && heap.HasIdle(); });
  return idle;
}

// The real free waits for the device, and other threads' launches for that: so it is made only
// while nothing is unfinished that was submitted to any context, one block at a time.
bool PageLockedPool::Age(const std::atomic<bool>& stop) {
  const uint64_t now = NowNs();
  uint64_t ticks = marked_ns_ == 0 ? 1 : (now - marked_ns_) / kTickNs;
  if (ticks == 0) return HasIdle();
  if (ticks > GlobalPool::kMarks) ticks = GlobalPool::kMarks;
  marked_ns_ = now;
  ForEachHeap([&](PageLockedHeap& heap) {
    if (!heap.open()) return;
    heap.EmptyCaches();
    PromotePassed(heap);
    uint64_t before = 0;
    for (uint64_t i = 0; i < ticks; ++i) before = heap.global().Mark();
    const auto quiet = [&] {
      return readiness_.StampOfAll(heap) == kReady || !RuleIsOn(Rule::kPageLockedQuietly);
    };
    if (!quiet() && heap.global().HasIdle()) readiness_.SeekIdleness(heap);
    while (!stop.load(std::memory_order_seq_cst) && quiet() && !IsCaptureUnderWay()) {
      const Takers::Taking taking(takers());
      Batch aged;
      {
        Held held(lock_);
        aged = heap.global().TakeOldest(1, before, 1);
        leaving_.fetch_add(BytesIn(aged), std::memory_order_acq_rel);
      }
      if (aged.count == 0 || Destroy(heap, aged) == 0) return;
    }
  });
  return HasIdle();
}

}  // namespace cmp
