// Who is really freeing idle blocks just now, for who waits for that.
#ifndef CMP_CORE_POOL_HANDS_H_
#define CMP_CORE_POOL_HANDS_H_

#include <atomic>
#include <cstdint>

#include "core/base/types.h"

namespace cmp {

// How many are really freeing idle blocks of one device; of these, quietly; how many have done so.
struct Hands {
  int now;
  int quiet;
  uint64_t ended;
};

// Those of every device. Thread-safe.
class HandsByDevice {
 public:
  struct Place {
    std::atomic<int> now{0};
    std::atomic<int> quiet{0};
    std::atomic<uint64_t> ended{0};
  };
  Place& PlaceOf(int device) { return places_[PlaceOfDevice(device)]; }
  // Acquire: what was freed before is seen. `ended` last: whose end `now` shows is counted there.
  Hands Of(int device) const {
    const Place& place = places_[PlaceOfDevice(device)];
    Hands hands{};
    hands.now = place.now.load(std::memory_order_acquire);
    hands.quiet = place.quiet.load(std::memory_order_relaxed);
    hands.ended = place.ended.load(std::memory_order_acquire);
    return hands;
  }

 private:
  Place places_[kDevicePlaces];
};

}  // namespace cmp

#endif  // CMP_CORE_POOL_HANDS_H_
