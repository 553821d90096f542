// Retired blocks, idle and not to be handed out before their fence has passed, on the lists.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "core/base/memory.h"
#include "core/lists/global_pool.h"
#include "core/lists/thread_cache.h"

namespace cmp {
namespace {

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

}  // namespace
}  // namespace cmp
