// CMP_RESERVE: what the pool may hold, and who releases when it holds more.
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "core/pool.h"
#include "pool_fixture.h"

namespace cmp {
namespace {

using test::ExpectAtRest;
using test::OnAnotherThread;
using test::TestPool;

// ---- The bound

TEST(BoundTest, HoldsAfterEveryFreeOfARandomSequence) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Options options;
    options.reserve = {seed % 2 == 0 ? 1.15 : 1.0, (seed % 3) * 4 * kMiB};
    options.thread_cache_bytes = seed % 4 == 0 ? 0 : 4 * kMiB;
    TestPool t(options);
    std::mt19937_64 random(seed);
    std::vector<Block*> live;
    size_t live_bytes = 0;
    size_t peak = 0;
    for (int step = 0; step < 3000; ++step) {
      // Phases of growth and of decline, in different sizes.
      const bool growing = (step / 200) % 2 == 0;
      if (live.empty() || random() % 10 < (growing ? 7u : 3u)) {
        const unsigned shift = static_cast<unsigned>(
            (static_cast<uint64_t>(step) / 400 * 5 + seed + random() % 3) % 15);
        Block* block = t.Alloc(1 + random() % (size_t{256} << shift));
        ASSERT_NE(block, nullptr);
        live.push_back(block);
        live_bytes += block->bytes;
        peak = std::max(peak, live_bytes);
      } else {
        const size_t at = random() % live.size();
        live_bytes -= live[at]->bytes;
        ASSERT_TRUE(t.Free(live[at]));
        live[at] = live.back();
        live.pop_back();
        const size_t bound =
            static_cast<size_t>(double(peak) * options.reserve.ratio) + options.reserve.bytes;
        ASSERT_LE(t.context->reserved(), bound) << "seed " << seed << " step " << step;
        ASSERT_EQ(t.context->reserved(), t.device.used());
      }
    }
    for (Block* block : live) ASSERT_TRUE(t.Free(block));
    ExpectAtRest(t);
  }
}

// Found by reading: an oversized request crosses the bound without anybody noting it.
TEST(BoundTest, HoldsWhereAnOversizedRequestCrossesIt) {
  Options options;
  options.max_block = 16 * kMiB;
  options.reserve = {1.0, 0};
  TestPool t(options);
  std::vector<Block*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(t.Alloc(8 * kMiB));
  Block* small = t.Alloc(100);
  for (Block* block : blocks) ASSERT_TRUE(t.Free(block));  // 64 MiB idle: the peak
  Block* oversized = t.Alloc(100 * kMiB);
  ASSERT_TRUE(t.Free(small));
  EXPECT_LE(t.context->reserved(), t.context->bound());
  EXPECT_TRUE(t.Free(oversized));
}

// Found by reading: the note that the bound will be crossed was taken away before it was crossed.
TEST(BoundTest, HoldsWhereAFreeComesBetweenTheNoteAndTheCrossing) {
  Options options;
  options.reserve = {1.0, 0};
  TestPool t(options);
  std::vector<Block*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(t.Alloc(8 * kMiB));
  Block* first = t.Alloc(100);
  Block* second = t.Alloc(100);
  for (Block* block : blocks) ASSERT_TRUE(t.Free(block));  // 64 MiB idle: the peak
  t.device.OnAllocate([&](size_t) {
    if (first != nullptr)
      OnAnotherThread([&] { EXPECT_TRUE(t.Free(std::exchange(first, nullptr))); });
  });
  ASSERT_NE(t.Alloc(60 * kMiB), nullptr);
  ASSERT_TRUE(t.Free(second));
  EXPECT_LE(t.context->reserved(), t.context->bound());
}

TEST(BoundTest, TheLongestIdleBlocksGoFirstAndNoMoreThanNeeded) {
  Options options;
  options.reserve = {1.0, 0};
  TestPool t(options);
  std::vector<Block*> blocks;
  for (const size_t megabytes : {4, 6, 8, 10}) blocks.push_back(t.Alloc(megabytes * kMiB));
  std::vector<DeviceAddress> addresses;
  for (Block* block : blocks) addresses.push_back(block->address);
  for (const size_t which : {2, 0, 3, 1}) ASSERT_TRUE(t.Free(blocks[which]));
  // 28 MiB reserved, the peak. 12 MiB fit no idle block: 40 MiB, and the next free releases 12.
  Block* other = t.Alloc(12 * kMiB);
  EXPECT_TRUE(t.device.released().empty()) << "Alloc must not free where that may wait";
  ASSERT_TRUE(t.Free(other));
  const std::vector<DeviceAddress> released = t.device.released();
  EXPECT_EQ(std::set<DeviceAddress>(released.begin(), released.end()),
            (std::set<DeviceAddress>{addresses[2], addresses[0]}));
  EXPECT_EQ(t.context->reserved(), 28 * kMiB);
}

TEST(BoundTest, NothingIsMadeAheadThatWouldCrossIt) {
  Options options;
  options.reserve = {1.0, 0};
  TestPool t(options);
  for (int i = 0; i < 100; ++i) ASSERT_NE(t.Alloc(1000), nullptr);
  EXPECT_EQ(t.device.live_count(), 100u);
}

}  // namespace
}  // namespace cmp
