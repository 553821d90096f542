// A queue of things whose numbers grow from the oldest to the newest.
//
// Push and Pop cost the same however long it is; to find one by its number takes two or three looks
// at the ends, where what is wanted usually lies, and log2(length) in between.
#ifndef CMP_CORE_FENCES_NUMBERED_QUEUE_H_
#define CMP_CORE_FENCES_NUMBERED_QUEUE_H_

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

  // Room for one more; false when memory is exhausted.
  [[nodiscard]] bool MakeRoom() {
    if (end_ - first_ < room_) return true;
    auto* larger = static_cast<Numbered**>(MapPages(2 * room_ * sizeof(Numbered*)));
    if (larger == nullptr) return false;
    for (uint64_t i = first_; i != end_; ++i) larger[i & (2 * room_ - 1)] = At(i);
    Unmap();
    places_ = larger;
    room_ *= 2;
    return true;
  }
  // REQUIRES: there is room; its number is above all others
  void Push(Numbered* newest) { At(end_++) = newest; }
  // The oldest one, or nullptr.
  Numbered* Oldest() const { return first_ == end_ ? nullptr : At(first_); }
  // REQUIRES: not empty
  Numbered* Pop() { return At(first_++); }
  // The oldest one whose number is above `number`, or nullptr.
  Numbered* Above(uint64_t number) const {
    if (first_ == end_ || At(end_ - 1)->number <= number) return nullptr;
    if (At(first_)->number > number) return At(first_);
    uint64_t below = first_;      // not above the number
    uint64_t above = end_ - 1;    // above it
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
  uint64_t first_ = 0;          // from here on, to end_; places are used in turn
  uint64_t end_ = 0;
};

}  // namespace cmp

#endif  // CMP_CORE_FENCES_NUMBERED_QUEUE_H_
