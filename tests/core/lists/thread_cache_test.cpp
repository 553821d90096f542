#include "core/lists/thread_cache.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "core/base/memory.h"
#include "waiting_thread.h"

namespace cmp {
namespace {

constexpr unsigned kCacheTiers = 3;
constexpr size_t kSizes[kCacheTiers] = {256, 512, 1024};

class ThreadCacheTest : public testing::Test {
 protected:
  ThreadCacheTest() {
    limits_.bytes = 100000;
    limits_.tiers = kCacheTiers;
    for (unsigned tier = 0; tier < kCacheTiers; ++tier) limits_.batch[tier] = 4;
  }

  Block* Idle(unsigned tier) {
    Block* block = records_.Take();
    block->address = reinterpret_cast<DeviceAddress>(block);  // so that it is found again
    block->bytes = kSizes[tier];
    block->tier = static_cast<uint16_t>(tier);
    block->state.store(BlockState::kIdle);
    return block;
  }
  Batch IdleBatch(unsigned tier, uint32_t count) {
    Batch batch;
    while (batch.count < count) batch.Push(Idle(tier));
    return batch;
  }
  Block* Alloc(unsigned tier, size_t requested) { return At(cache_.Alloc(tier, requested)); }
  Block* AllocHit(unsigned tier, size_t requested) { return At(cache_.AllocHit(tier, requested)); }
  static Block* At(DeviceAddress address) { return reinterpret_cast<Block*>(address); }
  // What a program's free is, up to the cache.
  Batch Free(Block* block) {
    EXPECT_TRUE(block->TakeFromProgram(BlockState::kLive));
    return FreeIdle(block);
  }
  Batch FreeIdle(Block* block) {
    Batch overflow;
    Takers::Taking taking;
    while (!cache_.Free(block, kReady, &overflow, takers_, &taking)) (void)cache_.BeginListed();
    return overflow;
  }
  void Stock(unsigned tier, Batch batch) {
    while (!cache_.Stock(tier, batch)) (void)cache_.BeginListed();
  }
  static std::vector<Block*> BlocksOf(Batch batch) {
    std::vector<Block*> blocks;
    while (batch.count != 0) blocks.push_back(batch.Pop());
    return blocks;
  }

  Arena arena_;
  BlockSlabs slabs_{arena_};
  BlockRecords records_{slabs_};
  CacheLimits limits_;
  TierCounters counters_[kCacheTiers];
  ThreadCache::Shelf shelves_[kCacheTiers];
  Takers takers_;
  ThreadCache cache_{nullptr, &limits_, counters_, shelves_};
};

TEST_F(ThreadCacheTest, AnEmptyCacheServesNothing) {
  for (unsigned tier = 0; tier < kCacheTiers; ++tier) EXPECT_EQ(Alloc(tier, 1), nullptr);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
  EXPECT_EQ(counters_[0].thread_cache_hits.Get(), 0u);
}

TEST_F(ThreadCacheTest, AHitDoesWhatTheOtherPathDoes) {
  Stock(1, IdleBatch(1, 3));
  Block* block = AllocHit(1, 500);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(block->state.load(), BlockState::kLive);
  EXPECT_EQ(block->requested, 500u);
  EXPECT_EQ(cache_.ready_bytes(), 2 * kSizes[1]);
  ASSERT_TRUE(block->TakeFromProgram(BlockState::kLive));
  EXPECT_TRUE(cache_.FreeHit(block));
  EXPECT_EQ(cache_.ready_bytes(), 3 * kSizes[1]);
  EXPECT_EQ(counters_[1].thread_cache_hits.Get(), 1u);
  EXPECT_EQ(counters_[1].frees.Get(), 1u);
  EXPECT_EQ(counters_[1].requested_bytes.Get(), 500u);
  EXPECT_EQ(counters_[1].requested_freed_bytes.Get(), 500u);
  EXPECT_EQ(counters_[1].block_bytes.Get(), kSizes[1]);
  EXPECT_EQ(counters_[1].block_freed_bytes.Get(), kSizes[1]);
  EXPECT_EQ(Alloc(1, 512), block);
}

TEST_F(ThreadCacheTest, AHitLeavesToTheOtherPathWhatMovesABatch) {
  EXPECT_EQ(AllocHit(0, 1), nullptr);
  Stock(0, IdleBatch(0, 3));
  Block* fourth = Idle(0);
  EXPECT_FALSE(cache_.FreeHit(fourth)) << "it makes the batch full";
  EXPECT_EQ(cache_.ready_bytes(), 3 * kSizes[0]) << "nothing was done";
  EXPECT_EQ(counters_[0].frees.Get(), 0u);
  EXPECT_EQ(FreeIdle(fourth).count, 0u);
  EXPECT_EQ(AllocHit(0, 1), nullptr) << "the full batch is the spare now";
  EXPECT_NE(Alloc(0, 1), nullptr);
  EXPECT_NE(AllocHit(0, 1), nullptr);
  std::vector<Batch> batches;
  cache_.Empty([&](Batch batch) { batches.push_back(batch); });
  limits_.bytes = 3 * kSizes[0] - 1;
  for (const Batch& batch : batches) Stock(0, batch);
  EXPECT_FALSE(cache_.FreeHit(Idle(0))) << "it crosses the limit";
  EXPECT_EQ(cache_.ready_bytes(), 2 * kSizes[0]);
}

TEST_F(ThreadCacheTest, ServesWhatWasFreedLast) {
  Stock(1, IdleBatch(1, 3));
  Block* first = Alloc(1, 500);
  Block* second = Alloc(1, 300);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  EXPECT_NE(first, second);
  EXPECT_EQ(first->state.load(), BlockState::kLive);
  EXPECT_EQ(first->requested, 500u);
  EXPECT_EQ(Free(first).count, 0u);
  EXPECT_EQ(Alloc(1, 512), first);
}

TEST_F(ThreadCacheTest, TiersDoNotMix) {
  Stock(1, IdleBatch(1, 2));
  EXPECT_EQ(Alloc(0, 1), nullptr);
  EXPECT_EQ(Alloc(2, 1), nullptr);
  EXPECT_EQ(Alloc(1, 1)->bytes, kSizes[1]);
}

TEST_F(ThreadCacheTest, ReadyBytesAreTheSumOfItsBlocks) {
  Stock(0, IdleBatch(0, 3));
  Stock(2, IdleBatch(2, 2));
  EXPECT_EQ(cache_.ready_bytes(), 3 * kSizes[0] + 2 * kSizes[2]);
  Block* block = Alloc(2, 1);
  EXPECT_EQ(cache_.ready_bytes(), 3 * kSizes[0] + kSizes[2]);
  EXPECT_EQ(Free(block).count, 0u);
  EXPECT_EQ(cache_.ready_bytes(), 3 * kSizes[0] + 2 * kSizes[2]);
  Stock(0, Batch{});
  EXPECT_EQ(cache_.ready_bytes(), 3 * kSizes[0] + 2 * kSizes[2]);
}

// A full batch becomes the spare; when the next one is full, the older one leaves, whole.
TEST_F(ThreadCacheTest, WhenASecondBatchIsFullTheOlderOneLeavesWhole) {
  std::vector<Block*> live;
  for (int i = 0; i < 12; ++i) {
    Stock(0, IdleBatch(0, 1));
    live.push_back(Alloc(0, 1));
  }
  std::vector<std::set<Block*>> leaving;
  for (Block* block : live) {
    const std::vector<Block*> left = BlocksOf(Free(block));
    if (!left.empty()) leaving.emplace_back(left.begin(), left.end());
  }
  ASSERT_EQ(leaving.size(), 2u);
  EXPECT_EQ(leaving[0], (std::set<Block*>{live[0], live[1], live[2], live[3]}));
  EXPECT_EQ(leaving[1], (std::set<Block*>{live[4], live[5], live[6], live[7]}));
  EXPECT_EQ(cache_.ready_bytes(), 4 * kSizes[0]);
}

TEST_F(ThreadCacheTest, AroundABatchBoundaryNothingLeaves) {
  Stock(0, IdleBatch(0, 4));
  std::vector<Block*> live;
  for (int i = 0; i < 4; ++i) live.push_back(Alloc(0, 1));
  for (Block* block : live) EXPECT_EQ(Free(block).count, 0u);
  for (int round = 0; round < 100; ++round) {
    Block* first = Alloc(0, 1);
    Block* second = Alloc(0, 1);
    ASSERT_NE(first, nullptr);
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(Free(first).count, 0u);
    EXPECT_EQ(Free(second).count, 0u);
  }
}

TEST_F(ThreadCacheTest, TheSpareIsServedToo) {
  Stock(0, IdleBatch(0, 8));
  std::vector<Block*> live;
  for (int i = 0; i < 7; ++i) live.push_back(Alloc(0, 1));
  ASSERT_NE(Alloc(0, 1), nullptr);
  for (Block* block : live) EXPECT_EQ(Free(block).count, 0u);  // four are the spare, three current
  std::set<Block*> served;
  while (Block* block = Alloc(0, 1)) served.insert(block);
  EXPECT_EQ(served.size(), 7u);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
}

TEST_F(ThreadCacheTest, TheByteLimitHoldsAfterEveryFree) {
  limits_.bytes = 5 * kSizes[2];
  limits_.batch[2] = 4;
  std::vector<Block*> live;
  for (int i = 0; i < 40; ++i) {
    Stock(2, IdleBatch(2, 1));
    live.push_back(Alloc(2, 1));
  }
  size_t left = 0;
  for (Block* block : live) {
    left += Free(block).count * kSizes[2];
    EXPECT_LE(cache_.ready_bytes(), limits_.bytes);
  }
  EXPECT_EQ(left + cache_.ready_bytes(), 40 * kSizes[2]);
}

TEST_F(ThreadCacheTest, WithNoBytesAllowedEveryFreeLeaves) {
  limits_.bytes = 0;
  Stock(0, IdleBatch(0, 1));
  Block* block = Alloc(0, 1);
  const Batch overflow = Free(block);
  EXPECT_EQ(overflow.count, 1u);
  EXPECT_EQ(overflow.head, block);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
}

TEST_F(ThreadCacheTest, EmptyGivesEverythingOnce) {
  Stock(0, IdleBatch(0, 3));
  Stock(2, IdleBatch(2, 5));
  std::multiset<std::pair<unsigned, Block*>> given;
  cache_.Empty([&](Batch batch) {
    const unsigned tier = batch.head->tier;
    EXPECT_GT(batch.count, 0u);
    for (Block* block : BlocksOf(batch)) given.insert({tier, block});
  });
  EXPECT_EQ(given.size(), 8u);
  for (const auto& [tier, block] : given) EXPECT_EQ(block->tier, tier);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
  EXPECT_EQ(Alloc(0, 1), nullptr);
  cache_.Empty([](Batch) { ADD_FAILURE() << "there was nothing left"; });
}

TEST_F(ThreadCacheTest, RefillsDoubleUpToTheBatchOrThree) {
  limits_.batch[0] = 12;
  limits_.batch[1] = 6;
  std::vector<uint32_t> refills;
  for (int i = 0; i < 6; ++i) refills.push_back(cache_.NextRefill(0));
  EXPECT_EQ(refills, (std::vector<uint32_t>{1, 2, 3, 3, 3, 3}));
  refills.clear();
  for (int i = 0; i < 5; ++i) refills.push_back(cache_.NextRefill(1));
  EXPECT_EQ(refills, (std::vector<uint32_t>{1, 2, 3, 3, 3}));
  limits_.batch[2] = 1;
  EXPECT_EQ(cache_.NextRefill(2), 1u);
  EXPECT_EQ(cache_.NextRefill(2), 1u);
}

TEST_F(ThreadCacheTest, CountsRequestsAndFrees) {
  Stock(1, IdleBatch(1, 1));
  Block* block = Alloc(1, 300);
  EXPECT_EQ(counters_[1].thread_cache_hits.Get(), 1u);
  EXPECT_EQ(counters_[1].requested_bytes.Get(), 300u);
  EXPECT_EQ(counters_[1].block_bytes.Get(), 512u);
  EXPECT_EQ(Free(block).count, 0u);
  EXPECT_EQ(counters_[1].frees.Get(), 1u);
  EXPECT_EQ(counters_[1].requested_freed_bytes.Get(), 300u);
  EXPECT_EQ(counters_[1].block_freed_bytes.Get(), 512u);
  cache_.Count(2, &TierCounters::refills, 1000, 1024);
  EXPECT_EQ(counters_[2].refills.Get(), 1u);
  EXPECT_EQ(counters_[2].requested_bytes.Get(), 1000u);
  cache_.CountFree(2, 1000, 1024);
  EXPECT_EQ(counters_[2].frees.Get(), 1u);
  EXPECT_EQ(counters_[2].block_freed_bytes.Get(), 1024u);
}

// Where memory is short, what would be made ahead is made in vain.
TEST_F(ThreadCacheTest, OnceItWasEmptiedRefillsBeginAnew) {
  while (cache_.NextRefill(0) < 3) {
  }
  const uint32_t next = cache_.NextRefill(0);
  cache_.Empty([](Batch) {});
  EXPECT_GE(cache_.NextRefill(0), next) << "somebody wanted to know what is idle";
  cache_.Empty([](Batch) {}, true);
  EXPECT_EQ(cache_.NextRefill(0), 1u);
}

// The owner allocates and frees while another thread empties the cache: no block is lost or
// doubled.
TEST_F(ThreadCacheTest, AnotherThreadMayEmptyIt) {
  constexpr int kBlocks = 200;
  std::atomic<bool> stop{false};
  std::vector<Block*> emptied;
  std::thread other([&] {
    while (!stop.load()) {
      cache_.Empty([&](Batch batch) {
        for (Block* block : BlocksOf(batch)) emptied.push_back(block);
      });
    }
  });
  std::vector<Block*> kept;
  for (int i = 0; i < kBlocks; ++i) {
    Stock(0, IdleBatch(0, 1));
    for (int round = 0; round < 50; ++round) {
      Block* block = Alloc(0, 1);
      if (block == nullptr) break;
      for (Block* left : BlocksOf(Free(block))) kept.push_back(left);
    }
  }
  stop.store(true);
  other.join();
  cache_.Empty([&](Batch batch) {
    for (Block* block : BlocksOf(batch)) emptied.push_back(block);
  });
  kept.insert(kept.end(), emptied.begin(), emptied.end());
  EXPECT_EQ(kept.size(), size_t{kBlocks});
  EXPECT_EQ(std::set<Block*>(kept.begin(), kept.end()).size(), size_t{kBlocks});
}

// Found by review: a batch that left was nowhere until it was on a list of the global pool.
TEST_F(ThreadCacheTest, WhatOverflowsIsInTheHandsOfWhoFreed) {
  Batch overflow;
  std::optional<Takers::Taking> taking;
  for (int blocks = 0; overflow.count == 0; ++blocks) {
    ASSERT_LT(blocks, 100);
    takers_.Await();  // for nobody
    taking.emplace();
    Block* block = Idle(0);
    while (!cache_.Free(block, kReady, &overflow, takers_, &*taking)) (void)cache_.BeginListed();
  }
  EXPECT_TRUE(test::Sleeps([&] { takers_.Await(); }, [&] { taking.reset(); }));
}

}  // namespace
}  // namespace cmp
