// Who waits for what frees skipped: shim/work/owed.h.
#include "shim/work/owed.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "waiting_thread.h"
#include "work_fixture.h"

namespace cmp {
namespace {

TEST_F(AutoTest, WhatIsSkippedIsPaidOnce) {
  Submit(kA);
  EXPECT_NE(Free().stamp, kReady);
  EXPECT_TRUE(PaySkipped(&ProcessCounters::paid_by_queries));
  EXPECT_EQ(Waits(), 1u);
  EXPECT_FALSE(PaySkipped(&ProcessCounters::paid_by_queries));
  EXPECT_EQ(process().paid_by_queries.Get(), 1u);
  EXPECT_GT(process().skipped_wait_max_ns.Get() + process().paid_ns.Get(), 0u);
}

// It may wait itself for what this thread does next.
TEST_F(AutoTest, WhatAnotherThreadSkippedIsWaitedForForAWhile) {
  Submit(kA);
  std::atomic<bool> freed{false};
  std::atomic<bool> ends{false};
  std::thread other([&] {
    EXPECT_TRUE(Free().pooled());
    freed = true;
    while (!ends) std::this_thread::yield();
  });
  while (!freed) std::this_thread::yield();
  EXPECT_TRUE(PaySkipped(&ProcessCounters::paid_by_queries));
  EXPECT_EQ(Waits(), 0u) << "it is asked, which comes to an end";
  EXPECT_LT(fences().passed(), fences().skipped());
  EXPECT_FALSE(PaySkipped(&ProcessCounters::paid_by_queries)) << "once";
  EXPECT_TRUE(PaySkipped(&ProcessCounters::paid_by_destruction,
                         [] { return CurrentContext(*g_driver.load()); }));
  EXPECT_EQ(Waits(), 1u) << "in full, if what is destroyed may be of this context";
  ends = true;
  other.join();
}

TEST_F(AutoTest, AQuestionLooksOnceAtWhatAnotherThreadSkipped) {
  Submit(kA);
  OnAnotherThread([&] {
    EXPECT_TRUE(Free().pooled());
    t_owed = {};  // as if it went on
  });
  EXPECT_TRUE(PayBeforeAnswer());
  EXPECT_LT(fences().passed(), fences().skipped()) << "it was waited for as long as that is done";
  EXPECT_EQ(process().paid_by_queries.Get(), 1u);
  EXPECT_TRUE(work().watch().Stands(ThisWatcher()));
  EXPECT_FALSE(PayBeforeAnswer());
  work().watch().Clear();  // as if it had not asked for long, while others freed
  EXPECT_FALSE(PayBeforeAnswer()) << "it has waited for this one";
  EXPECT_EQ(process().paid_by_queries.Get(), 1u);
}

// Nothing was submitted since, so the free shares the fence that the question has waited for in
// vain: what it skips itself is waited for all the same.
TEST_F(AutoTest, AFreeOfItsOwnIsPaidThoughItsFenceWasSettled) {
  Submit(kA);
  OnAnotherThread([&] {
    EXPECT_TRUE(Free().pooled());
    t_owed = {};  // as if it went on
  });
  EXPECT_TRUE(PayBeforeAnswer());
  EXPECT_LT(fences().passed(), fences().skipped());
  EXPECT_NE(Free().stamp, kReady);
  EXPECT_TRUE(PayBeforeAnswer());
  EXPECT_EQ(Waits(), 1u);
  EXPECT_EQ(fences().passed(), fences().skipped());
}

TEST_F(AutoTest, AFreeWaitsBesideAThreadThatAsks) {
  EXPECT_FALSE(PayBeforeAnswer()) << "nothing was skipped";
  Submit(kA);
  OnAnotherThread([&] {
    EXPECT_EQ(Free().stamp, kReady);
    EXPECT_EQ(Waits(), 1u);
    EXPECT_EQ(process().wait_watched.Get(), 1u);
  });
  EXPECT_FALSE(PayBeforeAnswer());
  Submit(kA);
  EXPECT_NE(Free().stamp, kReady) << "its own thread's does not";
  EXPECT_TRUE(PayBeforeAnswer());
  EXPECT_EQ(Waits(), 2u);
  EXPECT_EQ(process().paid_by_queries.Get(), 1u);
}

TEST_F(AutoTest, AnotherContextInTheSameRecordIsNotWatched) {
  EXPECT_FALSE(PayBeforeAnswer());
  EXPECT_TRUE(work().watch().Stands(ThisWatcher()));
  work().Begin(true);
  EXPECT_FALSE(work().watch().Stands(ThisWatcher()));
}

TEST_F(AutoTest, AThreadIsNotCancelledWhileItWaitsForWhatAnotherSkipped) {
  Submit(kA);
  OnAnotherThread([&] {
    EXPECT_TRUE(Free().pooled());
    t_owed = {};  // as if it went on
  });
  EXPECT_TRUE(test::ReturnsThoughCancelled([] { PaySkipped(&ProcessCounters::paid_by_queries); }));
  EXPECT_LT(fences().passed(), fences().skipped());
}

TEST_F(AutoTest, WhatAnotherThreadSkippedIsSeenToEnd) {
  Submit(kA);
  std::atomic<bool> ends{false};
  std::atomic<bool> freed{false};
  std::thread other([&] {
    EXPECT_TRUE(Free().pooled());
    freed = true;
    driver_.Finish();
    while (!ends) std::this_thread::yield();
  });
  while (!freed) std::this_thread::yield();
  PaySkipped(&ProcessCounters::paid_by_queries);
  EXPECT_GE(fences().passed(), fences().skipped());
  ends = true;
  other.join();
}

TEST_F(AutoTest, AThreadThatEndsHasWaited) {
  Submit(kA);
  OnAnotherThread([this] {
    EXPECT_TRUE(Free().pooled());
    EXPECT_EQ(Waits(), 0u);
  });
  EXPECT_EQ(Waits(), 1u);
  EXPECT_EQ(process().paid_by_thread_ends.Get(), 1u);
  EXPECT_FALSE(PaySkipped(&ProcessCounters::paid_by_queries));
}

TEST_F(WorkTest, AThreadThatEndsHasNothingToWaitForInOneContext) {
  Submit(kA);
  OnAnotherThread([this] { EXPECT_TRUE(Free().pooled()); });
  EXPECT_EQ(driver_.waits, 0u) << "the device keeps the order";
}

}  // namespace
}  // namespace cmp
