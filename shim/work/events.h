// What a program's events stand for: who has waited for one knows that the visible work of its
// stream from before the record is done.
//
// A table of fixed size: an event that is not found says nothing, and then a free waits.
#ifndef CMP_SHIM_WORK_EVENTS_H_
#define CMP_SHIM_WORK_EVENTS_H_

#include <cuda.h>

#include <atomic>

#include "core/base/lock.h"
#include "shim/visible/streams.h"

namespace cmp {

class ContextWork;

// A point in the visible work of a stream.
struct RecordedPoint {
  ContextWork* work = nullptr;
  StreamName stream = kNoStream;
  uint64_t submission = 0;  // the newest that comes before it
};

class Events {
 public:
  constexpr Events() = default;

  // Could the table hold this event? One load.
  bool MayKnow(CUevent event) const {
    return places_[PlaceOf(event)].event.load(std::memory_order_acquire) == event;
  }
  void Recorded(CUevent event, const RecordedPoint& point);
  // What was recorded last; its `work` is nullptr if that is not known.
  RecordedPoint Find(CUevent event);
  // The event was destroyed, or stands for something else now.
  void Forget(CUevent event);
  // Any event may stand for something else now: a graph may record it again.
  void ForgetAll() { epoch_.fetch_add(1, std::memory_order_acq_rel); }
  // In a forked child.
  void Reset();

 private:
  static constexpr size_t kPlaces = 256;
  static size_t PlaceOf(CUevent event) {
    const auto address = reinterpret_cast<uintptr_t>(event);
    return (address >> 4 ^ address >> 12) % kPlaces;
  }

  struct Place {
    std::atomic<CUevent> event{nullptr};
    uint64_t epoch = 0;
    RecordedPoint point;
  };

  std::atomic<uint64_t> epoch_{0};
  Mutex lock_;  // for the places' contents
  Place places_[kPlaces];
};

inline constinit Events g_events;

}  // namespace cmp

#endif  // CMP_SHIM_WORK_EVENTS_H_
