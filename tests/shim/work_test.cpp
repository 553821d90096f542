// What was submitted, what is owed, and what a free comes to: shim/work.h and shim/free_sync.h.
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "core/pool_instance.h"
#include "fake_driver.h"
#include "pool_fixture.h"
#include "shim/captures.h"
#include "shim/free_sync.h"
#include "shim/host_wait.h"
#include "shim/owed.h"
#include "shim/pool_host.h"
#include "waiting_thread.h"

namespace cmp {

// Of lookup.cpp, which is left out here: there is no other preload.
bool FreesAreUnseen() { return true; }

namespace {

using test::FakeDriver;
using test::OnAnotherThread;
using test::TestPool;

constexpr StreamName kA = 0xa000;
constexpr StreamName kB = 0xb000;
constexpr StreamName kC = 0xc000;

Options WithFreeSync(FreeSync free_sync) {
  Options options;
  options.free_sync = free_sync;
  return options;
}

class WorkTest : public testing::TestWithParam<FreeSync> {
 protected:
  explicit WorkTest(FreeSync free_sync = FreeSync::kOrder)
      : pool_(WithFreeSync(free_sync), test::FakeDevice::kPlenty, kShimHost) {
    g_driver = &driver_.table();
    g_pool = pool_.pool;
    FakeDriver::SetCurrent(pool_.identity.handle);
  }
  ~WorkTest() override {
    pool_.pool->ForEachContext([&](ContextPool& context) { pool_.pool->DropContext(context); });
    ForgetOwed();  // contexts of a process stay, those of a test do not
    EXPECT_FALSE(AnyDebt()) << "what ended contexts owed is counted still";
    EXPECT_EQ(driver_.errors, 0u) << "an event was misused";
    EXPECT_FALSE(g_captures.UnderWay());
    g_pool = nullptr;
    g_driver = nullptr;
  }

  ContextPool& context() { return *pool_.context; }
  Fences& fences() { return context().fences(); }
  static ContextWork& WorkOf(ContextPool& context) {
    return *static_cast<ContextWork*>(context.of_host);
  }
  ContextWork& work() { return WorkOf(context()); }
  static void Submit(StreamName stream, bool overtakes = false) {
    const Submission submission(stream, overtakes);
  }
  Settlement Free() { return FreeIn(context()); }
  // Of a block that no test looks at.
  Settlement FreeIn(ContextPool& in) {
    Block block;
    block.owner_context = &in;
    return SettleFree(*pool_.pool, driver_.table(), &block);
  }
  // A wait of the program's; `meanwhile` happens while it is on its way.
  template <typename Meanwhile>
  void Synchronize(StreamName stream, Meanwhile meanwhile) {
    HostWait wait(stream);
    meanwhile();
    driver_.Finish();
    wait.Done(CUDA_SUCCESS);
  }
  void Synchronize(StreamName stream = kSeveralStreams) {
    Synchronize(stream, [] {});
  }
  bool NothingIsUnfinished() { return Free().stamp == kReady; }

  FakeDriver driver_;
  TestPool pool_;
};

class NoneTest : public WorkTest {
 protected:
  NoneTest() : WorkTest(FreeSync::kNone) {}
};
class AutoTest : public WorkTest {
 protected:
  AutoTest() : WorkTest(FreeSync::kAuto) {
    work().Begin(true);  // the pool was not there yet when its context was
    g_tracks_visible = true;
    EXPECT_EQ(Free().stamp, kReady) << "what came before the pool may be visible";
    EXPECT_EQ(process().wait_unknown.Get(), 1u);
    waits_ = driver_.waits;
  }
  static void SubmitVisible(StreamName stream, Visible visible) {
    const Submission submission(stream, false, visible);
  }
  ProcessCounters& process() { return pool_.pool->statistics().process(); }
  size_t Waits() const { return driver_.waits - waits_; }

  size_t waits_ = 0;
};
class WaitTest : public WorkTest {
 protected:
  WaitTest() : WorkTest(FreeSync::kWait) {}
};

// ---- What a free comes to

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

TEST_F(WorkTest, WhereARecordFailsTheFreeIsReal) {
  Submit(kA);
  driver_.record_status = CUDA_ERROR_NOT_PERMITTED;
  EXPECT_FALSE(Free().pooled());
  EXPECT_TRUE(context().open());
  EXPECT_TRUE(fences().work_since());
}

TEST_F(WorkTest, WhileACaptureIsUnderWayAFreeIsReal) {
  Submit(kA);
  g_captures.BeforeBegin();
  EXPECT_FALSE(Free().pooled());
  EXPECT_EQ(driver_.records, 0u);
  g_captures.AfterBegin(nullptr, nullptr, false);
  EXPECT_TRUE(Free().pooled());
}

TEST_F(WorkTest, AFreeInAClosedContextIsReal) {
  context().Close(ContextPool::Why::kBroken);
  EXPECT_FALSE(Free().pooled());
}

// ---- Order

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

TEST_F(WorkTest, WhereTheDeviceCannotBeOrderedTheHostWaits) {
  Synchronize();
  Submit(kA);
  Free();
  driver_.order_status = CUDA_ERROR_NOT_SUPPORTED;
  Submit(kB);
  EXPECT_EQ(driver_.waits, 1u);
  EXPECT_FALSE(AnyDebt());
}

TEST_F(WorkTest, ADestroyedStreamsHandleIsAnotherStream) {
  Synchronize();
  Submit(kA);
  Free();
  StreamEnds(reinterpret_cast<CUstream>(kA));
  Submit(kA);
  EXPECT_EQ(driver_.orders, 1u);
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

// Found by reading: the older debt's stream was destroyed while the record was on its way.
TEST_F(WorkTest, AfterAFailedRecordAStreamThatEndedMeanwhileIsOrdered) {
  Synchronize();
  Submit(kA);
  Free();
  driver_.on_record = [&] { StreamEnds(reinterpret_cast<CUstream>(kA)); };
  driver_.record_status = CUDA_ERROR_NOT_PERMITTED;
  Submit(kA);
  EXPECT_FALSE(Free().pooled());
  driver_.on_record = [] {};
  driver_.record_status = CUDA_SUCCESS;
  Submit(kA);
  EXPECT_EQ(driver_.orders, 1u);
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

TEST_F(WorkTest, ACaptureBeginsOnlyOnceDebtsArePaid) {
  Synchronize();
  Submit(kA);
  Free();
  g_captures.BeforeBegin();
  EXPECT_EQ(driver_.orders, 1u);
  EXPECT_FALSE(AnyDebt());
  Submit(kB);
  EXPECT_EQ(driver_.orders, 1u) << "during a capture";
  g_captures.AfterBegin(nullptr, nullptr, false);
}

TEST_F(WorkTest, WhoBeginsACaptureSleepsUntilNobodyRecords) {
  ASSERT_TRUE(g_captures.EnterRecording());
  EXPECT_TRUE(test::Sleeps([] { g_captures.BeforeBegin(); }, [] { g_captures.LeaveRecording(); }));
  g_captures.AfterBegin(nullptr, nullptr, false);
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

// Found by reading: once the process exits nobody pays, and a capture waited for it for ever.
TEST_F(WorkTest, ACaptureThatBeginsWhileTheProcessExitsDoesNotWait) {
  Submit(kA);
  Free();
  ASSERT_TRUE(AnyDebt());
  g_exiting = true;
  g_pool = nullptr;
  std::atomic<bool> begun{false};
  std::thread beginner([&] {
    g_captures.BeforeBegin();
    begun = true;
  });
  for (int i = 0; i < 60000 && !begun; ++i) {  // a busy machine may need some of it
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(begun) << "it waits for ever";
  if (!begun) work().End();  // lets it go
  beginner.join();
  g_captures.AfterBegin(nullptr, nullptr, false);
  g_exiting = false;
}

// A free now and then asks the streams whose captures are under way.
TEST_F(WorkTest, ACaptureThatEndedUnseenIsFoundOut) {
  g_captures.BeforeBegin();
  g_captures.AfterBegin(reinterpret_cast<CUstream>(kA), pool_.identity.handle, true);
  driver_.stream_captures = true;
  for (int i = 0; i < 64; ++i) EXPECT_FALSE(Free().pooled());
  EXPECT_EQ(driver_.capture_questions, 1u);
  EXPECT_TRUE(g_captures.UnderWay());
  driver_.stream_captures = false;
  for (int i = 0; i < 64; ++i) Free();
  EXPECT_FALSE(g_captures.UnderWay());
}

// Found by reading: a stream that was being destroyed by another thread was asked.
TEST_F(WorkTest, AStreamThatIsBeingDestroyedIsNotAsked) {
  g_captures.BeforeBegin();
  g_captures.AfterBegin(reinterpret_cast<CUstream>(kA), pool_.identity.handle, true);
  {
    const Captures::Ending ending(g_captures);
    for (int i = 0; i < 200; ++i) EXPECT_FALSE(Free().pooled());
    EXPECT_EQ(driver_.capture_questions, 0u);
    g_captures.Ended(reinterpret_cast<CUstream>(kA));
  }
  EXPECT_TRUE(Free().pooled());
}

// ---- Waits of the program's

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

// The same, where another stream is destroyed.
TEST_F(WorkTest, WorkAfterAnotherStreamEndedDuringAWaitIsUnfinished) {
  Synchronize();
  Submit(kA);
  Synchronize(kSeveralStreams, [] {
    StreamEnds(reinterpret_cast<CUstream>(kB));
    Submit(kA);
  });
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

// ---- Several contexts

TEST_F(WorkTest, WithSeveralContextsWorkIsThatOfTheStreamsContext) {
  ContextPool& other = *pool_.OpenAnother();
  std::map<CUstream, ContextHandle> contexts = {
      {reinterpret_cast<CUstream>(kA), pool_.identity.handle},
      {reinterpret_cast<CUstream>(kB), other.identity().handle}};
  driver_.on_stream_context = [&](CUstream stream, CUcontext* context) {
    *context = static_cast<CUcontext>(contexts.at(stream));
    return CUDA_SUCCESS;
  };
  EXPECT_TRUE(FindOwner(kA).Is(&work()));
  EXPECT_TRUE(FindOwner(kB).Is(&WorkOf(other)));
  EXPECT_TRUE(FindOwner(kLegacyStream).Is(&work())) << "of the current context";
  FakeDriver::SetCurrent(other.identity().handle);
  EXPECT_TRUE(FindOwner(kLegacyStream).Is(&WorkOf(other)));
  EXPECT_TRUE(FindOwner(ThreadStream()).Is(&WorkOf(other)));
  // The handle means another stream once this one is destroyed.
  StreamEnds(reinterpret_cast<CUstream>(kA));
  contexts[reinterpret_cast<CUstream>(kA)] = other.identity().handle;
  EXPECT_TRUE(FindOwner(kA).Is(&WorkOf(other)));
}

// Found by reading: a thread that looked while a context was being opened never looked again.
TEST_F(WorkTest, AStreamWhoseContextHasNoPoolYetIsLookedUpAgain) {
  ContextPool& other = *pool_.OpenAnother();
  ContextHandle later = test::FreshHandle();
  driver_.on_stream_context = [&](CUstream, CUcontext* context) {
    *context = static_cast<CUcontext>(later);
    return CUDA_SUCCESS;
  };
  EXPECT_TRUE(FindOwner(kA).IsOneOfSeveral());
  later = other.identity().handle;  // it has one, and nothing tells the thread
  EXPECT_TRUE(FindOwner(kA).Is(&WorkOf(other)));
}

// Two contexts: kA is a stream of the first, all others of the second.
class TwoContexts : public WorkTest {
 protected:
  TwoContexts() {
    driver_.on_stream_context = [&](CUstream stream, CUcontext* context) {
      const bool first = stream == reinterpret_cast<CUstream>(kA);
      *context = static_cast<CUcontext>(first ? pool_.identity.handle : other_.identity().handle);
      return CUDA_SUCCESS;
    };
    Synchronize();
  }
  // What came before is covered by fences.
  void BothAreQuiet() {
    FreeIn(context());
    FreeIn(other_);
    driver_.Finish();
    ForgetOwed();
    ASSERT_FALSE(fences().work_since() || other_.fences().work_since());
  }
  ContextPool& other_ = *pool_.OpenAnother();
};

// The host waits, as in the real free: a wait on the device could be one for what another thread
// has yet to submit to the second context.
TEST_F(TwoContexts, WhatAThreadFreedInOneContextComesBeforeWhatItSubmitsToAnother) {
  Submit(kA);
  Submit(kB);
  EXPECT_TRUE(Free().pooled());
  EXPECT_EQ(driver_.waits, 0u);
  OnAnotherThread([] { Submit(kB); });
  Submit(kA);
  EXPECT_EQ(driver_.waits, 0u) << "neither another thread nor the same context is held up";
  Submit(kB);
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kB);
  Submit(kC);
  EXPECT_EQ(driver_.waits, 1u) << "once";
  EXPECT_EQ(driver_.orders, 0u);
}

TEST_F(TwoContexts, WhatAThreadFreedIsOverWhenItHasEnded) {
  Submit(kA);
  OnAnotherThread([this] { EXPECT_TRUE(Free().pooled()); });
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kB);
  EXPECT_EQ(driver_.waits, 1u);
}

TEST_F(TwoContexts, ACopyIsNotedInBoth) {
  BothAreQuiet();
  {
    const SubmissionElsewhere copy(kA, Visible::kNothing, [] { return kAnyDevice; });
    const Submission submission(kA);
  }
  EXPECT_TRUE(fences().work_since());
  EXPECT_TRUE(other_.fences().work_since());
  EXPECT_NE(FreeIn(other_).stamp, kReady);
}

TEST_F(TwoContexts, ACopyWithinADeviceIsNoAffairOfAnothers) {
  BothAreQuiet();
  {
    const SubmissionElsewhere copy(kA, Visible::kCopies, [] { return DeviceBit(5); });
    const Submission submission(kA, false, Visible::kCopies);
  }
  EXPECT_TRUE(fences().work_since());
  EXPECT_FALSE(other_.fences().work_since());
}

TEST_F(TwoContexts, AKernelIsNotedInItsOwn) {
  BothAreQuiet();
  Submit(kA);
  EXPECT_TRUE(fences().work_since());
  EXPECT_FALSE(other_.fences().work_since());
}

TEST_F(TwoContexts, FreesInBothAreWaitedForInTurn) {
  Submit(kA);
  Submit(kB);
  EXPECT_TRUE(FreeIn(context()).pooled());
  EXPECT_TRUE(FreeIn(other_).pooled());
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kB);
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kA);
  EXPECT_EQ(driver_.waits, 2u);
}

TEST_F(TwoContexts, NothingIsOwedOnceTheWorkIsDone) {
  Submit(kA);
  EXPECT_TRUE(Free().pooled());
  Synchronize(kA);
  Submit(kB);
  EXPECT_EQ(driver_.waits, 0u);
}

TEST_F(TwoContexts, WithOneContextLeftEveryStreamIsIts) {
  Submit(kA);
  EXPECT_TRUE(Free().pooled());
  pool_.pool->DropContext(other_);
  Submit(kC);
  EXPECT_EQ(driver_.orders, 1u);
  EXPECT_EQ(driver_.waits, 0u);
}

// ---- Threads

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
