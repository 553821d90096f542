// When the machine last let the process lie. What another thread's free left is waited for by a
// query within 0.1 s of that free (scripts/docs/what-can-differ.md), in real time: an answer "not
// ready" after a stall proves nothing.
#ifndef CMP_TESTS_PROGRAMS_SCHEDULES_STALLS_H_
#define CMP_TESTS_PROGRAMS_SCHEDULES_STALLS_H_

#include <time.h>

#include <atomic>
#include <cstdint>

namespace schedules {

class Stalls {
 public:
  // Any thread begins an operation; these take some ten microseconds.
  void Note() {
    const uint64_t now = Now();
    if (now - last_.exchange(now, std::memory_order_relaxed) > kStallNs) {
      stalled_.store(now, std::memory_order_relaxed);
    }
  }
  // Was there one lately, or is this one?
  bool Recent() {
    Note();
    return Now() - stalled_.load(std::memory_order_relaxed) < kLatelyNs;
  }

 private:
  static constexpr uint64_t kStallNs = 10'000'000;
  static constexpr uint64_t kLatelyNs = 500'000'000;
  static uint64_t Now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }

  std::atomic<uint64_t> last_{Now()};
  std::atomic<uint64_t> stalled_{0};
};

inline Stalls g_stalls;

}  // namespace schedules

#endif  // CMP_TESTS_PROGRAMS_SCHEDULES_STALLS_H_
