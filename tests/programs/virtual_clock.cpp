// Preloaded beside ours: the monotonic clock is the simulated CUDA's, so that what depends on it
// comes out the same however busy the machine is. For programs that link the simulated driver.
//
// VIRTUAL_CLOCK_BEGIN_NS: what has passed since the process began when virtual time does (1 s).
#include <sim.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace {

constexpr uint64_t kSecond = 1000000000;

uint64_t BeginNs() {
  const char* text = getenv("VIRTUAL_CLOCK_BEGIN_NS");
  return text == nullptr ? kSecond : strtoull(text, nullptr, 10);
}

// As it was when it was asked for first.
uint64_t RealNs(clockid_t clock) {
  timespec time;
  syscall(SYS_clock_gettime, clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * kSecond + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t clock,
                                                                    timespec* time) {
  if (clock != CLOCK_MONOTONIC && clock != CLOCK_BOOTTIME) {
    return static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  }
  static const uint64_t begin = BeginNs();
  static const uint64_t booted = RealNs(CLOCK_BOOTTIME);
  const uint64_t now = begin + simNow() + (clock == CLOCK_BOOTTIME ? booted : 0);
  *time = {static_cast<time_t>(now / kSecond), static_cast<long>(now % kSecond)};
  return 0;
}
