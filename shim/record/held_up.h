// Under CMP_MODE=observe: for how long was a thread, or were several at once, inside real
// allocations and frees, and how long were other threads in submissions meanwhile? A real free that
// waits for the device holds up what other threads launch (measured). By the first a program can
// become faster at most, however many threads it has: at any other moment nobody was held up.
//
// A submission reads two values before its real call and after. Only where a real allocation or
// free is under way at either moment, or was between, it takes the lock and looks at the clock.
#ifndef CMP_SHIM_RECORD_HELD_UP_H_
#define CMP_SHIM_RECORD_HELD_UP_H_

#include <atomic>
#include <cstdint>

#include "core/base/statistics.h"

namespace cmp {

// Set once the calls of the process are observed, from its first allocation on.
inline constinit std::atomic<ProcessCounters*> g_observed{nullptr};
inline bool IsObserved() { return g_observed.load(std::memory_order_acquire) != nullptr; }

// A real allocation or free of this thread's. Nothing where calls are not observed. Thread-safe, as
// what follows is.
class [[nodiscard]] InsideAllocation {
 public:
  InsideAllocation();
  ~InsideAllocation();
  InsideAllocation(const InsideAllocation&) = delete;
  InsideAllocation& operator=(const InsideAllocation&) = delete;

 private:
  ProcessCounters* const counters_;
};

// Beside a submission of this thread's.
class [[nodiscard]] BesideAllocations {
 public:
  BesideAllocations();
  ~BesideAllocations();
  BesideAllocations(const BesideAllocations&) = delete;
  BesideAllocations& operator=(const BesideAllocations&) = delete;

 private:
  uint64_t before_;  // nanoseconds that were spent inside when it began
};

// In a forked child: nobody is inside, and nothing is observed yet.
void ForgetObserved();

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_HELD_UP_H_
