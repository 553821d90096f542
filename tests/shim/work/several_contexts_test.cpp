// Several contexts: whose work a submission is, and what their threads owe each other.
#include <gtest/gtest.h>

#include <map>

#include "work_fixture.h"

namespace cmp {
namespace {

TEST_F(WorkTest, WithSeveralContextsWorkIsThatOfTheStreamsContext) {
  ContextPool& other = *pool_.OpenAnother();
  std::map<CUstream, ContextHandle> contexts = {
      {reinterpret_cast<CUstream>(kA), pool_.identity.handle},
      {reinterpret_cast<CUstream>(kB), other.identity().handle}};
  driver_.on_stream_context = [&](CUstream stream, CUcontext* context) {
    *context = static_cast<CUcontext>(contexts.at(stream));
    return CUDA_SUCCESS;
  };
  EXPECT_TRUE(FindOwner(kA).Is(&work()));
  EXPECT_TRUE(FindOwner(kB).Is(&WorkIn(other)));
  EXPECT_TRUE(FindOwner(kLegacyStream).Is(&work())) << "of the current context";
  FakeDriver::SetCurrent(other.identity().handle);
  EXPECT_TRUE(FindOwner(kLegacyStream).Is(&WorkIn(other)));
  EXPECT_TRUE(FindOwner(ThreadStream()).Is(&WorkIn(other)));
  // The handle means another stream once this one is destroyed.
  StreamEnds(reinterpret_cast<CUstream>(kA));
  contexts[reinterpret_cast<CUstream>(kA)] = other.identity().handle;
  EXPECT_TRUE(FindOwner(kA).Is(&WorkIn(other)));
}

// Found by reading: a thread that looked while a context was being opened never looked again.
TEST_F(WorkTest, AStreamWhoseContextHasNoPoolYetIsLookedUpAgain) {
  ContextPool& other = *pool_.OpenAnother();
  ContextHandle later = test::FreshHandle();
  driver_.on_stream_context = [&](CUstream, CUcontext* context) {
    *context = static_cast<CUcontext>(later);
    return CUDA_SUCCESS;
  };
  EXPECT_TRUE(FindOwner(kA).IsOneOfSeveral());
  later = other.identity().handle;  // it has one, and nothing tells the thread
  EXPECT_TRUE(FindOwner(kA).Is(&WorkIn(other)));
}

// Two contexts: kA is a stream of the first, all others of the second.
class TwoContexts : public WorkTest {
 protected:
  TwoContexts() {
    driver_.on_stream_context = [&](CUstream stream, CUcontext* context) {
      const bool first = stream == reinterpret_cast<CUstream>(kA);
      *context = static_cast<CUcontext>(first ? pool_.identity.handle : other_.identity().handle);
      return CUDA_SUCCESS;
    };
    Synchronize();
  }
  // What came before is covered by fences.
  void BothAreQuiet() {
    FreeIn(context());
    FreeIn(other_);
    driver_.Finish();
    ForgetOwed();
    ASSERT_FALSE(fences().work_since() || other_.fences().work_since());
  }
  ContextPool& other_ = *pool_.OpenAnother();
};

// The host waits, as in the real free: a wait on the device could be one for what another thread
// has yet to submit to the second context.
TEST_F(TwoContexts, WhatAThreadFreedInOneContextComesBeforeWhatItSubmitsToAnother) {
  Submit(kA);
  Submit(kB);
  EXPECT_TRUE(Free().pooled());
  EXPECT_EQ(driver_.waits, 0u);
  OnAnotherThread([] { Submit(kB); });
  Submit(kA);
  EXPECT_EQ(driver_.waits, 0u) << "neither another thread nor the same context is held up";
  Submit(kB);
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kB);
  Submit(kC);
  EXPECT_EQ(driver_.waits, 1u) << "once";
  EXPECT_EQ(driver_.orders, 0u);
}

TEST_F(TwoContexts, WhatAThreadFreedIsOverWhenItHasEnded) {
  Submit(kA);
  OnAnotherThread([this] { EXPECT_TRUE(Free().pooled()); });
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kB);
  EXPECT_EQ(driver_.waits, 1u);
}

TEST_F(TwoContexts, ACopyIsNotedInBoth) {
  BothAreQuiet();
  {
    const SubmissionElsewhere copy(kA, Visible::kNothing, [] { return kAnyDevice; });
    const Submission submission(kA);
  }
  EXPECT_TRUE(fences().work_since());
  EXPECT_TRUE(other_.fences().work_since());
  EXPECT_NE(FreeIn(other_).stamp, kReady);
}

TEST_F(TwoContexts, ACopyWithinADeviceIsNoAffairOfAnothers) {
  BothAreQuiet();
  {
    const SubmissionElsewhere copy(kA, Visible::kCopies, [] { return DeviceBit(5); });
    const Submission submission(kA, false, Visible::kCopies);
  }
  EXPECT_TRUE(fences().work_since());
  EXPECT_FALSE(other_.fences().work_since());
}

TEST_F(TwoContexts, AKernelIsNotedInItsOwn) {
  BothAreQuiet();
  Submit(kA);
  EXPECT_TRUE(fences().work_since());
  EXPECT_FALSE(other_.fences().work_since());
}

TEST_F(TwoContexts, FreesInBothAreWaitedForInTurn) {
  Submit(kA);
  Submit(kB);
  EXPECT_TRUE(FreeIn(context()).pooled());
  EXPECT_TRUE(FreeIn(other_).pooled());
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kB);
  EXPECT_EQ(driver_.waits, 1u);
  Submit(kA);
  EXPECT_EQ(driver_.waits, 2u);
}

TEST_F(TwoContexts, NothingIsOwedOnceTheWorkIsDone) {
  Submit(kA);
  EXPECT_TRUE(Free().pooled());
  Synchronize(kA);
  Submit(kB);
  EXPECT_EQ(driver_.waits, 0u);
}

TEST_F(TwoContexts, WithOneContextLeftEveryStreamIsIts) {
  Submit(kA);
  EXPECT_TRUE(Free().pooled());
  pool_.pool->DropContext(other_);
  Submit(kC);
  EXPECT_EQ(driver_.orders, 1u);
  EXPECT_EQ(driver_.waits, 0u);
}

}  // namespace
}  // namespace cmp
