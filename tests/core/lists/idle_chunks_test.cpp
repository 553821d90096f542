#include "core/lists/idle_chunks.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>
#include <vector>

#include "pool_fixture.h"

namespace cmp {
namespace {

using test::OnAnotherThread;
using test::TestPool;

// What the device has in chunks: it cuts small blocks out of them as the driver does.
size_t ChunksOf(const std::vector<DeviceAddress>& addresses) {
  std::set<DeviceAddress> chunks;
  for (const DeviceAddress address : addresses) chunks.insert(address / kLargeGranule);
  return chunks.size() * kLargeGranule;
}

TEST(IdleChunksTest, AChunkCountsOnceAllOfItsBlocksAreIdle) {
  TestPool t;
  std::vector<Block*> blocks;
  std::vector<DeviceAddress> addresses;
  for (int i = 0; i < 100; ++i) {
    blocks.push_back(t.Alloc(100 * kKiB));
    addresses.push_back(blocks.back()->address);
  }
  EXPECT_EQ(t.pool->ReleasableBytes(0), 0u);
  const DeviceAddress last = blocks.back()->address / kLargeGranule;
  for (Block* block : blocks) {
    if (block == blocks.back()) continue;
    ASSERT_TRUE(t.Free(block));
  }
  const size_t all = ChunksOf(addresses);
  EXPECT_GE(all, 5 * kLargeGranule);
  EXPECT_EQ(t.pool->ReleasableBytes(0), all - kLargeGranule) << "the last block keeps its chunk";
  EXPECT_EQ(t.pool->ReleasableBytes(1), 0u) << "another device";
  Block* again = t.Alloc(100 * kKiB);
  EXPECT_EQ(t.pool->ReleasableBytes(0),
            again->address / kLargeGranule == last ? all - kLargeGranule : all - 2 * kLargeGranule);
  ASSERT_TRUE(t.Free(again));
  ASSERT_TRUE(t.Free(blocks.back()));
  EXPECT_EQ(t.pool->ReleasableBytes(0), all);
  t.pool->ReleaseThreadCaches(t.api);
  EXPECT_EQ(t.pool->ReleasableBytes(0), 0u);
}

TEST(IdleChunksTest, RetiredBlocksAndThoseOfEndedThreadsCountToo) {
  TestPool t;
  OnAnotherThread([&] {
    std::vector<Block*> blocks;
    for (int i = 0; i < 16; ++i) blocks.push_back(t.Alloc(128 * kKiB));
    for (Block* block : blocks) ASSERT_TRUE(t.Free(block, 1));
  });
  EXPECT_GT(t.context->global().retired_bytes(), 0u);
  EXPECT_GE(t.pool->ReleasableBytes(0), t.device.used());
}

TEST(IdleChunksTest, LargeBlocksAreNoneOfIt) {
  TestPool t;
  ASSERT_TRUE(t.Free(t.Alloc(4 * kMiB)));
  EXPECT_EQ(t.pool->ReleasableBytes(0), 4 * kMiB);
}

TEST(IdleChunksTest, NothingOfAContextThatEndedCounts) {
  TestPool t;
  ContextPool* context = t.OpenAnother();
  ASSERT_TRUE(t.Free(t.AllocIn(*context, 1000)));
  EXPECT_EQ(t.pool->ReleasableBytes(0), kLargeGranule);
  t.pool->DropContext(*context);
  EXPECT_EQ(t.pool->ReleasableBytes(0), 0u);
}

// Blocks in the chunks of devices, as they come and go.
class Chunks {
 public:
  // A block of 64 KiB at `address`, idle from the first, is entered for a device.
  Block* Enter(DeviceAddress address, int device) {
    Block* block = records_.Take();
    block->address = address;
    block->bytes = 64 * kKiB;
    block->state.store(BlockState::kIdle);
    Block* displaced = nullptr;
    EXPECT_TRUE(table_.Insert(block, &displaced));
    chunks.Add(*block, device);
    return block;
  }
  void ExpectNothing(int device) const {
    EXPECT_EQ(chunks.Bytes(device), 0u);
    EXPECT_EQ(chunks.Gaps(device), 0u);
  }

 private:
  Arena arena_;
  SideTable table_{arena_};
  BlockSlabs slabs_{arena_};
  BlockRecords records_{slabs_};

 public:
  IdleChunks chunks{table_};
};

constexpr DeviceAddress kChunk = 1000 * kLargeGranule;

// The driver has freed a chunk, and made it again on another device, before its block is forgotten.
TEST(IdleChunksTest, AChunkCountsForTheDeviceOfItsNewestBlock) {
  Chunks c;
  Block* old = c.Enter(kChunk, 0);
  EXPECT_EQ(c.chunks.Gaps(0), kLargeGranule - old->bytes);
  Block* fresh = c.Enter(kChunk, 1);
  c.chunks.Remove(old->address, old->bytes);
  c.ExpectNothing(0);
  EXPECT_EQ(c.chunks.Gaps(1), kLargeGranule - fresh->bytes);
  c.chunks.AddIdle(Batch{fresh, 1});
  EXPECT_EQ(c.chunks.Bytes(0), 0u);
  EXPECT_EQ(c.chunks.Bytes(1), kLargeGranule);
  c.chunks.RemoveIdle(Batch{fresh, 1});
  c.chunks.Remove(fresh->address, fresh->bytes);
  c.ExpectNothing(0);
  c.ExpectNothing(1);
}

TEST(IdleChunksTest, AWhollyIdleChunkMovesToo) {
  Chunks c;
  Block* old = c.Enter(kChunk, 0);
  c.chunks.AddIdle(Batch{old, 1});
  EXPECT_EQ(c.chunks.Bytes(0), kLargeGranule);
  Block* fresh = c.Enter(kChunk + old->bytes, 70);  // beyond those that are told apart
  EXPECT_EQ(c.chunks.Bytes(0), 0u);
  c.chunks.AddIdle(Batch{fresh, 1});
  EXPECT_EQ(c.chunks.Bytes(70), kLargeGranule);
  c.chunks.RemoveIdle(Batch{old, 1});
  c.chunks.Remove(old->address, old->bytes);
  EXPECT_EQ(c.chunks.Bytes(70), kLargeGranule);
  EXPECT_EQ(c.chunks.Gaps(70), kLargeGranule - fresh->bytes);
  c.ExpectNothing(0);
}

TEST(IdleChunksTest, NothingIsLeftOfAChunkThatManyMove) {
  Chunks c;
  std::vector<Block*> blocks;
  for (int device = 0; device < 3; ++device) {
    blocks.push_back(c.Enter(kChunk + static_cast<size_t>(device) * 64 * kKiB, device));
    c.chunks.Remove(blocks.back()->address, blocks.back()->bytes);
  }
  std::vector<std::thread> threads;
  for (int device = 0; device < 3; ++device) {
    threads.emplace_back([&, device] {
      Block* block = blocks[static_cast<size_t>(device)];
      for (int i = 0; i < 20000; ++i) {
        c.chunks.Add(*block, device);
        c.chunks.AddIdle(Batch{block, 1});
        c.chunks.RemoveIdle(Batch{block, 1});
        c.chunks.Remove(block->address, block->bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int device = 0; device < 3; ++device) c.ExpectNothing(device);
  Block* block = c.Enter(kChunk, 2);
  for (int device = 0; device < 2; ++device) c.ExpectNothing(device);
  EXPECT_EQ(c.chunks.Gaps(2), kLargeGranule - block->bytes);
}

}  // namespace
}  // namespace cmp
