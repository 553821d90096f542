// What the host keeps idle elsewhere: it goes for whatever lacks memory, and ages with the pool's.
#include <utility>

#include "pool_fixture.h"

namespace cmp {
namespace {

using test::TestPool;

// Keeps memory of device 0 in blocks of the fake device's.
class KeptTest : public testing::Test {
 protected:
  KeptTest() : t({}, 100 * kMiB, Host()) {
    g_kept = 0;
    g_asked = g_ticks = 0;
    g_test = &t;
  }
  ~KeptTest() override { Release(0); }
  static void Keep(size_t bytes) {
    EXPECT_EQ(g_test->device.Allocate(bytes, false, &g_kept), kSuccess);
    g_bytes = bytes;
  }
  static size_t Release(int device) {
    ++g_asked;
    if (g_kept == 0 || (device != 0 && device != kAllDevices)) return 0;
    BlockSource::Releasing releasing = g_test->pool->BeginRelease();
    EXPECT_EQ(g_test->device.Release(std::exchange(g_kept, 0)), kSuccess);
    releasing.Done();
    return g_bytes;
  }
  static const PoolHost& Host() {
    static const PoolHost host = [] {
      PoolHost made = kBlindHost;
      made.devices_with_kept = [] { return uint64_t{g_kept != 0}; };
      made.release_kept = &Release;
      made.age_kept = [] { return ++g_ticks, g_kept != 0; };
      return made;
    }();
    return host;
  }

  static inline TestPool* g_test = nullptr;
  static inline DeviceAddress g_kept = 0;
  static inline size_t g_bytes = 0;
  static inline int g_asked = 0;
  static inline int g_ticks = 0;
  TestPool t;
};

TEST_F(KeptTest, AFailedAllocationFindsItBeforeBlocksGo) {
  t.Free(t.Alloc(10 * kMiB));
  Keep(80 * kMiB);
  Block* block = t.Alloc(60 * kMiB);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(g_kept, 0u);
  EXPECT_EQ(t.pool->ReleasableBytes(0), 10 * kMiB);
  EXPECT_EQ(t.pool->statistics().process().out_of_memory_rescues.Get(), 1u);
  t.Free(block);
}

TEST_F(KeptTest, NotOneThatSucceedsOrCannot) {
  Keep(20 * kMiB);
  t.Free(t.Alloc(60 * kMiB));
  EXPECT_EQ(g_asked, 0);
  EXPECT_EQ(t.pool->Alloc(*t.context, 200 * kMiB, t.api).status, kOutOfMemory);
  t.pool->ReleaseThreadCaches(t.api);
}

TEST_F(KeptTest, ItGoesBeforeBlocks) {
  Block* block = t.Alloc(20 * kMiB);
  t.Free(block);
  Keep(60 * kMiB);
  const uint64_t before = t.pool->releases();
  EXPECT_EQ(t.pool->ReleaseForRetry(t.api, 0, 10 * kMiB), 60 * kMiB);
  EXPECT_GT(t.pool->releases(), before);  // so who failed meanwhile tries again
  EXPECT_EQ(t.pool->ReleasableBytes(0), 20 * kMiB);
  Keep(40 * kMiB);
  EXPECT_EQ(t.pool->ReleaseForRetry(t.api, 1, 10 * kMiB), 0u);
  EXPECT_NE(g_kept, 0u);
  EXPECT_EQ(t.pool->ReleaseForRetry(t.api, 0, 50 * kMiB), 60 * kMiB);
}

TEST_F(KeptTest, ItAgesAsLongAsThereIsAny) {
  EXPECT_FALSE(t.pool->HasIdle());
  EXPECT_FALSE(t.pool->Age(t.api));
  EXPECT_EQ(g_ticks, 1);
  Keep(20 * kMiB);
  EXPECT_TRUE(t.pool->HasIdle());
  EXPECT_TRUE(t.pool->Age(t.api));
  EXPECT_EQ(g_ticks, 2);
}

}  // namespace
}  // namespace cmp
