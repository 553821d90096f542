#include "core/context_pool.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>
#include <vector>

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
    EXPECT_TRUE(context_.Open(arena_));
  }

  ThreadCache* NewCache() {
    auto* shelves =
        static_cast<ThreadCache::Shelf*>(arena_.Allocate(kPoolTiers * sizeof(ThreadCache::Shelf)));
    for (unsigned tier = 0; tier < kPoolTiers; ++tier) new (&shelves[tier]) ThreadCache::Shelf;
    auto* counters = static_cast<TierCounters*>(arena_.Allocate(kPoolTiers * sizeof(TierCounters)));
    auto* cache = arena_.New<ThreadCache>(&context_, &limits_, counters, shelves);
    context_.AddCache(cache);
    return cache;
  }
  Batch Idle(unsigned tier, uint32_t count) {
    Batch batch;
    while (batch.count < count) {
      Block* block = records_.Take();
      block->bytes = tiers_.SizeOf(tier);
      block->tier = static_cast<uint16_t>(tier);
      block->state.store(BlockState::kIdle);
      batch.Push(block);
    }
    return batch;
  }

  Arena arena_;
  BlockRecords records_{arena_};
  Tiers tiers_{4};
  Options options_;
  CacheLimits limits_;
  ContextPool context_{{nullptr, 7, 1, true}, tiers_, options_};
};

TEST_F(ContextPoolTest, KnowsWhoItIs) {
  EXPECT_EQ(context_.identity().id, 7u);
  EXPECT_EQ(context_.identity().device, 1);
  EXPECT_TRUE(context_.identity().primary);
}

TEST_F(ContextPoolTest, ClosesOnceAndMakesRememberedCachesStale) {
  EXPECT_TRUE(context_.open());
  const uint64_t epoch = g_cache_epoch.load();
  EXPECT_TRUE(context_.Close());
  EXPECT_FALSE(context_.open());
  EXPECT_GT(g_cache_epoch.load(), epoch);
  EXPECT_FALSE(context_.Close());
  EXPECT_EQ(g_cache_epoch.load(), epoch + 1);
}

TEST_F(ContextPoolTest, WhoClosesItSleepsUntilNoUserIsLeft) {
  std::optional<ContextPool::User> user(std::in_place, context_);
  EXPECT_TRUE(user->entered());
  EXPECT_TRUE(test::Sleeps([&] { context_.CloseAndDrain(); }, [&] { user.reset(); }));
}

TEST_F(ContextPoolTest, OnlyAbandonedCachesAreAdopted) {
  EXPECT_EQ(context_.AdoptCache(), nullptr);
  ThreadCache* cache = NewCache();
  EXPECT_EQ(context_.AdoptCache(), nullptr);
  context_.AbandonCache(cache);
  EXPECT_EQ(context_.AdoptCache(), cache);
  EXPECT_EQ(context_.AdoptCache(), nullptr) << "adopted twice";
}

TEST_F(ContextPoolTest, AnAbandonedCachesBlocksGoToTheGlobalPool) {
  ThreadCache* cache = NewCache();
  cache->Stock(1, Idle(1, 3));
  cache->Stock(2, Idle(2, 2));
  context_.AbandonCache(cache);
  EXPECT_EQ(cache->ready_bytes(), 0u);
  EXPECT_EQ(context_.global().ready_bytes(), 3 * 512 + 2 * 768u);
  EXPECT_EQ(context_.global().TakeBatch(1).count, 3u);
  EXPECT_EQ(context_.global().TakeBatch(2).count, 2u);
}

TEST_F(ContextPoolTest, EmptyCachesEmptiesAllOfThem) {
  NewCache()->Stock(0, Idle(0, 4));
  NewCache()->Stock(3, Idle(3, 1));
  NewCache();
  EXPECT_EQ(context_.EmptyCaches(), 4 * 256 + 1024u);
  EXPECT_EQ(context_.EmptyCaches(), 0u);
  EXPECT_EQ(context_.global().ready_bytes(), 4 * 256 + 1024u);
}

TEST_F(ContextPoolTest, ReadyIsCachesAndGlobalPoolAndLiveIsTheRest) {
  EXPECT_EQ(context_.ready(), 0u);
  EXPECT_EQ(context_.live(), 0u);
  context_.AddReserved(10 * 1024);
  EXPECT_EQ(context_.live(), 10 * 1024u);
  NewCache()->Stock(3, Idle(3, 2));
  context_.global().Put(Idle(3, 3));
  EXPECT_EQ(context_.ready(), 5 * 1024u);
  EXPECT_EQ(context_.live(), 5 * 1024u);
  context_.SubtractReserved(5 * 1024);
  EXPECT_EQ(context_.reserved(), 5 * 1024u);
  EXPECT_EQ(context_.live(), 0u);
  context_.SubtractReserved(1024);
  EXPECT_EQ(context_.live(), 0u) << "never below nothing, whatever the moment";
}

TEST_F(ContextPoolTest, ThePeakOnlyRises) {
  context_.AddReserved(1000);
  EXPECT_EQ(context_.SampleLivePeak(), 1000u);
  EXPECT_EQ(context_.SampleLivePeak(), 0u);
  context_.AddReserved(500);
  EXPECT_EQ(context_.SampleLivePeak(), 500u);
  context_.SubtractReserved(1500);
  EXPECT_EQ(context_.SampleLivePeak(), 0u);
  EXPECT_EQ(context_.live_peak(), 1500u);
}

TEST_F(ContextPoolTest, TheBoundIsOfThePeak) {
  EXPECT_EQ(context_.bound(), 256 * kMiB);
  context_.AddReserved(kGiB);
  context_.SampleLivePeak();
  const size_t of_peak = static_cast<size_t>(double(kGiB) * 1.15) + 256 * kMiB;
  EXPECT_EQ(context_.bound(), of_peak);
  context_.SubtractReserved(kGiB);
  context_.SampleLivePeak();
  EXPECT_EQ(context_.bound(), of_peak);
}

TEST_F(ContextPoolTest, ExcessIsWhatIsOverTheBound) {
  context_.AddReserved(256 * kMiB);
  EXPECT_EQ(context_.Excess(), 0u);
  context_.AddReserved(1);
  EXPECT_EQ(context_.Excess(), 1u);
}

TEST_F(ContextPoolTest, AThreadsCacheIsAdoptedByOneThreadOnly) {
  for (int i = 0; i < 8; ++i) context_.AbandonCache(NewCache());
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
