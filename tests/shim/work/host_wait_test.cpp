// What a wait of the program's finishes, and what not: shim/work/host_wait.h.
#include <gtest/gtest.h>

#include "work_fixture.h"

namespace cmp {
namespace {

TEST_F(WorkTest, AWaitForTheOnlyStreamIsForAll) {
  Synchronize();
  Submit(kA);
  Synchronize(kA);
  EXPECT_TRUE(NothingIsUnfinished());
  Submit(kA);
  Free();
  Submit(kA);
  Synchronize(kA);
  EXPECT_TRUE(NothingIsUnfinished());
  EXPECT_FALSE(AnyDebt()) << "what was waited for needs no order";
}

// So that a program which synchronises again and again pays for it once.
TEST_F(WorkTest, AWaitWhileNothingIsUnfinishedChangesNothing) {
  Synchronize();
  EXPECT_TRUE(work().IsIdle());
  HostWait idle(kA);
  EXPECT_EQ(idle.Done(CUDA_SUCCESS), CUDA_SUCCESS);
  EXPECT_FALSE(idle.finished());
  Submit(kA);
  EXPECT_FALSE(work().IsIdle());
  HostWait busy(kA);
  busy.Done(CUDA_SUCCESS);
  EXPECT_TRUE(busy.finished());
  EXPECT_TRUE(work().IsIdle());
  // Its fence has passed, so that its debt needs no call.
  Submit(kA);
  Free();
  EXPECT_FALSE(work().IsIdle());
  driver_.Finish();
  EXPECT_EQ(fences().Poll(driver_.table(), fences().published() - 1), kSuccess);
  EXPECT_TRUE(work().IsIdle());
  const unsigned queries = driver_.queries;
  Submit(kB);
  EXPECT_EQ(driver_.orders, 0u);
  EXPECT_EQ(driver_.queries, queries);
}

TEST_F(WorkTest, AWaitForOneOfSeveralStreamsIsNot) {
  Synchronize();
  Submit(kA);
  Submit(kB);
  Synchronize(kA);
  EXPECT_FALSE(NothingIsUnfinished());
}

TEST_F(WorkTest, AWaitForAStreamThatDidNothingIsNot) {
  Synchronize();
  Submit(kA);
  Synchronize(kB);
  EXPECT_FALSE(NothingIsUnfinished());
}

TEST_F(NoneTest, WithoutOrderAWaitForOneStreamSaysNothingOfOlderWorkOfOthers) {
  Synchronize();
  Submit(kA);
  pool_.pool->readiness().Record(context());
  Submit(kB);
  {
    HostWait wait(kB);
    wait.Done(CUDA_SUCCESS);  // the work of kA runs on
  }
  EXPECT_FALSE(NothingIsUnfinished());
  EXPECT_LT(fences().passed(), fences().published());
}

TEST_F(WorkTest, AFailedWaitFinishesNothing) {
  Synchronize();
  Submit(kA);
  HostWait wait(kSeveralStreams);
  wait.Done(CUDA_ERROR_NOT_PERMITTED);
  EXPECT_FALSE(NothingIsUnfinished());
}

TEST_F(WorkTest, WorkSubmittedDuringAWaitIsUnfinished) {
  Synchronize();
  Submit(kA);
  Synchronize(kSeveralStreams, [] { Submit(kA); });
  EXPECT_FALSE(NothingIsUnfinished());
}

TEST_F(WorkTest, WorkOnItsWayDuringAWaitIsUnfinished) {
  Synchronize();
  Submit(kA);
  {
    HostWait wait(kSeveralStreams);
    {
      const Submission submission(kA);
      wait.Done(CUDA_SUCCESS);
    }
  }
  EXPECT_FALSE(NothingIsUnfinished());
}

TEST_F(WorkTest, AWaitForAnotherContextSaysNothing) {
  ContextPool& other = *pool_.OpenAnother();
  Synchronize();
  FakeDriver::SetCurrent(other.identity().handle);
  Synchronize();
  FakeDriver::SetCurrent(pool_.identity.handle);
  EXPECT_TRUE(NothingIsUnfinished());
  Submit(kLegacyStream);
  FakeDriver::SetCurrent(other.identity().handle);
  Synchronize();
  EXPECT_FALSE(NothingIsUnfinished());
}

// Found by reading: the end of one wait made a stream quiet while another wait was on its way, so
// that work was not noted which that other wait did not cover.
TEST_F(WorkTest, WorkBetweenTwoWaitsIsUnfinished) {
  Synchronize();
  Submit(kA);
  HostWait first(kSeveralStreams);
  Submit(kA);
  HostWait second(kSeveralStreams);
  first.Done(CUDA_SUCCESS);
  Submit(kA);
  second.Done(CUDA_SUCCESS);
  EXPECT_FALSE(NothingIsUnfinished());
}

// The same, where a capture begins.
TEST_F(WorkTest, WorkAfterADebtWasPaidDuringAWaitIsUnfinished) {
  Synchronize();
  Submit(kA);
  Free();
  Submit(kA);
  Synchronize(kSeveralStreams, [] {
    SettleDebts();
    Submit(kA);
  });
  EXPECT_FALSE(NothingIsUnfinished());
}

// Found by reading: a submission counted as put behind the fence before its real call was made.
TEST_F(WorkTest, AWaitForAStreamWhoseWorkIsStillOnItsWaySaysNothingOfOthers) {
  Synchronize();
  Submit(kA);
  Free();
  const uint64_t fence = fences().published();
  {
    const Submission submission(kB);  // ordered after the fence, but not submitted yet
    Free();                           // by another thread
    HostWait wait(kB);                // returns at once
    wait.Done(CUDA_SUCCESS);
    EXPECT_LT(fences().passed(), fence) << "the work on the first stream runs on";
  }
}

// The same with work that is on its way, unordered, while a fence is recorded.
TEST_F(WorkTest, WorkThatWasOnItsWayDuringARecordIsNotBehindTheFence) {
  Synchronize();
  Submit(kA);
  Submit(kB);
  {
    const Submission submission(kB);  // nothing is owed
    Free();                           // by another thread; the real call comes after it
  }
  const uint64_t fence = fences().published();
  SettleDebts();  // a capture begins
  HostWait wait(kB);
  wait.Done(CUDA_SUCCESS);
  EXPECT_LT(fences().passed(), fence) << "the work on the first stream runs on";
}

}  // namespace
}  // namespace cmp
