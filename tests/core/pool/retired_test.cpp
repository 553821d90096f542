// Retired blocks, idle and not to be handed out before their fence has passed, in the pool.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "core/pool/pool.h"
#include "fake_driver.h"
#include "pool_fixture.h"

namespace cmp {
namespace {

using test::FakeDriver;
using test::FakeHost;
using test::OnAnotherThread;
using test::TestPool;

class RetiredTest : public testing::Test {
 protected:
  RetiredTest() { FakeHost::capturing = false; }
  ~RetiredTest() override { EXPECT_EQ(driver_.errors, 0u) << "an event was misused"; }
  // Frees record no fence.
  static TestPool Pool(Options options = {}, size_t capacity = test::FakeDevice::kPlenty) {
    options.free_sync = FreeSync::kNone;
    return TestPool(options, capacity, FakeHost::table);
  }
  // They do.
  static TestPool FencedPool(size_t capacity = test::FakeDevice::kPlenty) {
    return TestPool(Options{}, capacity, FakeHost::table);
  }
  // Nor are submissions seen.
  static TestPool BlindPool(Options options = {}) {
    static PoolHost host = FakeHost::table;
    host.fence_begins = kBlindHost.fence_begins;
    host.sees_submissions = false;
    options.free_sync = FreeSync::kNone;
    return TestPool(options, test::FakeDevice::kPlenty, host);
  }
  static void Submit(ContextPool& to) { to.fences().SetWorkSince(true); }
  // The program's work, and a free of `block` after it.
  static void FreeAfterWork(TestPool& t, Block* block) {
    Submit(*t.context);
    EXPECT_TRUE(t.Free(block, t.pool->readiness().StampNow(*t.context)));
  }
  static void FreeBehindFence(TestPool& t, Block* block) {
    Readiness& readiness = t.pool->readiness();
    Submit(*t.context);
    const Fences::Recorded fence = readiness.Record(*t.context, FencePurpose::kOrder);
    EXPECT_TRUE(t.Free(block, readiness.StampFor(*t.context, fence.number)));
  }
  // As an allocation in the pool's context does it that lacks memory.
  static size_t ReleaseForMemory(TestPool& t) {
    FakeDriver::SetCurrent(t.identity.handle);
    const size_t released = t.pool->ReleaseForRetry(t.api, t.identity.device, 4 * kMiB);
    FakeDriver::SetCurrent(nullptr);
    return released;
  }
  // Else the device does its work only when somebody waits.
  void DeviceGoesOn() {
    driver_.on_query = [this] { driver_.Finish(); };
  }

  FakeDriver driver_;
};

TEST_F(RetiredTest, ABlockIsReusedOnceItsWorkIsDoneAndNotBefore) {
  for (const size_t bytes : {size_t{1000}, kMiB + kMiB / 2, 4 * kMiB}) {
    TestPool t = Pool();
    Block* block = t.Alloc(bytes);
    FreeAfterWork(t, block);
    EXPECT_EQ(t.context->CountIdle().retired, block->bytes);
    EXPECT_EQ(driver_.records, 0u) << "a free recorded";
    Block* other = t.Alloc(bytes);
    EXPECT_NE(other, block) << "handed out while its work runs";
    EXPECT_EQ(driver_.waits, 0u) << "an allocation waited";
    driver_.Finish();
    EXPECT_EQ(t.Alloc(bytes), block);
    EXPECT_EQ(t.context->CountIdle().retired, 0u);
    driver_.records = 0;
  }
}

TEST_F(RetiredTest, AThreadThatRunsDryRecordsOnceAndAsksOnceForAll) {
  TestPool t = Pool();
  std::vector<Block*> blocks;
  for (int i = 0; i < 100; ++i) blocks.push_back(t.Alloc(1000));
  for (Block* block : blocks) FreeAfterWork(t, block);
  EXPECT_EQ(driver_.records, 0u) << "a free recorded";
  while (t.context->CountIdle().ready != 0) ASSERT_NE(t.Alloc(1000), nullptr);
  const size_t made = t.device.allocate_calls();
  ASSERT_NE(t.Alloc(1000), nullptr);  // dry
  EXPECT_EQ(driver_.records, 1u);
  EXPECT_EQ(driver_.queries, 1u);
  EXPECT_EQ(t.device.allocate_calls(), made + 1) << "a batch was made though blocks will be ready";
  ASSERT_NE(t.Alloc(1000), nullptr);
  EXPECT_EQ(driver_.records, 1u) << "the fence is recorded already";
  driver_.Finish();
  driver_.queries = 0;
  for (int i = 0; i < 100; ++i) ASSERT_NE(t.Alloc(1000), nullptr);
  EXPECT_EQ(driver_.queries, 1u) << "one query serves a hundred allocations";
  EXPECT_EQ(driver_.records, 1u);
  EXPECT_EQ(t.device.allocate_calls(), made + 2);
}

// With one block, each request would record a fence and ask about it.
TEST_F(RetiredTest, WhereSubmissionsAreNotSeenAnIdleDeviceIsAskedOnceForSeveralRequests) {
  constexpr unsigned kPairs = 1000;
  DeviceGoesOn();
  for (const auto& [bytes, requests] : {std::pair{size_t{1000}, 8u}, std::pair{kMiB, 3u}}) {
    TestPool t = BlindPool();
    driver_.records = driver_.queries = 0;
    for (unsigned i = 0; i < kPairs; ++i) FreeAfterWork(t, t.Alloc(bytes));
    EXPECT_LE(driver_.records + driver_.queries, 2 * kPairs / requests + 20);
    EXPECT_LE(t.device.allocate_calls(), 12u) << "more blocks than that takes";
  }
}

TEST_F(RetiredTest, NoMoreLargeBlocksAreMadeForThat) {
  DeviceGoesOn();
  TestPool t = BlindPool();
  for (int i = 0; i < 100; ++i) FreeAfterWork(t, t.Alloc(4 * kMiB));
  EXPECT_LE(t.device.allocate_calls(), 2u);
}

// Found by review: it went on for ever where a thread's blocks do not come back to it.
TEST_F(RetiredTest, NorAnyOnceAFewWereMadeWhoeverFreesThem) {
  DeviceGoesOn();
  for (const bool keeps : {true, false}) {
    Options options;
    if (!keeps) options.thread_cache_bytes = 2 * kMiB;
    TestPool t = BlindPool(options);
    for (int i = 0; i < 300; ++i) {
      Block* own = t.Alloc(kMiB);
      Block* others = t.Alloc(kMiB);
      if (keeps) {
        OnAnotherThread([&] { FreeAfterWork(t, others); });
      } else {
        FreeAfterWork(t, others);
      }
      FreeAfterWork(t, own);
    }
    EXPECT_LE(t.device.allocate_calls(), 12u);
  }
}

// Found by review: attempts counted as blocks, so that after a few in vain each request asked for
// ever. Nor may each request make a call that fails.
TEST_F(RetiredTest, WhereNoMoreCouldBeMadeThatIsTriedAgainAndNotOften) {
  constexpr unsigned kPairs = 5000;
  DeviceGoesOn();
  TestPool t = BlindPool();
  FreeAfterWork(t, t.Alloc(1000));
  t.device.FailNext(kPairs);
  t.device.ForgetCalls();
  for (unsigned i = 0; i < kPairs; ++i) FreeAfterWork(t, t.Alloc(1000));
  EXPECT_EQ(t.device.live_count(), 1u);
  EXPECT_LE(t.device.allocate_calls(), 20u);
  t.device.FailNext(0);
  for (unsigned i = 0; i < 1100; ++i) FreeAfterWork(t, t.Alloc(1000));
  driver_.records = driver_.queries = 0;
  for (unsigned i = 0; i < kPairs; ++i) FreeAfterWork(t, t.Alloc(1000));
  EXPECT_LE(driver_.records + driver_.queries, 2 * kPairs / 8 + 20);
  EXPECT_EQ(t.device.live_count(), 9u);
}

// Found by review: the device is not asked for it, and the program may rely on a hit being one, as
// during a capture.
TEST_F(RetiredTest, NorForARequestThatFindsAReadyBlock) {
  Options filled;
  filled.fill = 0;
  for (const auto& [options, bytes] :
       {std::pair{filled, size_t{1000}}, std::pair{Options{}, kMiB}}) {
    TestPool t = BlindPool(options);
    Block* block = t.Alloc(bytes);
    ASSERT_NE(t.Alloc(bytes), nullptr);  // and one more is made
    ASSERT_TRUE(t.Free(block));          // of 1 MiB, two are a batch
    t.device.ForgetCalls();
    EXPECT_NE(t.Alloc(bytes), nullptr);
    EXPECT_EQ(t.device.allocate_calls(), 0u) << bytes;
  }
}

TEST_F(RetiredTest, NorWhereSubmissionsAreSeen) {
  DeviceGoesOn();
  TestPool t = Pool();
  for (int i = 0; i < 100; ++i) {
    Block* one = t.Alloc(1000);
    Block* other = t.Alloc(100'000);
    FreeAfterWork(t, one);
    FreeAfterWork(t, other);
  }
  EXPECT_LE(t.device.allocate_calls(), 4u);
}

TEST_F(RetiredTest, BlocksThatAnotherThreadRetiredAreFound) {
  TestPool t = Pool();
  Block* block = t.Alloc(1000);
  OnAnotherThread([&] { FreeAfterWork(t, block); });  // and exits
  t.pool->readiness().Cover(*t.context, Fences::Now());
  t.pool->readiness().Record(*t.context);
  driver_.Finish();
  EXPECT_EQ(t.Alloc(1000), block);
}

// Found by reading: what the thread itself had retired last hid what was ready elsewhere.
TEST_F(RetiredTest, AFreshlyRetiredBlockDoesNotHideOlderOnes) {
  TestPool t = Pool();
  Block* older = t.Alloc(1000);
  Block* fresh = t.Alloc(1000);
  while (t.context->CountIdle().ready != 0) ASSERT_NE(t.Alloc(1000), nullptr);
  OnAnotherThread([&] { FreeAfterWork(t, older); });
  ASSERT_EQ(t.pool->readiness().Record(*t.context).status, kSuccess);
  driver_.Finish();
  FreeAfterWork(t, fresh);
  EXPECT_EQ(t.Alloc(1000), older);
}

TEST_F(RetiredTest, AllocatingDuringACaptureTakesWhatIsReadyAndRecordsNothing) {
  TestPool t = Pool();
  Block* block = t.Alloc(1000);
  FreeAfterWork(t, block);
  FakeHost::capturing = true;
  EXPECT_NE(t.Alloc(1000), block);
  EXPECT_EQ(driver_.records, 0u);
  FakeHost::capturing = false;
}

TEST_F(RetiredTest, WhenMemoryIsShortRetiredBlocksAreReleased) {
  DeviceGoesOn();
  TestPool t = Pool({}, 16 * kMiB);
  Block* block = t.Alloc(12 * kMiB);
  FreeAfterWork(t, block);
  Block* other = t.Alloc(8 * kMiB);
  ASSERT_NE(other, nullptr) << "a program that fits without the pool";
  EXPECT_EQ(t.context->CountIdle().retired, 0u);
  EXPECT_EQ(t.device.release_calls(), 1u);
  FreeAfterWork(t, other);
}

TEST_F(RetiredTest, WhenMemoryIsShortPassedBlocksAreReusedFirst) {
  TestPool t = Pool({}, 16 * kMiB);
  Block* block = t.Alloc(12 * kMiB);
  FreeAfterWork(t, block);
  ASSERT_EQ(t.pool->readiness().Record(*t.context).status, kSuccess);
  driver_.Finish();
  EXPECT_EQ(t.Alloc(12 * kMiB), block);
  EXPECT_EQ(t.device.release_calls(), 0u);
}

TEST_F(RetiredTest, ReleasesIncludeThem) {
  TestPool t = Pool();
  Block* large = t.Alloc(4 * kMiB);
  Block* small = t.Alloc(1000);
  FreeAfterWork(t, large);
  FreeAfterWork(t, small);
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 4 * kMiB);
  EXPECT_EQ(t.context->CountIdle().retired, 1024u) << "thread caches are not touched";
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 1024u);
  test::ExpectAtRest(t);
  EXPECT_EQ(t.device.live_count(), 0u);
}

// A real free that a capture refuses: the block stays retired, as no fence is recorded meanwhile,
// and is handed out later.
TEST_F(RetiredTest, ABlockWhoseReleaseWasRefusedIsNotLost) {
  TestPool t = Pool();
  Block* block = t.Alloc(4 * kMiB);
  FreeAfterWork(t, block);
  FakeHost::capturing = true;
  t.device.FailReleases(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 0u);
  t.device.FailReleases(kSuccess);
  FakeHost::capturing = false;
  EXPECT_EQ(t.context->CountIdle().retired, 4 * kMiB);
  EXPECT_EQ(t.context->accounts().reserved(), 4 * kMiB);
  EXPECT_NE(t.Alloc(4 * kMiB), block);
  driver_.Finish();
  EXPECT_EQ(t.Alloc(4 * kMiB), block);
}

// One that began after its fence was waited for: it is ready by then.
TEST_F(RetiredTest, NorIsOneThatWasWaitedForBefore) {
  TestPool t = Pool();
  Block* block = t.Alloc(4 * kMiB);
  FreeAfterWork(t, block);
  t.device.FailReleases(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 0u);
  t.device.FailReleases(kSuccess);
  EXPECT_EQ(t.context->CountIdle().ready, 4 * kMiB);
  EXPECT_EQ(t.context->accounts().reserved(), 4 * kMiB);
  EXPECT_EQ(t.Alloc(4 * kMiB), block);
}

// Its real free would wait for what was submitted meanwhile, which may wait for what the caller
// does next. Though the stamp of that may be of one before it, where another context is busy: the
// clock's.
TEST_F(RetiredTest, WhatIsFreedWhileAReleaseWaitsIsLeft) {
  for (const bool another_is_busy : {false, true}) {
    TestPool t = FencedPool();
    if (another_is_busy) Submit(*t.OpenAnother());
    Block* block = t.Alloc(4 * kMiB);
    Block* later = t.Alloc(8 * kMiB);
    FreeBehindFence(t, block);
    bool freed = false;
    driver_.waits = 0;
    driver_.on_wait = [&] {
      if (!std::exchange(freed, true)) OnAnotherThread([&] { FreeBehindFence(t, later); });
    };
    EXPECT_EQ(t.pool->ReleaseAll(t.api), 4 * kMiB);
    EXPECT_TRUE(freed);
    EXPECT_EQ(driver_.waits, 1u);
    EXPECT_EQ(t.context->CountIdle().retired, 8 * kMiB);
    driver_.on_wait = [] {};
    driver_.Finish();
  }
}

// Likewise what was submitted before the release, but after the frees: what a fence for reuse
// covers, from before or recorded now.
TEST_F(RetiredTest, AReleaseDoesNotWaitForLaterWork) {
  for (const bool fence_before : {true, false}) {
    for (const bool allocates : {true, false}) {
      TestPool t = FencedPool();
      ContextPool& busy = *t.OpenAnother();
      Submit(busy);
      Block* block = t.Alloc(4 * kMiB);
      FreeBehindFence(t, block);
      driver_.Finish();
      Submit(*t.context);
      if (fence_before) t.pool->readiness().Record(*t.context);
      driver_.waits = 0;
      EXPECT_EQ(allocates ? ReleaseForMemory(t) : t.pool->ReleaseAll(t.api), 4 * kMiB);
      EXPECT_EQ(driver_.waits, 0u) << fence_before << allocates;
    }
  }
}

// Where frees record none, one that is recorded now covers later work, too: an allocation asks
// about it, and not for ever; and once that was in vain not again.
TEST_F(RetiredTest, WithoutFencesAnAllocationGivesUp) {
  TestPool t = Pool();
  Block* block = t.Alloc(4 * kMiB);
  FreeAfterWork(t, block);
  EXPECT_EQ(ReleaseForMemory(t), 0u);
  EXPECT_EQ(driver_.waits, 0u);
  EXPECT_EQ(t.device.release_calls(), 0u);
  EXPECT_EQ(t.context->CountIdle().retired, 4 * kMiB);
  const unsigned queries = driver_.queries;
  EXPECT_EQ(ReleaseForMemory(t), 0u);
  EXPECT_LE(driver_.queries, queries + 2);
  DeviceGoesOn();
  EXPECT_EQ(ReleaseForMemory(t), 4 * kMiB);
}

TEST_F(RetiredTest, WhoEndsTheContextMeanwhileDoesNotWaitForThat) {
  TestPool t = Pool();
  FreeAfterWork(t, t.Alloc(4 * kMiB));
  std::thread ends;
  driver_.on_query = [&] {
    if (ends.joinable()) return;
    ends = std::thread([&] { t.context->BeginEnding(); });
    while (t.context->open()) std::this_thread::yield();
  };
  EXPECT_EQ(ReleaseForMemory(t), 0u);
  ends.join();
  EXPECT_LE(driver_.queries, 3u);
  t.context->CancelEnding();
}

// A small block of whose work nothing is left here is freed once no other context uses it; one that
// another uses for long is freed by the call that waits.
TEST_F(RetiredTest, ASmallBlockIsReleasedWhenOthersHaveFinishedWithIt) {
  for (const bool in_time : {true, false}) {
    TestPool t = FencedPool();
    ContextPool& busy = *t.OpenAnother();
    Submit(busy);
    Block* block = t.Alloc(kMiB + kMiB / 2);
    ASSERT_EQ(t.pool->readiness().Finish(*t.context), kSuccess);
    ASSERT_TRUE(t.Free(block, t.pool->readiness().StampOfOthers(*t.context)));
    ASSERT_EQ(t.context->CountIdle().retired, block->bytes);
    int questions = 0;
    driver_.on_query = [&] {
      if (in_time && ++questions == 5) driver_.Finish();
    };
    driver_.waits = 0;
    bool passed = false;
    t.device.OnRelease([&] { passed = busy.fences().Idle(); });
    EXPECT_EQ(ReleaseForMemory(t), block->bytes);
    EXPECT_EQ(passed, in_time);
    EXPECT_EQ(driver_.waits, 0u);
  }
}

// A context that is not the caller's may be ended by another thread: nothing waits for it, and
// nothing is asked while it may be ending.
TEST_F(RetiredTest, NothingWaitsForAnotherContextOfTheDevice) {
  TestPool t = FencedPool();
  Block* block = t.Alloc(4 * kMiB);
  FreeBehindFence(t, block);
  FakeDriver::SetCurrent(nullptr);
  t.context->BeginReferenceEnding();
  driver_.queries = 0;
  EXPECT_EQ(t.pool->ReleaseForRetry(t.api, 0, 4 * kMiB), 0u);
  EXPECT_EQ(driver_.queries + driver_.records, 1u) << "the fence of the free";
  t.context->CancelReferenceEnding();
  int questions = 0;
  driver_.on_query = [&] {
    if (++questions == 5) driver_.Finish();
  };
  EXPECT_EQ(t.pool->ReleaseForRetry(t.api, 0, 4 * kMiB), 4 * kMiB);
  EXPECT_EQ(driver_.waits, 0u);
}

TEST_F(RetiredTest, AThreadThatExitsLeavesThemRetired) {
  TestPool t = Pool();
  Block* block = nullptr;
  OnAnotherThread([&] {
    block = t.Alloc(1000);
    FreeAfterWork(t, block);
  });
  EXPECT_EQ(t.context->global().retired_bytes(), 1024u);
  EXPECT_NE(t.Alloc(1000), block);
}

// ---- The bound

TEST_F(RetiredTest, NearTheBoundAFreeWaitsSoThatAllocationsFindReadyBlocks) {
  Options options;
  options.reserve = {1.0, 16 * kMiB};
  TestPool t = Pool(options);
  for (int i = 0; i < 64; ++i) {
    Block* block = t.Alloc(4 * kMiB);
    ASSERT_NE(block, nullptr);
    FreeAfterWork(t, block);
    ASSERT_LE(t.context->accounts().reserved(), t.context->accounts().bound());
  }
  EXPECT_GT(driver_.waits, 0u);
  EXPECT_EQ(t.pool->statistics().process().bound_waits.Get(), driver_.waits);
  EXPECT_GT(t.pool->statistics().process().bound_wait_ns.Get(), 0u);
  EXPECT_LE(t.pool->statistics().process().bound_wait_ns.Get(),
            t.pool->statistics().process().wait_ns.Get());
  EXPECT_LE(t.device.allocate_calls(), 5u) << "recycled, not made anew";
  EXPECT_EQ(t.device.release_calls(), 0u);
}

TEST_F(RetiredTest, NearTheBoundWhatLargeShelvesKeepIsReadyEnough) {
  Options options;
  options.reserve = {0.0, 40 * kMiB};
  TestPool t = Pool(options);
  std::atomic<bool> over{false};
  std::atomic<bool> kept{false};
  std::thread other([&] {
    std::vector<Block*> blocks;
    for (int i = 0; i < 4; ++i) blocks.push_back(t.Alloc(4 * kMiB));
    for (Block* block : blocks) EXPECT_TRUE(t.Free(block));
    kept = true;
    while (!over) std::this_thread::yield();
  });
  while (!kept) std::this_thread::yield();
  FreeAfterWork(t, t.Alloc(14 * kMiB));
  EXPECT_EQ(t.context->global().retired_bytes(), 14 * kMiB) << "it shows nothing";
  EXPECT_EQ(driver_.waits, 0u);
  over = true;
  other.join();
}

TEST_F(RetiredTest, NearTheBoundABlockOfItsSizeOnTheLargeShelfWillDo) {
  Options options;
  options.reserve = {0.0, 7680 * kKiB};
  TestPool t = Pool(options);
  std::vector<Block*> blocks;
  for (int i = 0; i < 5; ++i) blocks.push_back(t.Alloc(1280 * kKiB));
  ASSERT_TRUE(t.Free(blocks[0]));
  FreeAfterWork(t, blocks[1]);
  EXPECT_EQ(driver_.waits, 0u);
}

TEST_F(RetiredTest, FarFromTheBoundNoFreeWaits) {
  TestPool t = Pool();
  for (int i = 0; i < 20; ++i) FreeAfterWork(t, t.Alloc(kMiB));
  EXPECT_EQ(driver_.waits, 0u);
}

TEST_F(RetiredTest, AnAllocationThatCrossedTheBoundIsPaidForByTheNextFree) {
  Options options;
  options.reserve = {1.0, 0};
  TestPool t = Pool(options);
  Block* block = t.Alloc(8 * kMiB);
  FreeAfterWork(t, block);  // 8 MiB retired, the peak
  Block* other = t.Alloc(6 * kMiB);
  EXPECT_GT(t.context->accounts().reserved(), t.context->accounts().bound());
  FreeAfterWork(t, other);
  EXPECT_LE(t.context->accounts().reserved(), t.context->accounts().bound());
}

}  // namespace
}  // namespace cmp
