// Blocks that leave the pool: really freed, freed by others, given to others.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <thread>

#include "core/pool/pool.h"
#include "pool_fixture.h"

namespace cmp {
namespace {

using test::ExpectAtRest;
using test::TestPool;

TEST(LeavingTest, ARealFreeReturnsTheRealCallsStatus) {
  TestPool t;
  Block* block = t.Alloc(1000);
  const DeviceAddress address = block->address;
  ASSERT_EQ(t.pool->Take(block, block->address), BlockState::kLive);
  EXPECT_EQ(t.pool->FreeReal(block, t.api), kSuccess);
  EXPECT_FALSE(t.device.IsLive(address));
  EXPECT_EQ(t.pool->Find(address), nullptr);
  ExpectAtRest(t);
  block = t.Alloc(1000);
  ASSERT_EQ(t.pool->Take(block, block->address), BlockState::kLive);
  t.device.FailReleases(719);
  EXPECT_EQ(t.pool->FreeReal(block, t.api), 719);
}

TEST(LeavingTest, AnUnpooledBlockIsReallyFreed) {
  TestPool t;
  for (const size_t bytes : {size_t{1000}, 4 * kMiB}) {
    Block* block = t.Alloc(bytes);
    const DeviceAddress address = block->address;
    EXPECT_TRUE(t.pool->Unpool(address));
    EXPECT_TRUE(t.pool->Unpool(address)) << "exported twice";
    EXPECT_EQ(t.pool->Take(block, block->address), BlockState::kUnpooled);
    EXPECT_EQ(t.pool->FreeReal(block, t.api), kSuccess);
    EXPECT_FALSE(t.device.IsLive(address));
  }
  EXPECT_EQ(t.pool->statistics().process().unpooled_blocks.Get(), 2u);
  ExpectAtRest(t);
}

TEST(LeavingTest, OnlyBlocksInUseAreUnpooled) {
  TestPool t;
  Block* block = t.Alloc(1000);
  EXPECT_FALSE(t.pool->Unpool(block->address + 256));
  EXPECT_FALSE(t.pool->Unpool(0x1000));
  ASSERT_TRUE(t.Free(block));
  EXPECT_FALSE(t.pool->Unpool(block->address));
  EXPECT_EQ(t.Alloc(1000), block) << "the idle block is still good";
}

TEST(LeavingTest, WhatIsFreedElsewhereIsForgottenAndLeftAlone) {
  TestPool t;
  Block* block = t.Alloc(1000);
  const DeviceAddress address = block->address;
  ASSERT_EQ(Pool::BeginFreeElsewhere(block, address), BlockState::kLive);
  EXPECT_EQ(t.pool->Find(address), block) << "so that a second free is known for one";
  EXPECT_FALSE(t.Free(block));
  EXPECT_FALSE(t.pool->Unpool(address));
  t.pool->EndFreeElsewhere(block, BlockState::kLive, true);
  EXPECT_TRUE(t.device.IsLive(address)) << "somebody else frees it";
  EXPECT_EQ(t.pool->Find(address), nullptr);
  EXPECT_EQ(t.context->accounts().reserved(), 0u);
  EXPECT_EQ(t.Statistics().live_blocks, 0u);
}

TEST(LeavingTest, WhatIsNotFreedElsewhereStaysAsItWas) {
  TestPool t;
  for (const bool pooled : {true, false}) {
    Block* block = t.Alloc(1000);
    const BlockState state = pooled ? BlockState::kLive : BlockState::kUnpooled;
    ASSERT_TRUE(pooled || t.pool->Unpool(block->address));
    const uint64_t id = BufferIdOf(block);
    const size_t reserved = t.context->accounts().reserved();
    ASSERT_EQ(Pool::BeginFreeElsewhere(block, block->address), state);
    t.pool->EndFreeElsewhere(block, state, false);
    EXPECT_EQ(t.pool->Find(block->address), block);
    EXPECT_EQ(block->state.load(), state);
    EXPECT_EQ(block->requested, 1000u);
    EXPECT_EQ(BufferIdOf(block), id);
    EXPECT_EQ(t.context->accounts().reserved(), reserved);
    EXPECT_EQ(t.Statistics().live_blocks, 1u);
    if (pooled) {
      ASSERT_TRUE(t.Free(block));
    } else {
      ASSERT_EQ(Pool::BeginFreeElsewhere(block, block->address), state);
      t.pool->EndFreeElsewhere(block, state, true);
    }
    EXPECT_EQ(t.Statistics().live_blocks, 0u);
  }
}

// The context is dropped while the other call is under way, and records are wanted again.
TEST(LeavingTest, WhatIsFreedElsewhereWhileItsContextEnds) {
  for (const bool freed : {true, false}) {
    TestPool t;
    Block* block = t.Alloc(1000);
    const DeviceAddress address = block->address;
    const HeldContext context(*t.context);
    ASSERT_EQ(Pool::BeginFreeElsewhere(block, address), BlockState::kLive);
    t.pool->DropContext(*t.context);
    EXPECT_EQ(t.pool->Find(address), nullptr);
    const HeldContext other = t.pool->OpenContext({test::FreshHandle(), 1u << 30, 0, true});
    Block* others = t.AllocIn(*other, 1000);
    ASSERT_NE(others, nullptr);
    t.pool->EndFreeElsewhere(block, BlockState::kLive, freed);
    EXPECT_EQ(t.pool->Find(others->address), others);
    EXPECT_EQ(others->state.load(), BlockState::kLive);
    EXPECT_EQ(t.Statistics().live_blocks, 1u);
    EXPECT_EQ(block->state.load(), BlockState::kUnused);
  }
}

TEST(LeavingTest, AnIdleBlockIsNotFreedElsewhere) {
  TestPool t;
  Block* block = t.Alloc(1000);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(Pool::BeginFreeElsewhere(block, block->address), BlockState::kIdle);
  EXPECT_EQ(t.Alloc(1000), block);
}

TEST(LeavingTest, WhatAllocRealGaveIsReallyFreed) {
  TestPool t({}, kMiB);
  const Allocation made = t.pool->AllocReal(t.context, 1000, t.api);
  EXPECT_EQ(made.status, kSuccess);
  EXPECT_EQ(t.device.BytesAt(made.address), 1000u);
  EXPECT_EQ(made.bytes, 1000u);
  ASSERT_NE(t.pool->Find(made.address), nullptr);
  EXPECT_EQ(t.pool->AllocReal(t.context, 2 * kMiB, t.api).status, kOutOfMemory);
  EXPECT_EQ(t.pool->statistics().process().real_malloc_calls.Get(), 2u);
  EXPECT_EQ(t.pool->statistics().process().failed_allocations.Get(), 1u);
  ASSERT_TRUE(t.FreeAddress(made.address));
  EXPECT_EQ(t.device.BytesAt(made.address), 0u);
  EXPECT_EQ(t.pool->Find(made.address), nullptr);
}

// The real free is made, and the pool has yet to hear of it: the driver has given the address to
// somebody by a call that the pool does not see, and they free it. Found under load: who had made
// the real free got no processor for a tenth of a second.
TEST(LeavingTest, AnAddressThatHasJustLeftIsSomebodyElses) {
  TestPool t;
  Block* block = t.Alloc(4 * kMiB);
  const DeviceAddress address = block->address;
  ASSERT_TRUE(t.Free(block));
  std::atomic<bool> asking{false};
  std::optional<bool> still_has;
  std::thread other;
  t.device.AfterRelease([&] {
    other = std::thread([&] {
      EXPECT_EQ(Pool::Take(block, address), BlockState::kIdle);
      asking = true;
      still_has = t.pool->StillHas(block, address);
    });
    while (!asking) std::this_thread::yield();
    usleep(300'000);  // it has looked by now, and waits
  });
  EXPECT_EQ(t.pool->ReleaseAll(t.api), 4 * kMiB);
  other.join();
  EXPECT_EQ(still_has, false);
}

// The moment in which it has left and is still found, which the one above sees now and then.
TEST(LeavingTest, NorIsOneThePoolsThatIsAboutToBeForgotten) {
  TestPool t;
  Block* block = t.Alloc(4 * kMiB);
  const DeviceAddress address = block->address;
  ASSERT_TRUE(t.Free(block));
  block->state = BlockState::kUnused;
  std::atomic<bool> answered{false};
  std::thread other([&] {
    EXPECT_TRUE(t.pool->StillHas(block, address));
    answered = true;
  });
  usleep(50'000);
  EXPECT_FALSE(answered);
  block->state = BlockState::kIdle;
  other.join();
}

}  // namespace
}  // namespace cmp
