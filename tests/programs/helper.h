// A second thread, and places in the first one's calls where it is let in.
#ifndef CMP_TESTS_PROGRAMS_HELPER_H_
#define CMP_TESTS_PROGRAMS_HELPER_H_

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "program.h"

namespace program {

// Whether a thread of this process sleeps: it waits for a lock, or for others.
inline bool Sleeps(pid_t thread) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
  FILE* file = fopen(path, "re");
  if (file == nullptr) return false;
  char text[256] = {};
  const size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  const char* end = length > 0 ? strrchr(text, ')') : nullptr;  // of its name
  return end != nullptr && end[1] == ' ' && end[2] == 'S';
}

// A thread that does what it is told while another one stands at some place. Decided by what it
// does, never by when: on a busy machine it may run late.
class Helper {
 public:
  // Device 0 is current in it when this returns: a reset would meet it otherwise.
  Helper() : thread_([this] { Serve(); }) {
    Do([] { MUST(cudaSetDevice(0)); });
    Wait();
  }
  ~Helper() {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  // Returns when it is done, or held up by what the caller holds: it sleeps, or has run for longer
  // than any task takes (a waiter of the pool may yield instead).
  void Do(std::function<void()> task) {
    std::unique_lock<std::mutex> lock(lock_);
    changed_.wait(lock, [&] { return task_ == nullptr; });
    task_ = std::move(task);
    begun_at_ns_ = kNotBegun;
    changed_.notify_all();
    while (!changed_.wait_for(lock, kBetweenLooks, [&] { return task_ == nullptr; })) {
      if (begun_at_ns_ == kNotBegun) continue;
      lock.unlock();  // or it could sleep because of this one
      if (Sleeps(thread_id_) || RunNs() - begun_at_ns_ > kLongestTaskNs) return;
      lock.lock();
    }
  }
  // Held up in what it was last told.
  bool IsBusy() {
    const std::lock_guard<std::mutex> lock(lock_);
    return task_ != nullptr;
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(lock_);
    changed_.wait(lock, [&] { return task_ == nullptr; });
  }

 private:
  static constexpr std::chrono::microseconds kBetweenLooks{100};
  static constexpr int64_t kLongestTaskNs = 2'000'000;
  static constexpr int64_t kNotBegun = -1;

  // For how long the thread was on a processor.
  int64_t RunNs() const {
    timespec time = {};
    clock_gettime(clock_, &time);
    return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
  }

  void Serve() {
    thread_id_ = gettid();
    pthread_getcpuclockid(pthread_self(), &clock_);
    std::unique_lock<std::mutex> lock(lock_);
    for (;;) {
      changed_.wait(lock, [&] { return task_ != nullptr || stop_; });
      if (task_ == nullptr) return;
      begun_at_ns_ = RunNs();
      lock.unlock();
      task_();
      lock.lock();
      task_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex lock_;
  std::condition_variable changed_;
  std::function<void()> task_;
  std::atomic<int64_t> begun_at_ns_{kNotBegun};  // of RunNs()
  bool stop_ = false;
  // Of the thread; it sets them before it begins anything.
  pid_t thread_id_ = 0;
  clockid_t clock_ = {};
  std::thread thread_;  // last: it uses the others
};

// What the other thread does once the caller stands at the place.
struct AtPlace {
  std::thread::id thread;
  Helper& helper;
  std::function<void()> task;
  bool done;

  static void Called(void* data) {
    auto* at = static_cast<AtPlace*>(data);
    if (at->done || std::this_thread::get_id() != at->thread) return;
    at->done = true;
    at->helper.Do(at->task);
  }
};

}  // namespace program

#endif  // CMP_TESTS_PROGRAMS_HELPER_H_
