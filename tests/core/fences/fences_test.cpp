#include "core/fences/fences.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "core/base/memory.h"
#include "fake_driver.h"
#include "waiting_thread.h"

namespace cmp {
namespace {

using test::FakeHost;

class FencesTest : public testing::Test {
 protected:
  FencesTest() { EXPECT_TRUE(context_.Open(kIdentity, Options{}, arena_, spare_lists_)); }
  ~FencesTest() override { EXPECT_EQ(driver_.errors, 0u) << "an event was misused"; }

  Fences& fences() { return context_.fences(); }
  Fences::Recorded Record() {
    return fences().Record(driver_.table(), FakeHost::table, {context_.handle(), context_, arena_});
  }
  int Poll(Stamp stamp) { return fences().Poll(driver_.table(), stamp); }
  int Wait(Stamp stamp) { return fences().Wait(driver_.table(), stamp); }
  int OrderAfter(uint64_t number) {
    return fences().OrderAfter(driver_.table(), context_.identity().handle, number).status;
  }

  static inline const ContextIdentity kIdentity = {reinterpret_cast<ContextHandle>(0x100), 1, 0,
                                                   true};
  Arena arena_;
  BlockSlabs slabs_{arena_};
  SideTable side_table_{arena_};
  IdleChunks chunks_{side_table_};
  GlobalPool::SpareLists spare_lists_;
  Tiers tiers_{4};
  Options options_;
  test::FakeDriver driver_;
  ContextPool context_{tiers_, options_, slabs_, chunks_};
};

TEST_F(FencesTest, AFreeIsCoveredByAFenceThatIsBegunAfterItAlone) {
  const Fences::Recorded before = Record();
  ASSERT_EQ(before.status, kSuccess);
  fences().SetWorkSince(true);
  const Stamp stamp = Fences::Now();
  driver_.Finish();
  ASSERT_EQ(Poll(before.number - 1), kSuccess);
  EXPECT_EQ(fences().passed(), before.number);
  EXPECT_FALSE(fences().Covers(stamp)) << "by a fence that is older than the free";
  EXPECT_EQ(Poll(stamp), kNotReady);
  const Fences::Recorded after = Record();
  EXPECT_GT(after.number, stamp);
  EXPECT_EQ(Poll(stamp), kNotReady) << "before the work was done";
  driver_.Finish();
  EXPECT_EQ(Poll(stamp), kSuccess);
  EXPECT_TRUE(fences().Covers(stamp));
}

TEST_F(FencesTest, NumbersGrowOverAllContexts) {
  ContextPool other(tiers_, options_, slabs_, chunks_);
  ASSERT_TRUE(other.Open({nullptr, 2, 0, false}, Options{}, arena_, spare_lists_));
  uint64_t last = Fences::Now();
  for (int i = 0; i < 4; ++i) {
    ContextPool& context = i % 2 == 0 ? context_ : other;
    const Fences::Recorded recorded = context.fences().Record(driver_.table(), FakeHost::table,
                                                              {context.handle(), context, arena_});
    EXPECT_GT(recorded.number, last);
    last = recorded.number;
  }
  EXPECT_EQ(Fences::Now(), last);
}

TEST_F(FencesTest, ANewContextsPastHasPassed) {
  const Stamp stamp = Fences::Now();
  ContextPool later(tiers_, options_, slabs_, chunks_);
  ASSERT_TRUE(later.Open({nullptr, 2, 0, false}, Options{}, arena_, spare_lists_));
  EXPECT_TRUE(later.fences().Covers(stamp));
  EXPECT_FALSE(later.fences().Covers(Fences::Now()));
}

// The events ended with the context, and whoever still asks for its fences waits for nothing.
TEST_F(FencesTest, FencesOfAContextThatEndedHavePassedForTheNextOne) {
  const uint64_t first = Record().number;
  const uint64_t second = Record().number;
  driver_.DestroyEvents();
  context_.End();
  fences().Open();
  EXPECT_EQ(Wait(first - 1), kSuccess);
  EXPECT_EQ(OrderAfter(second), kSuccess);
  EXPECT_FALSE(fences().Covers(Fences::Now())) << "work of the next one, so far as is known";
  const unsigned made = driver_.creates;
  for (int i = 0; i < 4; ++i) {
    const Fences::Recorded fence = Record();
    EXPECT_EQ(fence.status, kSuccess);
    EXPECT_EQ(Poll(fence.number - 1), kNotReady);
    driver_.Finish();
    EXPECT_EQ(Poll(fence.number - 1), kSuccess);
  }
  EXPECT_EQ(driver_.creates, made + 2) << "one for each fence, used again within its context";
}

TEST_F(FencesTest, WithNothingSubmittedSinceAPassedFenceEverythingIsCovered) {
  Record();
  driver_.Finish();
  EXPECT_FALSE(fences().Idle());
  ASSERT_EQ(Poll(fences().published() - 1), kSuccess);
  EXPECT_TRUE(fences().Idle());
  EXPECT_TRUE(fences().Covers(Fences::Now()));
  const unsigned queries = driver_.queries;
  EXPECT_EQ(Poll(Fences::Now()), kSuccess);
  EXPECT_EQ(Wait(Fences::Now()), kSuccess);
  EXPECT_EQ(driver_.queries, queries);
  fences().SetWorkSince(true);
  EXPECT_FALSE(fences().Idle());
  EXPECT_FALSE(fences().Covers(Fences::Now()));
}

TEST_F(FencesTest, AQueryLooksAtTheOldestFenceAboveTheStamp) {
  const uint64_t first = Record().number;
  const Stamp stamp = Fences::Now();
  const uint64_t second = Record().number;
  const uint64_t third = Record().number;
  driver_.Finish(2);
  EXPECT_EQ(Poll(stamp), kSuccess);
  EXPECT_EQ(driver_.queries, 1u);
  EXPECT_EQ(fences().passed(), second) << "it says nothing about the third";
  EXPECT_LT(first, second);
  EXPECT_EQ(Poll(third - 1), kNotReady);
}

TEST_F(FencesTest, WaitingIsForTheOldestFenceAboveTheStamp) {
  const Stamp stamp = Fences::Now();
  EXPECT_EQ(Wait(stamp), kNotReady) << "none is recorded";
  const uint64_t first = Record().number;
  Record();
  EXPECT_EQ(Wait(stamp), kSuccess);
  EXPECT_EQ(fences().passed(), first);
  EXPECT_EQ(driver_.waits, 1u);
}

TEST_F(FencesTest, WhoWaitsForADriverCallOfAnothersSleeps) {
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  const auto stay = [&] {
    inside = true;
    while (!leave) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  const auto end = [&](std::thread& first) {
    leave = true;
    first.join();
  };
  const Stamp stamp = Fences::Now();
  Record();
  driver_.on_query = stay;
  std::thread asks([&] { Poll(stamp); });
  while (!inside) std::this_thread::yield();
  EXPECT_TRUE(test::Sleeps([&] { Poll(stamp); }, [&] { end(asks); })) << "to ask";
  inside = leave = false;
  driver_.on_record = stay;
  std::thread records([&] { Record(); });
  while (!inside) std::this_thread::yield();
  EXPECT_TRUE(test::Sleeps([&] { Record(); }, [&] { end(records); })) << "to record";
}

TEST_F(FencesTest, AnEventIsUsedAgainOnlyOnceItsFenceHasPassed) {
  for (int i = 0; i < 3; ++i) Record();
  EXPECT_EQ(driver_.creates, 3u);
  driver_.Finish();  // of which nobody knows yet
  Record();
  EXPECT_EQ(driver_.creates, 4u);
  EXPECT_EQ(Wait(fences().published() - 1), kSuccess);
  for (int i = 0; i < 4; ++i) Record();
  EXPECT_EQ(driver_.creates, 4u) << "the events of passed fences are used again";
}

TEST_F(FencesTest, AnEventThatSomebodyLooksAtIsNotUsedAgain) {
  const uint64_t number = Record().number;
  driver_.on_query = [&] {
    // While a query is on its way the fence passes by other means, and more are recorded.
    fences().NoteWaited(number);
    driver_.Finish();
    Record();
    EXPECT_EQ(driver_.creates, 2u) << "the event that is being asked was recorded again";
  };
  EXPECT_EQ(Poll(number - 1), kSuccess);
  EXPECT_EQ(fences().passed(), number) << "the answer is of the fence that was asked";
  driver_.on_query = [] {};
  Record();
  EXPECT_EQ(driver_.creates, 2u) << "afterwards it is used";
}

TEST_F(FencesTest, AFailedRecordLeavesNoFence) {
  const uint64_t before = fences().published();
  FakeHost::failed = 0;
  driver_.record_status = CUDA_ERROR_NOT_PERMITTED;
  EXPECT_EQ(Record().status, CUDA_ERROR_NOT_PERMITTED);
  EXPECT_EQ(FakeHost::failed, 1u);
  EXPECT_EQ(fences().published(), before);
  EXPECT_TRUE(fences().work_since());
  EXPECT_EQ(Poll(before), kNotReady);
  EXPECT_EQ(driver_.queries, 0u) << "an event was asked that was never recorded";
  driver_.record_status = CUDA_SUCCESS;
  const Stamp stamp = Fences::Now();
  EXPECT_GT(Record().number, stamp);
  EXPECT_EQ(driver_.creates, 1u) << "the event was lost";
}

TEST_F(FencesTest, WithoutAnEventNothingIsBegun) {
  driver_.create_status = CUDA_ERROR_OUT_OF_MEMORY;
  const uint64_t started = fences().started();
  EXPECT_EQ(Record().status, kOutOfMemory);
  EXPECT_EQ(fences().started(), started);
  EXPECT_EQ(driver_.records, 0u);
}

TEST_F(FencesTest, AnErrorOfAFenceIsReportedAndItHasNotPassed) {
  const uint64_t number = Record().number;
  driver_.query_status = CUDA_ERROR_LAUNCH_FAILED;
  EXPECT_EQ(Poll(number - 1), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(Wait(number - 1), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_LT(fences().passed(), number);
}

TEST_F(FencesTest, OrderIsAfterTheVeryFence) {
  const uint64_t first = Record().number;
  const uint64_t second = Record().number;
  EXPECT_EQ(OrderAfter(first), kSuccess);
  EXPECT_EQ(OrderAfter(second), kSuccess);
  EXPECT_EQ(driver_.orders, 2u);
  EXPECT_EQ(OrderAfter(second + 1), kSuccess);
  EXPECT_EQ(driver_.orders, 2u) << "after a fence that was never recorded";
  fences().NoteWaited(first);
  EXPECT_EQ(OrderAfter(first), kSuccess);
  EXPECT_EQ(driver_.orders, 2u) << "after one that has passed";
  driver_.order_status = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  EXPECT_EQ(OrderAfter(second), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

// The question first is for who pays a debt often of work that is done by then.
TEST_F(FencesTest, NothingWaitsForAFenceThatHasPassedWhenItIsAskedFirst) {
  const auto order_after = [&](uint64_t number) {
    return fences().OrderAfter(driver_.table(), context_.handle(), number, Fences::Ask::kFirst);
  };
  const uint64_t first = Record().number;
  const uint64_t second = Record().number;
  EXPECT_FALSE(order_after(second).passed);
  EXPECT_EQ(driver_.queries, 1u);
  EXPECT_EQ(driver_.orders, 1u);
  driver_.Finish();
  EXPECT_TRUE(order_after(second).passed);
  EXPECT_EQ(driver_.queries, 2u);
  EXPECT_EQ(fences().passed(), second) << "everybody learns of it";
  EXPECT_TRUE(order_after(first).passed);
  EXPECT_EQ(driver_.queries, 2u) << "what is known is not asked";
  EXPECT_EQ(driver_.orders, 1u);
}

TEST_F(FencesTest, WhatWasWaitedForHasPassed) {
  const Stamp stamp = Fences::Now();
  const uint64_t fence = Record().number;
  fences().NoteWaited(fence);
  EXPECT_TRUE(fences().Covers(stamp));
  const uint64_t begun = fences().Begin();
  EXPECT_EQ(fences().started(), begun);
  fences().SetWorkSince(true);
  EXPECT_FALSE(fences().Covers(begun - 1));
  fences().NoteWaited(begun);
  EXPECT_TRUE(fences().Covers(begun - 1));
  EXPECT_EQ(fences().published(), begun);
}

// Found by reading: the recorder stored its number over a larger one.
TEST_F(FencesTest, TheNewestFenceIsTheNewestWhoeverWasFaster) {
  uint64_t waited = 0;
  driver_.on_record = [&] {  // a synchronisation that begins after the fence and ends before it
    waited = fences().Begin();
    fences().NoteWaited(waited);
  };
  const Fences::Recorded recorded = Record();
  EXPECT_LT(recorded.number, waited);
  EXPECT_EQ(fences().published(), waited);
  EXPECT_EQ(fences().passed(), waited);
}

// Recorders that come while another one records are served by one record of the next.
TEST_F(FencesTest, OneRecordServesAllWhoWaitedForIt) {
  constexpr int kThreads = 6;
  std::atomic<int> coming{0};
  std::atomic<bool> first{true};
  driver_.on_record = [&] {
    if (!first.exchange(false)) return;
    // Until the others have read the clock; there is no telling from here, so a while longer.
    while (coming < kThreads) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  };
  const uint64_t before = fences().published();
  std::thread holder([&] { EXPECT_GT(Record().number, before); });
  while (first) std::this_thread::yield();
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      ++coming;
      const Stamp stamp = Fences::Now();
      const Fences::Recorded recorded = Record();
      EXPECT_EQ(recorded.status, kSuccess);
      EXPECT_GT(recorded.number, stamp) << "a fence that had begun before";
    });
  }
  holder.join();
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(driver_.records, 1u + kThreads);
}

// Whoever frees, whoever records and whoever asks: no stamp is covered by an older fence than it
// needs, and no event is misused.
TEST_F(FencesTest, ThreadsThatRecordAskAndWait) {
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 4; ++number) {
    threads.emplace_back([&, number] {
      for (int i = 0; i < 2000; ++i) {
        fences().SetWorkSince(true);
        const Stamp stamp = Fences::Now();
        uint64_t recorded = 0;
        if (i % 3 == 0) {
          const Fences::Recorded fence = Record();
          EXPECT_EQ(fence.status, kSuccess);
          EXPECT_GT(fence.number, stamp);
          recorded = fence.number;
        }
        if (recorded != 0 && i % 7 == 0) {
          EXPECT_EQ(OrderAfter(recorded), kSuccess);
        }
        if (number == 0) driver_.Finish();
        const int status = i % 5 == 0 ? Wait(stamp) : Poll(stamp);
        EXPECT_TRUE(status == kSuccess || status == kNotReady) << status;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(driver_.creates, driver_.records);
  EXPECT_LE(fences().passed(), fences().published());
  EXPECT_LE(fences().published(), fences().started());
}

// Found by review: the time until a newer one was seen open counted as the older one's wait.
TEST_F(FencesTest, AnOpenFenceDoesNotTellThatAnOlderOneWasOpen) {
  fences().NoteSkipped(Record().number);
  const Fences::Recorded older = Record();
  fences().NoteSkipped(older.number);
  const Fences::Recorded newer = Record();
  fences().NoteSkipped(newer.number);
  driver_.Finish(2);
  EXPECT_EQ(Poll(newer.number - 1), kNotReady);
  EXPECT_EQ(Poll(older.number - 1), kSuccess);
  const SkippedTime::Bounds seen_late = fences().TakeSkippedTime();
  EXPECT_EQ(seen_late.min_ns, 0u);
  EXPECT_GT(seen_late.max_ns, 0u);
  EXPECT_EQ(Poll(newer.number - 1), kNotReady);
  driver_.Finish();
  EXPECT_EQ(Poll(newer.number - 1), kSuccess);
  EXPECT_GT(fences().TakeSkippedTime().min_ns, 0u) << "it was the oldest, and open";
}

// Found by review: who looked first may come second.
TEST(SkippedTimeTest, AnOlderLookDoesNotTakeBackANewerOne) {
  SkippedTime time;
  time.SeenOpen(200);
  time.SeenOpen(150);
  time.Passed(100, 300);
  EXPECT_EQ(time.Take().min_ns, 100u);
}

}  // namespace
}  // namespace cmp
