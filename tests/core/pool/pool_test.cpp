// Alloc and Free: which block serves, how many are made, what is no block of the pool.
#include "core/pool/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "pool_fixture.h"

namespace cmp {
namespace {

using test::ExpectAtRest;
using test::TestPool;

TEST(PoolTest, AFreedBlockIsReusedWithoutARealCall) {
  TestPool t;
  Block* block = t.Alloc(1000);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(block->bytes, 1024u);
  EXPECT_EQ(block->requested, 1000u);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(t.Free(block));
    ASSERT_EQ(t.Alloc(1000), block);
  }
  EXPECT_EQ(t.device.allocate_calls(), 1u);
  EXPECT_EQ(t.device.release_calls(), 0u);
  EXPECT_EQ(t.Totals().thread_cache_hits, 100u);
}

TEST(PoolTest, BlocksBeyondTheLargeShelfAreReusedFromTheGlobalPool) {
  TestPool t;
  Block* block = t.Alloc(100 * kMiB);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(t.context->global().ready_bytes(), 100 * kMiB);
  EXPECT_EQ(t.Alloc(100 * kMiB), block);
  EXPECT_EQ(t.Totals().global_pool_hits, 1u);
}

TEST(PoolTest, BlocksOfAllKindsAreEnteredAtTheirBaseAlone) {
  TestPool t;
  for (const size_t bytes : {size_t{1}, size_t{1000}, kMiB, 3 * kMiB, 2 * kGiB}) {
    Block* block = t.Alloc(bytes);
    EXPECT_EQ(t.pool->Find(block->address), block);
    EXPECT_EQ(t.pool->Find(block->address + 1), nullptr);
    EXPECT_EQ(t.pool->Find(block->address + 256), nullptr);
    EXPECT_EQ(t.device.BytesAt(block->address), block->bytes);
    EXPECT_GE(block->bytes, bytes);
    ASSERT_TRUE(t.Free(block));
  }
}

TEST(PoolTest, SlowStartMakesOneTwoThree) {
  TestPool t;
  std::vector<size_t> real_calls;
  for (int i = 0; i < 16; ++i) {
    ASSERT_NE(t.Alloc(1000), nullptr);
    real_calls.push_back(t.device.allocate_calls());
  }
  EXPECT_EQ(real_calls,
            (std::vector<size_t>{1, 3, 3, 6, 6, 6, 9, 9, 9, 12, 12, 12, 15, 15, 15, 18}));
}

TEST(PoolTest, SlowStartEndsAtTheBatch) {
  Options options;
  options.batch_bytes = 2 * 1024;
  TestPool t(options);
  std::vector<size_t> made;
  size_t before = 0;
  for (int i = 0; i < 40; ++i) {
    ASSERT_NE(t.Alloc(1024), nullptr);
    const size_t calls = t.device.allocate_calls();
    if (calls != before) made.push_back(calls - before);
    before = calls;
  }
  std::vector<size_t> expected(21, 2);
  expected[0] = 1;
  EXPECT_EQ(made, expected);
}

TEST(PoolTest, NoAllocationMakesMoreThanThreeBlocks) {
  TestPool t;
  size_t most = 0;
  size_t before = 0;
  for (int i = 0; i < 2000; ++i) {
    ASSERT_NE(t.Alloc(256), nullptr);
    most = std::max(most, t.device.allocate_calls() - before);
    before = t.device.allocate_calls();
  }
  EXPECT_EQ(most, 3u);
}

TEST(PoolTest, LargeBlocksAreMadeOneByOne) {
  TestPool t;
  for (size_t i = 1; i <= 10; ++i) {
    ASSERT_NE(t.Alloc(2 * kMiB), nullptr);
    EXPECT_EQ(t.device.allocate_calls(), i);
  }
}

TEST(PoolTest, ALargerIdleBlockServesWithinTheSlackAlone) {
  TestPool t;
  Block* of_22 = t.Alloc(22 * kMiB);
  Block* of_20 = t.Alloc(20 * kMiB);
  ASSERT_TRUE(t.Free(of_22));
  Block* fresh = t.Alloc(16 * kMiB);  // 16 MiB and a quarter: 20
  EXPECT_NE(fresh, of_22);
  ASSERT_TRUE(t.Free(of_20));
  EXPECT_EQ(t.Alloc(16 * kMiB), of_20);
  EXPECT_EQ(of_20->requested, 16 * kMiB);
}

// Once the program has a quarter of the device, what tiers take beyond the requests in use is at
// most a 256th of it: from then on a block is made as asked for, and really freed.
TEST(PoolTest, RoundingHasABudget) {
  TestPool t({}, 512 * kMiB);
  std::vector<Block*> blocks;
  for (int i = 0; i < 200; ++i) blocks.push_back(t.Alloc(68 * kKiB));  // its tier: 80 KiB
  t.context->EmptyCaches();
  EXPECT_EQ(blocks.back()->bytes, 80 * kKiB) << "there is plenty";
  // But for what the cache handed out since it told the accounts.
  EXPECT_NEAR(static_cast<double>(t.context->accounts().rounding()), 200 * 12.0 * kKiB, 200 * kKiB);
  blocks.push_back(t.Alloc(130 * kMiB));
  while (t.context->CountIdle().ready != 0) blocks.push_back(t.Alloc(68 * kKiB));
  Block* exact = t.Alloc(68 * kKiB);
  EXPECT_EQ(exact->bytes, 68 * kKiB);
  EXPECT_EQ(exact->state.load(), BlockState::kUnpooled);
  EXPECT_EQ(t.Alloc(1000)->bytes, 1024u) << "costs the device nothing";
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(t.Free(blocks[static_cast<size_t>(i)]));
  t.pool->ReleaseThreadCaches(t.api);
  EXPECT_EQ(t.Alloc(68 * kKiB)->bytes, 80 * kKiB) << "there is room in the budget again";
}

TEST(PoolTest, WithoutSlackNoBlockTakesMoreThanAskedFor) {
  Options options;
  options.slack = 0;
  TestPool t(options);
  EXPECT_EQ(t.Alloc(68 * kKiB)->bytes, 68 * kKiB);
  EXPECT_EQ(t.Alloc(80 * kKiB)->state.load(), BlockState::kLive);
  EXPECT_EQ(t.Alloc(1000)->bytes, 1024u) << "as much of the device as 1000";
}

TEST(PoolTest, WithoutSlackOnlyTheSameRoundedSizeServes) {
  Options options;
  options.slack = 0;
  TestPool t(options);
  Block* block = t.Alloc(18 * kMiB);
  ASSERT_TRUE(t.Free(block));
  EXPECT_NE(t.Alloc(16 * kMiB), block);
  EXPECT_EQ(t.Alloc(17 * kMiB), block);
}

TEST(PoolTest, SmallBlocksServeTheirTierAlone) {
  TestPool t;
  Block* block = t.Alloc(2048);
  ASSERT_TRUE(t.Free(block));
  EXPECT_NE(t.Alloc(1792), block);
  EXPECT_NE(t.Alloc(2049), block);
  EXPECT_EQ(t.Alloc(1793), block);
}

TEST(PoolTest, OversizedRequestsAreRealAndExact) {
  Options options;
  options.max_block = 4 * kMiB;
  TestPool t(options);
  Block* block = t.Alloc(4 * kMiB + 1);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(block->bytes, 4 * kMiB + 1);
  const DeviceAddress address = block->address;
  EXPECT_EQ(t.Totals().real, 1u);
  EXPECT_EQ(t.Totals().blocks_made, 0u);
  ASSERT_TRUE(t.Free(block));
  EXPECT_FALSE(t.device.IsLive(address)) << "oversized memory is never pooled";
  EXPECT_EQ(t.pool->Find(address), nullptr);
  EXPECT_EQ(t.Totals().real_frees, 1u);
  // The largest one that is pooled.
  block = t.Alloc(4 * kMiB);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(t.Alloc(4 * kMiB), block);
}

TEST(PoolTest, OversizedSmallBlocks) {
  Options options;
  options.max_block = 1000;
  TestPool t(options);
  Block* oversized = t.Alloc(1001);
  EXPECT_EQ(oversized->state.load(), BlockState::kUnpooled);
  Block* pooled = t.Alloc(1000);
  EXPECT_EQ(pooled->state.load(), BlockState::kLive);
  ASSERT_TRUE(t.Free(pooled));
  EXPECT_EQ(t.Alloc(1000), pooled);
}

TEST(PoolTest, ALargestBlockThatRoundsUpToTwoMiBIsReusedAndReleased) {
  Options options;
  options.max_block = 2 * kMiB - 1;
  TestPool t(options);
  Block* block = t.Alloc(2 * kMiB - 1);
  ASSERT_NE(block, nullptr);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(t.Alloc(2 * kMiB - 1), block);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 2 * kMiB);
  EXPECT_EQ(t.device.live_count(), 0u);
}

TEST(PoolTest, ImpossibleSizesAreTheRealCallsAffair) {
  TestPool t({}, kGiB);
  for (const size_t bytes : {size_t{1} << 47, size_t{1} << 60, ~size_t{0}}) {
    t.device.ForgetCalls();
    EXPECT_EQ(t.pool->AllocHit(t.identity.handle, bytes), 0u);
    const Allocation made = t.pool->Alloc(*t.context, bytes, t.api);
    EXPECT_EQ(made.status, kOutOfMemory);
    ASSERT_EQ(t.device.calls().size(), 1u);
    EXPECT_EQ(t.device.calls()[0].bytes, bytes);
    EXPECT_TRUE(t.device.calls()[0].last_resort);
  }
  EXPECT_EQ(t.pool->statistics().process().failed_allocations.Get(), 3u);
}

TEST(PoolTest, TheHitPathServesNoBytesAndTooManyNever) {
  TestPool t;
  ASSERT_TRUE(t.Free(t.Alloc(kMiB)));
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 0), 0u);
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, ~size_t{0}), 0u);
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, kMiB + 1), 0u);
  EXPECT_EQ(t.pool->AllocHit(test::FreshHandle(), kMiB), 0u);
  EXPECT_NE(t.pool->AllocHit(t.identity.handle, kMiB), 0u);
}

TEST(PoolTest, BlocksToBeFilledAreNeverHits) {
  Options options;
  options.fill = 0;
  TestPool t(options);
  ASSERT_TRUE(t.Free(t.Alloc(100)));
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 100), 0u);
  EXPECT_EQ(t.pool->Alloc(*t.context, 100, t.api).served, Served::kThreadCache);
}

TEST(PoolTest, WithoutThreadCachesTheGlobalPoolServes) {
  Options options;
  options.thread_cache_max_block = 0;
  TestPool t(options);
  Block* block = t.Alloc(100);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 100), 0u);
  EXPECT_EQ(t.Alloc(100), block);
  EXPECT_EQ(t.Totals().global_pool_hits, 1u);
}

TEST(PoolTest, ADoubleFreeChangesNothing) {
  for (const size_t bytes : {size_t{1000}, 4 * kMiB}) {
    TestPool t;
    Block* block = t.Alloc(bytes);
    const DeviceAddress address = block->address;
    ASSERT_TRUE(t.FreeAddress(address));
    const CudaMemoryPoolStatistics before = t.Statistics();
    EXPECT_FALSE(t.FreeAddress(address));
    EXPECT_EQ(t.pool->Take(block, block->address), BlockState::kIdle);
    EXPECT_EQ(t.Statistics().frees, before.frees);
    EXPECT_EQ(t.Statistics().ready_bytes, before.ready_bytes);
    // It is handed out once, not twice.
    EXPECT_EQ(t.Alloc(bytes), block);
    EXPECT_NE(t.Alloc(bytes), block);
  }
}

TEST(PoolTest, ForeignAndInteriorPointersAreNotFound) {
  TestPool t;
  Block* block = t.Alloc(8 * kMiB);
  for (const DeviceAddress address :
       {block->address + 256, block->address + 2 * kMiB, block->address + 8 * kMiB - 256,
        DeviceAddress{0x1000}, DeviceAddress{0}, ~DeviceAddress{0}}) {
    EXPECT_EQ(t.pool->Find(address), nullptr);
    EXPECT_FALSE(t.FreeAddress(address));
  }
}

TEST(PoolTest, OfManyFreesAtOnceOneWins) {
  TestPool t;
  for (int round = 0; round < 200; ++round) {
    Block* block = t.Alloc(1000);
    const DeviceAddress address = block->address;
    std::atomic<int> go{0};
    std::atomic<int> won{0};
    std::vector<std::thread> threads;
    for (int number = 0; number < 3; ++number) {
      threads.emplace_back([&] {
        go.fetch_add(1);
        while (go.load() < 3) std::this_thread::yield();
        if (t.FreeAddress(address)) won.fetch_add(1);
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(won.load(), 1);
  }
  ExpectAtRest(t);
}

}  // namespace
}  // namespace cmp
