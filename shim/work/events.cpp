#include "shim/work/events.h"

#include <new>

namespace cmp {

void Events::Recorded(CUevent event, const RecordedPoint& point) {
  Place& place = places_[PlaceOf(event)];
  const Held held(lock_);
  place.event.store(event, std::memory_order_release);
  place.epoch = epoch_.load(std::memory_order_acquire);
  place.point = point;
}

RecordedPoint Events::Find(CUevent event) {
  if (!MayKnow(event)) return {};
  Place& place = places_[PlaceOf(event)];
  const Held held(lock_);
  const bool known = place.event.load(std::memory_order_relaxed) == event &&
                     place.epoch == epoch_.load(std::memory_order_acquire);
  return known ? place.point : RecordedPoint{};
}

void Events::Forget(CUevent event) {
  if (!MayKnow(event)) return;
  Place& place = places_[PlaceOf(event)];
  const Held held(lock_);
  if (place.event.load(std::memory_order_relaxed) == event) {
    place.event.store(nullptr, std::memory_order_release);
  }
}

void Events::Reset() { new (this) Events; }

}  // namespace cmp
