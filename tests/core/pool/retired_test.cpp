// Retired blocks: idle, and not to be handed out before their fence has passed.
#include <gtest/gtest.h>

#include <atomic>
#include <set>
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

// ---- A thread's cache

constexpr size_t kBytes = 512;

class RetiredInCacheTest : public testing::Test {
 protected:
  static CacheLimits Limits() {
    CacheLimits limits;
    limits.bytes = 100 * kBytes;
    limits.tiers = 1;
    limits.batch[0] = 4;
    return limits;
  }
  Block* Idle() {
    Block* block = records_.Take();
    block->address = reinterpret_cast<DeviceAddress>(block);  // each has its own
    block->bytes = kBytes;
    block->tier = 0;
    block->state.store(BlockState::kIdle);
    return block;
  }
  Batch Retire(unsigned count, Stamp stamp) {
    Batch left;
    Takers takers;
    Takers::Taking taking;
    for (unsigned i = 0; i < count && left.count == 0; ++i) {
      Block* block = Idle();
      while (!cache_.Free(block, stamp, &left, takers, &taking)) (void)cache_.BeginListed();
    }
    return left;
  }
  // Fences up to `passed` have passed.
  void Promote(Stamp passed) {
    cache_.Promote(0, [&](Stamp stamp) { return stamp < passed; });
  }

  Arena arena_;
  BlockSlabs slabs_{arena_};
  BlockRecords records_{slabs_};
  CacheLimits limits_ = Limits();
  TierCounters counters_[1];
  ThreadCache::Shelf shelves_[1];
  ThreadCache cache_{nullptr, &limits_, counters_, shelves_};
};

TEST_F(RetiredInCacheTest, ARetiredBlockIsNotHandedOut) {
  EXPECT_EQ(Retire(3, 7).count, 0u);
  EXPECT_EQ(cache_.retired_bytes(), 3 * kBytes);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
  EXPECT_FALSE(cache_.HasReady(0));
  EXPECT_EQ(cache_.Alloc(0, 1), 0u);
  Promote(7);
  EXPECT_EQ(cache_.Alloc(0, 1), 0u) << "the fence needs a larger number than the stamp";
  Promote(8);
  EXPECT_EQ(cache_.retired_bytes(), 0u);
  EXPECT_EQ(cache_.ready_bytes(), 3 * kBytes);
  EXPECT_TRUE(cache_.HasReady(0));
  for (int i = 0; i < 3; ++i) EXPECT_NE(cache_.Alloc(0, 1), 0u);
  EXPECT_EQ(cache_.Alloc(0, 1), 0u);
}

TEST_F(RetiredInCacheTest, ABatchHasTheLargestStampOfItsBlocks) {
  for (const Stamp stamp : {5, 9, 6}) EXPECT_EQ(Retire(1, stamp).count, 0u);
  EXPECT_EQ(cache_.OldestStamp(0), 9u);
  Promote(9);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
  Promote(10);
  EXPECT_EQ(cache_.ready_bytes(), 3 * kBytes);
  EXPECT_EQ(cache_.OldestStamp(0), kReady);
  EXPECT_EQ(Retire(1, 3).count, 0u);
  EXPECT_EQ(cache_.OldestStamp(0), 3u) << "the last batch's stamp was kept";
}

TEST_F(RetiredInCacheTest, TheSecondFullBatchPushesTheFirstOut) {
  EXPECT_EQ(Retire(4, 5).count, 0u);
  EXPECT_EQ(cache_.OldestStamp(0), 5u);
  EXPECT_EQ(cache_.NewestStamp(0), 5u);
  EXPECT_EQ(Retire(3, 6).count, 0u);
  EXPECT_EQ(cache_.NewestStamp(0), 6u);
  const Batch left = Retire(1, 7);
  EXPECT_EQ(left.count, 4u);
  EXPECT_EQ(left.stamp, 5u) << "a batch that leaves keeps its stamp";
  EXPECT_EQ(cache_.OldestStamp(0), 7u);
  EXPECT_EQ(cache_.retired_bytes(), 4 * kBytes);
}

TEST_F(RetiredInCacheTest, BothBatchesBecomeReadyOrTheOlderAlone) {
  Retire(4, 5);
  Retire(2, 8);
  Promote(6);
  EXPECT_EQ(cache_.ready_bytes(), 4 * kBytes);
  EXPECT_EQ(cache_.retired_bytes(), 2 * kBytes);
  Promote(9);
  EXPECT_EQ(cache_.ready_bytes(), 6 * kBytes);
  EXPECT_EQ(cache_.retired_bytes(), 0u);
  Retire(4, 10);
  Retire(1, 11);
  Promote(20);  // no room for both: nothing may be lost
  EXPECT_EQ(cache_.ready_bytes() + cache_.retired_bytes(), 11 * kBytes);
  std::set<DeviceAddress> addresses;
  for (int i = 0; i < 11; ++i) {
    DeviceAddress address = cache_.Alloc(0, 1);
    if (address == 0) {
      Promote(20);
      address = cache_.Alloc(0, 1);
    }
    ASSERT_NE(address, 0u) << i;
    EXPECT_TRUE(addresses.insert(address).second);
  }
}

TEST_F(RetiredInCacheTest, RetiredBlocksCountForTheLimit) {
  limits_.bytes = 5 * kBytes;
  EXPECT_EQ(Retire(4, 5).count, 0u);
  EXPECT_EQ(Retire(1, 6).count, 0u);
  const Batch left = Retire(1, 6);
  EXPECT_EQ(left.count, 4u) << "the colder batch leaves";
  EXPECT_EQ(left.stamp, 5u);
  EXPECT_EQ(cache_.retired_bytes(), 2 * kBytes);
}

TEST_F(RetiredInCacheTest, WhatIsOverALimitOfNothingLeavesAtOnce) {
  limits_.bytes = 0;
  const Batch all = Retire(1, 7);
  EXPECT_EQ(all.count, 1u);
  EXPECT_EQ(all.stamp, 7u);
  EXPECT_EQ(cache_.retired_bytes(), 0u);
}

TEST_F(RetiredInCacheTest, EmptyGivesThemWithTheirStamps) {
  Retire(4, 5);
  Retire(1, 6);
  Retire(1, kReady);
  std::multiset<Stamp> stamps;
  size_t count = 0;
  cache_.Empty([&](Batch batch) {
    stamps.insert(batch.stamp);
    count += batch.count;
  });
  EXPECT_EQ(stamps, (std::multiset<Stamp>{kReady, 5, 6}));
  EXPECT_EQ(count, 6u);
  EXPECT_EQ(cache_.retired_bytes(), 0u);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
  EXPECT_EQ(cache_.OldestStamp(0), kReady);
}

// ---- The global pool

class RetiredInGlobalPoolTest : public testing::Test {
 protected:
  RetiredInGlobalPoolTest() { EXPECT_TRUE(pool_.Open(kGiB, arena_, spare_lists_)); }
  Batch Idle(size_t bytes, uint32_t count, Stamp stamp) {
    Batch batch;
    batch.stamp = stamp;
    while (batch.count < count) {
      Block* block = records_.Take();
      block->bytes = tiers_.RoundedBytes(bytes);
      block->tier = static_cast<uint16_t>(tiers_.TierOf(bytes));
      block->state.store(BlockState::kIdle);
      batch.Push(block);
    }
    return batch;
  }
  static auto Passed(uint64_t number) {
    return [number](Stamp stamp) { return stamp < number; };
  }

  Arena arena_;
  BlockSlabs slabs_{arena_};
  BlockRecords records_{slabs_};
  Tiers tiers_{4};
  SideTable side_table_{arena_};
  IdleChunks chunks_{side_table_};
  GlobalPool::SpareLists spare_lists_;
  GlobalPool pool_{tiers_, chunks_};
  const unsigned tier_ = tiers_.TierOf(1024);
  const unsigned large_ = ~0U;
};

TEST_F(RetiredInGlobalPoolTest, NeitherSmallNorLargeOnesAreTakenBeforeTheyAreReady) {
  pool_.Put(Idle(1024, 3, 5));
  pool_.Put(Idle(4 * kMiB, 1, 6));
  EXPECT_EQ(pool_.retired_bytes(), 3 * 1024 + 4 * kMiB);
  EXPECT_EQ(pool_.ready_bytes(), 0u);
  EXPECT_EQ(pool_.large_bytes(), 4 * kMiB);
  EXPECT_FALSE(pool_.HasReady(tier_, 1024, 1024));
  EXPECT_FALSE(pool_.HasReady(large_, 4 * kMiB, kGiB));
  EXPECT_EQ(pool_.TakeBatch(tier_).count, 0u);
  EXPECT_EQ(pool_.TakeLarge(4 * kMiB, kGiB), nullptr);
  EXPECT_EQ(pool_.TakeOldest(~size_t{0}).count, 0u);
  EXPECT_EQ(pool_.OldestStamp(tier_), 5u);
  EXPECT_EQ(pool_.OldestStamp(large_), 6u);
  EXPECT_EQ(pool_.OldestStamp(tier_ + 1), kReady);
  pool_.PromoteAll(Passed(7));
  EXPECT_EQ(pool_.retired_bytes(), 0u);
  EXPECT_EQ(pool_.ready_bytes(), 3 * 1024 + 4 * kMiB);
  EXPECT_EQ(pool_.large_bytes(), 4 * kMiB);
  EXPECT_TRUE(pool_.HasReady(large_, 4 * kMiB, kGiB));
  EXPECT_EQ(pool_.TakeBatch(tier_).count, 3u);
  EXPECT_NE(pool_.TakeLarge(4 * kMiB, kGiB), nullptr);
}

TEST_F(RetiredInGlobalPoolTest, TheyBecomeReadyInTheirOrderUntilOneIsNot) {
  for (const Stamp stamp : {5, 6, 9, 7}) pool_.Put(Idle(1024, 1, stamp));
  pool_.Promote(tier_, Passed(8));
  EXPECT_EQ(pool_.ready_bytes(), 2 * 1024u);
  EXPECT_EQ(pool_.OldestStamp(tier_), 9u);
  pool_.Promote(tier_, Passed(10));
  EXPECT_EQ(pool_.ready_bytes(), 4 * 1024u);
}

TEST_F(RetiredInGlobalPoolTest, ForARealFreeLargeOnesAreTakenFirst) {
  pool_.Put(Idle(1024, 3, 5));
  pool_.Put(Idle(4 * kMiB, 1, 6));
  pool_.Put(Idle(4 * kMiB, 1, 7));
  pool_.Put(Idle(1024, 1, kReady));
  const Batch one = pool_.TakeRetired(1);
  EXPECT_EQ(one.count, 1u);
  EXPECT_EQ(one.head->bytes, 4 * kMiB);
  EXPECT_EQ(pool_.TakeRetired(~size_t{0}).count, 4u);
  EXPECT_EQ(pool_.retired_bytes(), 0u);
  EXPECT_EQ(pool_.large_bytes(), 0u);
  EXPECT_EQ(pool_.ready_bytes(), 1024u);
  EXPECT_EQ(pool_.OldestStamp(tier_), kReady);
  EXPECT_EQ(pool_.TakeRetired(1).count, 0u);
}

TEST_F(RetiredInGlobalPoolTest, ThreadsLoseNone) {
  constexpr int kRounds = 2000;
  std::atomic<size_t> taken{0};
  std::vector<std::thread> threads;
  std::mutex lock;  // of records_
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&, number] {
      for (int i = 0; i < kRounds; ++i) {
        Batch batch;
        {
          const std::lock_guard guard(lock);
          batch = Idle(i % 3 == 0 ? 2 * kMiB : 1024, 1, static_cast<Stamp>(i % 5));
        }
        pool_.Put(batch);
        if (number % 2 == 0) pool_.PromoteAll(Passed(static_cast<uint64_t>(i % 6)));
        taken += pool_.TakeBatch(tier_).count;
        if (pool_.TakeLarge(2 * kMiB, kGiB) != nullptr) ++taken;
        if (i % 50 == 0) taken += pool_.TakeRetired(4096).count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  pool_.PromoteAll(Passed(100));
  EXPECT_EQ(pool_.retired_bytes(), 0u);
  taken += pool_.TakeOldest(~size_t{0}).count;
  EXPECT_EQ(taken, 4u * kRounds);
  EXPECT_EQ(pool_.ready_bytes(), 0u);
  EXPECT_EQ(pool_.large_bytes(), 0u);
}

// ---- The pool

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
