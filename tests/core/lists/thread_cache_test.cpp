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
  static CacheLimits Limits() {
    CacheLimits limits;
    limits.steps = 1;
    limits.bytes = 100000;
    limits.tiers = kCacheTiers;
    for (unsigned tier = 0; tier < kCacheTiers; ++tier) limits.batch[tier] = 4;
    return limits;
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
  Block* AllocHit(size_t requested) { return At(cache_.AllocHit(requested)); }
  static Block* At(DeviceAddress address) { return reinterpret_cast<Block*>(address); }
  // What a program's free is, up to the cache.
  Batch Free(Block* block) {
    EXPECT_TRUE(block->TakeFromProgram(BlockState::kLive));
    return FreeIdle(block);
  }
  Batch FreeIdle(Block* block) {
    Batch overflow;
    Takers::Taking taking;
    while (!cache_.Free(block, kReady, &overflow, takers_, &taking)) BeginListed();
    return overflow;
  }
  // From another thread. REQUIRES: list_lock_
  bool Take() {
    cache_.BeginTaking();
    return cache_.EndTaking(BarrierOnEveryThread());
  }
  void BeginListed() {
    const Held held(list_lock_);
    (void)cache_.BeginListed();
  }
  void Stock(unsigned tier, Batch batch) {
    while (!cache_.Stock(tier, batch)) BeginListed();
  }
  static std::vector<Block*> BlocksOf(Batch batch) {
    std::vector<Block*> blocks;
    while (batch.count != 0) blocks.push_back(batch.Pop());
    return blocks;
  }

  Arena arena_;
  BlockSlabs slabs_{arena_};
  BlockRecords records_{slabs_};
  CacheLimits limits_ = Limits();
  TierCounters counters_[kCacheTiers];
  ThreadCache::Shelf shelves_[kCacheTiers];
  Takers takers_;
  Mutex list_lock_;  // that of the context's list of caches
  ThreadCache cache_{nullptr, &limits_, counters_, shelves_};
};

TEST_F(ThreadCacheTest, AnEmptyCacheServesNothing) {
  for (unsigned tier = 0; tier < kCacheTiers; ++tier) EXPECT_EQ(Alloc(tier, 1), nullptr);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
  EXPECT_EQ(counters_[0].thread_cache_hits.Get(), 0u);
}

TEST_F(ThreadCacheTest, AHitDoesWhatTheOtherPathDoes) {
  Stock(1, IdleBatch(1, 3));
  Block* block = AllocHit(500);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(block->state.load(), BlockState::kLive);
  EXPECT_EQ(block->requested, 500u);
  EXPECT_EQ(cache_.ready_bytes(), 2 * kSizes[1]);
  ASSERT_TRUE(block->TakeFromProgram(BlockState::kLive));
  EXPECT_TRUE(cache_.FreeHit(block, block->tier));
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
  EXPECT_EQ(AllocHit(1), nullptr);
  Stock(0, IdleBatch(0, 3));
  Block* fourth = Idle(0);
  EXPECT_FALSE(cache_.FreeHit(fourth, 0)) << "it makes the batch full";
  EXPECT_EQ(cache_.ready_bytes(), 3 * kSizes[0]) << "nothing was done";
  EXPECT_EQ(counters_[0].frees.Get(), 0u);
  EXPECT_EQ(FreeIdle(fourth).count, 0u);
  EXPECT_EQ(AllocHit(1), nullptr) << "the full batch is the spare now";
  EXPECT_NE(Alloc(0, 1), nullptr);
  EXPECT_NE(AllocHit(1), nullptr);
  std::vector<Batch> batches;
  cache_.Empty([&](Batch batch) { batches.push_back(batch); });
  limits_.bytes = 3 * kSizes[0] - 1;
  for (const Batch& batch : batches) Stock(0, batch);
  EXPECT_FALSE(cache_.FreeHit(Idle(0), 0)) << "it crosses the limit";
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

TEST_F(ThreadCacheTest, NoMoreIsStockedThanMayBeReady) {
  Stock(0, IdleBatch(0, 3));
  const Batch more = IdleBatch(0, 2);
  EXPECT_FALSE(cache_.Stock(0, more, 5 * kSizes[0] - 1));
  EXPECT_EQ(cache_.ready_bytes(), 3 * kSizes[0]);
  EXPECT_TRUE(cache_.Stock(0, more, 5 * kSizes[0]));
  EXPECT_EQ(cache_.ready_bytes(), 5 * kSizes[0]);
}

// Found by review: what is retired is idle, too, and a bound counts it.
TEST_F(ThreadCacheTest, NoMoreIsStockedThanMayBeIdle) {
  Block* block = Idle(0);
  Batch overflow;
  Takers::Taking taking;
  while (!cache_.Free(block, 7, &overflow, takers_, &taking)) BeginListed();
  ASSERT_EQ(cache_.retired_bytes(), kSizes[0]);
  const Batch more = IdleBatch(0, 2);
  EXPECT_FALSE(cache_.Stock(0, more, 3 * kSizes[0] - 1));
  EXPECT_TRUE(cache_.Stock(0, more, 3 * kSizes[0]));
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
  const auto empty = [&](Batch batch) {
    for (Block* block : BlocksOf(batch)) emptied.push_back(block);
  };
  std::thread other([&] {
    while (!stop.load()) {
      const Held held(list_lock_);
      if (!cache_.listed()) continue;
      if (Take()) cache_.Empty(empty);
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
  cache_.Empty(empty);
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

// ---- The large shelf. Tiers are only where it counts.

class LargeCacheTest : public ThreadCacheTest {
 protected:
  LargeCacheTest() { limits_.large_bytes = 64 * kMiB; }
  // One that the program has.
  Block* Live(size_t bytes, size_t requested) {
    Block* block = Idle(0);
    block->bytes = bytes;
    block->requested = requested;
    return block;
  }
  bool FreeLarge(Block* block) {
    leaving_ = {};
    Takers::Taking taking;
    return cache_.FreeLarge(block, &leaving_, &changes_, takers_, &taking);
  }
  void Open() {
    const Held held(list_lock_);
    (void)cache_.BeginListed(ThreadCache::Shelves::kAll);
  }

  Batch leaving_;
  ThreadCache::Changes changes_ = {};
};

TEST_F(LargeCacheTest, ItTakesNoneBeforeItIsOpened) {
  Block* block = Live(4 * kMiB, 4 * kMiB);
  EXPECT_FALSE(FreeLarge(block));
  EXPECT_TRUE(cache_.BeginListed());
  EXPECT_FALSE(FreeLarge(block)) << "blocks of its tiers it may have";
  EXPECT_FALSE(cache_.BeginListed(ThreadCache::Shelves::kAll)) << "it is listed";
  EXPECT_TRUE(cache_.takes_large());
  EXPECT_TRUE(FreeLarge(block));
  EXPECT_EQ(cache_.large_bytes(), 4 * kMiB);
  EXPECT_EQ(cache_.ready_bytes(), 0u);
  std::vector<Block*> gone;
  cache_.EmptyLarge([&](Batch batch) { gone.push_back(batch.head); });
  EXPECT_EQ(gone, std::vector<Block*>{block});
  EXPECT_TRUE(cache_.listed());
  EXPECT_FALSE(cache_.takes_large());
  EXPECT_FALSE(FreeLarge(block));
}

TEST_F(LargeCacheTest, EmptyGivesItsBlocksToo) {
  Open();
  Stock(0, IdleBatch(0, 2));
  Block* block = Live(4 * kMiB, 4 * kMiB);
  EXPECT_TRUE(FreeLarge(block));
  std::vector<Block*> gone;
  cache_.Empty([&](Batch batch) {
    for (Block* each : BlocksOf(batch)) gone.push_back(each);
  });
  EXPECT_EQ(gone.size(), 3u);
  EXPECT_EQ(gone.back(), block);
  EXPECT_EQ(cache_.large_bytes(), 0u);
  EXPECT_FALSE(cache_.takes_large());
  EXPECT_EQ(cache_.AllocLarge(0, 4 * kMiB, 1), 0u);
}

TEST_F(LargeCacheTest, WhatItHandsOutCountsInTheRowOfTheRequest) {
  Open();
  Block* block = Live(4 * kMiB, 3 * kMiB);
  EXPECT_TRUE(FreeLarge(block));
  EXPECT_EQ(counters_[0].frees.Get(), 1u);
  EXPECT_EQ(counters_[0].requested_freed_bytes.Get(), 3 * kMiB);
  EXPECT_EQ(counters_[0].block_freed_bytes.Get(), 4 * kMiB);
  EXPECT_EQ(cache_.AllocLarge(2, 6 * kMiB, 5 * kMiB), 0u);
  EXPECT_EQ(At(cache_.AllocLarge(2, 4 * kMiB, 4 * kMiB - 1)), block);
  EXPECT_EQ(block->tier, 2u);
  EXPECT_EQ(block->state.load(), BlockState::kLive);
  EXPECT_EQ(block->requested, 4 * kMiB - 1);
  EXPECT_EQ(counters_[2].thread_cache_hits.Get(), 1u);
  EXPECT_EQ(counters_[2].requested_bytes.Get(), 4 * kMiB - 1);
  EXPECT_EQ(counters_[2].block_bytes.Get(), 4 * kMiB);
}

TEST_F(LargeCacheTest, TheAccountsLearnOfSlackAndRounding) {
  Open();
  EXPECT_TRUE(FreeLarge(Live(8 * kMiB, 8 * kMiB)));
  EXPECT_TRUE(FreeLarge(Live(1280 * kKiB, 1280 * kKiB)));
  ThreadCache::Changes changes = cache_.Settle();
  const auto bytes = [](size_t sum) { return static_cast<int64_t>(sum); };
  EXPECT_EQ(changes.live, -bytes(8 * kMiB + 1280 * kKiB));
  EXPECT_EQ(changes.slack, 0);
  EXPECT_EQ(changes.rounding, 0);
  Block* large = At(cache_.AllocLarge(0, 8 * kMiB, 5 * kMiB));
  Block* small = At(cache_.AllocLarge(0, 1280 * kKiB, 1100 * kKiB));
  ASSERT_NE(large, nullptr);
  ASSERT_NE(small, nullptr);
  changes = cache_.Settle();
  EXPECT_EQ(changes.live, bytes(6 * kMiB + 1280 * kKiB)) << "rounded to 2 MiB, and to its tier";
  EXPECT_EQ(changes.slack, bytes(2 * kMiB));
  EXPECT_EQ(changes.rounding, bytes(180 * kKiB));
  EXPECT_TRUE(FreeLarge(large));
  EXPECT_TRUE(FreeLarge(small));
  changes = cache_.CountShared(1, 3 * kMiB, 6 * kMiB);
  EXPECT_EQ(changes.live, -bytes(6 * kMiB + 1280 * kKiB) + bytes(4 * kMiB));
  EXPECT_EQ(changes.slack, -bytes(2 * kMiB) + bytes(2 * kMiB));
  EXPECT_EQ(changes.rounding, -bytes(180 * kKiB));
  EXPECT_EQ(counters_[1].global_pool_hits.Get(), 1u);
  changes = cache_.Settle();
  EXPECT_EQ(changes.live, 0);
  EXPECT_EQ(changes.slack, 0);
  EXPECT_EQ(changes.rounding, 0);
}

// They are nowhere until they are on a list of the global pool.
TEST_F(LargeCacheTest, WhatLeavesIsInTheHandsOfWhoFreed) {
  Open();
  std::optional<Takers::Taking> taking;
  taking.emplace();
  Batch leaving;
  for (unsigned i = 0; i < LargeShelf::kSlots; ++i) {
    Block* block = Live(2 * kMiB, 2 * kMiB);
    ASSERT_TRUE(cache_.FreeLarge(block, &leaving, &changes_, takers_, &*taking));
  }
  ASSERT_EQ(leaving.count, 0u);
  takers_.Await();  // for nobody
  ASSERT_TRUE(cache_.FreeLarge(Live(2 * kMiB, 2 * kMiB), &leaving, &changes_, takers_, &*taking));
  ASSERT_NE(leaving.count, 0u);
  EXPECT_EQ(changes_.live, -static_cast<int64_t>((LargeShelf::kSlots + 1) * 2 * kMiB));
  EXPECT_TRUE(test::Sleeps([&] { takers_.Await(); }, [&] { taking.reset(); }));
  // But not one that was on no list yet.
  taking.emplace();
  leaving = {};
  Block* large = Live(128 * kMiB, 128 * kMiB);
  ASSERT_TRUE(cache_.FreeLarge(large, &leaving, &changes_, takers_, &*taking));
  EXPECT_EQ(leaving.head, large);
  takers_.Await();  // for nobody
}

// Others take from it, and empty it, while its owner goes on.
TEST_F(LargeCacheTest, OtherThreadsMayTakeFromIt) {
  constexpr int kBlocks = 12;
  Open();
  Mutex lock;
  std::vector<Block*> outside;
  for (int i = 0; i < kBlocks; ++i) outside.push_back(Live((1 + i % 3) * 2 * kMiB, kMiB));
  const auto give = [&](Block* block) {
    Held held(lock);
    outside.push_back(block);
  };
  std::atomic<bool> stop{false};
  std::thread other([&] {
    for (int round = 0; !stop; ++round) {
      const Held held(list_lock_);
      const size_t fit = cache_.BestFitOfLarge(2 * kMiB, 4 * kMiB);
      const bool all = round % 16 == 0;
      if ((all || fit != 0) && Take()) {
        if (all) cache_.EmptyLarge([&](Batch batch) { give(batch.head); });
        ThreadCache::Changes changes;
        if (Block* block = all ? nullptr : cache_.TakeLarge(fit, &changes)) give(block);
      }
      std::this_thread::yield();
    }
  });
  for (int round = 0; round < 20000; ++round) {
    Block* block = nullptr;
    {
      Held held(lock);
      if (!outside.empty()) {
        block = outside.back();
        outside.pop_back();
      }
    }
    if (block != nullptr) {
      while (!FreeLarge(block)) Open();
      while (leaving_.count != 0) give(leaving_.Pop());
    }
    if (Block* hit = At(cache_.AllocLarge(0, (1 + round % 3) * 2 * kMiB, kMiB))) {
      ASSERT_TRUE(hit->TakeFromProgram(BlockState::kLive));
      give(hit);
    }
  }
  stop = true;
  other.join();
  cache_.EmptyLarge([&](Batch batch) { give(batch.head); });
  EXPECT_EQ(outside.size(), size_t{kBlocks});
  EXPECT_EQ(std::set<Block*>(outside.begin(), outside.end()).size(), size_t{kBlocks});
  EXPECT_EQ(cache_.large_bytes(), 0u);
}

}  // namespace
}  // namespace cmp
