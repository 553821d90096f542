#include "core/lists/takers.h"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "waiting_thread.h"

namespace cmp {
namespace {

using Taking = Takers::Taking;

class TakersTest : public testing::Test {
 protected:
  void Await() { takers_.Await(); }

  Takers takers_;
};

TEST_F(TakersTest, NobodyIsInside) {
  { const Taking taking(takers_); }
  { const Taking never_begun; }
  Await();
  Await();
}

TEST_F(TakersTest, WhoeverIsInsideIsAwaitedAsleep) {
  for (int i = 0; i < 4; ++i) {  // in either count
    std::optional<Taking> taking;
    taking.emplace(takers_);
    EXPECT_TRUE(test::Sleeps([&] { Await(); }, [&] { taking.reset(); }));
  }
}

TEST_F(TakersTest, WhoHasBeenThereSinceBeforeOthersWaitedIsAwaitedToo) {
  std::optional<Taking> taking;
  taking.emplace(takers_);
  std::thread first([&] { Await(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // now it waits
  EXPECT_TRUE(test::Sleeps([&] { Await(); }, [&] { taking.reset(); }));
  first.join();
}

TEST_F(TakersTest, WhoComesLaterDoesNotProlongIt) {
  std::optional<Taking> taking;
  taking.emplace(takers_);
  std::atomic<bool> done{false};
  std::thread waiter([&] {
    Await();
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::optional<Taking> later[2];
  later[0].emplace(takers_);
  taking.reset();
  for (int i = 1; i < 2000 && !done; ++i) {  // at every moment there is one
    later[i % 2].emplace(takers_);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    later[(i + 1) % 2].reset();
  }
  EXPECT_TRUE(done);
  for (std::optional<Taking>& left : later) left.reset();
  waiter.join();
}

// Each waited for a second of its own, one after the other.
TEST_F(TakersTest, WhoWaitsBesideOthersSharesTheirWait) {
  constexpr int kWaiters = 12;
  const Taking taking(takers_);
  std::vector<std::thread> waiters;
  for (int i = 0; i < kWaiters; ++i) waiters.emplace_back([&] { Await(); });
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_LE(takers_.waits(), 6u);  // 2, but for one that came a second late
}

TEST(DeviceTakersTest, OnlyThoseOfTheDeviceAreAwaited) {
  DeviceTakers takers;
  const Taking elsewhere(takers.Of(1));
  takers.Await(0);
  EXPECT_EQ(takers.Of(0).waits(), 1u);
  EXPECT_EQ(takers.Of(1).waits(), 0u);
  std::optional<Taking> beyond;
  beyond.emplace(takers.Of(1000));
  EXPECT_TRUE(test::Sleeps([&] { takers.Await(2000); }, [&] { beyond.reset(); }));
  takers.Await(kAllDevices);
  EXPECT_EQ(takers.Of(1).waits(), 1u);
}

TEST_F(TakersTest, WhoDoesNothingIsNotAwaitedForEver) {
  const Taking taking(takers_);
  std::thread([&] { Await(); }).join();
}

}  // namespace
}  // namespace cmp
