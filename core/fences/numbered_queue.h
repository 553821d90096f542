// A queue of things whose numbers grow from the oldest to the newest.
//
// Push and Pop cost the same however long it is; to find one by its number takes two or three looks
// at the ends, where what is wanted usually lies, and log2(length) in between.
//
// One thread at a time pushes, and takes no lock for it: it alone writes the end, and reads where
// the queue begins only to see whether there is room. Everything else, and growing, is under a lock
// of the owner's.
#ifndef CMP_CORE_FENCES_NUMBERED_QUEUE_H_
#define CMP_CORE_FENCES_NUMBERED_QUEUE_H_

#include <atomic>
#include <cstdint>

#include "core/base/memory.h"

namespace cmp {

template <typename Numbered>
class NumberedQueue {
 public:
  constexpr NumberedQueue() = default;
  ~NumberedQueue() { Unmap(); }
  NumberedQueue(const NumberedQueue&) = delete;
  NumberedQueue& operator=(const NumberedQueue&) = delete;

  // Is there room for one more? For who pushes. acquire: whoever made the place free is done with
  // it.
  bool HasRoom() const {
    return end_.load(std::memory_order_relaxed) - first_.load(std::memory_order_acquire) < room_;
  }
  // Makes it; false when memory is exhausted. For who pushes, under the lock.
  [[nodiscard]] bool MakeRoom() {
    if (HasRoom()) return true;
    auto* larger = static_cast<Numbered**>(MapPages(2 * room_ * sizeof(Numbered*)));
    if (larger == nullptr) return false;
    const uint64_t end = end_.load(std::memory_order_relaxed);
    for (uint64_t i = first_.load(std::memory_order_relaxed); i != end; ++i) {
      larger[i & (2 * room_ - 1)] = At(i);
    }
    Unmap();
    places_ = larger;
    room_ *= 2;
    return true;
  }
  // For who pushes, without the lock. release: who finds it finds what was written to it before.
  // REQUIRES: there is room; its number is above all others
  void Push(Numbered* newest) {
    const uint64_t end = end_.load(std::memory_order_relaxed);
    At(end) = newest;
    end_.store(end + 1, std::memory_order_release);
  }

  // REQUIRES for all below: the lock held

  // The oldest one, or nullptr.
  Numbered* Oldest() const {
    const uint64_t first = first_.load(std::memory_order_relaxed);
    return first == end_.load(std::memory_order_acquire) ? nullptr : At(first);
  }
  // REQUIRES: not empty
  Numbered* Pop() {
    const uint64_t first = first_.load(std::memory_order_relaxed);
    Numbered* const oldest = At(first);
    first_.store(first + 1, std::memory_order_release);
    return oldest;
  }
  // The oldest one whose number is above `number`, or nullptr.
  Numbered* Above(uint64_t number) const {
    const uint64_t first = first_.load(std::memory_order_relaxed);
    const uint64_t end = end_.load(std::memory_order_acquire);
    if (first == end || At(end - 1)->number <= number) return nullptr;
    if (At(first)->number > number) return At(first);
    uint64_t below = first;       // not above the number
    uint64_t above = end - 1;     // above it
    uint64_t middle = above - 1;  // at first, is it the newest?
    while (above - below > 1) {
      (At(middle)->number > number ? above : below) = middle;
      middle = below + (above - below) / 2;
    }
    return At(above);
  }

 private:
  static constexpr uint64_t kFirstRoom = 16;
  Numbered*& At(uint64_t index) { return places_[index & (room_ - 1)]; }
  Numbered* At(uint64_t index) const { return places_[index & (room_ - 1)]; }
  void Unmap() {
    if (places_ != few_) UnmapPages(places_, room_ * sizeof(Numbered*));
  }

  Numbered* few_[kFirstRoom] = {};
  Numbered** places_ = few_;
  uint64_t room_ = kFirstRoom;  // a power of two
  // From here on, to end_; places are used in turn.
  std::atomic<uint64_t> first_{0};
  std::atomic<uint64_t> end_{0};
};

}  // namespace cmp

#endif  // CMP_CORE_FENCES_NUMBERED_QUEUE_H_
