#include "core/idle_chunks.h"

#include <gtest/gtest.h>

#include <set>
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

}  // namespace
}  // namespace cmp
