// The pool between threads and contexts: thread exit, frees from elsewhere, contexts that end.
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
#include "refused_barrier.h"

namespace cmp {
namespace {

using test::ExpectAtRest;
using test::OnAnotherThread;
using test::TestPool;

// ---- Threads

// It would take milliseconds in a process with threads.
TEST(ThreadsTest, NoBarrierIsRegisteredBeforeOneIsNeeded) {
  constexpr int kPrivateExpedited = 8;
  if (syscall(SYS_membarrier, kPrivateExpedited, 0, 0) == 0)
    GTEST_SKIP() << "another test of this process has registered it; ctest runs each in its own";
  TestPool t;
  ASSERT_TRUE(t.Free(t.Alloc(1000)));
  EXPECT_EQ(syscall(SYS_membarrier, kPrivateExpedited, 0, 0), -1);
  OnAnotherThread([&] { t.context->EmptyCaches(); });
  EXPECT_EQ(syscall(SYS_membarrier, kPrivateExpedited, 0, 0), 0);
}

TEST(ThreadsTest, AThreadThatExitsHandsItsBlocksToOthers) {
  TestPool t;
  Block* block = nullptr;
  OnAnotherThread([&] {
    block = t.Alloc(1000);
    EXPECT_TRUE(t.Free(block));
  });
  EXPECT_EQ(t.context->global().ready_bytes(), 1024u);
  EXPECT_EQ(t.Alloc(1000), block);
  EXPECT_EQ(t.device.allocate_calls(), 1u);
}

TEST(ThreadsTest, ANewThreadTakesTheCacheOfOneThatExited) {
  TestPool t;
  for (int i = 0; i < 50; ++i) {
    OnAnotherThread([&] { EXPECT_TRUE(t.Free(t.Alloc(1000))); });
  }
  EXPECT_EQ(t.pool->statistics().process().thread_caches.Get(), 1u);
  EXPECT_EQ(t.device.allocate_calls(), 1u);
  EXPECT_EQ(t.Totals().requests(), 50u) << "counts of threads that exited are kept";
}

TEST(ThreadsTest, ABlockIsFreedByAnotherThread) {
  TestPool t;
  Block* block = t.Alloc(1000);
  OnAnotherThread([&] {
    EXPECT_TRUE(t.Free(block));
    EXPECT_EQ(t.Alloc(1000), block) << "it is in the cache of the thread that freed it";
    EXPECT_TRUE(t.Free(block));
  });
  EXPECT_EQ(t.Alloc(1000), block);
  ASSERT_TRUE(t.Free(block));
  ExpectAtRest(t);
}

TEST(ThreadsTest, ACacheThatCannotBeTakenIsEmptiedByItsThread) {
  TestPool t;
  ASSERT_TRUE(t.Free(t.Alloc(1000)));
  ASSERT_TRUE(t.Free(t.Alloc(3000)));
  const size_t idle = t.context->CountIdle().ready;
  const bool tried = test::WithoutBarriers([&] {
    EXPECT_EQ(t.context->EmptyCaches(), 0u);
    EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 0u);
    Block* own = t.Alloc(5000);
    ASSERT_TRUE(t.Free(own));
    EXPECT_EQ(t.context->EmptyCaches(), own->bytes) << "a thread's own needs none";
  });
  if (!tried) GTEST_SKIP() << "no filters of system calls here";
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 1000), 0u) << "the request comes first";
  Block* block = t.Alloc(1000);
  EXPECT_EQ(t.device.allocate_calls(), 3u) << "from the global pool";
  EXPECT_EQ(t.context->global().ready_bytes(), idle + 5 * kKiB - block->bytes);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 1000), block->address) << "hits again";
  ASSERT_TRUE(t.Free(block));
  ExpectAtRest(t);
}

// A kernel before 4.14: no hits, and all else as ever.
TEST(ThreadsTest, WithoutBarriersFromTheStartEveryCacheCanBeTaken) {
  const bool tried = test::WithoutBarriers([] {
    TestPool t;
    OnAnotherThread([&] {
      Block* block = t.Alloc(1000);
      ASSERT_TRUE(t.Free(block));
      EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 1000), 0u);
      EXPECT_EQ(t.Alloc(1000), block);
      ASSERT_TRUE(t.Free(block));
      OnAnotherThread([&] { EXPECT_EQ(t.context->EmptyCaches(), block->bytes); });
      EXPECT_EQ(t.Alloc(1000), block);
      ASSERT_TRUE(t.Free(block));
      EXPECT_EQ(t.device.allocate_calls(), 1u);
    });
    ExpectAtRest(t);
  });
  if (!tried) GTEST_SKIP() << "no filters of system calls here";
}

TEST(ThreadsTest, AFreeHonoursTheRequestToo) {
  TestPool t;
  Block* live = t.Alloc(1000);
  ASSERT_TRUE(t.Free(t.Alloc(3000)));
  if (!test::WithoutBarriers([&] { EXPECT_EQ(t.context->EmptyCaches(), 0u); })) {
    GTEST_SKIP() << "no filters of system calls here";
  }
  EXPECT_EQ(t.context->global().ready_bytes(), 0u);
  ASSERT_TRUE(t.Free(live));
  EXPECT_EQ(t.context->global().ready_bytes(), 3 * kKiB);
  ExpectAtRest(t);
}

// What is in a cache that cannot be taken when its context ends is its thread's for good.
TEST(ThreadsTest, AContextEndsWhoseCachesCannotBeTaken) {
  TestPool t;
  Block* lost = t.Alloc(1000);
  ASSERT_TRUE(t.Free(lost));
  const DeviceAddress address = lost->address;
  if (!test::WithoutBarriers([&] { t.pool->DropContext(*t.context); })) {
    GTEST_SKIP() << "no filters of system calls here";
  }
  EXPECT_EQ(t.pool->Find(address), nullptr);
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 1000), 0u);
  ContextPool* next = t.OpenAnother();
  EXPECT_NE(next, t.context);
  std::set<Block*> blocks;
  for (int i = 0; i < 1000; ++i) blocks.insert(t.AllocIn(*next, 1000));
  EXPECT_FALSE(blocks.contains(lost)) << "its record is on a list that nobody can see";
  EXPECT_EQ(blocks.size(), 1000u);
}

TEST(ThreadsTest, AThreadThatExitsHoldingBlocksLeavesThemInUse) {
  TestPool t;
  Block* block = nullptr;
  OnAnotherThread([&] { block = t.Alloc(1000); });
  EXPECT_EQ(t.Statistics().live_blocks, 1u);
  ASSERT_TRUE(t.Free(block));
  ExpectAtRest(t);
}

TEST(ThreadsTest, AllocationsAfterTheThreadsExitHookStillComeBack) {
  TestPool t;
  OnAnotherThread([&] {
    EXPECT_TRUE(t.Free(t.Alloc(1000)));
    Pool::ThreadExit();  // as another thread-specific destructor would find it
    EXPECT_TRUE(t.Free(t.Alloc(1000)));
  });
  EXPECT_EQ(t.context->global().ready_bytes(), 1024u);
  EXPECT_EQ(t.device.allocate_calls(), 1u);
}

// ---- Contexts

TEST(ContextsTest, BlocksOfContextsDoNotMix) {
  TestPool t;
  ContextPool* other = t.OpenAnother();
  for (const size_t bytes : {size_t{1000}, 4 * kMiB}) {
    Block* block = t.Alloc(bytes);
    ASSERT_TRUE(t.Free(block));
    Block* elsewhere = t.AllocIn(*other, bytes);
    EXPECT_NE(elsewhere, block);
    EXPECT_EQ(elsewhere->owner(), other);
    // A free goes to the owner, whichever context was used last.
    ASSERT_TRUE(t.Free(elsewhere));
    EXPECT_EQ(t.Alloc(bytes), block);
    EXPECT_EQ(t.AllocIn(*other, bytes), elsewhere);
  }
}

TEST(ContextsTest, MoreContextsThanAThreadRemembers) {
  TestPool t;
  std::vector<ContextPool*> contexts;
  std::vector<Block*> blocks;
  for (size_t i = 0; i < 4 * ThreadMemory::kEntries; ++i) {
    contexts.push_back(t.OpenAnother());
    blocks.push_back(t.AllocIn(*contexts.back(), 1000));
    ASSERT_TRUE(t.Free(blocks.back()));
  }
  for (size_t i = 0; i < contexts.size(); ++i) {
    EXPECT_EQ(t.AllocIn(*contexts[i], 1000), blocks[i]);
    EXPECT_TRUE(t.Free(blocks[i]));
  }
}

TEST(ContextsTest, OpeningTwiceGivesTheSame) {
  TestPool t;
  EXPECT_EQ(t.pool->OpenContext(t.identity).get(), t.context);
  EXPECT_EQ(t.pool->FindContext(t.identity.handle, t.identity.id).get(), t.context);
  EXPECT_FALSE(t.pool->FindContext(test::FreshHandle(), 1));
}

TEST(ContextsTest, AFailedContextStaysClosedAndItsBlocksKnown) {
  TestPool t;
  Block* live = t.Alloc(1000);
  t.pool->CloseContext(*t.context);
  EXPECT_FALSE(t.pool->FindContext(t.identity.handle, t.identity.id));
  EXPECT_FALSE(t.pool->OpenContext(t.identity));
  EXPECT_EQ(t.pool->Find(live->address), live);
  ASSERT_EQ(t.pool->Take(live, live->address), BlockState::kLive);
  EXPECT_EQ(t.pool->FreeReal(live, t.api), kSuccess);
}

TEST(ContextsTest, ADroppedContextsBlocksAreForgottenWithoutARealCall) {
  TestPool t;
  Block* live = t.Alloc(1000);
  Block* idle = t.Alloc(2000);
  Block* large = t.Alloc(4 * kMiB);
  const DeviceAddress addresses[] = {live->address, idle->address, large->address};
  ASSERT_TRUE(t.Free(idle));
  t.device.ForgetCalls();
  t.pool->DropContext(*t.context);
  EXPECT_EQ(t.device.release_calls(), 0u);
  for (const DeviceAddress address : addresses) {
    EXPECT_EQ(t.pool->Find(address), nullptr);
    EXPECT_FALSE(t.FreeAddress(address));
  }
  EXPECT_EQ(t.pool->Take(live, live->address), BlockState::kUnused);
  EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 2000), 0u) << "a dead block was handed out";
  EXPECT_EQ(t.pool->ReleaseThreadCaches(t.api), 0u);
  EXPECT_EQ(t.device.release_calls(), 0u);
  EXPECT_EQ(t.Statistics().reserved_bytes, 0u);
  EXPECT_EQ(t.Statistics().ready_bytes, 0u);
  EXPECT_EQ(t.pool->statistics().process().contexts_dropped.Get(), 1u);
}

// Found by reading: ForgetAll subtracts from the reserved bytes alone.
TEST(ContextsTest, ADroppedContextsBlocksAreNotCountedAsLive) {
  TestPool t;
  ASSERT_NE(t.Alloc(1000), nullptr);
  ASSERT_NE(t.Alloc(4 * kMiB), nullptr);
  t.pool->DropContext(*t.context);
  EXPECT_EQ(t.Statistics().live_blocks, 0u);
  EXPECT_EQ(t.Statistics().live_block_bytes, 0u);
  EXPECT_EQ(t.Statistics().live_requested_bytes, 0u);
}

TEST(ContextsTest, AContextDroppedWhileAFreeIsUnderWay) {
  TestPool t;
  for (const size_t bytes : {size_t{1000}, 4 * kMiB}) {
    ContextPool* context = t.OpenAnother();
    Block* block = t.AllocIn(*context, bytes);
    ASSERT_EQ(t.pool->Take(block, block->address), BlockState::kLive);
    t.pool->DropContext(*context);
    t.pool->Retire(block, kReady, t.api);
    t.pool->ReleaseThreadCaches(t.api);
    EXPECT_EQ(t.device.release_calls(), 0u) << "memory of a dropped context was freed";
  }
}

TEST(ContextsTest, AReusedHandleWithAnotherIdIsAnotherContext) {
  TestPool t;
  Block* live = t.Alloc(1000);
  Block* idle = t.Alloc(2000);
  const DeviceAddress address = live->address;
  ASSERT_TRUE(t.Free(idle));
  const uint64_t new_id = t.NextId();
  EXPECT_FALSE(t.pool->FindContext(t.identity.handle, new_id));
  EXPECT_FALSE(t.context->open()) << "the old one was destroyed behind our back";
  EXPECT_EQ(t.pool->Find(address), nullptr);
  ContextPool* fresh = t.pool->OpenContext({t.identity.handle, new_id, 0, true}).get();
  ASSERT_NE(fresh, nullptr);
  EXPECT_NE(fresh, t.context);
  Block* block = t.AllocIn(*fresh, 2000);
  EXPECT_EQ(block->owner(), fresh);
  ASSERT_TRUE(t.Free(block));
  EXPECT_EQ(t.AllocIn(*fresh, 2000), block);
}

TEST(ContextsTest, AnotherThreadDoesNotServeFromACacheOfADroppedContext) {
  TestPool t;
  std::atomic<int> step{0};
  std::thread other([&] {
    EXPECT_TRUE(t.Free(t.Alloc(1000)));
    step.store(1);
    while (step.load() != 2) std::this_thread::yield();
    EXPECT_EQ(t.pool->AllocHit(t.identity.handle, 1000), 0u);
  });
  while (step.load() != 1) std::this_thread::yield();
  t.pool->DropContext(*t.context);
  step.store(2);
  other.join();
}

// A reset costs its own blocks, and leaves none of their records behind.
TEST(ContextsTest, RecordsOfDroppedContextsAreUsedAgain) {
  TestPool t;
  std::set<Block*> seen;
  for (int i = 0; i < 50; ++i) {
    ContextPool* context = t.OpenAnother();
    std::vector<Block*> blocks;
    for (int j = 0; j < 400; ++j) {
      blocks.push_back(t.AllocIn(*context, j % 3 == 0 ? 4 * kMiB : 1000));
      ASSERT_NE(blocks.back(), nullptr);
      seen.insert(blocks.back());
    }
    for (int j = 0; j < 400; j += 2) ASSERT_TRUE(t.Free(blocks[static_cast<size_t>(j)]));
    t.pool->DropContext(*context);
  }
  EXPECT_LE(seen.size(), 4 * BlockSlab::kBlocks);
  EXPECT_EQ(t.Statistics().reserved_bytes, 0u);
}

TEST(ContextsTest, ARecordThatAThreadHasInHandIsNoOtherBlocks) {
  for (const size_t bytes : {size_t{1000}, 4 * kMiB}) {
    TestPool t;
    ContextPool* gone = t.OpenAnother();
    Block* in_hand = t.AllocIn(*gone, bytes);
    Block* freed = t.AllocIn(*gone, bytes);
    ASSERT_TRUE(t.Free(freed));
    ASSERT_EQ(t.pool->Take(in_hand, in_hand->address), BlockState::kLive);
    t.pool->DropContext(*gone);
    ContextPool* next = t.OpenAnother();
    std::vector<Block*> blocks;
    for (int i = 0; i < 600; ++i) {
      blocks.push_back(t.AllocIn(*next, bytes));
      ASSERT_NE(blocks.back(), in_hand);
    }
    t.pool->Retire(in_hand, kReady, t.api);
    const std::set<Block*> live(blocks.begin(), blocks.end());
    EXPECT_EQ(live.count(t.AllocIn(*next, bytes)), 0u) << "handed out twice";
    EXPECT_EQ(t.Statistics().live_blocks, 601u);
  }
}

TEST(ContextsTest, ThePeakOfTheProcessIsNoSumOverContextsThatEnded) {
  TestPool t;
  for (int i = 0; i < 5; ++i) {
    ContextPool* context = t.OpenAnother();
    ASSERT_NE(t.AllocIn(*context, 64 * kMiB), nullptr);
    t.pool->DropContext(*context);
    t.pool->DropContext(*context);  // by another thread, as it may happen
  }
  EXPECT_EQ(t.pool->statistics().process().live_peak_bytes.Get(), 64 * kMiB);
}

// Nor does a thread look at one after the other when it comes to a context that stays.
TEST(ContextsTest, CachesOfDroppedContextsAreUsedAgain) {
  TestPool t;
  for (int i = 0; i < 50; ++i) {
    ContextPool* context = t.OpenAnother();
    OnAnotherThread([&] { ASSERT_TRUE(t.Free(t.AllocIn(*context, 1000))); });
    ASSERT_TRUE(t.Free(t.AllocIn(*context, 1000)));
    t.pool->DropContext(*context);
    // A thread that has not heard of it.
    const Allocation late = t.pool->Alloc(*context, 1000, t.api);
    EXPECT_FALSE(late.pooled());
    const DeviceApi& api = t.api;
    EXPECT_EQ(api.Release(late.address), kSuccess);
    ASSERT_TRUE(t.Free(t.Alloc(1000)));
    size_t caches = 0;
    for (ThreadCache* c = t_memory.caches; c != nullptr; c = c->next_of_thread) ++caches;
    ASSERT_LE(caches, 2u);
  }
  EXPECT_LE(t.pool->statistics().process().thread_caches.Get(), 4u);
  EXPECT_EQ(t.Statistics().reserved_bytes, 1024u);
  EXPECT_EQ(t.Statistics().live_blocks, 0u);
}

TEST(ContextsTest, ContextsThatEndedLeaveNothing) {
  TestPool t;
  std::set<ContextPool*> seen;
  for (int i = 0; i < 1000; ++i) {
    ContextPool* context = t.OpenAnother();
    ASSERT_NE(context, nullptr);
    EXPECT_EQ(context->accounts().bound(), Options{}.reserve.bytes);
    ASSERT_TRUE(t.Free(t.AllocIn(*context, 1000)));
    ASSERT_NE(t.AllocIn(*context, 4 * kMiB), nullptr);
    t.pool->DropContext(*context);
    seen.insert(context);
  }
  EXPECT_LE(seen.size(), 2u) << "beside the last one, which this thread's cache holds";
}

// The pool's record of a context that has ended is no other's while somebody has it.
class RecordsTest : public testing::Test {
 protected:
  RecordsTest() : gone_(t_.OpenAnother()) {}
  // Several contexts, none of which may have the record if `held`, and one of which has it else.
  void ExpectHeld(bool held) {
    std::vector<ContextPool*> opened;
    for (int i = 0; i < 5; ++i) opened.push_back(t_.OpenAnother());
    EXPECT_EQ(std::count(opened.begin(), opened.end(), gone_), held ? 0 : 1);
  }

  TestPool t_;
  ContextPool* gone_;
};

TEST_F(RecordsTest, WhoFoundIt) {
  {
    const HeldContext found = t_.pool->FindContext(gone_->handle(), gone_->identity().id);
    ASSERT_EQ(found.get(), gone_);
    t_.pool->DropContext(*gone_);
    ExpectHeld(true);
  }
  ExpectHeld(false);
}

TEST_F(RecordsTest, ACallThatEndsIt) {
  gone_->BeginEnding();
  t_.pool->DropContext(*gone_);
  ExpectHeld(true);
  gone_->CancelEnding();
  ExpectHeld(false);
}

TEST_F(RecordsTest, ACacheOfAThread) {
  ASSERT_TRUE(t_.Free(t_.AllocIn(*gone_, 1000)));
  t_.pool->DropContext(*gone_);
  ExpectHeld(true);
  ASSERT_TRUE(t_.Free(t_.Alloc(1000)));  // the thread looks for its caches
  ExpectHeld(false);
}

TEST_F(RecordsTest, ABlockInHand) {
  Block* block = t_.AllocIn(*gone_, 1000);
  ASSERT_EQ(t_.pool->Take(block, block->address), BlockState::kLive);
  t_.pool->DropContext(*gone_);
  ASSERT_TRUE(t_.Free(t_.Alloc(1000)));
  ExpectHeld(true);
}

TEST_F(RecordsTest, AVisitor) {
  t_.pool->ForEachContext([&](ContextPool& context) {
    if (&context != gone_) return;
    t_.pool->DropContext(*gone_);
    ExpectHeld(true);
  });
  ExpectHeld(false);
}

// Who found an idle block of a context that ended meanwhile knows nothing of its address.
TEST_F(RecordsTest, AnIdleBlockOfAnEarlierContextIsNotTakenForThePools) {
  Block* block = t_.AllocIn(*gone_, 1000);
  const DeviceAddress address = block->address;
  ASSERT_TRUE(t_.Free(block));
  EXPECT_TRUE(t_.pool->StillHas(block, address));
  t_.pool->DropContext(*gone_);
  ASSERT_TRUE(t_.Free(t_.Alloc(1000)));
  ASSERT_EQ(t_.OpenAnother(), gone_);
  EXPECT_FALSE(t_.pool->StillHas(block, address));
}

TEST(ContextsTest, PlacesOfDroppedContextsAreUsedAgain) {
  TestPool t;
  for (int i = 0; i < 1000; ++i) {
    ContextPool* context = t.OpenAnother();
    ASSERT_NE(context, nullptr) << i;
    t.pool->DropContext(*context);
  }
}

TEST(ContextsTest, WhenPlacesRunOutThereIsNoPool) {
  TestPool t;
  std::vector<ContextPool*> contexts;
  while (ContextPool* context = t.OpenAnother()) contexts.push_back(context);
  EXPECT_EQ(contexts.size(), 255u);
  t.pool->DropContext(*contexts[100]);
  EXPECT_NE(t.OpenAnother(), nullptr);
}

}  // namespace
}  // namespace cmp
