// A thread that waits for something of the pool's: does it sleep?
//
// Whatever yields is counted: in one executable of each test, this sched_yield is called in place
// of the C library's.
#ifndef CMP_TESTS_CORE_WAITING_THREAD_H_
#define CMP_TESTS_CORE_WAITING_THREAD_H_

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>

namespace cmp::test {

inline std::atomic<int> g_yields{0};
inline thread_local bool t_yields_count = false;

// Is the thread of this process asleep, waiting for nothing but a wake-up or the time?
inline bool IsAsleep(long thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  const std::string line{std::istreambuf_iterator<char>(file), {}};
  const size_t name_ends = line.rfind(')');
  return name_ends != std::string::npos && line.compare(name_ends + 1, 2, " S") == 0;
}

// Does a thread that calls wait() sleep before end() lets wait() return?
template <typename Wait, typename End>
bool Sleeps(Wait wait, End end) {
  constexpr int kMostYields = 10'000;
  std::atomic<long> thread{0};
  g_yields = 0;
  std::thread waiter([&] {
    t_yields_count = true;
    thread = syscall(SYS_gettid);
    wait();
    t_yields_count = false;
  });
  bool asleep = false;
  while (!asleep && g_yields < kMostYields) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    asleep = thread != 0 && IsAsleep(thread);
  }
  end();
  waiter.join();
  return asleep;
}

// Does wait() return to a thread that is to be cancelled? It ends at the next cancellation point.
template <typename Wait>
bool ReturnsThoughCancelled(Wait wait) {
  struct Call {
    Wait* wait;
    bool returned;
  } call{&wait, false};
  pthread_t thread;
  pthread_create(
      &thread, nullptr,
      [](void* argument) -> void* {
        auto* called = static_cast<Call*>(argument);
        pthread_cancel(pthread_self());
        (*called->wait)();
        called->returned = true;
        pthread_testcancel();
        return argument;
      },
      &call);
  void* result = nullptr;
  pthread_join(thread, &result);
  return call.returned && result == PTHREAD_CANCELED;
}

}  // namespace cmp::test

extern "C" {
[[gnu::used]] inline int sched_yield() noexcept {
  if (cmp::test::t_yields_count) ++cmp::test::g_yields;
  return static_cast<int>(syscall(SYS_sched_yield));
}
}

#endif  // CMP_TESTS_CORE_WAITING_THREAD_H_
