#include "core/lists/global_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <vector>

namespace cmp {
namespace {

class GlobalPoolTest : public testing::Test {
 protected:
  GlobalPoolTest() { EXPECT_TRUE(pool_.Open(kGiB, arena_, spare_lists_)); }

  Block* Idle(size_t bytes) {
    Block* block = records_.Take();
    block->bytes = tiers_.RoundedBytes(bytes);
    block->tier = static_cast<uint16_t>(tiers_.TierOf(bytes));
    block->address = ++last_address_ * 4096;
    block->state.store(BlockState::kIdle);
    return block;
  }
  Block* PutOne(size_t bytes) {
    Block* block = Idle(bytes);
    pool_.Put(Batch{block, 1});
    return block;
  }
  // Blocks of the batch in the order in which they will be popped.
  std::vector<Block*> PutBatch(size_t bytes, uint32_t count) {
    Batch batch;
    while (batch.count < count) batch.Push(Idle(bytes));
    const std::vector<Block*> blocks = BlocksOf(batch);
    pool_.Put(batch);
    return blocks;
  }
  static std::vector<Block*> BlocksOf(Batch batch) {
    std::vector<Block*> blocks;
    while (batch.count != 0) blocks.push_back(batch.Pop());
    return blocks;
  }
  static std::set<Block*> SetOf(Batch batch) {
    const std::vector<Block*> blocks = BlocksOf(batch);
    return {blocks.begin(), blocks.end()};
  }
  Batch TakeBatch(size_t bytes) { return pool_.TakeBatch(tiers_.TierOf(bytes)); }

  Arena arena_;
  BlockSlabs slabs_{arena_};
  BlockRecords records_{slabs_};
  Tiers tiers_{4};
  SideTable side_table_{arena_};
  IdleChunks chunks_{side_table_};
  GlobalPool::SpareLists spare_lists_;
  GlobalPool pool_{tiers_, chunks_};
  DeviceAddress last_address_ = 0;
};

TEST_F(GlobalPoolTest, AnEmptyPoolHasNothing) {
  EXPECT_EQ(pool_.ready_bytes(), 0u);
  EXPECT_EQ(TakeBatch(256).count, 0u);
  EXPECT_EQ(pool_.TakeLarge(2 * kMiB, kGiB), nullptr);
  EXPECT_EQ(pool_.TakeOldest(1).count, 0u);
  EXPECT_EQ(pool_.TakeOldest(~size_t{0}).count, 0u);
}

TEST_F(GlobalPoolTest, BatchesComeBackWholeAndLastInFirstOut) {
  const std::vector<Block*> first = PutBatch(1000, 3);
  const std::vector<Block*> second = PutBatch(1000, 5);
  EXPECT_EQ(pool_.ready_bytes(), 8 * 1024u);
  EXPECT_EQ(BlocksOf(TakeBatch(1000)), second);
  EXPECT_EQ(pool_.ready_bytes(), 3 * 1024u);
  EXPECT_EQ(BlocksOf(TakeBatch(1000)), first);
  EXPECT_EQ(TakeBatch(1000).count, 0u);
  EXPECT_EQ(pool_.ready_bytes(), 0u);
}

TEST_F(GlobalPoolTest, TiersDoNotMix) {
  PutBatch(1000, 2);
  EXPECT_EQ(TakeBatch(256).count, 0u);
  EXPECT_EQ(TakeBatch(1025).count, 0u);
  EXPECT_EQ(TakeBatch(1024).count, 2u);
}

TEST_F(GlobalPoolTest, LargeIsTheBestFit) {
  Block* of_10 = PutOne(10 * kMiB);
  Block* of_6 = PutOne(6 * kMiB);
  Block* of_8 = PutOne(8 * kMiB);
  EXPECT_EQ(pool_.TakeLarge(6 * kMiB, kGiB), of_6);
  EXPECT_EQ(pool_.TakeLarge(6 * kMiB, kGiB), of_8);
  EXPECT_EQ(pool_.TakeLarge(6 * kMiB, kGiB), of_10);
  EXPECT_EQ(pool_.TakeLarge(6 * kMiB, kGiB), nullptr);
  EXPECT_EQ(pool_.ready_bytes(), 0u);
}

TEST_F(GlobalPoolTest, LargeStaysWithinTheSlack) {
  Block* of_20 = PutOne(20 * kMiB);
  EXPECT_EQ(pool_.TakeLarge(16 * kMiB, 18 * kMiB), nullptr);
  EXPECT_EQ(pool_.TakeLarge(16 * kMiB, 20 * kMiB - 1), nullptr);
  EXPECT_EQ(pool_.ready_bytes(), 20 * kMiB);
  EXPECT_EQ(pool_.TakeLarge(16 * kMiB, 20 * kMiB), of_20);
}

TEST_F(GlobalPoolTest, LargeIsNeverTooSmall) {
  PutOne(4 * kMiB);
  EXPECT_EQ(pool_.TakeLarge(6 * kMiB, kGiB), nullptr);
}

TEST_F(GlobalPoolTest, LargeOfOneSizeIsLastInFirstOut) {
  Block* first = PutOne(4 * kMiB);
  Block* second = PutOne(4 * kMiB);
  EXPECT_EQ(pool_.TakeLarge(4 * kMiB, 4 * kMiB), second);
  EXPECT_EQ(pool_.TakeLarge(4 * kMiB, 4 * kMiB), first);
}

// Sizes on both sides of the bitmap's words: bin 63 is 128 MiB.
TEST_F(GlobalPoolTest, LargeIsFoundAcrossTheBitmapsWords) {
  for (const size_t megabytes : {2, 126, 128, 130, 256, 258, 512, 1022, 1024}) {
    Block* block = PutOne(megabytes * kMiB);
    EXPECT_EQ(pool_.TakeLarge(2 * kMiB, kGiB), block) << megabytes;
    pool_.Put(Batch{block, 1});
    EXPECT_EQ(pool_.TakeLarge(megabytes * kMiB, megabytes * kMiB), block) << megabytes;
    EXPECT_EQ(pool_.TakeLarge(2 * kMiB, kGiB), nullptr) << "the bitmap still has " << megabytes;
  }
}

TEST_F(GlobalPoolTest, RequestsBeyondTheLargestBlockFindNothing) {
  PutOne(kGiB);
  EXPECT_EQ(pool_.TakeLarge(kGiB + 2 * kMiB, 4 * kGiB), nullptr);
}

TEST_F(GlobalPoolTest, TheOldestGoFirstWhateverTheirSize) {
  Block* first = PutOne(4 * kMiB);
  Block* second = PutOne(256);
  Block* third = PutOne(100 * kMiB);
  Block* fourth = PutOne(100000);
  EXPECT_EQ(SetOf(pool_.TakeOldest(1)), (std::set<Block*>{first}));
  EXPECT_EQ(SetOf(pool_.TakeOldest(257)), (std::set<Block*>{second, third}));
  EXPECT_EQ(SetOf(pool_.TakeOldest(1)), (std::set<Block*>{fourth}));
  EXPECT_EQ(pool_.ready_bytes(), 0u);
}

TEST_F(GlobalPoolTest, AnOldBlockThatIsTooLargeStays) {
  Block* large = PutOne(600 * kMiB);
  Block* middle = PutOne(100 * kMiB);
  Block* first = PutOne(8 * kMiB);
  Block* second = PutOne(8 * kMiB);
  EXPECT_EQ(SetOf(pool_.TakeOldest(4 * kMiB)), (std::set<Block*>{first}))
      << "the older of its size";
  EXPECT_EQ(SetOf(pool_.TakeOldestLarge(20 * kMiB)), (std::set<Block*>{middle}));
  EXPECT_EQ(SetOf(pool_.TakeOldest(8 * kMiB)), (std::set<Block*>{second}));
  EXPECT_EQ(SetOf(pool_.TakeOldest(4 * kMiB)), (std::set<Block*>{large})) << "there is no other";
}

TEST_F(GlobalPoolTest, WhatIsYoungStaysWhereOnlyTheOldMayGo) {
  for (unsigned i = 0; i < GlobalPool::kMarks; ++i) (void)pool_.Mark();
  Block* large = PutOne(600 * kMiB);
  uint64_t before = 0;
  for (unsigned i = 0; i <= GlobalPool::kMarks; ++i) before = pool_.Mark();
  PutOne(8 * kMiB);
  EXPECT_EQ(SetOf(pool_.TakeOldest(4 * kMiB, before)), (std::set<Block*>{large}));
}

TEST_F(GlobalPoolTest, TheOldestLargeOnesGoWithoutTheSmall) {
  PutOne(256);
  Block* first = PutOne(100 * kMiB);
  Block* second = PutOne(4 * kMiB);
  EXPECT_EQ(SetOf(pool_.TakeOldestLarge(100 * kMiB)), (std::set<Block*>{first}));
  EXPECT_EQ(SetOf(pool_.TakeOldestLarge(~size_t{0})), (std::set<Block*>{second}));
  EXPECT_EQ(pool_.ready_bytes(), 256u);
}

TEST_F(GlobalPoolTest, UseMakesABlockYoungAgain) {
  Block* first = PutOne(4 * kMiB);
  Block* second = PutOne(6 * kMiB);
  EXPECT_EQ(pool_.TakeLarge(4 * kMiB, 4 * kMiB), first);
  pool_.Put(Batch{first, 1});
  EXPECT_EQ(SetOf(pool_.TakeOldest(6 * kMiB)), (std::set<Block*>{second}));
}

TEST_F(GlobalPoolTest, TheOldestOfOneSizeGoesFirst) {
  Block* first = PutOne(4 * kMiB);
  Block* second = PutOne(4 * kMiB);
  Block* third = PutOne(4 * kMiB);
  EXPECT_EQ(SetOf(pool_.TakeOldest(8 * kMiB)), (std::set<Block*>{first, second}));
  EXPECT_EQ(SetOf(pool_.TakeOldest(~size_t{0})), (std::set<Block*>{third}));
}

TEST_F(GlobalPoolTest, NoMoreThanNeededIsTakenFromABatch) {
  PutBatch(1024, 8);
  Block* young = PutOne(4 * kMiB);
  EXPECT_EQ(pool_.TakeOldest(3 * 1024).count, 3u);
  EXPECT_EQ(pool_.ready_bytes(), 5 * 1024 + 4 * kMiB);
  EXPECT_EQ(pool_.TakeOldest(1).count, 1u);
  // What is left of the batch is still the oldest, and a batch.
  const Batch rest = TakeBatch(1024);
  EXPECT_EQ(rest.count, 4u);
  EXPECT_EQ(BlocksOf(rest).size(), 4u);
  EXPECT_EQ(SetOf(pool_.TakeOldest(~size_t{0})), (std::set<Block*>{young}));
}

TEST_F(GlobalPoolTest, TheRestOfABatchStaysBetweenOlderAndNewer) {
  const std::vector<Block*> first = PutBatch(1024, 4);
  const std::vector<Block*> second = PutBatch(1024, 4);
  EXPECT_EQ(pool_.TakeOldest(1024).head, first[0]);
  EXPECT_EQ(BlocksOf(TakeBatch(1024)), second);
  EXPECT_EQ(BlocksOf(TakeBatch(1024)), (std::vector<Block*>{first[1], first[2], first[3]}));
  EXPECT_EQ(pool_.ready_bytes(), 0u);
}

TEST_F(GlobalPoolTest, TheRestOfABatchKeepsItsAge) {
  PutBatch(1024, 4);  // the oldest
  Block* younger = PutOne(4 * kMiB);
  EXPECT_EQ(pool_.TakeOldest(1).count, 1u);
  const Batch more = pool_.TakeOldest(3 * 1024 + 1);
  EXPECT_EQ(more.count, 4u);  // the rest of the batch first, then the younger block
  EXPECT_EQ(SetOf(more).count(younger), 1u);
}

TEST_F(GlobalPoolTest, EverythingIsTakenWhenMoreIsWantedThanThereIs) {
  std::set<Block*> all;
  for (const size_t bytes : {size_t{256}, size_t{1000}, 2 * kMiB, 4 * kMiB, kGiB}) {
    for (Block* block :
         bytes < kLargeGranule ? PutBatch(bytes, 3) : std::vector<Block*>{PutOne(bytes)}) {
      all.insert(block);
    }
  }
  EXPECT_EQ(SetOf(pool_.TakeOldest(~size_t{0})), all);
  EXPECT_EQ(pool_.ready_bytes(), 0u);
}

// Found by reading: with a largest block that rounds up to 2 MiB there was no list for it.
TEST_F(GlobalPoolTest, ALargestBlockThatRoundsUpToTwoMiBIsKept) {
  GlobalPool pool(tiers_, chunks_);
  ASSERT_TRUE(pool.Open(2 * kMiB - 1, arena_, spare_lists_));
  Block* block = Idle(2 * kMiB - 1);
  ASSERT_EQ(block->bytes, 2 * kMiB);
  pool.Put(Batch{block, 1});
  EXPECT_EQ(pool.ready_bytes(), 2 * kMiB);
  EXPECT_EQ(pool.TakeLarge(2 * kMiB, 2 * kMiB), block);
  EXPECT_EQ(pool.ready_bytes(), 0u);
}

TEST_F(GlobalPoolTest, WithOnlySmallBlocksThereAreNoLargeOnes) {
  GlobalPool pool(tiers_, chunks_);
  ASSERT_TRUE(pool.Open(4096, arena_, spare_lists_));
  Block* block = Idle(4096);
  pool.Put(Batch{block, 1});
  EXPECT_EQ(pool.TakeLarge(2 * kMiB, kGiB), nullptr);
  EXPECT_EQ(pool.TakeOldest(1).head, block);
}

// What leaves a thread's large shelf.
TEST_F(GlobalPoolTest, BlocksOfAnySizeArePutAtOnce) {
  Block* first = Idle(6 * kMiB);
  Block* second = Idle(4 * kMiB);
  Block* third = Idle(6 * kMiB);
  Block* small = Idle(1280 * kKiB);
  Batch blocks;
  for (Block* block : {third, small, second, first}) blocks.Push(block);
  pool_.PutEach(blocks);
  EXPECT_EQ(pool_.ready_bytes(), 16 * kMiB + small->bytes);
  EXPECT_EQ(pool_.large_bytes(), 16 * kMiB);
  const Batch batch = pool_.TakeBatch(small->tier);
  EXPECT_EQ(batch.head, small);
  EXPECT_EQ(batch.count, 1u);
  EXPECT_EQ(pool_.TakeOldest(1).head, second) << "the smallest that suffices";
  EXPECT_EQ(pool_.TakeOldest(6 * kMiB).head, first);
  EXPECT_EQ(pool_.TakeLarge(6 * kMiB, 6 * kMiB), third);
  EXPECT_EQ(pool_.ready_bytes(), 0u);
}

// Who asks how much is free adds this up, whatever other threads do meanwhile.
TEST_F(GlobalPoolTest, ABlockThatBecomesReadyCountsOnce) {
  Block* block = Idle(kGiB);
  std::atomic<bool> stop{false};
  std::atomic<bool> begun{false};
  size_t most = 0;
  std::thread asks([&] {
    for (begun = true; !stop;) most = std::max(most, pool_.large_bytes());
  });
  while (!begun) std::this_thread::yield();
  for (int i = 0; i < 50000; ++i) {
    pool_.Put(Batch{block, 1, 1});
    EXPECT_EQ(pool_.large_bytes(), kGiB);
    pool_.PromoteAll([](Stamp) { return true; });
    EXPECT_EQ(pool_.large_bytes(), kGiB);
    EXPECT_EQ(pool_.ready_bytes(), kGiB);
    EXPECT_EQ(pool_.retired_bytes(), 0u);
    ASSERT_EQ(pool_.TakeLarge(kGiB, kGiB), block);
    EXPECT_EQ(pool_.large_bytes(), 0u);
  }
  stop = true;
  asks.join();
  EXPECT_LE(most, kGiB);
}

TEST_F(GlobalPoolTest, ThreadsLoseAndDoubleNothing) {
  constexpr int kThreads = 4;
  constexpr int kEach = 60;
  std::vector<std::set<Block*>> got(kThreads);
  std::vector<Batch> own;
  for (int i = 0; i < kThreads * kEach; ++i) {
    own.push_back(Batch{Idle(i % 3 == 0 ? 4 * kMiB : i % 3 == 1 ? 1000 : 256), 1});
  }
  std::vector<std::thread> threads;
  for (int number = 0; number < kThreads; ++number) {
    threads.emplace_back([&, number] {
      for (int i = 0; i < kEach; ++i) {
        pool_.Put(own[static_cast<size_t>(number * kEach + i)]);
        Batch taken;
        switch (i % 4) {
          case 0:
            taken = pool_.TakeBatch(tiers_.TierOf(1000));
            break;
          case 1:
            if (Block* block = pool_.TakeLarge(2 * kMiB, kGiB)) taken = Batch{block, 1};
            break;
          case 2:
            taken = pool_.TakeOldest(1);
            break;
          default:
            break;
        }
        // Every other one goes back in.
        for (Block* block : BlocksOf(taken)) {
          if (i % 8 < 4) {
            pool_.Put(Batch{block, 1});
          } else {
            got[static_cast<size_t>(number)].insert(block);
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<Block*> all = SetOf(pool_.TakeOldest(~size_t{0}));
  size_t sum = all.size();
  for (const std::set<Block*>& some : got) {
    sum += some.size();
    all.insert(some.begin(), some.end());
  }
  EXPECT_EQ(sum, own.size());
  EXPECT_EQ(all.size(), own.size());
  EXPECT_EQ(pool_.ready_bytes(), 0u);
}

}  // namespace
}  // namespace cmp
