// What a free comes to in each mode: shim/work/free_sync.h.
#include <gtest/gtest.h>

#include <string>

#include "work_fixture.h"

namespace cmp {
namespace {

TEST_F(AutoTest, AFreeSkipsTheWaitForWhatTheHostCannotSee) {
  Submit(kA);
  const Settlement settled = Free();
  EXPECT_TRUE(settled.pooled());
  EXPECT_NE(settled.stamp, kReady);
  EXPECT_EQ(Waits(), 0u);
  EXPECT_EQ(process().skipped_waits.Get(), 1u);
  EXPECT_EQ(fences().skipped(), fences().started());
}

TEST_F(AutoTest, AFreeWaitsForVisibleWorkOnceAndUntilItsFenceOnly) {
  SubmitVisible(kA, Visible::kHostFunctions);
  pool_.pool->readiness().Record(context());  // somebody ran dry
  Submit(kA);
  EXPECT_NE(Free().stamp, kReady) << "what came after it is not waited for";
  EXPECT_EQ(Waits(), 1u);
  EXPECT_EQ(process().wait_host_functions.Get(), 1u);
  Submit(kA);
  EXPECT_TRUE(Free().pooled());
  EXPECT_EQ(Waits(), 1u);
  EXPECT_EQ(process().skipped_waits.Get(), 2u);
}

TEST_F(WaitTest, AFreeWaitsForWhatIsUnfinishedAndOnlyOnce) {
  EXPECT_EQ(Free().stamp, kReady);
  EXPECT_EQ(driver_.waits, 1u) << "what came before the pool is not known";
  EXPECT_TRUE(Free().pooled());
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kA);
  EXPECT_EQ(Free().stamp, kReady);
  EXPECT_EQ(driver_.waits, 2u);
}

TEST_F(WaitTest, AFreeWaitsForItsOwnContextAndOthersOnlyDelayReuse) {
  ContextPool& other = *pool_.OpenAnother();
  const Stamp stamp = Free().stamp;
  EXPECT_EQ(driver_.waits, 1u);
  EXPECT_NE(stamp, kReady);
  EXPECT_FALSE(pool_.pool->readiness().HasPassed(context(), stamp));
  EXPECT_TRUE(FreeIn(other).pooled());
  EXPECT_EQ(driver_.waits, 2u);
  EXPECT_EQ(Free().stamp, kReady);
}

TEST_F(WaitTest, AfterASynchronisationOfTheProgramsAFreeWaitsForNothing) {
  Submit(kA);
  Submit(kB);
  Synchronize();
  EXPECT_EQ(Free().stamp, kReady);
  EXPECT_EQ(driver_.waits + driver_.records, 0u);
}

TEST_F(NoneTest, AFreeRecordsNothingAndItsBlockIsRetired) {
  Submit(kA);
  const Settlement settled = Free();
  EXPECT_TRUE(settled.pooled());
  EXPECT_NE(settled.stamp, kReady);
  EXPECT_EQ(driver_.records + driver_.waits, 0u);
  EXPECT_FALSE(AnyDebt());
}

TEST_F(WorkTest, AFreeRecordsAtOnceAndFreesWithNothingInBetweenShareTheFence) {
  Submit(kA);
  const Settlement first = Free();
  EXPECT_TRUE(first.pooled());
  EXPECT_EQ(driver_.records, 1u);
  EXPECT_EQ(Free().stamp, first.stamp);
  EXPECT_EQ(driver_.records, 1u);
  Submit(kA);
  EXPECT_GT(Free().stamp, first.stamp);
  EXPECT_EQ(driver_.records, 2u);
  EXPECT_EQ(driver_.waits, 0u);
}

// A free that is asked for without a wait owes the host nothing, in any mode.
class AnyModeTest : public WorkTest, public testing::WithParamInterface<FreeSync> {
 protected:
  AnyModeTest() : WorkTest(GetParam()) { Synchronize(); }
};
std::string NameOf(const testing::TestParamInfo<FreeSync>& mode) {
  const char* const names[] = {"wait", "auto", "order", "none"};
  return names[static_cast<size_t>(mode.param)];
}
INSTANTIATE_TEST_SUITE_P(Modes, AnyModeTest,
                         testing::Values(FreeSync::kWait, FreeSync::kAuto, FreeSync::kOrder,
                                         FreeSync::kNone),
                         NameOf);

TEST_P(AnyModeTest, ForAFreeWithoutAWaitTheBlockWaitsAndNotTheHost) {
  const auto settle = [this] { return SettleWithoutWait(*pool_.pool, driver_.table(), context()); };
  EXPECT_EQ(settle().stamp, kReady) << "nothing is unfinished";
  const Submission visible(kA, false, Visible::kHostFunctions);
  const size_t waits = driver_.waits;
  const Settlement settled = settle();
  EXPECT_TRUE(settled.pooled());
  EXPECT_NE(settled.stamp, kReady);
  EXPECT_FALSE(pool_.pool->readiness().HasPassed(context(), settled.stamp));
  EXPECT_EQ(driver_.waits, waits);
  EXPECT_EQ(driver_.records, GetParam() == FreeSync::kNone ? 0u : 1u);
}

// Found by review: under `wait`, where fences owe nothing, the free joined one that another
// context's blocks had needed. A release then took the work for done.
TEST_P(AnyModeTest, AFenceForReuseDoesNotStandForTheOneOfAFreeWithoutAWait) {
  Submit(kA);
  pool_.pool->readiness().Record(context());
  EXPECT_NE(SettleWithoutWait(*pool_.pool, driver_.table(), context()).stamp, kReady);
  EXPECT_FALSE(pool_.pool->readiness().IsOwnWorkDone(context(), Fences::Step()));
}

TEST_P(AnyModeTest, AFreeWithoutAWaitOwesNoOrderAndOneThatWaitsStillDoes) {
  const bool keeps_order = GetParam() == FreeSync::kOrder || GetParam() == FreeSync::kAuto;
  const auto settle = [this] { return SettleWithoutWait(*pool_.pool, driver_.table(), context()); };
  Submit(kA);
  const Settlement first = settle();
  EXPECT_EQ(settle().stamp, first.stamp) << "nothing was submitted in between";
  EXPECT_EQ(driver_.records, GetParam() == FreeSync::kNone ? 0u : 1u);
  EXPECT_FALSE(AnyDebt());
  Submit(kB);
  EXPECT_EQ(driver_.orders, 0u) << "what follows is the caller's to order";
  EXPECT_GE(settle().stamp, first.stamp);
  EXPECT_FALSE(AnyDebt());
  Free();
  EXPECT_EQ(AnyDebt(), keeps_order);
}

// The order of an earlier free is kept, and one without a wait may share its fence.
TEST_F(WorkTest, AFreeWithoutAWaitJoinsTheFenceOfOneThatOwesOrder) {
  Submit(kA);
  const Settlement usual = Free();
  EXPECT_EQ(SettleWithoutWait(*pool_.pool, driver_.table(), context()).stamp, usual.stamp);
  EXPECT_EQ(driver_.records, 1u);
  EXPECT_TRUE(AnyDebt());
  Submit(kB);
  EXPECT_EQ(driver_.orders, 1u);
}

TEST_F(WorkTest, WhereARecordFailsTheFreeIsReal) {
  Submit(kA);
  driver_.record_status = CUDA_ERROR_NOT_PERMITTED;
  EXPECT_FALSE(Free().pooled());
  EXPECT_TRUE(context().open());
  EXPECT_TRUE(fences().work_since());
}

TEST_F(WorkTest, AFreeInAClosedContextIsReal) {
  context().Close(ContextPool::Why::kBroken);
  EXPECT_FALSE(Free().pooled());
}

}  // namespace
}  // namespace cmp
