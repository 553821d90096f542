// Preloaded beside ours: the monotonic clock goes on only while the program lets time pass
// (program::LetTimePass), by as much. What ages by then is the same however busy the machine is,
// and nothing ages between two lines of the program that a slow machine takes a second for.
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace {

constexpr long kSecond = 1'000'000'000;
constexpr long kStep = 1'000'000;
// So that who waits for a time to come comes there by asking.
constexpr long kForAsking = 20;

std::atomic<long> g_now{0};

long Began() {
  timespec time = {};
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
  return time.tv_sec * kSecond + time.tv_nsec;
}

}  // namespace

// In the time that really passes at least: who sleeps till then comes to what he sleeps for.
extern "C" __attribute__((visibility("default"))) void cmpTestLetTimePass(long nanoseconds) {
  for (; nanoseconds > 0; nanoseconds -= kStep) {
    const timespec step = {0, kStep};
    nanosleep(&step, nullptr);
    g_now.fetch_add(kStep, std::memory_order_relaxed);
  }
}

extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t clock,
                                                                    timespec* time) {
  if (clock != CLOCK_MONOTONIC) return static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  long now = g_now.fetch_add(kForAsking, std::memory_order_relaxed);
  if (now == 0) {  // another thread may come second, and adds the same
    now = Began();
    long none = kForAsking;
    if (!g_now.compare_exchange_strong(none, now, std::memory_order_relaxed)) now = g_now.load();
  }
  *time = {now / kSecond, now % kSecond};
  return 0;
}
