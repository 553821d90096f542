// How long real frees would have waited for what frees skipped, on a device that was as fast: at
// least until a fence was last seen open, at most until it was seen to have passed. Time in which
// several waited counts once.
//
// Not thread-safe: Fences holds its queue's lock.
#ifndef CMP_CORE_FENCES_SKIPPED_TIME_H_
#define CMP_CORE_FENCES_SKIPPED_TIME_H_

#include <algorithm>
#include <cstdint>
#include <utility>

namespace cmp {

class SkippedTime {
 public:
  struct Bounds {
    uint64_t min_ns = 0;
    uint64_t max_ns = 0;
  };
  // The oldest fence was seen open (times as NowNs). Another thread may have told of a later look.
  void SeenOpen(uint64_t now) { seen_open_ns_ = std::max(seen_open_ns_, now); }
  // A fence that a free had skipped, recorded at `recorded_ns`, was seen to have passed.
  void Passed(uint64_t recorded_ns, uint64_t now) {
    const uint64_t begin = std::max(recorded_ns, counted_ns_);
    bounds_.max_ns += now - std::min(now, begin);
    bounds_.min_ns += seen_open_ns_ - std::min(seen_open_ns_, begin);
    counted_ns_ = now;
  }
  // What was added since the last call.
  Bounds Take() { return std::exchange(bounds_, Bounds{}); }

 private:
  uint64_t seen_open_ns_ = 0;
  uint64_t counted_ns_ = 0;  // the time until then is in bounds_
  Bounds bounds_;
};

}  // namespace cmp

#endif  // CMP_CORE_FENCES_SKIPPED_TIME_H_
