// Threads that submit, free, wait and end streams at once.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "work_fixture.h"

namespace cmp {
namespace {

// A submission that has returned is unfinished until a wait or a fence that was begun after its
// real call says otherwise.
TEST_F(NoneTest, NoFreeMissesWorkOfItsOwnThread) {
  constexpr int kWaiters = 3;
  std::atomic<uint64_t> moment{1};
  std::atomic<uint64_t> covered{0};  // a wait or record began then, the latest
  const auto cover = [&] {
    const uint64_t now = moment.fetch_add(1);
    uint64_t seen = covered;
    while (seen < now && !covered.compare_exchange_weak(seen, now)) {
    }
  };
  driver_.on_record = cover;
  const auto pause = [](unsigned yields) {
    while (yields-- != 0) std::this_thread::yield();
  };
  std::atomic<int> running{2};
  std::atomic<int> missed{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kWaiters; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      FakeDriver::SetCurrent(pool_.identity.handle);
      while (running != 0) {
        HostWait wait(kSeveralStreams);
        cover();
        driver_.Finish();
        pause(random() % 8);
        wait.Done(CUDA_SUCCESS);
        pause(random() % 8);
      }
    });
  }
  threads.emplace_back([&] {
    while (running != 0) {
      StreamEnds(reinterpret_cast<CUstream>(kC));
      SettleDebts();
      std::this_thread::yield();
    }
  });
  for (const StreamName stream : {kA, kB}) {
    threads.emplace_back([&, stream] {
      FakeDriver::SetCurrent(pool_.identity.handle);
      for (int i = 0; i < 40000; ++i) {
        uint64_t submitted = 0;
        Stamp clock = 0;
        {
          const Submission submission(stream);
          submitted = moment.fetch_add(1);  // the real call
          clock = Fences::Now();
        }
        if (i % 2 == 0) continue;  // so that there is work between two frees
        if (i % 3 == 0) pause(2);
        const Settlement settled = Free();
        if (settled.stamp == kReady ? covered < submitted : settled.stamp < clock) ++missed;
      }
      --running;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(missed, 0);
}

}  // namespace
}  // namespace cmp
