// Captures under way, beside frees and debts: shim/state/captures.h.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "waiting_thread.h"
#include "work_fixture.h"

namespace cmp {
namespace {

TEST_F(WorkTest, WhileACaptureIsUnderWayAFreeIsReal) {
  Submit(kA);
  BeforeCapture();
  EXPECT_FALSE(Free().pooled());
  EXPECT_EQ(driver_.records, 0u);
  g_captures.AfterBegin(nullptr, nullptr, false);
  EXPECT_TRUE(Free().pooled());
}

TEST_F(WorkTest, ACaptureBeginsOnlyOnceDebtsArePaid) {
  Synchronize();
  Submit(kA);
  Free();
  BeforeCapture();
  EXPECT_EQ(driver_.orders, 1u);
  EXPECT_FALSE(AnyDebt());
  Submit(kB);
  EXPECT_EQ(driver_.orders, 1u) << "during a capture";
  g_captures.AfterBegin(nullptr, nullptr, false);
}

// Found by reading: who had paid left a newer debt to who began a capture, who left it to him.
TEST_F(WorkTest, ADebtThatCameWhileAnOlderOneWasPaidIsPaidBeforeACapture) {
  for (int i = 0; i < 20; ++i) {
    Synchronize();
    Submit(kA);
    Free();
    std::thread beginner;
    driver_.on_order = [&] {
      if (beginner.joinable()) return;
      Submit(kA);
      Free();
      beginner = std::thread([] {
        BeforeCapture();
        g_captures.AfterBegin(nullptr, nullptr, false);
      });
      while (!g_captures.UnderWay()) std::this_thread::yield();
    };
    Submit(kB);
    beginner.join();
    driver_.on_order = [] {};
    EXPECT_FALSE(AnyDebt());
  }
}

TEST_F(WorkTest, WhoBeginsACaptureSleepsUntilNobodyRecords) {
  ASSERT_TRUE(g_captures.EnterRecording());
  EXPECT_TRUE(test::Sleeps([] { BeforeCapture(); }, [] { g_captures.LeaveRecording(); }));
  g_captures.AfterBegin(nullptr, nullptr, false);
}

// Found by reading: once the process exits nobody pays, and a capture waited for it for ever.
TEST_F(WorkTest, ACaptureThatBeginsWhileTheProcessExitsDoesNotWait) {
  Submit(kA);
  Free();
  ASSERT_TRUE(AnyDebt());
  g_exiting = true;
  g_pool = nullptr;
  std::atomic<bool> begun{false};
  std::thread beginner([&] {
    BeforeCapture();
    begun = true;
  });
  for (int i = 0; i < 60000 && !begun; ++i) {  // a busy machine may need some of it
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(begun) << "it waits for ever";
  if (!begun) work().End();  // lets it go
  beginner.join();
  g_captures.AfterBegin(nullptr, nullptr, false);
  g_exiting = false;
}

// A free now and then asks the streams whose captures are under way.
TEST_F(WorkTest, ACaptureThatEndedUnseenIsFoundOut) {
  BeforeCapture();
  g_captures.AfterBegin(reinterpret_cast<CUstream>(kA), pool_.identity.handle, true);
  driver_.stream_captures = true;
  for (int i = 0; i < 64; ++i) EXPECT_FALSE(Free().pooled());
  EXPECT_EQ(driver_.capture_questions, 1u);
  EXPECT_TRUE(g_captures.UnderWay());
  driver_.stream_captures = false;
  for (int i = 0; i < 64; ++i) Free();
  EXPECT_FALSE(g_captures.UnderWay());
}

// Found by reading: a stream that was being destroyed by another thread was asked.
TEST_F(WorkTest, AStreamThatIsBeingDestroyedIsNotAsked) {
  BeforeCapture();
  g_captures.AfterBegin(reinterpret_cast<CUstream>(kA), pool_.identity.handle, true);
  {
    const Captures::Ending ending(g_captures);
    for (int i = 0; i < 200; ++i) EXPECT_FALSE(Free().pooled());
    EXPECT_EQ(driver_.capture_questions, 0u);
    g_captures.Ended(reinterpret_cast<CUstream>(kA));
  }
  EXPECT_TRUE(Free().pooled());
}

}  // namespace
}  // namespace cmp
