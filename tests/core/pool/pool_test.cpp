#include "core/pool/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "pool_fixture.h"

namespace cmp {
namespace {

using test::ExpectAtRest;
using test::OnAnotherThread;
using test::TestPool;

// ---- Alloc and Free

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

// ---- Real frees, blocks that leave

TEST(PoolTest, ARealFreeReturnsTheRealCallsStatus) {
  TestPool t;
  Block* block = t.Alloc(1000);
  const DeviceAddress address = block->address;
  ASSERT_EQ(t.pool->Take(block, block->address), BlockState::kLive);
  EXPECT_EQ(t.pool->FreeReal(block, t.api), kSuccess);
  EXPECT_FALSE(t.device.IsLive(address));
  EXPECT_EQ(t.pool->Find(address), nullptr);
  ExpectAtRest(t);
  block = t.Alloc(1000);
  ASSERT_EQ(t.pool->Take(block, block->address), BlockState::kLive);
  t.device.FailReleases(719);
  EXPECT_EQ(t.pool->FreeReal(block, t.api), 719);
}

TEST(PoolTest, AnUnpooledBlockIsReallyFreed) {
  TestPool t;
  for (const size_t bytes : {size_t{1000}, 4 * kMiB}) {
    Block* block = t.Alloc(bytes);
    const DeviceAddress address = block->address;
    EXPECT_TRUE(t.pool->Unpool(address));
    EXPECT_TRUE(t.pool->Unpool(address)) << "exported twice";
    EXPECT_EQ(t.pool->Take(block, block->address), BlockState::kUnpooled);
    EXPECT_EQ(t.pool->FreeReal(block, t.api), kSuccess);
    EXPECT_FALSE(t.device.IsLive(address));
  }
  EXPECT_EQ(t.pool->statistics().process().unpooled_blocks.Get(), 2u);
  ExpectAtRest(t);
}

TEST(PoolTest, OnlyBlocksInUseAreUnpooled) {
  TestPool t;
  Block* block = t.Alloc(1000);
  EXPECT_FALSE(t.pool->Unpool(block->address + 256));
  EXPECT_FALSE(t.pool->Unpool(0x1000));
  ASSERT_TRUE(t.Free(block));
  EXPECT_FALSE(t.pool->Unpool(block->address));
  EXPECT_EQ(t.Alloc(1000), block) << "the idle block is still good";
}

TEST(PoolTest, WhatIsFreedElsewhereIsForgottenAndLeftAlone) {
  TestPool t;
  Block* block = t.Alloc(1000);
  const DeviceAddress address = block->address;
  ASSERT_EQ(Pool::BeginFreeElsewhere(block, address), BlockState::kLive);
  EXPECT_EQ(t.pool->Find(address), block) << "so that a second free is known for one";
  EXPECT_FALSE(t.Free(block));
  EXPECT_FALSE(t.pool->Unpool(address));
  t.pool->EndFreeElsewhere(block, BlockState::kLive, true);
  EXPECT_TRUE(t.device.IsLive(address)) << "somebody else frees it";
  EXPECT_EQ(t.pool->Find(address), nullptr);
  EXPECT_EQ(t.context->accounts().reserved(), 0u);
  EXPECT_EQ(t.Statistics().live_blocks, 0u);
}

TEST(PoolTest, WhatIsNotFreedElsewhereStaysAsItWas) {
  TestPool t;
  for (const bool pooled : {true, false}) {
    Block* block = t.Alloc(1000);
    const BlockState state = pooled ? BlockState::kLive : BlockState::kUnpooled;
    ASSERT_TRUE(pooled || t.pool->Unpool(block->address));
    const uint64_t id = BufferIdOf(block);
    const size_t reserved = t.context->accounts().reserved();
    ASSERT_EQ(Pool::BeginFreeElsewhere(block, block->address), state);
    t.pool->EndFreeElsewhere(block, state, false);
    EXPECT_EQ(t.pool->Find(block->address), block);
    EXPECT_EQ(block->state.load(), state);
    EXPECT_EQ(block->requested, 1000u);
    EXPECT_EQ(BufferIdOf(block), id);
    EXPECT_EQ(t.context->accounts().reserved(), reserved);
    EXPECT_EQ(t.Statistics().live_blocks, 1u);
    if (pooled) {
      ASSERT_TRUE(t.Free(block));
    } else {
      ASSERT_EQ(Pool::BeginFreeElsewhere(block, block->address), state);
      t.pool->EndFreeElsewhere(block, state, true);
    }
    EXPECT_EQ(t.Statistics().live_blocks, 0u);
  }
}

// The context is dropped while the other call is under way, and records are wanted again.
TEST(PoolTest, WhatIsFreedElsewhereWhileItsContextEnds) {
  for (const bool freed : {true, false}) {
    TestPool t;
    Block* block = t.Alloc(1000);
    const DeviceAddress address = block->address;
    const HeldContext context(*t.context);
    ASSERT_EQ(Pool::BeginFreeElsewhere(block, address), BlockState::kLive);
    t.pool->DropContext(*t.context);
    EXPECT_EQ(t.pool->Find(address), nullptr);
    const HeldContext other = t.pool->OpenContext({test::FreshHandle(), 1u << 30, 0, true});
    Block* others = t.AllocIn(*other, 1000);
    ASSERT_NE(others, nullptr);
    t.pool->EndFreeElsewhere(block, BlockState::kLive, freed);
    EXPECT_EQ(t.pool->Find(others->address), others);
    EXPECT_EQ(others->state.load(), BlockState::kLive);
    EXPECT_EQ(t.Statistics().live_blocks, 1u);
    EXPECT_EQ(block->state.load(), BlockState::kUnused);
  }
}

TEST(PoolTest, AnIdleBlockIsNotFreedElsewhere) {
  TestPool t;
  Block* block = t.Alloc(1000);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(Pool::BeginFreeElsewhere(block, block->address), BlockState::kIdle);
  EXPECT_EQ(t.Alloc(1000), block);
}

TEST(PoolTest, WhatAllocRealGaveIsReallyFreed) {
  TestPool t({}, kMiB);
  const Allocation made = t.pool->AllocReal(t.context, 1000, t.api);
  EXPECT_EQ(made.status, kSuccess);
  EXPECT_EQ(t.device.BytesAt(made.address), 1000u);
  EXPECT_EQ(made.bytes, 1000u);
  ASSERT_NE(t.pool->Find(made.address), nullptr);
  EXPECT_EQ(t.pool->AllocReal(t.context, 2 * kMiB, t.api).status, kOutOfMemory);
  EXPECT_EQ(t.pool->statistics().process().real_malloc_calls.Get(), 2u);
  EXPECT_EQ(t.pool->statistics().process().failed_allocations.Get(), 1u);
  ASSERT_TRUE(t.FreeAddress(made.address));
  EXPECT_EQ(t.device.BytesAt(made.address), 0u);
  EXPECT_EQ(t.pool->Find(made.address), nullptr);
}

// ---- The large shelf

// Idle memory does not age: frees of large blocks may be hits.
class LargeTest : public testing::Test {
 protected:
  static Options WithoutDecay() {
    Options options;
    options.decay_by = DecayBy::kNobody;
    return options;
  }
  explicit LargeTest(size_t capacity = test::FakeDevice::kPlenty) : t(WithoutDecay(), capacity) {}

  DeviceAddress AllocHit(size_t bytes) { return t.pool->AllocHit(t.identity.handle, bytes); }
  bool FreeHit(Block* block) {
    return t.pool->TakeLive(block, block->address) && t.pool->RetireHitElsewhere(block);
  }
  // Its blocks are on the shelf of a thread that goes on.
  void KeptByAnotherThread(const std::vector<size_t>& sizes) {
    other_ = std::thread([this, sizes] {
      std::vector<Block*> blocks;
      for (const size_t bytes : sizes) blocks.push_back(t.Alloc(bytes));
      for (Block* block : blocks) EXPECT_TRUE(t.Free(block));
      ready_ = true;
      while (!over_) std::this_thread::yield();
      Pool::ThreadExit();
      Pool::ForgetThread();
    });
    while (!ready_) std::this_thread::yield();
  }
  ~LargeTest() override {
    over_ = true;
    if (other_.joinable()) other_.join();
  }

  TestPool t;

 private:
  std::atomic<bool> ready_{false};
  std::atomic<bool> over_{false};
  std::thread other_;
};

TEST_F(LargeTest, APairIsAHit) {
  for (const size_t bytes : {kMiB + 1, 2 * kMiB, 10 * kMiB, 64 * kMiB}) {
    Block* block = t.Alloc(bytes);
    ASSERT_TRUE(t.Free(block));  // which opens the shelf
    const uint64_t before = t.Totals().thread_cache_hits;
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(AllocHit(bytes), block->address);
      ASSERT_TRUE(FreeHit(block));
    }
    EXPECT_EQ(t.Totals().thread_cache_hits, before + 3);
    EXPECT_EQ(t.context->global().ready_bytes(), 0u);
    EXPECT_EQ(t.Statistics().ready_bytes, block->bytes) << "it is idle";
    t.pool->ReleaseAll(t.api);
  }
  ExpectAtRest(t);
}

// Where nobody looks after idle memory yet, or the frees themselves do, they come by the other way.
TEST(LargeAgeingTest, FreesThatAgeAreNoHits) {
  for (const DecayBy by : {DecayBy::kThread, DecayBy::kCalls}) {
    Options options;
    options.decay_by = by;
    TestPool t(options);
    Block* block = t.Alloc(10 * kMiB);
    ASSERT_TRUE(t.Free(block));
    ASSERT_EQ(t.Alloc(10 * kMiB), block);
    ASSERT_TRUE(t.pool->TakeLive(block, block->address));
    EXPECT_FALSE(t.pool->RetireHitElsewhere(block));
    t.pool->Retire(block, kReady, t.api);
  }
}

TEST_F(LargeTest, TheGlobalPoolServesAHitToo) {
  Block* block = t.Alloc(10 * kMiB);
  ASSERT_TRUE(t.Free(block));
  t.context->EmptyCaches();
  EXPECT_EQ(AllocHit(10 * kMiB), block->address);
  EXPECT_EQ(t.Totals().global_pool_hits, 1u);
  EXPECT_EQ(t.context->accounts().live(), 10 * kMiB);
}

TEST_F(LargeTest, OversizedRequestsAreNoHits) {
  Options options = WithoutDecay();
  options.max_block = 5 * kMiB;
  TestPool small(options);
  Block* block = small.Alloc(5 * kMiB);  // of 6 MiB
  ASSERT_TRUE(small.Free(block));
  EXPECT_EQ(small.pool->AllocHit(small.identity.handle, 5 * kMiB + 1), 0u);
  EXPECT_EQ(small.pool->AllocHit(small.identity.handle, ~size_t{0}), 0u);
  EXPECT_EQ(small.pool->AllocHit(small.identity.handle, 5 * kMiB), block->address);
}

TEST_F(LargeTest, TheBestFitMayBeOnTheShelfOrNot) {
  Block* small = t.Alloc(32 * kMiB);
  Block* large = t.Alloc(34 * kMiB);
  ASSERT_TRUE(t.Free(large));
  t.context->EmptyCaches();
  ASSERT_TRUE(t.Free(small));
  EXPECT_EQ(t.Alloc(30 * kMiB), small) << "on the shelf";
  EXPECT_EQ(t.context->accounts().slack(), 2 * kMiB);
  ASSERT_TRUE(t.Free(small));
  t.context->EmptyCaches();
  EXPECT_EQ(t.Alloc(34 * kMiB), large);
  ASSERT_TRUE(t.Free(large));
  EXPECT_EQ(t.Alloc(30 * kMiB), small) << "in the global pool, where the shelf has a larger one";
  EXPECT_EQ(t.Alloc(34 * kMiB), large);
  ASSERT_TRUE(t.Free(large));
  t.context->EmptyCaches();
  EXPECT_EQ(t.Alloc(32 * kMiB), large);
  EXPECT_EQ(large->tier, t.pool->tiers().TierOf(32 * kMiB)) << "its free counts there";
}

class LargeOf8GiBTest : public LargeTest {
 protected:
  LargeOf8GiBTest() : LargeTest(8 * kGiB) {}
};

TEST_F(LargeOf8GiBTest, SlackFromTheShelfIsBounded) {
  constexpr size_t kMostSlack = 128 * kMiB;  // a sixty-fourth
  std::vector<Block*> blocks;
  for (int i = 0; i < 100; ++i) blocks.push_back(t.Alloc(34 * kMiB));
  size_t most = 0;
  for (Block* block : blocks) {
    ASSERT_TRUE(t.Free(block));
    ASSERT_NE(t.Alloc(32 * kMiB), nullptr);
    most = std::max(most, t.context->accounts().slack());
  }
  EXPECT_LE(most, kMostSlack);
  EXPECT_GE(most, kMostSlack - 8 * kMiB) << "a quarter of a block";
}

// A large block that any thread has idle saves the real call.
TEST_F(LargeTest, WhatAnotherThreadKeepsServes) {
  KeptByAnotherThread({10 * kMiB, 1200 * kKiB, 36 * kMiB});
  const size_t calls = t.device.allocate_calls();
  EXPECT_EQ(t.Alloc(10 * kMiB)->bytes, 10 * kMiB);
  EXPECT_EQ(t.Alloc(1200 * kKiB)->bytes, 1280 * kKiB);
  EXPECT_EQ(t.Alloc(34 * kMiB)->bytes, 36 * kMiB) << "with slack";
  EXPECT_EQ(t.device.allocate_calls(), calls);
  EXPECT_EQ(t.Statistics().ready_bytes, 0u);
}

TEST_F(LargeTest, WhatAnotherThreadKeepsIsReleasable) {
  KeptByAnotherThread({10 * kMiB, 6 * kMiB});
  EXPECT_EQ(t.pool->ReleasableBytes(0, Pool::Caches::kLeft), 16 * kMiB);
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 16 * kMiB);
}

TEST_F(LargeTest, SoItIsWhereAllCachesAreEmptied) {
  KeptByAnotherThread({10 * kMiB, 6 * kMiB});
  EXPECT_EQ(t.pool->ReleasableBytes(0, Pool::Caches::kEmptied), 16 * kMiB);
}

// Who asks how much is free gets what is so at one moment: here 0 or 48 MiB are in use.
TEST_F(LargeTest, WhatMovesBetweenShelfAndGlobalPoolCountsOnce) {
  ASSERT_TRUE(t.Free(t.Alloc(48 * kMiB)));
  std::atomic<bool> stop{false};
  std::thread program([&] {
    while (!stop) {
      // Of a free that has not returned nobody knows.
      const DeviceAddress address = t.pool->Alloc(*t.context, 48 * kMiB, t.api).address;
      Block* block = t.pool->Find(address);
      EXPECT_TRUE(block != nullptr && t.Free(block));
    }
    Pool::ThreadExit();
    Pool::ForgetThread();
  });
  for (int i = 0; i < 2000; ++i) {
    const auto caches = i % 2 == 0 ? Pool::Caches::kEmptied : Pool::Caches::kLeft;
    const size_t idle = t.pool->ReleasableBytes(0, caches);
    EXPECT_TRUE(idle == 0 || idle == 48 * kMiB) << idle;
  }
  stop = true;
  program.join();
  EXPECT_EQ(t.device.allocate_calls(), 1u);
  EXPECT_EQ(t.pool->ReleasableBytes(0), 48 * kMiB);
}

// One thread frees and another allocates: what the accounts learn of the one comes first.
TEST_F(LargeTest, BlocksThatAnotherThreadTakesAreNotCountedTwice) {
  Block* block = t.Alloc(32 * kMiB);
  std::atomic<int> turn{0};
  constexpr int kTurns = 100;
  std::thread frees([&] {
    for (int i = 0; i < kTurns; ++i) {
      while (turn != 2 * i + 1) std::this_thread::yield();
      EXPECT_TRUE(t.Free(block));
      ++turn;
    }
    // A thread that ends has its blocks in hand for a moment.
    while (turn != 2 * kTurns + 1) std::this_thread::yield();
  });
  for (int i = 0; i < kTurns; ++i) {
    ++turn;
    while (turn != 2 * i + 2) std::this_thread::yield();
    EXPECT_EQ(t.Alloc(32 * kMiB), block);
  }
  ++turn;
  frees.join();
  EXPECT_EQ(t.context->accounts().peak(), 32 * kMiB);
  EXPECT_EQ(t.context->accounts().live(), 32 * kMiB);
  ASSERT_TRUE(t.Free(block));
}

TEST_F(LargeTest, OverTheBoundNothingIsKept) {
  Block* block = t.Alloc(10 * kMiB);
  ASSERT_TRUE(t.Free(block));
  ASSERT_EQ(t.Alloc(10 * kMiB), block);
  t.context->SetOverBound(true);
  EXPECT_TRUE(t.pool->TakeLive(block, block->address));
  EXPECT_FALSE(t.pool->RetireHitElsewhere(block));
  t.pool->Retire(block, kReady, t.api);
  EXPECT_EQ(t.context->global().ready_bytes(), 10 * kMiB);
}

TEST_F(LargeTest, AContextThatEndsTakesItsBlocks) {
  KeptByAnotherThread({10 * kMiB});
  ASSERT_TRUE(t.Free(t.Alloc(6 * kMiB)));
  t.pool->DropContext(*t.context);
  EXPECT_EQ(AllocHit(6 * kMiB), 0u);
  EXPECT_EQ(t.Statistics().ready_bytes, 0u);
}

class FullLargeTest : public LargeTest {
 protected:
  FullLargeTest() : LargeTest(128 * kMiB) {}
};

TEST_F(FullLargeTest, WhatAnotherThreadKeepsIsReleasedForWhoNeedsIt) {
  KeptByAnotherThread({20 * kMiB, 20 * kMiB, 20 * kMiB});
  EXPECT_NE(t.Alloc(124 * kMiB), nullptr);
  EXPECT_EQ(t.device.used(), 124 * kMiB);
}

// ---- ReleaseAll and ReleaseThreadCaches

TEST(ReleaseTest, ReleaseAllLeavesThreadCachesAndBlocksInUse) {
  TestPool t;
  Block* in_use = t.Alloc(4 * kMiB);
  Block* cached = t.Alloc(1000);
  Block* idle = t.Alloc(6 * kMiB);
  ASSERT_TRUE(t.Free(cached));
  ASSERT_TRUE(t.Free(idle));
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 6 * kMiB);
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 0u);
  EXPECT_EQ(t.device.used(), 4 * kMiB + 1024);
  EXPECT_EQ(t.Alloc(1000), cached);
  EXPECT_TRUE(t.Free(in_use));
}

TEST(ReleaseTest, ReleaseThreadCachesEmptiesThemToo) {
  TestPool t;
  Block* in_use = t.Alloc(4 * kMiB);
  ASSERT_TRUE(t.Free(t.Alloc(1000)));
  ASSERT_TRUE(t.Free(t.Alloc(6 * kMiB)));
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 6 * kMiB + 1024);
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 0u);
  EXPECT_EQ(t.device.used(), 4 * kMiB);
  ASSERT_TRUE(t.Free(in_use));
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 4 * kMiB);
  ExpectAtRest(t);
}

TEST(ReleaseTest, AllContextsAreReleased) {
  TestPool t;
  ContextPool* other = t.OpenAnother();
  ASSERT_TRUE(t.Free(t.Alloc(4 * kMiB)));
  ASSERT_TRUE(t.Free(t.AllocIn(*other, 6 * kMiB)));
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 10 * kMiB);
}

TEST(ReleaseTest, OtherThreadsCachesAreEmptied) {
  TestPool t;
  std::mutex lock;
  std::condition_variable changed;
  int step = 0;
  const auto next = [&](int to) {
    const std::lock_guard guard(lock);
    step = to;
    changed.notify_all();
  };
  const auto wait = [&](int until) {
    std::unique_lock guard(lock);
    changed.wait(guard, [&] { return step >= until; });
  };
  std::thread other([&] {
    EXPECT_TRUE(t.Free(t.Alloc(1000)));
    next(1);
    wait(2);
    // Its cache goes on, empty.
    EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 1000), 0u);
    EXPECT_TRUE(t.Free(t.Alloc(1000)));
  });
  wait(1);
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 0u);
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 1024u);
  next(2);
  other.join();
}

// The real free is made, and the pool has yet to hear of it: the driver has given the address to
// somebody by a call that the pool does not see, and they free it. Found under load: who had made
// the real free got no processor for a tenth of a second.
TEST(StillHasTest, AnAddressThatHasJustLeftIsSomebodyElses) {
  TestPool t;
  Block* block = t.Alloc(4 * kMiB);
  const DeviceAddress address = block->address;
  ASSERT_TRUE(t.Free(block));
  std::atomic<bool> asking{false};
  std::optional<bool> still_has;
  std::thread other;
  t.device.AfterRelease([&] {
    other = std::thread([&] {
      EXPECT_EQ(Pool::Take(block, address), BlockState::kIdle);
      asking = true;
      still_has = t.pool->StillHas(block, address);
    });
    while (!asking) std::this_thread::yield();
    usleep(300'000);  // it has looked by now, and waits
  });
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 4 * kMiB);
  other.join();
  EXPECT_EQ(still_has, false);
}

// The moment in which it has left and is still found, which the one above sees now and then.
TEST(StillHasTest, NorIsOneThePoolsThatIsAboutToBeForgotten) {
  TestPool t;
  Block* block = t.Alloc(4 * kMiB);
  const DeviceAddress address = block->address;
  ASSERT_TRUE(t.Free(block));
  block->state = BlockState::kUnused;
  std::atomic<bool> answered{false};
  std::thread other([&] {
    EXPECT_TRUE(t.pool->StillHas(block, address));
    answered = true;
  });
  usleep(50'000);
  EXPECT_FALSE(answered);
  block->state = BlockState::kIdle;
  other.join();
}

}  // namespace
}  // namespace cmp
