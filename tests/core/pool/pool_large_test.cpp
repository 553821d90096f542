// Blocks above a thread's tiers: on the shelf of a thread for large blocks, and between threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "core/pool/pool.h"
#include "pool_fixture.h"

namespace cmp {
namespace {

using test::ExpectAtRest;
using test::TestPool;

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

}  // namespace
}  // namespace cmp
