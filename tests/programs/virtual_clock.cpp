// Preloaded beside ours: the monotonic clock is the simulated CUDA's, so that what depends on it
// comes out the same however busy the machine is. For programs that link the simulated driver.
#include <sim.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t clock,
                                                                    timespec* time) {
  if (clock != CLOCK_MONOTONIC) return static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  constexpr uint64_t kSecond = 1000000000;
  const uint64_t now = kSecond + simNow();
  *time = {static_cast<time_t>(now / kSecond), static_cast<long>(now % kSecond)};
  return 0;
}
