// A second thread, and places in the first one's calls where it is let in.
#ifndef CMP_TESTS_PROGRAMS_HELPER_H_
#define CMP_TESTS_PROGRAMS_HELPER_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "program.h"

namespace program {

// A thread that does what it is told while another one stands at some place.
class Helper {
 public:
  Helper() : thread_([this] { Serve(); }) {}
  ~Helper() {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  // Returns when it is done, or held up for too long by what the caller holds.
  void Do(std::function<void()> task) {
    Wait();
    std::unique_lock<std::mutex> lock(lock_);
    task_ = std::move(task);
    changed_.notify_all();
    changed_.wait_for(lock, std::chrono::milliseconds(20), [&] { return task_ == nullptr; });
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(lock_);
    changed_.wait(lock, [&] { return task_ == nullptr; });
  }

 private:
  void Serve() {
    MUST(cudaSetDevice(0));
    std::unique_lock<std::mutex> lock(lock_);
    for (;;) {
      changed_.wait(lock, [&] { return task_ != nullptr || stop_; });
      if (task_ == nullptr) return;
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
  bool stop_ = false;
  std::thread thread_;
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
