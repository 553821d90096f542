#include "core/contexts/readiness.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "fake_driver.h"
#include "pool_fixture.h"
#include "waiting_thread.h"

namespace cmp {
namespace {

using test::FakeDriver;
using test::FakeHost;
using test::TestPool;

class ReadinessTest : public testing::Test {
 protected:
  ReadinessTest() { FakeHost::capturing = false; }
  ~ReadinessTest() override {
    EXPECT_EQ(driver_.errors, 0u) << "an event was misused";
    EXPECT_EQ(FakeHost::recording, 0) << "captures are kept from beginning for ever";
  }

  Readiness& readiness() { return pool_.pool->readiness(); }
  ContextPool& context() { return *pool_.context; }
  static void Submit(ContextPool& to) { to.fences().SetWorkSince(true); }
  // Everything submitted so far is done, and known to be.
  void Settle(ContextPool& of) {
    EXPECT_EQ(readiness().Finish(of), kSuccess);
    EXPECT_TRUE(of.fences().Idle());
  }

  FakeDriver driver_;
  TestPool pool_{Options{}, test::FakeDevice::kPlenty, FakeHost::table};
};

TEST_F(ReadinessTest, AFreeWithNothingUnfinishedIsReadyAtOnce) {
  EXPECT_NE(readiness().StampNow(context()), kReady) << "what came before the pool is not known";
  Settle(context());
  EXPECT_EQ(readiness().StampNow(context()), kReady);
  Submit(context());
  EXPECT_NE(readiness().StampNow(context()), kReady);
}

// Else the context would have a user for ever, and who resets it would wait as long.
TEST_F(ReadinessTest, AThreadIsNotCancelledWhileItWaits) {
  driver_.on_wait = driver_.on_synchronize = [] { pthread_testcancel(); };
  Submit(context());
  EXPECT_TRUE(test::ReturnsThoughCancelled([&] { readiness().Finish(context()); }));
  EXPECT_EQ(driver_.waits, 1u);
  driver_.HasNoContextEvents();
  Submit(context());
  EXPECT_TRUE(test::ReturnsThoughCancelled([&] { readiness().Finish(context()); }));
  EXPECT_EQ(driver_.synchronizes, 1u);
}

TEST_F(ReadinessTest, WithoutWorkSinceItTheNewestFenceCoversAFree) {
  Settle(context());
  Submit(context());
  const Fences::Recorded fence = readiness().Record(context());
  ASSERT_EQ(fence.status, kSuccess);
  const Stamp stamp = readiness().StampNow(context());
  EXPECT_EQ(stamp, fence.number - 1);
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  driver_.Finish();
  EXPECT_FALSE(readiness().HasPassed(context(), stamp)) << "nobody has asked";
  EXPECT_TRUE(readiness().Ask(context(), stamp));
  EXPECT_TRUE(readiness().HasPassed(context(), stamp));
  EXPECT_EQ(driver_.records, 2u) << "a record that nobody needed";
}

TEST_F(ReadinessTest, AskingRecordsTheFenceThatIsMissing) {
  Submit(context());
  const Stamp stamp = readiness().StampNow(context());
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  EXPECT_EQ(driver_.records, 1u);
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  EXPECT_EQ(driver_.records, 1u) << "one is recorded already";
  driver_.Finish();
  EXPECT_TRUE(readiness().Ask(context(), stamp));
  EXPECT_EQ(driver_.waits, 0u);
}

TEST_F(ReadinessTest, WaitingRecordsToo) {
  const Stamp stamp = readiness().StampNow(context());
  EXPECT_TRUE(readiness().Wait(context(), stamp));
  EXPECT_TRUE(readiness().HasPassed(context(), stamp));
  EXPECT_EQ(driver_.waits, 1u);
}

// Found by review: near the bound each miss asked about one after the other, 3 ms for 10,000.
TEST_F(ReadinessTest, FewQuestionsTellWhichOfManyFencesHavePassed) {
  constexpr size_t kFences = 4000;
  constexpr size_t kPassed[] = {0, 1, 1500, kFences};
  for (const size_t passed : kPassed) {
    Settle(context());
    std::vector<Block*> blocks(kFences);
    for (Block*& block : blocks) block = pool_.Alloc(256);
    for (Block* block : blocks) {
      Submit(context());
      const Fences::Recorded fence = readiness().Record(context());
      ASSERT_EQ(fence.status, kSuccess);
      ASSERT_TRUE(pool_.Free(block, readiness().StampFor(context(), fence.number)));
    }
    context().EmptyCaches();
    const size_t before = context().global().ready_bytes();
    driver_.Finish(passed);
    driver_.queries = driver_.records = 0;
    EXPECT_TRUE(readiness().PromotePassed(context()));
    EXPECT_LE(driver_.queries, passed <= 1 || passed == kFences ? 3u : 18u)
        << passed << " of " << kFences << " have passed";
    EXPECT_EQ(driver_.records, 0u);
    // Batches are promoted as a whole.
    const size_t ready = context().global().ready_bytes() - before;
    EXPECT_LE(ready, passed * 256);
    EXPECT_GT(ready + 128 * 256, passed * 256) << passed << " of " << kFences << " have passed";
  }
}

// ---- Several contexts

TEST_F(ReadinessTest, WhatOthersHaveNotPassedIsNotPromoted) {
  ContextPool& other = *pool_.OpenAnother();
  Settle(context());
  Settle(other);
  std::vector<Block*> blocks(600);
  for (Block*& block : blocks) block = pool_.Alloc(256);
  for (Block* block : blocks) {
    Submit(context());
    const Fences::Recorded own = readiness().Record(context());
    Submit(other);
    ASSERT_EQ(readiness().Record(other).status, kSuccess);
    ASSERT_TRUE(pool_.Free(block, readiness().StampFor(context(), own.number)));
  }
  context().EmptyCaches();
  const size_t before = context().global().ready_bytes();
  driver_.Finish(blocks.size());  // half of both
  driver_.queries = driver_.records = 0;
  EXPECT_TRUE(readiness().PromotePassed(context()));
  EXPECT_LE(driver_.queries, 40u);
  EXPECT_EQ(driver_.records, 0u);
  const size_t ready = context().global().ready_bytes() - before;
  EXPECT_LE(ready, blocks.size() / 2 * 256);
  EXPECT_GT(ready + 128 * 256, blocks.size() / 2 * 256);
}

TEST_F(ReadinessTest, WorkOfAnotherContextDelaysReuse) {
  ContextPool& other = *pool_.OpenAnother();
  Settle(context());
  Settle(other);
  EXPECT_EQ(readiness().StampNow(context()), kReady);
  Submit(other);
  const Stamp stamp = readiness().StampNow(context());
  ASSERT_NE(stamp, kReady);
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  EXPECT_EQ(driver_.records, 3u) << "a fence of the other one is needed";
  Submit(context());  // later work of either does not matter
  Submit(other);
  driver_.Finish();
  EXPECT_FALSE(readiness().HasPassed(context(), stamp));
  readiness().Ask(context(), stamp);  // its own fence is recorded now that it is not idle
  driver_.Finish();
  EXPECT_TRUE(readiness().Ask(context(), stamp));
}

TEST_F(ReadinessTest, WorkOfAnotherDeviceDelaysReuseOnceTheDevicesAreLinked) {
  // Links are the process's: no other test has this device, nor this one when it is repeated.
  static int last = 20;
  const int kOther = ++last;
  ContextPool& other = *pool_.OpenAnother(kOther);
  Settle(context());
  Settle(other);
  const unsigned before = driver_.records;
  Submit(other);
  EXPECT_EQ(readiness().StampNow(context()), kReady);
  Submit(context());
  const Stamp stamp = readiness().StampNow(context());
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  EXPECT_EQ(driver_.records, before + 1) << "a fence of the other one";
  driver_.Finish();
  EXPECT_TRUE(readiness().Ask(context(), stamp));
  g_device_links.Link(DeviceBit(0) | DeviceBit(kOther));
  EXPECT_FALSE(readiness().HasPassed(context(), stamp)) << "it may be used there from now on";
  EXPECT_NE(readiness().StampNow(context()), kReady);
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  driver_.Finish();
  EXPECT_TRUE(readiness().Ask(context(), stamp));
}

TEST(DeviceLinksTest, AreBetweenEachTwoOfTheDevices) {
  DeviceLinks links;
  EXPECT_TRUE(links.Linked(3, 3));
  EXPECT_FALSE(links.Linked(3, 4));
  links.Link(DeviceBit(3) | DeviceBit(4) | DeviceBit(60));
  for (const int one : {3, 4, 60}) {
    for (const int other : {3, 4, 60}) EXPECT_TRUE(links.Linked(one, other));
    EXPECT_FALSE(links.Linked(one, 5));
    EXPECT_FALSE(links.Linked(5, one));
  }
  EXPECT_TRUE(links.Linked(70, 5)) << "beyond what has a bit";
  EXPECT_TRUE(links.Linked(5, 70)) << "beyond what has a bit";
}

TEST_F(ReadinessTest, AnOlderFenceOfAnotherContextDoesNotCoverAFree) {
  ContextPool& other = *pool_.OpenAnother();
  Settle(context());
  Submit(other);
  const Fences::Recorded of_other = readiness().Record(other);
  Submit(other);  // may use the block
  Submit(context());
  const Fences::Recorded own = readiness().Record(context());
  const Stamp stamp = readiness().StampFor(context(), own.number);
  driver_.Finish();
  EXPECT_EQ(other.fences().Poll(driver_.table(), of_other.number - 1), kSuccess);
  EXPECT_EQ(context().fences().Poll(driver_.table(), own.number - 1), kSuccess);
  EXPECT_FALSE(readiness().HasPassed(context(), stamp));
}

TEST_F(ReadinessTest, AFenceThatIsNewerThanTheFreeCoversItInEveryContext) {
  ContextPool& other = *pool_.OpenAnother();
  Submit(context());
  Submit(other);
  const Stamp stamp = readiness().StampNow(context());
  Settle(other);
  EXPECT_FALSE(readiness().HasPassed(context(), stamp));
  Submit(other);  // later work
  Settle(context());
  EXPECT_TRUE(readiness().HasPassed(context(), stamp));
}

TEST_F(ReadinessTest, AContextOpenedAfterTheFreeDoesNotDelayIt) {
  Submit(context());
  const Stamp stamp = readiness().StampNow(context());
  ContextPool& later = *pool_.OpenAnother();
  Submit(later);
  Settle(context());
  EXPECT_TRUE(readiness().HasPassed(context(), stamp));
}

TEST_F(ReadinessTest, AContextThatEndedDelaysNothing) {
  ContextPool& other = *pool_.OpenAnother();
  Settle(context());
  Submit(other);
  const Stamp stamp = readiness().StampNow(context());
  ASSERT_FALSE(readiness().HasPassed(context(), stamp));
  pool_.pool->DropContext(other);
  EXPECT_TRUE(readiness().HasPassed(context(), stamp));
  EXPECT_EQ(readiness().StampNow(context()), kReady);
}

// Found by review: its work runs until the call that ends it has waited for it.
TEST_F(ReadinessTest, AContextThatIsBeingEndedStillDelaysReuse) {
  ContextPool& other = *pool_.OpenAnother();
  Settle(context());
  Submit(other);
  const Stamp before = readiness().StampNow(context());
  other.BeginEnding();
  EXPECT_FALSE(readiness().HasPassed(context(), before));
  const Stamp meanwhile = readiness().StampNow(context());
  EXPECT_NE(meanwhile, kReady);
  driver_.queries = driver_.records = 0;
  EXPECT_FALSE(readiness().Ask(context(), meanwhile));
  EXPECT_EQ(driver_.queries + driver_.records, 0u) << "a call about a context that is being ended";
  pool_.pool->DropContext(other);
  other.CancelEnding();
  EXPECT_TRUE(readiness().HasPassed(context(), before));
  EXPECT_TRUE(readiness().HasPassed(context(), meanwhile));
}

// Nor does one that the call did not end in the end.
TEST_F(ReadinessTest, AContextThatWasNotEndedDelaysReuseAsBefore) {
  ContextPool& other = *pool_.OpenAnother();
  Settle(context());
  Submit(other);
  const Stamp stamp = readiness().StampNow(context());
  other.BeginEnding();
  other.CancelEnding();
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  driver_.Finish();
  EXPECT_TRUE(readiness().Ask(context(), stamp));
}

// It serves no more, as its lists cannot be trusted; its work goes on.
TEST_F(ReadinessTest, AContextThatServesNoMoreStillDelaysReuse) {
  ContextPool& other = *pool_.OpenAnother();
  Block* idle = pool_.AllocIn(other, 4 * kMiB);
  const DeviceAddress address = idle->address;
  ASSERT_TRUE(pool_.Free(idle));
  pool_.device.Release(address);  // past the pool
  pool_.device.SetNextAddress(address);
  ASSERT_NE(pool_.pool->AllocReal(&context(), 6 * kMiB, pool_.api).address, 0u);
  ASSERT_FALSE(other.open());
  Settle(context());
  Submit(other);
  const Stamp stamp = readiness().StampNow(context());
  EXPECT_NE(stamp, kReady);
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  driver_.Finish();
  EXPECT_TRUE(readiness().Ask(context(), stamp));
}

// A kernel of it has crashed: the rest of its work does not run, and nobody could tell when.
TEST_F(ReadinessTest, ABrokenContextDelaysNothing) {
  ContextPool& other = *pool_.OpenAnother();
  Settle(context());
  Submit(other);
  const Stamp stamp = readiness().StampNow(context());
  pool_.pool->CloseContext(other);
  EXPECT_TRUE(readiness().HasPassed(context(), stamp));
}

TEST_F(ReadinessTest, WaitingIsForTheOwnContextAlone) {
  ContextPool& other = *pool_.OpenAnother();
  Submit(context());
  Submit(other);
  const Stamp stamp = readiness().StampNow(context());
  EXPECT_TRUE(readiness().Wait(context(), stamp));
  EXPECT_EQ(driver_.waits, 1u);
  EXPECT_FALSE(readiness().HasPassed(context(), stamp));
}

// ---- What refuses

TEST_F(ReadinessTest, WhileACaptureIsUnderWayNothingIsRecorded) {
  Submit(context());
  const Stamp stamp = readiness().StampNow(context());
  FakeHost::capturing = true;
  EXPECT_EQ(readiness().Record(context()).status, Readiness::kCaptureUnderWay);
  EXPECT_EQ(readiness().Finish(context()), Readiness::kCaptureUnderWay);
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  EXPECT_FALSE(readiness().Wait(context(), stamp));
  EXPECT_EQ(driver_.records, 0u);
  EXPECT_EQ(driver_.synchronizes, 0u);
  FakeHost::capturing = false;
  EXPECT_TRUE(readiness().Wait(context(), stamp));
}

TEST_F(ReadinessTest, DuringACaptureAFenceFromBeforeItIsAsked) {
  const Stamp stamp = readiness().StampNow(context());
  readiness().Cover(context(), stamp);
  FakeHost::capturing = true;
  driver_.Finish();
  EXPECT_TRUE(readiness().Ask(context(), stamp));
}

TEST_F(ReadinessTest, NothingIsAskedAboutAClosedContext) {
  Submit(context());
  const Stamp stamp = readiness().StampNow(context());
  pool_.pool->CloseContext(context());
  EXPECT_EQ(readiness().Record(context()).status, kNotReady);
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  EXPECT_FALSE(readiness().Wait(context(), stamp));
  EXPECT_EQ(readiness().Finish(context()), kNotReady);
  EXPECT_EQ(driver_.records + driver_.queries + driver_.waits + driver_.synchronizes, 0u);
}

TEST_F(ReadinessTest, AnErrorOfABrokenContextClosesIt) {
  const Stamp stamp = readiness().StampNow(context());
  readiness().Cover(context(), stamp);
  driver_.query_status = CUDA_ERROR_LAUNCH_FAILED;
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  EXPECT_FALSE(context().open());
  EXPECT_EQ(pool_.pool->statistics().process().contexts_dropped.Get(), 1u);
}

TEST_F(ReadinessTest, AnotherErrorDoesNot) {
  driver_.record_status = CUDA_ERROR_NOT_PERMITTED;
  EXPECT_EQ(readiness().Finish(context()), CUDA_ERROR_NOT_PERMITTED);
  EXPECT_EQ(driver_.synchronizes, 0u);
  EXPECT_TRUE(context().open());
}

// ---- Drivers without context events

TEST_F(ReadinessTest, WithoutContextEventsFinishSynchronises) {
  driver_.HasNoContextEvents();
  Submit(context());
  const Stamp stamp = readiness().StampNow(context());
  EXPECT_FALSE(readiness().Ask(context(), stamp));
  EXPECT_FALSE(readiness().Wait(context(), stamp));
  FakeDriver::SetCurrent(nullptr);
  EXPECT_EQ(readiness().Finish(context()), kSuccess);
  EXPECT_EQ(driver_.synchronizes, 1u);
  EXPECT_EQ(CurrentContext(driver_.table()), nullptr) << "the program's context was changed";
  EXPECT_TRUE(readiness().HasPassed(context(), stamp));
  EXPECT_EQ(readiness().StampNow(context()), kReady);
  EXPECT_EQ(readiness().Finish(context()), kSuccess);
  EXPECT_EQ(driver_.synchronizes, 1u) << "there was nothing to wait for";
}

TEST_F(ReadinessTest, WorkSubmittedDuringASynchronisationIsNotCounted) {
  driver_.HasNoContextEvents();
  driver_.on_synchronize = [&] { Submit(context()); };
  EXPECT_EQ(readiness().Finish(context()), kSuccess);
  EXPECT_NE(readiness().StampNow(context()), kReady);
}

TEST_F(ReadinessTest, AFailedSynchronisationCoversNothing) {
  driver_.HasNoContextEvents();
  const Stamp stamp = readiness().StampNow(context());
  driver_.synchronize_status = CUDA_ERROR_NOT_PERMITTED;
  EXPECT_EQ(readiness().Finish(context()), CUDA_ERROR_NOT_PERMITTED);
  EXPECT_FALSE(readiness().HasPassed(context(), stamp));
  EXPECT_NE(readiness().StampNow(context()), kReady);
}

// The process remembers that the driver refused, so this is a process of its own.
TEST_F(ReadinessTest, ADriverThatRefusesContextEventsIsSynchronisedWith) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        driver_.record_status = CUDA_ERROR_NOT_SUPPORTED;
        const bool finished = readiness().Finish(context()) == kSuccess;
        Submit(context());
        const bool again = readiness().Finish(context()) == kSuccess;
        const bool right = finished && again && driver_.synchronizes == 2 && driver_.records == 1 &&
                           !Readiness::HasContextEvents(driver_.table());
        std::_Exit(right ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

// ---- Users of a context against its end

TEST_F(ReadinessTest, AContextEndsOnlyOnceNobodyAsksAboutIt) {
  const Stamp stamp = readiness().StampNow(context());
  readiness().Cover(context(), stamp);
  std::atomic<bool> asking{false};
  std::atomic<bool> ended{false};
  driver_.on_query = [&] {
    asking = true;
    // Long enough for the other thread to get past a drain that does not wait.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(ended) << "the context ended during a call about it";
  };
  std::thread asker([&] { readiness().Ask(context(), stamp); });
  while (!asking) std::this_thread::yield();
  context().BeginEnding();
  ended = true;
  asker.join();
}

TEST_F(ReadinessTest, NoUserEntersAContextThatHasEnded) {
  for (int round = 0; round < 200; ++round) {
    ContextPool& context = *pool_.OpenAnother();
    std::atomic<bool> ended{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> users;
    for (int i = 0; i < 3; ++i) {
      users.emplace_back([&] {
        for (;;) {
          const ContextPool::User user(context);
          if (!user.entered()) return;
          if (ended) ++wrong;
        }
      });
    }
    context.BeginEnding();
    ended = true;
    for (std::thread& user : users) user.join();
    EXPECT_EQ(wrong, 0);
    pool_.pool->DropContext(context);
  }
}

}  // namespace
}  // namespace cmp
