#include "core/base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

namespace cmp {

void SleepNs(long ns) {
  const timespec time = {0, ns};
  const int error = errno;
  syscall(SYS_nanosleep, &time, nullptr);  // the C library's is a cancellation point
  errno = error;
}

void Bell::Ring() {
  if (rung_.exchange(1, std::memory_order_acq_rel) != 0) return;
  const int error = errno;
  syscall(SYS_futex, &rung_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  errno = error;
}

bool Bell::Sleep(long ns) {
  const timespec time = {0, ns};
  const int error = errno;
  syscall(SYS_futex, &rung_, FUTEX_WAIT_PRIVATE, 0, &time, nullptr, 0);
  errno = error;
  return rung_.exchange(0, std::memory_order_acq_rel) != 0;
}

void Pause::Wait() {
  constexpr uint32_t kYields = 16;
  constexpr uint32_t kMostDoublings = 5;
  constexpr long kFirstNs = 30'000;  // and at most a millisecond
  const uint32_t waits = waits_++;
  if (waits < kYields) {
    sched_yield();
  } else {
    SleepNs(kFirstNs << std::min(waits - kYields, kMostDoublings));
  }
}

bool Mutex::LockSoon() {
  constexpr int kMostWaits = 100;
  Pause pause;
  for (int i = 0; i < kMostWaits; ++i) {
    if (TryLock()) return true;
    pause.Wait();
  }
  return false;
}

}  // namespace cmp
