// Beside managed memory: what the pool keeps, and that it serves, on a fake device of 8 GiB.
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "core/pool/pool.h"
#include "pool_fixture.h"

namespace cmp {
namespace {

using test::TestPool;

constexpr size_t kDeviceBytes = 8 * kGiB;

std::atomic<size_t> g_managed{0};

// One that has managed memory; without a driver, so that each real free waits.
PoolHost ManagedHost() {
  PoolHost host = kBlindHost;
  host.driver = [] { return static_cast<const Driver*>(nullptr); };
  host.managed_bytes = [] { return g_managed.load(); };
  return host;
}
const PoolHost kManagedHost = ManagedHost();

class ManagedTest : public testing::Test {
 protected:
  explicit ManagedTest(size_t managed = 16 * kGiB) { g_managed = managed; }
  ~ManagedTest() override { g_managed = 0; }

  std::vector<Block*> Allocate(size_t count, size_t bytes) {
    std::vector<Block*> blocks;
    for (size_t i = 0; i < count; ++i) {
      blocks.push_back(t.Alloc(bytes));
      EXPECT_NE(blocks.back(), nullptr);
    }
    return blocks;
  }
  void Free(const std::vector<Block*>& blocks) {
    for (Block* block : blocks) EXPECT_TRUE(t.Free(block));
  }
  // New small blocks are made several at once, and frees are hits.
  void ExpectServed() {
    const uint64_t before = t.Totals().refills;
    const std::vector<Block*> blocks = Allocate(1000, 4 * kKiB);
    EXPECT_LE(t.Totals().refills - before, 400u);
    ASSERT_TRUE(t.Free(blocks[0]));
    EXPECT_FALSE(t.context->over_bound());
    for (const size_t i : {1, 2, 3}) {
      ASSERT_TRUE(t.pool->TakeLive(blocks[i], blocks[i]->address));
      EXPECT_TRUE(t.pool->RetireHitElsewhere(blocks[i]));
    }
  }

  TestPool t{{}, kDeviceBytes, kManagedHost};
};

TEST_F(ManagedTest, ThePoolServesWhereItDoesNotFit) {
  Allocate(27, 50 * kMiB);
  ExpectServed();
}

class ManagedThatMightFitTest : public ManagedTest {
 protected:
  ManagedThatMightFitTest() : ManagedTest(7 * kGiB) {}
};

TEST_F(ManagedThatMightFitTest, ThePoolServesAfterManyAllocations) {
  Allocate(27, 50 * kMiB);
  Allocate(256, 2 * kMiB);
  ExpectServed();
}

// Whatever the program uses, and uses no more.
TEST_F(ManagedTest, WhereItDoesNotFitASixteenthIsIdle) {
  const std::vector<Block*> used = Allocate(60, 50 * kMiB);
  for (const size_t more : {10, 100}) {
    Free(Allocate(more, 10 * kMiB));
    EXPECT_LE(t.context->accounts().idle(), kDeviceBytes / 16);
  }
  EXPECT_GE(t.context->accounts().idle(), kDeviceBytes / 16 - 10 * kMiB) << "it is kept";
  Free(used);
  EXPECT_LE(t.context->accounts().idle(), kDeviceBytes / 16);
}

// On the lists of the global pool each free finds what must go.
TEST_F(ManagedTest, NoLargeShelfKeepsAny) {
  g_managed = 0;
  Free(Allocate(1, 10 * kMiB));
  EXPECT_EQ(t.context->global().ready_bytes(), 0u) << "it shows nothing";
  g_managed = 16 * kGiB;
  const std::vector<Block*> blocks = Allocate(1, 3 * kGiB / 2);  // the device is asked
  Free(Allocate(1, 10 * kMiB));
  EXPECT_NE(t.context->global().ready_bytes(), 0u);
  Free(blocks);
}

// Before an allocation only what the driver frees without a wait may go: where it cannot, idle
// blocks stay as old as they are.
TEST_F(ManagedThatMightFitTest, NothingIsTakenThatCannotBeFreedQuietly) {
  g_managed = 0;
  Allocate(600, 2 * kMiB);
  Free(Allocate(200, 2 * kMiB));
  t.context->EmptyCaches();  // the last few are on a large shelf
  g_managed = 7 * kGiB;
  ASSERT_TRUE(t.Free(t.Alloc(3 * kGiB / 2)));  // so large that the device is asked
  GlobalPool& global = t.context->global();
  for (unsigned i = 0; i < GlobalPool::kMarks; ++i) global.Mark();
  t.device.ForgetCalls();
  Allocate(30, 3 * kMiB);
  EXPECT_GT(t.context->accounts().reserved(), t.context->accounts().bound()) << "it shows nothing";
  EXPECT_EQ(t.device.release_calls(), 0u);
  EXPECT_EQ(global.TakeOldest(~size_t{0}, global.Mark()).count, 200u);
}

}  // namespace
}  // namespace cmp
