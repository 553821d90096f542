// The order that a free promised: debts, and who pays them.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "waiting_thread.h"
#include "work_fixture.h"

namespace cmp {
namespace {

TEST_F(WorkTest, AFenceForReuseLetsNobodyWait) {
  Synchronize();
  Submit(kA);
  // What is dry records a fence, over work that no free was to order.
  EXPECT_EQ(pool_.pool->readiness().Record(context()).status, kSuccess);
  EXPECT_FALSE(AnyDebt());
  Submit(kB);
  EXPECT_EQ(driver_.orders, 0u);
  // The next free owes order for all of it, and does not take that fence for its own.
  Free();
  EXPECT_EQ(driver_.records, 2u);
  EXPECT_TRUE(AnyDebt());
  Submit(kC);
  EXPECT_EQ(driver_.orders, 1u);
}

TEST_F(WorkTest, AnotherStreamIsOrderedOnceAndTheSameOneNever) {
  Synchronize();
  Submit(kA);
  Free();
  EXPECT_TRUE(AnyDebt());
  for (int i = 0; i < 3; ++i) Submit(kA);
  EXPECT_EQ(driver_.orders, 0u) << "a stream is in order by itself";
  for (int i = 0; i < 3; ++i) Submit(kB);
  EXPECT_EQ(driver_.orders, 1u);
  EXPECT_FALSE(AnyDebt());
  Submit(kA);
  EXPECT_EQ(driver_.orders, 1u);
}

TEST_F(WorkTest, OrderComesBeforeTheSubmission) {
  Synchronize();
  Submit(kA);
  Free();
  {
    const Submission submission(kB);
    EXPECT_EQ(driver_.orders, 1u) << "it is too late after the real call";
  }
}

TEST_F(WorkTest, AfterSeveralStreamsEveryStreamIsOrdered) {
  Synchronize();
  Submit(kA);
  Submit(kB);
  Free();
  Submit(kA);
  EXPECT_EQ(driver_.orders, 1u);
}

TEST_F(WorkTest, WorkThatMayOvertakeItsOwnStreamIsOrdered) {
  Synchronize();
  Submit(kA);
  Free();
  Submit(kA);
  Submit(kA, true);
  EXPECT_EQ(driver_.orders, 1u);
}

TEST_F(WorkTest, DebtsOfSeveralFreesArePaidTogether) {
  Synchronize();
  Submit(kA);
  Free();
  Submit(kA);
  Free();
  Submit(kB);
  EXPECT_EQ(driver_.orders, 1u);
  Free();
  Submit(kC);
  EXPECT_EQ(driver_.orders, 2u);
}

TEST_F(WorkTest, WhatIsDoneNeedsNoOrder) {
  Synchronize();
  Submit(kA);
  Free();
  driver_.Finish();
  Submit(kB);
  EXPECT_EQ(driver_.orders, 0u);
  EXPECT_FALSE(AnyDebt());
}

// What had to wait will have to again: the question would cost as much as the order.
TEST_F(WorkTest, AfterADebtThatHadToBeKeptTheNextAreNotAskedAbout) {
  Synchronize();
  const auto pay = [&] {
    Submit(kA);
    Free();
    Submit(kB);
  };
  for (int i = 0; i < 16; ++i) pay();
  EXPECT_EQ(driver_.queries, 1u);
  EXPECT_EQ(driver_.orders, 16u);
  pay();
  EXPECT_EQ(driver_.queries, 2u) << "but now and then";
  for (int i = 0; i < 15; ++i) pay();
  EXPECT_EQ(driver_.queries, 2u);
  driver_.on_query = [&] { driver_.Finish(); };
  for (int i = 0; i < 4; ++i) pay();
  EXPECT_EQ(driver_.queries, 6u) << "as long as the answer is that nothing need wait";
  EXPECT_EQ(driver_.orders, 32u);
}

TEST_F(WorkTest, WhereTheDeviceCannotBeOrderedTheHostWaits) {
  Synchronize();
  Submit(kA);
  Free();
  driver_.order_status = CUDA_ERROR_NOT_SUPPORTED;
  Submit(kB);
  EXPECT_EQ(driver_.waits, 1u);
  EXPECT_FALSE(AnyDebt());
}

TEST_F(WorkTest, AFailedRecordLeavesTheOlderDebt) {
  Synchronize();
  Submit(kA);
  Free();
  Submit(kA);
  driver_.record_status = CUDA_ERROR_NOT_PERMITTED;
  EXPECT_FALSE(Free().pooled());
  driver_.record_status = CUDA_SUCCESS;
  EXPECT_TRUE(AnyDebt());
  Submit(kB);
  EXPECT_EQ(driver_.orders, 1u);
  EXPECT_FALSE(AnyDebt());
}

TEST_F(WorkTest, AContextThatEndedOwesNothing) {
  Submit(kA);
  Free();
  ASSERT_TRUE(AnyDebt());
  pool_.pool->DropContext(context());
  EXPECT_FALSE(AnyDebt());
  Submit(kB);
  EXPECT_EQ(driver_.orders, 0u);
}

TEST_F(WorkTest, WhoSubmitsWhileAnotherThreadPaysSleeps) {
  Synchronize();
  Submit(kA);
  Free();
  std::atomic<bool> paying{false};
  std::atomic<bool> leave{false};
  driver_.on_order = [&] {
    paying = true;
    while (!leave) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  std::thread payer([] { Submit(kB); });
  while (!paying) std::this_thread::yield();
  EXPECT_TRUE(test::Sleeps([] { Submit(kC); },
                           [&] {
                             leave = true;
                             payer.join();
                           }));
  EXPECT_EQ(driver_.orders, 1u);
}

}  // namespace
}  // namespace cmp
