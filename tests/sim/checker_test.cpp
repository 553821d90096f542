// The checkers: each finds the mistake that it is for, and nothing where there is none.
#include <cstdio>
#include <cstring>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Checker : public SimTest {};

TEST_F(Checker, HandingOutABusyBlockIsAHazard) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(4096);
  simNoteAlloc(Word(block), 4096);
  LaunchHash(stream, 1, 10 * kMillisecond, {}, {{Word(block + 1024), 64}});
  simNoteFree(Word(block));  // a pool's free: the memory stays, the kernel is pending
  simNoteAlloc(Word(block), 4096);
  EXPECT_EQ(simHazardCount(), 1U);
  EXPECT_NE(strstr(simHazardReport(), "still writes it"), nullptr) << simHazardReport();
  cuCtxSynchronize();
  EXPECT_EQ(simHazardCount(), 1U);  // once per block and item
  expected_hazards_ = 1;
}

TEST_F(Checker, AReaderCountsToo) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(4096);
  simNoteAlloc(Word(block), 4096);
  LaunchHash(stream, 1, 10 * kMillisecond, {{Word(block), 64}}, {});
  simNoteFree(Word(block));
  simNoteAlloc(Word(block), 4096);
  EXPECT_EQ(simHazardCount(), 1U);
  expected_hazards_ = 1;
}

TEST_F(Checker, AFenceBeforeTheReuseIsNone) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(4096);
  simNoteAlloc(Word(block), 4096);
  LaunchHash(stream, 1, 10 * kMillisecond, {}, {{Word(block), 64}});
  simNoteFree(Word(block));
  cuStreamSynchronize(stream);
  simNoteAlloc(Word(block), 4096);
  LaunchHash(stream, 2, 10 * kMillisecond, {}, {{Word(block), 64}});
  EXPECT_EQ(simHazardCount(), 0U);
}

TEST_F(Checker, NeighboursAreNoHazard) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(4096);
  LaunchHash(stream, 1, 10 * kMillisecond, {{Word(block), 1024}}, {{Word(block + 2048), 2048}});
  simNoteAlloc(Word(block + 1024), 1024);
  EXPECT_EQ(simHazardCount(), 0U);
}

TEST_F(Checker, OverlappingLiveBlocks) {
  const CUdeviceptr block = NewBlock(4096);
  simNoteAlloc(Word(block), 2048);
  simNoteAlloc(Word(block + 2047), 2);
  EXPECT_EQ(simHazardCount(), 1U);
  expected_hazards_ = 1;
}

TEST_F(Checker, PendingWorkOfAnotherContextOnFreedMemory) {
  const CUcontext other = NewContext();
  const CUstream there = NewStream();
  cuCtxSetCurrent(context_);
  const CUdeviceptr block = NewBlock(8 << 20);
  LaunchHash(there, 1, 10 * kMillisecond, {}, {{Word(block), 64}});
  ASSERT_EQ(cuMemFree(block), CUDA_SUCCESS);  // waits for its own context's streams alone
  EXPECT_EQ(simHazardCount(), 0U);
  ASSERT_EQ(cuCtxDestroy(other), CUDA_SUCCESS);
  EXPECT_EQ(simHazardCount(), 1U);
  EXPECT_NE(strstr(simHazardReport(), "really freed memory"), nullptr) << simHazardReport();
  expected_hazards_ = 1;
}

TEST_F(Checker, FingerprintFollowsContentsNotAddresses) {
  const CUdeviceptr a = NewBlock(4096);
  const CUdeviceptr b = NewBlock(4096);
  *Word(a) = 1;
  *Word(b) = 2;
  simNoteAlloc(Word(a), 4096);
  simNoteAlloc(Word(b), 4096);
  const uint64_t first = simFingerprint();
  std::swap(*Word(a), *Word(b));
  EXPECT_EQ(simFingerprint(), first);
  *Word(a) = 3;
  EXPECT_NE(simFingerprint(), first);
}

TEST_F(Checker, DefaultEffectRecordsTheOrder) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(64);
  const auto run = [&](uint64_t first, uint64_t second) {
    std::memset(Word(block), 0, 64);
    LaunchHash(stream, first, 0, {{Word(block), 64}}, {{Word(block), 64}});
    LaunchHash(stream, second, 0, {{Word(block), 64}}, {{Word(block), 64}});
    cuStreamSynchronize(stream);
    return *Word(block);
  };
  const uint64_t forward = run(1, 2);
  EXPECT_EQ(run(1, 2), forward);
  EXPECT_NE(run(2, 1), forward);
}

TEST_F(Checker, DeadHandlesAreMisuse) {
  const CUstream stream = NewStream();
  const CUevent event = NewEvent();
  ASSERT_EQ(cuStreamDestroy(stream), CUDA_SUCCESS);
  ASSERT_EQ(cuEventDestroy(event), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuEventQuery(event), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(simMisuseCount(), 2U);
  expected_misuse_ = 2;
}

// Freed while a kernel keeps the stream from coming to it, twice.
void FreeTwice(CUstream stream, CUdeviceptr block) {
  LaunchHash(stream, 1, 10 * kMillisecond, {}, {{Word(block), 8}});
  EXPECT_EQ(cuMemFreeAsync(block, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFreeAsync(block, stream), CUDA_SUCCESS);
  if (simMisuseCount() == 1) fprintf(stderr, "reported: %s", simMisuseReport());
}

TEST_F(Checker, MemoryFreedTwiceInTheOrderOfAStreamStopsTheStream) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto free_twice = [](bool pooled, auto wait) {
    CUstream stream = nullptr;
    CUdeviceptr block = 0;
    cudaFree(nullptr);
    cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    if (pooled) {
      cuMemAllocAsync(&block, 4096, stream);
    } else {
      cuMemAlloc(&block, 4096);
    }
    FreeTwice(stream, block);
    wait(stream);
  };
  const auto stream = [](CUstream of) { cuStreamSynchronize(of); };
  const auto context = [](CUstream) { cuCtxSynchronize(); };
  const char* const said = "reported: memory was freed twice.*\n.*deadlock.*\n.*never ends";
  EXPECT_DEATH(free_twice(false, stream), said);
  EXPECT_DEATH(free_twice(true, stream), said);
  EXPECT_DEATH(free_twice(false, context), said);
}

TEST_F(Checker, MemoryFreedInTheOrderOfAStreamIsGoneOnceItCame) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(4096);
  ASSERT_EQ(cuMemFreeAsync(block, stream), CUDA_SUCCESS);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFreeAsync(block, stream), CUDA_ERROR_INVALID_VALUE);
  const CUdeviceptr again = NewBlock(4096);
  EXPECT_EQ(again, block);
  EXPECT_EQ(cuMemFreeAsync(again, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
}

TEST_F(Checker, LaunchesAreCountedWhereInterposersSeeThem) {
  const CUstream stream = NewStream();
  SimWork work{};
  const SimWork* parameter = &work;
  void* parameters[] = {&parameter};
  ASSERT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
  ASSERT_EQ(cudaLaunchKernel(reinterpret_cast<void*>(simFunction()), dim3{1}, dim3{1}, parameters,
                             0, stream),
            cudaSuccess);
  EXPECT_EQ(simCallCount("cuLaunchKernel"), 2U);
  ASSERT_EQ(simSubmit(stream, &work), CUDA_SUCCESS);
  EXPECT_EQ(simCallCount("cuLaunchKernel"), 2U);
  EXPECT_EQ(cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr),
            CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(Checker, AFreeThatFailedIsNoHazard) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(4096);
  simNoteAlloc(Word(block), 4096);
  LaunchHash(stream, 1, 10 * kMillisecond, {}, {{Word(block), 64}});
  simNoteFree(Word(block));
  simNoteKept(Word(block), 4096);
  EXPECT_EQ(simHazardCount(), 0U);
  simNoteAlloc(Word(block), 64);  // it is in use again
  EXPECT_EQ(simHazardCount(), 2U);
  expected_hazards_ = 2;
}

// What a hook saw: the fills that had been counted, and those that had been done.
struct Seen {
  CUdeviceptr block;
  uint64_t calls;
  unsigned char value;
};

TEST_F(Checker, AHookRunsBeforeTheCallTakesEffectOrAfter) {
  Seen before{NewBlock(512), 0, 0};
  Seen after{before.block, 0, 0};
  cuMemsetD8(before.block, 1, 512);
  const auto look = [](void* data) {
    auto* seen = static_cast<Seen*>(data);
    ++seen->calls;
    cuCtxSynchronize();                     // CUDA may be called
    cuMemsetD8(seen->block + 256, 9, 256);  // where the hook is not called again
    cuMemcpyDtoH(&seen->value, seen->block, 1);
  };
  simOnCall("cuMemsetD8_v2", SIM_BEFORE_CALL, look, &before);
  simOnCall("cuMemsetD8_v2", SIM_AFTER_CALL, look, &after);
  cuMemsetD8(before.block, 2, 256);
  EXPECT_EQ(before.calls, 1U);
  EXPECT_EQ(before.value, 1);
  EXPECT_EQ(after.calls, 1U);
  EXPECT_EQ(after.value, 2);
  simOnCall("cuMemsetD8_v2", SIM_AFTER_CALL, nullptr, nullptr);
  cuMemsetD8(before.block, 3, 256);
  EXPECT_EQ(before.calls, 2U);
  EXPECT_EQ(after.calls, 1U);
  simReset();
  cuMemsetD8(before.block, 4, 256);
  EXPECT_EQ(before.calls, 2U);
}

TEST_F(Checker, ATrapIsSticky) {
  const CUdeviceptr block = NewBlock(512);
  const CUstream stream = NewStream();
  uint64_t untouched = 0;
  Store store{&untouched, 1};
  SimWork trap{};
  trap.flags = SIM_WORK_TRAP;
  trap.duration_ns = kMillisecond;
  ASSERT_EQ(simLaunch(stream, &trap), CUDA_SUCCESS);
  LaunchStore(stream, &store, 0);
  EXPECT_EQ(cudaFree(Word(block)), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cuMemFree(block), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_EQ(simLaunch(stream, &trap), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(untouched, 0U);
  EXPECT_EQ(simPendingCount(nullptr), 0U);
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  void* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaSuccess);
}

}  // namespace
}  // namespace cmp::sim
