// What synchronisations and events finish of the work that the host could see.
#include <gtest/gtest.h>

#include "work_fixture.h"

namespace cmp {
namespace {

TEST_F(AutoTest, WhatASynchronisationFinishedIsNotWaitedFor) {
  SubmitVisible(kA, Visible::kCopies);
  Submit(kB);
  Synchronize(kA);
  Submit(kB);
  EXPECT_TRUE(Free().pooled());
  EXPECT_EQ(Waits(), 0u);
}

TEST_F(AutoTest, ASynchronisationThatBeganBeforeFinishesNothing) {
  Submit(kB);
  Submit(kA);
  Synchronize(kA, [] { SubmitVisible(kA, Visible::kCopies); });
  EXPECT_TRUE(Free().pooled());
  EXPECT_EQ(process().wait_copies.Get(), 1u);
}

TEST_F(AutoTest, AnEventFinishesWhatCameBeforeItsRecord) {
  SubmitVisible(kA, Visible::kCopies);
  const RecordedPoint before = work().PointOf(kA);
  SubmitVisible(kA, Visible::kCopies);
  const RecordedPoint after = work().PointOf(kA);
  work().Reached(before);
  EXPECT_TRUE(work().MayHaveVisible());
  work().Reached(after);
  EXPECT_FALSE(work().MayHaveVisible());
}

// The pool's record, and this one with it, is another context's by then.
TEST_F(AutoTest, WhatWasFoundOutOfAnEarlierContextFinishesNothing) {
  for (int i = 0; i < 5; ++i) SubmitVisible(kA, Visible::kCopies);
  const RecordedPoint point = work().PointOf(kA);
  ContextPool* next = nullptr;
  Synchronize(kSeveralStreams, [&] {
    pool_.pool->DropContext(context());
    driver_.DestroyEvents();
    next = pool_.OpenAnother();
    ASSERT_EQ(next, &context());
    FakeDriver::SetCurrent(next->handle());
    work().Begin(true);
    SubmitVisible(kA, Visible::kCopies);
  });
  point.work->Reached(point);
  EXPECT_TRUE(work().MayHaveVisible());
  EXPECT_NE(pool_.pool->readiness().StampNow(*next), kReady);
  EXPECT_TRUE(Free().pooled());
  EXPECT_EQ(Waits(), 1u) << "for the copies";
}

}  // namespace
}  // namespace cmp
