// Attributes of a launch that record an event: from then on it stands for the launch.
#include "test_device.h"

namespace cmp::sim {
namespace {

class LaunchEvent : public SimTest {
 protected:
  void SetUp() override {
    SimTest::SetUp();
    busy_ = NewStream();
    stream_ = NewStream();
    ASSERT_EQ(cuEventCreate(&event_, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
  }

  static CUlaunchAttribute Completion(CUevent event, int flags = 0) {
    CUlaunchAttribute attribute{};
    attribute.id = CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT;
    attribute.value.launchCompletionEvent = {event, flags};
    return attribute;
  }
  static CUlaunchAttribute Programmatic(CUevent event, bool at_begin, int flags = 0) {
    CUlaunchAttribute attribute{};
    attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT;
    attribute.value.programmaticEvent = {event, flags, at_begin ? 1 : 0};
    return attribute;
  }
  CUresult Launch(CUlaunchAttribute attribute, uint64_t duration_ns = kMillisecond) const {
    SimWork work{};
    work.duration_ns = duration_ns;
    const SimWork* pointer = &work;
    void* arguments[] = {&pointer};
    CUlaunchConfig config{};
    config.hStream = stream_;
    config.attrs = &attribute;
    config.numAttrs = 1;
    return cuLaunchKernelEx(&config, simFunction(), arguments, nullptr);
  }

  CUstream busy_ = nullptr;
  CUstream stream_ = nullptr;
  CUevent event_ = nullptr;
};

TEST_F(LaunchEvent, StandsForTheLaunchAndNoLongerForWhatItWasRecordedBehind) {
  for (const CUlaunchAttribute& attribute :
       {Completion(event_), Programmatic(event_, true), Programmatic(event_, false)}) {
    LaunchHash(busy_, 1, 100 * kMillisecond, {}, {});
    ASSERT_EQ(cuEventRecord(event_, busy_), CUDA_SUCCESS);
    ASSERT_EQ(Launch(attribute), CUDA_SUCCESS);
    EXPECT_EQ(cuEventSynchronize(event_), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamQuery(busy_), CUDA_ERROR_NOT_READY);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  }
}

TEST_F(LaunchEvent, ComesAfterTheStreamsEarlierWork) {
  for (const CUlaunchAttribute& attribute : {Completion(event_), Programmatic(event_, true)}) {
    LaunchHash(stream_, 1, 10 * kMillisecond, {}, {});
    ASSERT_EQ(Launch(attribute), CUDA_SUCCESS);
    EXPECT_EQ(cuEventQuery(event_), CUDA_ERROR_NOT_READY);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    EXPECT_EQ(cuEventQuery(event_), CUDA_SUCCESS);
  }
}

TEST_F(LaunchEvent, OfTheBeginningIsThereBeforeTheEnd) {
  for (const CUlaunchAttribute& attribute : {Completion(event_), Programmatic(event_, true)}) {
    ASSERT_EQ(Launch(attribute, 10 * kMillisecond), CUDA_SUCCESS);
    EXPECT_EQ(cuEventSynchronize(event_), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamQuery(stream_), CUDA_ERROR_NOT_READY);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  }
  ASSERT_EQ(Launch(Programmatic(event_, false), 10 * kMillisecond), CUDA_SUCCESS);
  EXPECT_EQ(cuEventSynchronize(event_), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream_), CUDA_SUCCESS);
}

TEST_F(LaunchEvent, OfACapturedLaunchIsCaptured) {
  ASSERT_EQ(cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_RELAXED), CUDA_SUCCESS);
  ASSERT_EQ(Launch(Completion(event_)), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(event_), CUDA_ERROR_CAPTURED_EVENT);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(stream_, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}

TEST_F(LaunchEvent, MayNotMeasureTimeOrBeAGraphsToRecord) {
  EXPECT_EQ(Launch(Completion(NewEvent())), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(Launch(Programmatic(NewEvent(), true)), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(Launch(Completion(event_, CU_EVENT_RECORD_EXTERNAL)), CUDA_ERROR_ILLEGAL_STATE);
  CUevent shared = nullptr;
  ASSERT_EQ(cuEventCreate(&shared, CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS), CUDA_SUCCESS);
  EXPECT_EQ(Launch(Completion(shared)), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(simPendingCount(nullptr), 0U);
}

}  // namespace
}  // namespace cmp::sim
