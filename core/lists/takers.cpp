#include "core/lists/takers.h"

namespace cmp {

namespace {
// Of at most a millisecond each.
constexpr int kMostPauses = 10'000;
constexpr int kMostWithoutProgress = 1000;

void AwaitNone(const std::atomic<int>& inside, const std::atomic<uint64_t>& progress) {
  Pause pause;
  int last = 0;
  uint64_t last_progress = 0;
  int without = 0;
  for (int pauses = 0; pauses < kMostPauses && without < kMostWithoutProgress; ++pauses) {
    const int now = inside.load(std::memory_order_acquire);
    if (now == 0) return;
    const uint64_t made = progress.load(std::memory_order_relaxed);
    without = now != last || made != last_progress ? 0 : without + 1;
    last = now;
    last_progress = made;
    pause.Wait();
  }
}
}  // namespace

void Takers::Await() {
  // A wait that began after this helps the caller as much as one of its own, whatever came of it:
  // the second that ends, at the latest. acquire, release: what it saw freed the caller sees.
  const uint64_t before = waits();
  Held held(lock_);
  if (waits() - before >= 2) return;
  // Relaxed, as in Begin: it does not matter in which of the two somebody is counted, only that no
  // more and more of them come while one is awaited.
  const unsigned epoch = epoch_.load(std::memory_order_relaxed);
  AwaitNone(inside_[(epoch + 1) % 2], progress_);  // who read the epoch before it last changed
  epoch_.store(epoch + 1, std::memory_order_relaxed);
  AwaitNone(inside_[epoch % 2], progress_);
  waits_.fetch_add(1, std::memory_order_release);
}

}  // namespace cmp
