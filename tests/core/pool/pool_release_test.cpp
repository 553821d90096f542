// ReleaseAll and ReleaseThreadCaches: how idle memory goes back on request.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "core/pool/pool.h"
#include "pool_fixture.h"

namespace cmp {
namespace {

using test::ExpectAtRest;
using test::TestPool;

TEST(ReleaseTest, ReleaseAllLeavesThreadCachesAndBlocksInUse) {
  TestPool t;
  Block* in_use = t.Alloc(4 * kMiB);
  Block* cached = t.Alloc(1000);
  Block* idle = t.Alloc(6 * kMiB);
  ASSERT_TRUE(t.Free(cached));
  ASSERT_TRUE(t.Free(idle));
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 6 * kMiB);
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 0u);
  EXPECT_EQ(t.device.used(), 4 * kMiB + 1024);
  EXPECT_EQ(t.Alloc(1000), cached);
  EXPECT_TRUE(t.Free(in_use));
}

TEST(ReleaseTest, ReleaseThreadCachesEmptiesThemToo) {
  TestPool t;
  Block* in_use = t.Alloc(4 * kMiB);
  ASSERT_TRUE(t.Free(t.Alloc(1000)));
  ASSERT_TRUE(t.Free(t.Alloc(6 * kMiB)));
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 6 * kMiB + 1024);
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 0u);
  EXPECT_EQ(t.device.used(), 4 * kMiB);
  ASSERT_TRUE(t.Free(in_use));
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 4 * kMiB);
  ExpectAtRest(t);
}

TEST(ReleaseTest, AllContextsAreReleased) {
  TestPool t;
  ContextPool* other = t.OpenAnother();
  ASSERT_TRUE(t.Free(t.Alloc(4 * kMiB)));
  ASSERT_TRUE(t.Free(t.AllocIn(*other, 6 * kMiB)));
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 10 * kMiB);
}

TEST(ReleaseTest, OtherThreadsCachesAreEmptied) {
  TestPool t;
  std::mutex lock;
  std::condition_variable changed;
  int step = 0;
  const auto next = [&](int to) {
    const std::lock_guard guard(lock);
    step = to;
    changed.notify_all();
  };
  const auto wait = [&](int until) {
    std::unique_lock guard(lock);
    changed.wait(guard, [&] { return step >= until; });
  };
  std::thread other([&] {
    EXPECT_TRUE(t.Free(t.Alloc(1000)));
    next(1);
    wait(2);
    // Its cache goes on, empty.
    EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 1000), 0u);
    EXPECT_TRUE(t.Free(t.Alloc(1000)));
  });
  wait(1);
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 0u);
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 1024u);
  next(2);
  other.join();
}

}  // namespace
}  // namespace cmp
