// CMP_RESERVE: what the pool may hold, and who releases when it holds more.
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "core/pool/pool.h"
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
        ASSERT_LE(t.context->accounts().reserved(), bound) << "seed " << seed << " step " << step;
        ASSERT_EQ(t.context->accounts().reserved(), t.device.used());
      }
    }
    for (Block* block : live) ASSERT_TRUE(t.Free(block));
    ExpectAtRest(t);
  }
}

// No free increases the excess, and after each it is zero, or smaller by at least twice what was
// freed and 64 MiB; or nothing is idle any more: the slack of blocks in use is no part of the
// bound.
TEST(BoundTest, AFreePaysForNoMoreThanItsShare) {
  size_t several = 0;  // frees that left an excess
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Options options;
    options.reserve = {1.0, (seed % 3) * 64 * kMiB};
    TestPool t(options);
    std::mt19937_64 random(seed);
    const Accounts& accounts = t.context->accounts();
    std::vector<Block*> live;
    for (int step = 0; step < 2000; ++step) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " step " + std::to_string(step));
      const bool growing = (step / 100) % 2 == 0;
      const uint64_t what = random() % 100;
      if (what == 0) {
        // Fails, with everything idle released before.
        t.device.FailNext(1000);
        EXPECT_EQ(t.Alloc(size_t{1} << 40), nullptr);
        t.device.FailNext(0);
      } else if (what == 1) {
        t.pool->ReleaseAll(t.api);
      } else if (live.empty() || what < (growing ? 70u : 30u)) {
        const size_t most = size_t{1} << (10 + (static_cast<uint64_t>(step) / 100 + seed) % 20);
        live.push_back(t.Alloc(1 + random() % most));
        ASSERT_NE(live.back(), nullptr);
      } else {
        const size_t at = random() % live.size();
        const size_t freed = live[at]->bytes;
        const size_t before = accounts.Excess();
        ASSERT_TRUE(t.Free(live[at]));
        live[at] = live.back();
        live.pop_back();
        const size_t after = accounts.Excess();
        EXPECT_LE(after, before);
        if (after == 0 || accounts.idle() == 0) continue;
        ++several;
        EXPECT_LE(after + std::max(2 * freed, 64 * kMiB), before);
      }
    }
    for (Block* block : live) ASSERT_TRUE(t.Free(block));
    ExpectAtRest(t);
  }
  EXPECT_GT(several, 0u) << "the test shows nothing";
}

// The peak, and with it the bound, is of what the program held and of nothing else, whatever runs
// at the same time: failed allocations and releases take idle blocks off the lists.
TEST(BoundTest, BlocksInMotionAreNoPartOfThePeak) {
  const uint64_t seed = 1;
  Options options;
  options.reserve = {1.0, 64 * kMiB};
  TestPool t(options);
  constexpr size_t kThreads = 4;
  constexpr size_t kMost = 80 * kMiB;  // of one thread
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (size_t number = 0; number < kThreads; ++number) {
    threads.emplace_back([&, number] {
      std::mt19937_64 random(seed + number);
      for (int i = 0; i < 3000; ++i) {
        Block* block = t.Alloc(1 + random() % (i % 2 == 0 ? kMost : 4 * kMiB));
        ASSERT_NE(block, nullptr);
        ASSERT_TRUE(t.Free(block));
      }
    });
  }
  std::thread releases([&] {
    while (!stop.load()) {
      t.pool->ReleaseThreadCaches(t.api);
      EXPECT_EQ(t.pool->Alloc(*t.context, size_t{1} << 46, t.api).status, kOutOfMemory);
    }
  });
  for (std::thread& thread : threads) thread.join();
  stop.store(true);
  releases.join();
  const Accounts& accounts = t.context->accounts();
  EXPECT_LE(accounts.peak(), kThreads * kMost);
  EXPECT_EQ(accounts.live(), 0u);
  EXPECT_EQ(accounts.leaving(), 0u);
  for (int i = 0; i < 20 && accounts.Excess() != 0; ++i) ASSERT_TRUE(t.Free(t.Alloc(kMiB)));
  EXPECT_EQ(accounts.Excess(), 0u);
  ExpectAtRest(t);
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
  EXPECT_LE(t.context->accounts().reserved(), t.context->accounts().bound());
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
  EXPECT_LE(t.context->accounts().reserved(), t.context->accounts().bound());
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
  EXPECT_EQ(t.context->accounts().reserved(), 28 * kMiB);
}

TEST(BoundTest, NothingIsMadeAheadThatWouldCrossIt) {
  Options options;
  options.reserve = {1.0, 0};
  TestPool t(options);
  for (int i = 0; i < 100; ++i) ASSERT_NE(t.Alloc(1000), nullptr);
  EXPECT_EQ(t.device.live_count(), 100u);
}

// Found by review: nothing was ready in the global pool, so nothing was ever released, and every
// free looked in vain.
TEST(BoundTest, WhatOtherThreadsCachesHoldIsReleasedWhereTheBoundFell) {
  TestPool t({}, 8 * kGiB);
  std::vector<std::thread> threads;
  std::mutex lock;
  std::condition_variable changed;
  int filled = 0;
  bool over = false;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (size_t bytes = 64 * kKiB; bytes <= 320 * kKiB; bytes += 64 * kKiB) {
        std::vector<Block*> blocks;
        for (size_t i = 0; i + 1 < kMiB / bytes; ++i) blocks.push_back(t.Alloc(bytes));
        for (Block* block : blocks) EXPECT_TRUE(t.Free(block));
      }
      std::unique_lock held(lock);
      ++filled;
      changed.notify_all();
      changed.wait(held, [&] { return over; });
      Pool::ThreadExit();
      Pool::ForgetThread();
    });
  }
  {
    std::unique_lock held(lock);
    changed.wait(held, [&] { return filled == 4; });
  }
  ASSERT_TRUE(t.Free(t.Alloc(64 * kKiB)));  // hits from now on
  // Others leave little, and so the bound is little more than the peak.
  t.device.UseByOthers(8 * kGiB - t.device.used() - 64 * kMiB);
  t.context->unasked_bytes = 0;
  ASSERT_NE(t.Alloc(2 * kMiB), nullptr);
  ASSERT_NE(t.context->accounts().Excess(), 0u);
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(t.Free(t.Alloc(64 * kKiB)));
  EXPECT_EQ(t.context->accounts().Excess(), 0u);
  EXPECT_FALSE(t.context->over_bound());
  {
    const std::lock_guard held(lock);
    over = true;
  }
  changed.notify_all();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace cmp
