// What calls answer after a kernel failed: nothing new until one of them looks at the device, then
// the error, for ever.
//
// As measured on an H200 (README.md, "How it was checked").
#include <functional>

#include "test_device.h"

namespace cmp::sim {
namespace {

struct Named {
  const char* name;
  std::function<CUresult()> call;
};

class Crash : public SimTest {
 protected:
  void SetUp() override {
    SimTest::SetUp();
    block_ = NewBlock(4096);
    other_block_ = NewBlock(4096);
    stream_ = NewStream();
    event_ = NewEvent();
    again_ = NewEvent();
    ASSERT_EQ(cuEventRecord(event_, stream_), CUDA_SUCCESS);
    ASSERT_EQ(cuMemHostAlloc(&locked_, 4096, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    other_ = NewContext();
    cuCtxSetCurrent(context_);
    Trap();
  }
  void TearDown() override {
    cuCtxDestroy(other_);
    cuCtxSetCurrent(context_);
    SimTest::TearDown();
  }

  static void Trap() {
    SimWork trap{};
    trap.flags = SIM_WORK_TRAP;
    ASSERT_EQ(simLaunch(nullptr, &trap), CUDA_SUCCESS);
    simAdvance(kMillisecond);
    ASSERT_EQ(simPendingCount(nullptr), 0U);
  }

  // They do not look.
  std::vector<Named> Blind() {
    return {
        {"cuMemAlloc", [this] { return cuMemAlloc(&made_, 4096); }},
        {"cuMemFree NULL", [] { return cuMemFree(0); }},
        {"cuMemGetInfo", [this] { return cuMemGetInfo(&bytes_, &more_bytes_); }},
        {"cuMemGetAddressRange",
         [this] { return cuMemGetAddressRange(&made_, &bytes_, other_block_); }},
        {"launch",
         [] {
           SimWork work{};
           return simLaunch(nullptr, &work);
         }},
        {"cuMemsetD8Async", [this] { return cuMemsetD8Async(other_block_, 0, 16, stream_); }},
        {"cuMemcpyDtoHAsync",
         [this] { return cuMemcpyDtoHAsync(locked_, other_block_, 16, stream_); }},
        {"cuEventElapsedTime",
         [this] { return cuEventElapsedTime(&milliseconds_, event_, event_); }},
        {"cuEventRecord", [this] { return cuEventRecord(again_, stream_); }},
        {"cuCtxRecordEvent", [this] { return cuCtxRecordEvent(context_, again_); }},
        {"cuCtxWaitEvent", [this] { return cuCtxWaitEvent(context_, again_); }},
        {"cuMemAllocManaged",
         [this] { return cuMemAllocManaged(&made_, 4096, CU_MEM_ATTACH_GLOBAL); }},
        {"cuMemAllocAsync", [this] { return cuMemAllocAsync(&made_, 4096, stream_); }},
        {"cuMemHostAlloc", [this] { return cuMemHostAlloc(&made_locked_, 4096, 0); }},
        {"cuStreamCreate", [this] { return cuStreamCreate(&made_stream_, 0); }},
        {"cuStreamIsCapturing", [this] { return cuStreamIsCapturing(stream_, &capturing_); }},
        {"cuEventCreate", [this] { return cuEventCreate(&made_event_, 0); }},
    };
  }
  std::vector<Named> Looking() {
    return {
        {"cuMemFree", [this] { return cuMemFree(block_); }},
        {"cuMemFreeHost", [this] { return cuMemFreeHost(locked_); }},
        {"cuCtxSynchronize", [] { return cuCtxSynchronize(); }},
        {"cuStreamSynchronize of another stream", [this] { return cuStreamSynchronize(stream_); }},
        {"cuStreamQuery of another stream", [this] { return cuStreamQuery(stream_); }},
        {"cuEventQuery of what came before", [this] { return cuEventQuery(event_); }},
        {"cuEventSynchronize of what came before", [this] { return cuEventSynchronize(event_); }},
        {"cuMemcpyHtoD", [this] { return cuMemcpyHtoD(block_, &bytes_, sizeof bytes_); }},
    };
  }
  // They say what they know.
  std::vector<Named> Unaffected() {
    return {
        {"cuCtxGetCurrent", [this] { return cuCtxGetCurrent(&current_); }},
        {"cuCtxGetFlags", [this] { return cuCtxGetFlags(&type_); }},
        {"cuCtxGetDevice", [this] { return cuCtxGetDevice(&device_); }},
        {"cuCtxGetId", [this] { return cuCtxGetId(context_, &id_); }},
        {"cuPointerGetAttribute",
         [this] {
           return cuPointerGetAttribute(&type_, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, block_);
         }},
    };
  }

  CUdeviceptr block_ = 0;
  CUdeviceptr other_block_ = 0;
  CUstream stream_ = nullptr;
  CUevent event_ = nullptr;
  CUevent again_ = nullptr;
  CUcontext other_ = nullptr;
  void* locked_ = nullptr;
  // What calls give back.
  CUdeviceptr made_ = 0;
  void* made_locked_ = nullptr;
  CUstream made_stream_ = nullptr;
  CUevent made_event_ = nullptr;
  CUstreamCaptureStatus capturing_{};
  CUcontext current_ = nullptr;
  CUdevice device_ = 0;
  unsigned long long id_ = 0;
  unsigned type_ = 0;
  float milliseconds_ = 0;
  size_t bytes_ = 0;
  size_t more_bytes_ = 0;
};

TEST_F(Crash, SubmissionsAndAllocationsDoNotFindOut) {
  for (int round = 0; round < 2; ++round) {
    for (const Named& each : Blind()) EXPECT_EQ(each.call(), CUDA_SUCCESS) << each.name;
    for (const Named& each : Unaffected()) EXPECT_EQ(each.call(), CUDA_SUCCESS) << each.name;
  }
  EXPECT_EQ(cuEventDestroy(again_), CUDA_SUCCESS);
}

TEST_F(Crash, TheDestructionOfAStreamAndANewContextFindOut) {
  EXPECT_EQ(cuStreamDestroy(stream_), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAlloc(&made_, 4096), CUDA_ERROR_LAUNCH_FAILED);
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  cuCtxDestroy(other_);
  SetUp();
  EXPECT_EQ(CreateContext(&current_), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(cuMemAlloc(&made_, 4096), CUDA_ERROR_LAUNCH_FAILED);
}

TEST_F(Crash, WaitsAndQuestionsFindOutAndThenEveryCallSaysSo) {
  const size_t count = Looking().size();
  for (size_t i = 0; i < count; ++i) {
    const Named first = Looking()[i];
    EXPECT_EQ(first.call(), CUDA_ERROR_LAUNCH_FAILED) << first.name;
    for (const Named& each : Unaffected()) EXPECT_EQ(each.call(), CUDA_SUCCESS) << each.name;
    EXPECT_EQ(cuCtxGetId(nullptr, &id_), CUDA_ERROR_LAUNCH_FAILED);
    for (const Named& each : Looking()) {
      EXPECT_EQ(each.call(), CUDA_ERROR_LAUNCH_FAILED) << each.name << " after " << first.name;
    }
    for (const Named& each : Blind()) {
      EXPECT_EQ(each.call(), CUDA_ERROR_LAUNCH_FAILED) << each.name << " after " << first.name;
    }
    // They are gone all the same.
    EXPECT_EQ(cuEventDestroy(again_), CUDA_ERROR_LAUNCH_FAILED);
    EXPECT_EQ(cuStreamDestroy(stream_), CUDA_ERROR_LAUNCH_FAILED);
    ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
    cuCtxDestroy(other_);
    SetUp();
  }
}

TEST_F(Crash, WhatIsSubmittedAfterItDoesNotRun) {
  uint64_t untouched = 0;
  const Store store{&untouched, 1};
  LaunchStore(stream_, &store, 0);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(untouched, 0U);
}

TEST_F(Crash, AResetReportsNothing) {
  EXPECT_EQ(cudaDeviceReset(), cudaSuccess);
  void* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaSuccess);
}

// The other context's own calls do not find out; once somebody did, they say so, too.
TEST_F(Crash, OtherContextsOfTheDeviceFailOnceItIsKnown) {
  cuCtxSetCurrent(other_);
  const CUdeviceptr block = NewBlock(512);
  EXPECT_EQ(cuMemsetD8(block, 0, 16), CUDA_SUCCESS);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  cuCtxSetCurrent(context_);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  cuCtxSetCurrent(other_);
  EXPECT_EQ(cuMemGetInfo(&bytes_, &more_bytes_), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(cuMemAlloc(&made_, 512), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
  cuCtxSetCurrent(context_);
}

}  // namespace
}  // namespace cmp::sim
