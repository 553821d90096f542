#include "core/takers.h"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>

#include "waiting_thread.h"

namespace cmp {
namespace {

using Taking = Takers::Taking;

class TakersTest : public testing::Test {
 protected:
  void Await() { takers_.Await(progress_); }

  Takers takers_;
  std::atomic<uint64_t> progress_{0};
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

TEST_F(TakersTest, WhoDoesNothingIsNotAwaitedForEver) {
  const Taking taking(takers_);
  std::thread([&] { Await(); }).join();
}

}  // namespace
}  // namespace cmp
