// What waits for what: streams, events, the legacy stream, frees; and when things happen.
#include <initializer_list>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Order : public SimTest {
 protected:
  void SetUp() override {
    SimTest::SetUp();
    x_ = NewBlock(sizeof(uint64_t));
    y_ = NewBlock(sizeof(uint64_t));
  }
  CUdeviceptr x_ = 0;
  CUdeviceptr y_ = 0;
};

TEST_F(Order, AWriteHappensAtTheKernelsEnd) {
  const CUstream stream = NewStream();
  Store store{Word(x_), 7};
  LaunchStore(stream, &store, 10 * kMillisecond);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(*Word(x_), 0U);
  simAdvance(9 * kMillisecond);
  EXPECT_EQ(*Word(x_), 0U);
  simAdvance(1 * kMillisecond);
  EXPECT_EQ(*Word(x_), 7U);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_SUCCESS);
}

TEST_F(Order, MallocWaitsForNothingAndFreeForAllStreams) {
  for (const unsigned flags : {CU_STREAM_NON_BLOCKING, CU_STREAM_DEFAULT}) {
    const CUstream stream = NewStream(flags);
    LaunchHash(stream, 1, 10 * kMillisecond, {}, {{Word(x_), 8}});
    const CUdeviceptr block = NewBlock(256);
    EXPECT_EQ(simPendingCount(context_), 1U);
    EXPECT_EQ(cuMemFree(12345), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(simPendingCount(context_), 1U);
    const uint64_t before = simNow();
    ASSERT_EQ(cuMemFree(block), CUDA_SUCCESS);
    EXPECT_EQ(simPendingCount(context_), 0U);
    EXPECT_GE(simNow() - before, 9 * kMillisecond);
  }
}

TEST_F(Order, ASpinningKernelIsReleasedByALaterOne) {
  const CUstream first = NewStream();
  const CUstream second = NewStream();
  SimWork spinner{};
  spinner.id = 1;
  spinner.spin_until_id = 2;
  ASSERT_EQ(simLaunch(first, &spinner), CUDA_SUCCESS);
  simAdvance(1000 * kMillisecond);
  const CUdeviceptr block = NewBlock(256);
  EXPECT_EQ(cuStreamQuery(first), CUDA_ERROR_NOT_READY);
  LaunchHash(second, 2, 0, {}, {{Word(block), 8}});
  EXPECT_EQ(cuMemFree(block), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(first), CUDA_SUCCESS);
}

TEST_F(Order, AWaitThatCannotEndAborts) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        CUstream stream = nullptr;
        cudaFree(nullptr);
        cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
        SimWork spinner{};
        spinner.spin_until_id = 99;
        simLaunch(stream, &spinner);
        cuStreamSynchronize(stream);
      },
      "deadlock.*\n.*spins until an item with id 99");
}

TEST_F(Order, AnotherThreadsLaunchEndsTheWait) {
  const CUstream first = NewStream();
  const CUstream second = NewStream();
  SimWork spinner{};
  spinner.spin_until_id = 2;
  ASSERT_EQ(simLaunch(first, &spinner), CUDA_SUCCESS);
  std::thread releaser([&] {
    cuCtxSetCurrent(context_);
    SimWork work{};
    work.id = 2;
    simLaunch(second, &work);
  });
  EXPECT_EQ(cuStreamSynchronize(first), CUDA_SUCCESS);
  releaser.join();
}

TEST_F(Order, LegacyStreamWaitsForBlockingStreamsAlone) {
  const CUstream blocking = NewStream(CU_STREAM_DEFAULT);
  const CUstream free_running = NewStream();
  Store slow{Word(x_), 1};
  Store slower{Word(y_), 1};
  LaunchStore(blocking, &slow, 1 * kMillisecond);
  LaunchStore(free_running, &slower, 50 * kMillisecond);
  uint64_t read = 0;
  ASSERT_EQ(cuMemcpyDtoH(&read, x_, sizeof read), CUDA_SUCCESS);
  EXPECT_EQ(read, 1U);
  ASSERT_EQ(cuMemcpyDtoH(&read, y_, sizeof read), CUDA_SUCCESS);
  EXPECT_EQ(read, 0U);  // measured: the copy reads stale data of a non-blocking stream
}

TEST_F(Order, ARealFreeGivesTheOrderThatTheCopyLacks) {
  const CUstream free_running = NewStream();
  const CUdeviceptr other = NewBlock(256);
  Store store{Word(x_), 1};
  LaunchStore(free_running, &store, 50 * kMillisecond);
  ASSERT_EQ(cuMemFree(other), CUDA_SUCCESS);
  uint64_t read = 0;
  ASSERT_EQ(cuMemcpyDtoH(&read, x_, sizeof read), CUDA_SUCCESS);
  EXPECT_EQ(read, 1U);
}

TEST_F(Order, ContextEventsGiveItOnTheDevice) {
  const CUstream free_running = NewStream();
  const CUevent event = NewEvent();
  Store store{Word(x_), 1};
  LaunchStore(free_running, &store, 50 * kMillisecond);
  ASSERT_EQ(cuCtxRecordEvent(context_, event), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(event), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(cuCtxWaitEvent(context_, event), CUDA_SUCCESS);
  EXPECT_EQ(*Word(x_), 0U);
  uint64_t read = 0;
  ASSERT_EQ(cuMemcpyDtoH(&read, x_, sizeof read), CUDA_SUCCESS);
  EXPECT_EQ(read, 1U);
  EXPECT_EQ(cuEventQuery(event), CUDA_SUCCESS);
}

TEST_F(Order, AnEventOnTheLegacyStreamIsNoFence) {
  const CUstream free_running = NewStream();
  const CUevent event = NewEvent();
  LaunchHash(free_running, 1, 50 * kMillisecond, {}, {{Word(x_), 8}});
  ASSERT_EQ(cuEventRecord(event, nullptr), CUDA_SUCCESS);
  simAdvance(1000);
  EXPECT_EQ(cuEventQuery(event), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(free_running), CUDA_ERROR_NOT_READY);
}

TEST_F(Order, AContextEventCoversADestroyedStream) {
  const CUstream stream = NewStream();
  const CUevent event = NewEvent();
  LaunchHash(stream, 1, 10 * kMillisecond, {}, {{Word(x_), 8}});
  ASSERT_EQ(cuStreamDestroy(stream), CUDA_SUCCESS);
  EXPECT_EQ(NewStream(), stream);  // the handle is reused at once
  ASSERT_EQ(cuCtxRecordEvent(context_, event), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(event), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(cuEventSynchronize(event), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(context_), 0U);
}

TEST_F(Order, StreamsWaitForEvents) {
  const CUstream first = NewStream();
  const CUstream second = NewStream();
  const CUevent event = NewEvent();
  Store store{Word(x_), 1};
  Store later{Word(x_), 2};
  LaunchStore(first, &store, 10 * kMillisecond);
  ASSERT_EQ(cuEventRecord(event, first), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamWaitEvent(second, event, 0), CUDA_SUCCESS);
  LaunchStore(second, &later, 0);
  ASSERT_EQ(cuStreamSynchronize(second), CUDA_SUCCESS);
  EXPECT_EQ(*Word(x_), 2U);
}

TEST_F(Order, PerThreadStreamsAreOnePerThread) {
  Store mine{Word(x_), 1};
  Store theirs{Word(y_), 1};
  LaunchStore(CU_STREAM_PER_THREAD, &mine, 10 * kMillisecond);
  OnOtherThread(context_, [&] {
    LaunchStore(CU_STREAM_PER_THREAD, &theirs, 50 * kMillisecond);
    return 0;
  });
  ASSERT_EQ(cuStreamSynchronize(CU_STREAM_PER_THREAD), CUDA_SUCCESS);
  EXPECT_EQ(*Word(x_), 1U);
  EXPECT_EQ(*Word(y_), 0U);
}

TEST_F(Order, HostFunctionsRunInTheirTurnAndMayNotCallCuda) {
  struct State {
    uint64_t* word;
    uint64_t seen;
    CUresult answer;
  } state{Word(x_), 0, CUDA_SUCCESS};
  const CUstream stream = NewStream();
  Store store{Word(x_), 5};
  LaunchStore(stream, &store, 10 * kMillisecond);
  ASSERT_EQ(cuLaunchHostFunc(
                stream,
                [](void* data) {
                  auto* s = static_cast<State*>(data);
                  s->seen = *s->word;
                  CUdeviceptr block = 0;
                  s->answer = cuMemAlloc(&block, 512);
                },
                &state),
            CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(state.seen, 5U);
  EXPECT_EQ(state.answer, CUDA_ERROR_NOT_PERMITTED);
  expected_misuse_ = 1;
}

// Three calls alone are allowed there (measured).
TEST_F(Order, HostFunctionsMayAskAboutWork) {
  struct State {
    CUstream stream;
    CUevent event;
    CUresult stream_answer;
    CUresult event_answer;
    CUresult exchange_answer;
  } state{NewStream(), NewEvent(), CUDA_SUCCESS, CUDA_ERROR_UNKNOWN, CUDA_ERROR_UNKNOWN};
  ASSERT_EQ(cuEventRecord(state.event, state.stream), CUDA_SUCCESS);
  ASSERT_EQ(cuLaunchHostFunc(
                state.stream,
                [](void* data) {
                  auto* s = static_cast<State*>(data);
                  s->stream_answer = cuStreamQuery(s->stream);
                  s->event_answer = cuEventQuery(s->event);
                  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
                  s->exchange_answer = cuThreadExchangeStreamCaptureMode(&mode);
                  cuThreadExchangeStreamCaptureMode(&mode);
                },
                &state),
            CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(state.stream), CUDA_SUCCESS);
  EXPECT_EQ(state.stream_answer, CUDA_ERROR_NOT_READY);
  EXPECT_EQ(state.event_answer, CUDA_SUCCESS);
  EXPECT_EQ(state.exchange_answer, CUDA_SUCCESS);
}

TEST_F(Order, EventsMeasureVirtualTime) {
  const CUstream stream = NewStream();
  const CUevent start = NewEvent();
  const CUevent end = NewEvent();
  ASSERT_EQ(cuEventRecord(start, stream), CUDA_SUCCESS);
  LaunchHash(stream, 1, 20 * kMillisecond, {}, {{Word(x_), 8}});
  ASSERT_EQ(cuEventRecord(end, stream), CUDA_SUCCESS);
  float milliseconds = 0;
  EXPECT_EQ(cuEventElapsedTime(&milliseconds, start, end), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(cuEventSynchronize(end), CUDA_SUCCESS);
  ASSERT_EQ(cuEventElapsedTime(&milliseconds, start, end), CUDA_SUCCESS);
  EXPECT_NEAR(milliseconds, 20, 0.1);
}

TEST_F(Order, ALazySchedulerRunsOnlyWhatAWaitNeeds) {
  simSeed(2);
  const CUstream first = NewStream();
  const CUstream second = NewStream();
  Store store{Word(x_), 1};
  Store other{Word(y_), 1};
  LaunchStore(first, &store, 10 * kMillisecond);
  LaunchStore(second, &other, 1000);
  ASSERT_EQ(cuStreamSynchronize(first), CUDA_SUCCESS);
  EXPECT_EQ(*Word(x_), 1U);
  EXPECT_EQ(*Word(y_), 0U);
  while (cuStreamQuery(second) == CUDA_ERROR_NOT_READY) {
  }
  EXPECT_EQ(*Word(y_), 1U);
}

TEST_F(Order, SeedsReproduceAndDiffer) {
  // Two streams race over one word; which of them is last depends on the seed alone.
  const auto winners = [&](uint64_t seed) {
    simSeed(seed);
    const CUstream first = NewStream();
    const CUstream second = NewStream();
    Store one{Word(x_), 1};
    Store two{Word(x_), 2};
    uint64_t pattern = 0;
    for (int i = 0; i < 32; ++i) {
      LaunchStore(first, &one, 50000);
      LaunchStore(second, &two, 50000);
      cuCtxSynchronize();
      pattern = pattern << 1 | (*Word(x_) == 1);
    }
    return pattern;
  };
  for (const uint64_t seed : {uint64_t{3}, uint64_t{4}}) {
    const uint64_t pattern = winners(seed);
    EXPECT_EQ(winners(seed), pattern);
    EXPECT_NE(pattern, 0U);
    EXPECT_NE(pattern, 0xffffffffU);
  }
}

TEST_F(Order, PageableSourcesAreStagedAndLockedOnesAreRead) {
  const CUstream stream = NewStream();
  SimWork slow{};
  slow.duration_ns = 10 * kMillisecond;
  uint64_t pageable = 1;
  void* locked = nullptr;
  ASSERT_EQ(cuMemHostAlloc(&locked, 8, 0), CUDA_SUCCESS);
  *static_cast<uint64_t*>(locked) = 1;
  ASSERT_EQ(simLaunch(stream, &slow), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyHtoDAsync(x_, &pageable, 8, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyHtoDAsync(y_, locked, 8, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  pageable = 2;
  *static_cast<uint64_t*>(locked) = 2;
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(*Word(x_), 1U);
  EXPECT_EQ(*Word(y_), 2U);
}

}  // namespace
}  // namespace cmp::sim
