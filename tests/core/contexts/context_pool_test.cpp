#include "core/contexts/context_pool.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "core/contexts/contexts.h"
#include "waiting_thread.h"

namespace cmp {
namespace {

constexpr unsigned kPoolTiers = 4;

class ContextPoolTest : public testing::Test {
 protected:
  ContextPoolTest() {
    limits_.bytes = kGiB;
    limits_.tiers = kPoolTiers;
    for (unsigned tier = 0; tier < kPoolTiers; ++tier) limits_.batch[tier] = 128;
    EXPECT_TRUE(context_.Open({nullptr, 7, 1, true}, Options{}, arena_, spare_lists_));
  }

  ThreadCache* NewCache() {
    auto* shelves =
        static_cast<ThreadCache::Shelf*>(arena_.Allocate(kPoolTiers * sizeof(ThreadCache::Shelf)));
    for (unsigned tier = 0; tier < kPoolTiers; ++tier) new (&shelves[tier]) ThreadCache::Shelf;
    auto* counters = static_cast<TierCounters*>(arena_.Allocate(kPoolTiers * sizeof(TierCounters)));
    auto* cache = arena_.New<ThreadCache>(&context_, &limits_, counters, shelves);
    return cache;
  }
  void Stock(ThreadCache* cache, unsigned tier, uint32_t count) {
    EXPECT_TRUE(context_.ListCache(*cache));
    EXPECT_TRUE(cache->Stock(tier, Idle(tier, count)));
  }
  Batch Idle(unsigned tier, uint32_t count) {
    Batch batch;
    while (batch.count < count) {
      Block* block = records_.Take();
      block->address = reinterpret_cast<DeviceAddress>(block);  // so that it is found again
      block->bytes = tiers_.SizeOf(tier);
      block->tier = static_cast<uint16_t>(tier);
      block->state.store(BlockState::kIdle);
      batch.Push(block);
    }
    return batch;
  }

  Arena arena_;
  BlockSlabs slabs_{arena_};
  BlockRecords records_{slabs_};
  Tiers tiers_{4};
  Options options_;
  CacheLimits limits_;
  SideTable side_table_{arena_};
  IdleChunks chunks_{side_table_};
  GlobalPool::SpareLists spare_lists_;
  ContextPool context_{tiers_, options_, slabs_, chunks_};
};

TEST_F(ContextPoolTest, KnowsWhoItIs) {
  EXPECT_EQ(context_.identity().id, 7u);
  EXPECT_EQ(context_.identity().device, 1);
  EXPECT_TRUE(context_.identity().primary);
}

// Who moves batches and makes blocks takes no line away from threads that only free.
TEST_F(ContextPoolTest, WhatFreesReadIsOnLinesThatOthersDoNotWrite) {
  const auto line = [](const auto& member) {
    return reinterpret_cast<uintptr_t>(&member) / kCacheLine;
  };
  const std::set<uintptr_t> read = {line(context_.identity()), line(context_.of_host),
                                    line(context_.of_host), line(context_.fences())};
  EXPECT_EQ(read.size(), 2u);
  for (const uintptr_t written :
       {line(context_.accounts()), line(context_.device_bytes), line(context_.unasked_bytes),
        line(context_.scarce), line(context_.next_spare), line(context_.records()),
        line(context_.global())}) {
    EXPECT_EQ(read.count(written), 0u);
  }
  Contexts contexts;
  EXPECT_GT(line(contexts.lock()), line(contexts)) << "the count is first";
  EXPECT_EQ(alignof(Contexts), kCacheLine);
}

TEST_F(ContextPoolTest, ClosesOnceAndMakesRememberedCachesStale) {
  EXPECT_TRUE(context_.open());
  const uint64_t epoch = g_hit_epoch.load();
  EXPECT_TRUE(context_.Close(ContextPool::Why::kDistrusted));
  EXPECT_FALSE(context_.open());
  EXPECT_GT(g_hit_epoch.load(), epoch);
  EXPECT_FALSE(context_.Close(ContextPool::Why::kBroken));
  EXPECT_EQ(g_hit_epoch.load(), epoch + 1);
}

TEST_F(ContextPoolTest, WhoClosesItSleepsUntilNoUserIsLeft) {
  std::optional<ContextPool::User> user(std::in_place, context_);
  EXPECT_TRUE(user->entered());
  EXPECT_TRUE(test::Sleeps([&] { context_.BeginEnding(); }, [&] { user.reset(); }));
}

TEST_F(ContextPoolTest, OnlyAbandonedCachesAreAdopted) {
  EXPECT_EQ(context_.AdoptCache(), nullptr);
  ThreadCache* cache = NewCache();
  EXPECT_EQ(context_.AdoptCache(), nullptr);
  EXPECT_TRUE(context_.AbandonCache(cache));
  EXPECT_EQ(context_.AdoptCache(), cache);
  EXPECT_EQ(context_.AdoptCache(), nullptr) << "adopted twice";
}

TEST_F(ContextPoolTest, AnAbandonedCachesBlocksGoToTheGlobalPool) {
  ThreadCache* cache = NewCache();
  Stock(cache, 1, 3);
  Stock(cache, 2, 2);
  EXPECT_TRUE(context_.AbandonCache(cache));
  EXPECT_EQ(cache->ready_bytes(), 0u);
  EXPECT_EQ(context_.global().ready_bytes(), 3 * 512 + 2 * 768u);
  EXPECT_EQ(context_.global().TakeBatch(1).count, 3u);
  EXPECT_EQ(context_.global().TakeBatch(2).count, 2u);
}

TEST_F(ContextPoolTest, EmptyCachesEmptiesAllOfThem) {
  Stock(NewCache(), 0, 4);
  Stock(NewCache(), 3, 1);
  NewCache();
  EXPECT_EQ(context_.EmptyCaches(), 4 * 256 + 1024u);
  EXPECT_EQ(context_.EmptyCaches(), 0u);
  EXPECT_EQ(context_.global().ready_bytes(), 4 * 256 + 1024u);
}

TEST_F(ContextPoolTest, ACacheThatIsNotListedTakesNothing) {
  ThreadCache* cache = NewCache();
  Batch overflow;
  Takers takers;
  Takers::Taking taking;
  EXPECT_FALSE(cache->Stock(0, Idle(0, 1)));
  EXPECT_FALSE(cache->Free(Idle(0, 1).Pop(), kReady, &overflow, takers, &taking));
  EXPECT_FALSE(cache->FreeHit(Idle(0, 1).Pop(), 0));
  EXPECT_TRUE(context_.ListCache(*cache));
  EXPECT_TRUE(cache->Free(Idle(0, 1).Pop(), kReady, &overflow, takers, &taking));
  EXPECT_TRUE(cache->FreeHit(Idle(0, 1).Pop(), 0));
  EXPECT_EQ(context_.EmptyCaches(), 512u);
  EXPECT_FALSE(cache->FreeHit(Idle(0, 1).Pop(), 0)) << "after it was emptied";
}

TEST_F(ContextPoolTest, ListedCachesMayBeAbandonedInAnyOrder) {
  std::vector<ThreadCache*> caches;
  for (int i = 0; i < 5; ++i) Stock(caches.emplace_back(NewCache()), 0, 1);
  for (const int which : {2, 0, 4}) EXPECT_TRUE(context_.AbandonCache(caches[which]));
  EXPECT_EQ(context_.CountIdle().ready, 5 * 256u);
  EXPECT_EQ(context_.EmptyCaches(), 2 * 256u);
  EXPECT_EQ(context_.global().ready_bytes(), 5 * 256u);
}

TEST_F(ContextPoolTest, TheAccountsLearnWhatACacheHandedOut) {
  Accounts& accounts = context_.accounts();
  accounts.AddReserved(8 * 1024);
  ThreadCache* cache = NewCache();
  ThreadCache* other = NewCache();
  Stock(cache, 3, 8);
  context_.Settle(*cache);
  EXPECT_EQ(accounts.idle(), 8 * 1024u);
  std::vector<Block*> blocks;
  for (int i = 0; i < 5; ++i) {
    blocks.push_back(reinterpret_cast<Block*>(cache->AllocHit(1000)));
  }
  context_.Settle(*cache);
  EXPECT_EQ(accounts.live(), 5 * 1024u);
  EXPECT_EQ(accounts.idle(), 3 * 1024u);
  for (Block* block : blocks) block->state.store(BlockState::kIdle);
  EXPECT_TRUE(context_.ListCache(*other));
  Batch overflow;
  Takers takers;
  Takers::Taking taking;
  EXPECT_TRUE(other->Free(blocks[0], kReady, &overflow, takers, &taking));
  EXPECT_TRUE(other->Free(blocks[1], 7, &overflow, takers, &taking));
  context_.Settle(*other);
  EXPECT_EQ(accounts.live(), 3 * 1024u);
  EXPECT_EQ(context_.ready(), 4 * 1024u);
  const ContextPool::Idle idle = context_.CountIdle();
  EXPECT_EQ(idle.ready, 4 * 1024u);
  EXPECT_EQ(idle.retired, 1024u);
  context_.EmptyCaches();
  EXPECT_EQ(accounts.live(), 3 * 1024u);
  EXPECT_EQ(accounts.idle(), 5 * 1024u);
  EXPECT_EQ(context_.ready(), 4 * 1024u);
}

TEST_F(ContextPoolTest, AThreadsCacheIsAdoptedByOneThreadOnly) {
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(context_.AbandonCache(NewCache()));
  std::atomic<int> adopted{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&] {
      for (int i = 0; i < 4; ++i) {
        if (context_.AdoptCache() != nullptr) adopted.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(adopted.load(), 8);
}

}  // namespace
}  // namespace cmp
