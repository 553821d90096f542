// Captures: what they record, and the calls that kill them. The full table of calls, modes and
// threads is in probe_h200.txt; here are the rules behind it.
#include <initializer_list>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Captures : public SimTest {
 protected:
  static CUstreamCaptureStatus StatusOf(CUstream stream) {
    CUstreamCaptureStatus status{};
    EXPECT_EQ(cuStreamIsCapturing(stream, &status), CUDA_SUCCESS);
    return status;
  }
  // What a call does in a capture of that mode: its result, and whether the capture lives on.
  template <typename Call>
  std::pair<CUresult, bool> During(CUstreamCaptureMode mode, Call call) {
    const CUstream stream = NewStream();
    EXPECT_EQ(cuStreamBeginCapture(stream, mode), CUDA_SUCCESS);
    const CUresult result = call();
    const bool alive = StatusOf(stream) == CU_STREAM_CAPTURE_STATUS_ACTIVE;
    CUgraph graph = nullptr;
    const CUresult end = cuStreamEndCapture(stream, &graph);
    EXPECT_EQ(end, alive ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT_EQ(graph != nullptr, alive);
    EXPECT_EQ(StatusOf(stream), CU_STREAM_CAPTURE_STATUS_NONE);
    return {result, alive};
  }
};

constexpr auto kGlobal = CU_STREAM_CAPTURE_MODE_GLOBAL;
constexpr auto kThreadLocal = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
constexpr auto kRelaxed = CU_STREAM_CAPTURE_MODE_RELAXED;
const std::pair<CUresult, bool> kKilled{CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false};
const std::pair<CUresult, bool> kSurvives{CUDA_SUCCESS, true};

TEST_F(Captures, MallocAndFreeByModeAndThread) {
  const auto allocate = [] {
    void* pointer = nullptr;
    return static_cast<CUresult>(cudaMalloc(&pointer, 512));
  };
  const auto elsewhere = [&] { return OnOtherThread(context_, allocate); };
  EXPECT_EQ(During(kGlobal, allocate), kKilled);
  EXPECT_EQ(During(kThreadLocal, allocate), kKilled);
  EXPECT_EQ(During(kRelaxed, allocate), kSurvives);
  EXPECT_EQ(During(kGlobal, elsewhere), kKilled);
  EXPECT_EQ(During(kThreadLocal, elsewhere), kSurvives);
  EXPECT_EQ(During(kRelaxed, elsewhere), kSurvives);

  const auto free_one = [&] {
    CUstreamCaptureMode mode = kRelaxed;
    cuThreadExchangeStreamCaptureMode(&mode);
    const CUdeviceptr block = NewBlock(512);
    cuThreadExchangeStreamCaptureMode(&mode);
    return cuMemFree(block);
  };
  EXPECT_EQ(During(kGlobal, free_one), kKilled);
  EXPECT_EQ(During(kRelaxed, free_one), kSurvives);
}

TEST_F(Captures, AskingForTheFlagsOrIdOfTheStreamKillsEveryMode) {
  for (const auto mode : {kGlobal, kThreadLocal, kRelaxed}) {
    for (const bool elsewhere : {false, true}) {
      const CUstream stream = NewStream();
      const auto asked = [&](auto ask) {
        EXPECT_EQ(cuStreamBeginCapture(stream, mode), CUDA_SUCCESS);
        const CUresult result = elsewhere ? OnOtherThread(context_, ask) : ask();
        CUgraph graph = nullptr;
        return std::pair(result, cuStreamEndCapture(stream, &graph) == CUDA_SUCCESS);
      };
      unsigned flags = 0;
      unsigned long long id = 0;
      int priority = 0;
      CUcontext context = nullptr;
      EXPECT_EQ(asked([&] { return cuStreamGetFlags(stream, &flags); }), kKilled);
      EXPECT_EQ(asked([&] { return cuStreamGetId(stream, &id); }), kKilled);
      EXPECT_EQ(asked([&] { return cuStreamGetPriority(stream, &priority); }), kSurvives);
      EXPECT_EQ(asked([&] { return cuStreamGetCtx(stream, &context); }), kSurvives);
      const CUstream other = NewStream();
      EXPECT_EQ(asked([&] { return cuStreamGetFlags(other, &flags); }), kSurvives);
    }
  }
}

TEST_F(Captures, SynchronisationAndContextEventsKillEveryMode) {
  const CUevent event = NewEvent();
  for (const auto mode : {kGlobal, kThreadLocal, kRelaxed}) {
    EXPECT_EQ(During(mode, [] { return cuCtxSynchronize(); }), kKilled);
    EXPECT_EQ(During(mode, [&] { return cuCtxRecordEvent(context_, event); }), kKilled);
    EXPECT_EQ(During(mode, [&] { return cuCtxWaitEvent(context_, event); }), kKilled);
    EXPECT_EQ(During(mode,
                     [&] {
                       return OnOtherThread(context_,
                                            [&] { return cuCtxRecordEvent(context_, event); });
                     }),
              kKilled);
    EXPECT_EQ(During(mode,
                     [&] {
                       CUstreamCaptureMode relaxed = kRelaxed;
                       cuThreadExchangeStreamCaptureMode(&relaxed);
                       const CUresult result = cuCtxRecordEvent(context_, event);
                       cuThreadExchangeStreamCaptureMode(&relaxed);
                       return result;
                     }),
              kKilled);
  }
}

TEST_F(Captures, AnExchangedModeProtects) {
  const CUevent event = NewEvent();
  const auto relaxed = [](auto call) {
    return [call] {
      CUstreamCaptureMode mode = kRelaxed;
      EXPECT_EQ(cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
      EXPECT_EQ(mode, kGlobal);
      const CUresult result = call();
      EXPECT_EQ(cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
      EXPECT_EQ(mode, kRelaxed);
      return result;
    };
  };
  EXPECT_EQ(During(kGlobal, [&] { return cuEventQuery(event); }), kKilled);
  EXPECT_EQ(During(kGlobal, relaxed([&] { return cuEventQuery(event); })), kSurvives);
  EXPECT_EQ(During(kGlobal, relaxed([] {
                     CUdeviceptr block = 0;
                     return cuMemAlloc(&block, 512);
                   })),
            kSurvives);
}

TEST_F(Captures, MemGetInfoIsHarmless) {
  EXPECT_EQ(During(kGlobal,
                   [] {
                     size_t free_bytes = 0;
                     size_t total = 0;
                     return cuMemGetInfo(&free_bytes, &total);
                   }),
            kSurvives);
}

TEST_F(Captures, TheLegacyStreamMeetsABlockingCapture) {
  const CUdeviceptr block = NewBlock(512);
  const CUstream stream = NewStream(CU_STREAM_DEFAULT);
  ASSERT_EQ(cuStreamBeginCapture(stream, kGlobal), CUDA_SUCCESS);
  EXPECT_EQ(cudaMemset(Word(block), 0, 8), cudaErrorStreamCaptureImplicit);
  EXPECT_EQ(StatusOf(stream), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  CUgraph graph = nullptr;
  EXPECT_EQ(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_EQ(cudaMemset(Word(block), 0, 8), cudaSuccess);
}

TEST_F(Captures, EndOnAnotherThread) {
  const CUstream stream = NewStream();
  CUgraph graph = nullptr;
  const auto end = [&] { return cuStreamEndCapture(stream, &graph); };
  ASSERT_EQ(cuStreamBeginCapture(stream, kThreadLocal), CUDA_SUCCESS);
  EXPECT_EQ(OnOtherThread(context_, end), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  EXPECT_EQ(StatusOf(stream), CU_STREAM_CAPTURE_STATUS_NONE);
  ASSERT_EQ(cuStreamBeginCapture(stream, kRelaxed), CUDA_SUCCESS);
  EXPECT_EQ(OnOtherThread(context_, end), CUDA_SUCCESS);
}

TEST_F(Captures, CapturedWorkRunsAtEachLaunch) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(8);
  struct Counter {
    uint64_t* word;
    static void Run(void* data) { ++*static_cast<Counter*>(data)->word; }
  } counter{Word(block)};
  SimWork work{};
  work.effect = Counter::Run;
  work.data = &counter;
  ASSERT_EQ(cuStreamBeginCapture(stream, kGlobal), CUDA_SUCCESS);
  ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
  ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
  CUgraph graph = nullptr;
  ASSERT_EQ(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
  EXPECT_EQ(*Word(block), 0U);
  CUgraphExec exec = nullptr;
  ASSERT_EQ(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuGraphLaunch(exec, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(*Word(block), 4U);
  EXPECT_EQ(cuGraphExecDestroy(exec), CUDA_SUCCESS);
  EXPECT_EQ(cuGraphDestroy(graph), CUDA_SUCCESS);
}

TEST_F(Captures, ForksJoinByEvents) {
  const CUstream stream = NewStream();
  const CUstream fork = NewStream();
  const CUevent out = NewEvent();
  const CUevent back = NewEvent();
  const CUdeviceptr block = NewBlock(8);
  ASSERT_EQ(cuStreamBeginCapture(stream, kGlobal), CUDA_SUCCESS);
  ASSERT_EQ(cuEventRecord(out, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamWaitEvent(fork, out, 0), CUDA_SUCCESS);
  EXPECT_EQ(StatusOf(fork), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  LaunchHash(fork, 1, 0, {}, {{Word(block), 8}});
  ASSERT_EQ(cuEventRecord(back, fork), CUDA_SUCCESS);
  CUgraph graph = nullptr;
  ASSERT_EQ(cuStreamWaitEvent(stream, back, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
  EXPECT_EQ(StatusOf(fork), CU_STREAM_CAPTURE_STATUS_NONE);

  ASSERT_EQ(cuStreamBeginCapture(stream, kGlobal), CUDA_SUCCESS);
  ASSERT_EQ(cuEventRecord(out, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamWaitEvent(fork, out, 0), CUDA_SUCCESS);
  LaunchHash(fork, 2, 0, {}, {{Word(block), 8}});
  EXPECT_EQ(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
}

}  // namespace
}  // namespace cmp::sim
