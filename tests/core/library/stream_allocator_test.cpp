// The two functions of C, and the free without a wait behind them, over the simulated driver.
#include "core/stream_allocator.h"

#include <cuda.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/cuda_memory_pool.h"
#include "fresh_process.h"
#include "sim.h"

// Older and newer headers mean different functions by cuCtxCreate.
extern "C" CUresult cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device);

namespace {

using cmp::test::AddressOf;
using cmp::test::ExpectInFreshProcess;

constexpr ssize_t kBytes = ssize_t{4} << 20;

int DeviceOf(const void* pointer) {
  int device = -1;
  cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, AddressOf(pointer));
  return device;
}

CUcontext Current() {
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  return context;
}

// Writes to the memory; `until`: not before an item of that id is launched.
bool Launch(CUstream stream, uint64_t id, const void* written, uint64_t until = 0) {
  const SimRange range = {written, kBytes};
  SimWork work = {};
  work.id = id;
  work.duration_ns = 1000000;
  work.writes = &range;
  work.write_count = 1;
  work.spin_until_id = until;
  return simLaunch(stream, &work) == CUDA_SUCCESS;
}

void* Alloc(CUstream stream) {
  void* p = cmp_stream_alloc(kBytes, 0, stream);
  simNoteAlloc(p, kBytes);
  return p;
}

void Free(void* p, CUstream stream) {
  simNoteFree(p);
  cmp_stream_free(p, kBytes, 0, stream);
}

// A stream of device 0, whose primary context is current from here on.
CUstream NewStream() {
  CUcontext primary = nullptr;
  CUstream stream = nullptr;
  const bool made = cuInit(0) == CUDA_SUCCESS &&
                    cuDevicePrimaryCtxRetain(&primary, 0) == CUDA_SUCCESS &&
                    cuCtxSetCurrent(primary) == CUDA_SUCCESS &&
                    cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS;
  if (!made) _exit(2);
  return stream;
}

class StreamAllocatorTest : public testing::Test {
 protected:
  StreamAllocatorTest() {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    CudaMemoryPool::Instance().ReleaseThreadCaches();
    simReset();
  }
  ~StreamAllocatorTest() override {
    EXPECT_EQ(simHazardCount(), 0u) << simHazardReport();
    EXPECT_EQ(simMisuseCount(), 0u) << simMisuseReport();
  }
};

using StreamAllocatorDeathTest = StreamAllocatorTest;

TEST_F(StreamAllocatorTest, NoBytesAreNoMemory) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(cmp_stream_alloc(0, 0, nullptr), nullptr);
  EXPECT_EQ(cmp_stream_alloc(-1, 0, nullptr), nullptr);
  cmp_stream_free(nullptr, 0, 0, nullptr);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(StreamAllocatorTest, WhoDoesNotLookIsTold) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(cmp_stream_alloc(ssize_t{1} << 45, 0, nullptr), nullptr);
  EXPECT_EQ(CudaMemoryPool::Instance().last_status(), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cmp_stream_alloc(1000, 7, nullptr), nullptr) << "there is no such device";
  EXPECT_EQ(CudaMemoryPool::Instance().last_status(), CUDA_ERROR_INVALID_DEVICE);
  int on_the_stack = 0;
  cmp_stream_free(&on_the_stack, 4, 0, nullptr);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("cmp: no memory for 35184372088832 bytes on device 0 (CUresult 2)\n"),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("cmp: no memory for 1000 bytes on device 7 (CUresult 101)\n"),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("not a block in use"), std::string::npos) << said;
}

// The rule, in every mode: not again, on whatever stream, before all streams are done with it.
bool IsReusedOnlyWhenDone() {
  CUstream one = NewStream();
  CUstream other = NewStream();
  void* p = Alloc(one);
  if (!Launch(one, 1, p) || cuStreamSynchronize(one) != CUDA_SUCCESS) return false;
  if (!Launch(other, 2, p, 3)) return false;  // as after record_stream
  Free(p, one);
  if (simPendingCount(nullptr) == 0) return false;  // it has not waited
  void* q = Alloc(one);
  if (q == p || simPendingCount(nullptr) == 0 || !Launch(one, 3, q)) return false;
  cuCtxSynchronize();
  void* again = Alloc(other);
  if (again != p || !Launch(other, 4, again)) return false;
  Free(again, other);
  Free(q, one);
  cuCtxSynchronize();
  return simHazardCount() == 0 && simMisuseCount() == 0;
}

TEST_F(StreamAllocatorDeathTest, MemoryIsReusedWhenAllStreamsAreDoneWithIt) {
  ExpectInFreshProcess([] { return IsReusedOnlyWhenDone(); });
  for (const char* mode : {"wait", "auto", "order", "none"}) {
    setenv("CMP_FREE_SYNC", mode, 1);
    ExpectInFreshProcess([] { return IsReusedOnlyWhenDone(); });
    unsetenv("CMP_FREE_SYNC");
  }
}

// What is released in between must wait for the GPU, too.
TEST_F(StreamAllocatorDeathTest, WhatIsReallyFreedIsNotUsedAnyMore) {
  for (const char* mode : {"wait", "none"}) {
    setenv("CMP_FREE_SYNC", mode, 1);
    ExpectInFreshProcess([] {
      CUstream stream = NewStream();
      void* p = Alloc(stream);
      if (!Launch(stream, 1, p)) return false;
      Free(p, stream);
      if (simPendingCount(nullptr) == 0) return false;
      if (CudaMemoryPool::Instance().ReleaseThreadCaches() != size_t{kBytes}) return false;
      return simPendingCount(nullptr) == 0 && simHazardCount() == 0 && simMisuseCount() == 0;
    });
    unsetenv("CMP_FREE_SYNC");
  }
}

TEST_F(StreamAllocatorDeathTest, ManyRoundsNeedNoWaitOfTheHost) {
  ExpectInFreshProcess([] {
    CUstream stream = NewStream();
    for (int i = 0; i < 100; ++i) {
      void* p = Alloc(stream);
      if (!Launch(stream, 1, p)) return false;
      Free(p, stream);
      simAdvance(1000000);
    }
    return simCallCount("cuCtxSynchronize") + simCallCount("cuEventSynchronize") == 0 &&
           simHazardCount() == 0 && CudaMemoryPool::Instance().Statistics().refills < 5;
  });
}

// Each thread with streams of its own, memory passed from one stream to another, freed while both
// may use it: the simulator knows of every use too early or too late.
bool ThreadsShare() {
  NewStream();
  std::vector<std::thread> threads;
  std::atomic<bool> right{true};
  for (unsigned seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([seed, &right] {
      CUstream streams[] = {NewStream(), NewStream()};
      std::minstd_rand random(seed);
      for (int i = 0; i < 200; ++i) {
        const ssize_t bytes =
            1 + static_cast<ssize_t>(random() % (random() % 4 == 0 ? kBytes : 4096));
        void* p = cmp_stream_alloc(bytes, 0, streams[0]);
        simNoteAlloc(p, static_cast<size_t>(bytes));
        for (CUstream stream : streams) {
          const SimRange range = {p, static_cast<size_t>(bytes)};
          SimWork work = {};
          work.id = random();
          work.duration_ns = random() % 100000;
          (stream == streams[0] ? work.writes : work.reads) = &range;
          (stream == streams[0] ? work.write_count : work.read_count) = 1;
          CUevent written = nullptr;
          if (p == nullptr || simLaunch(stream, &work) != CUDA_SUCCESS ||
              cuEventCreate(&written, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS ||
              cuEventRecord(written, stream) != CUDA_SUCCESS ||
              cuStreamWaitEvent(streams[1], written, 0) != CUDA_SUCCESS ||
              cuEventDestroy(written) != CUDA_SUCCESS) {
            right = false;
          }
        }
        simNoteFree(p);
        cmp_stream_free(p, bytes, 0, streams[0]);
        if (random() % 32 == 0) CudaMemoryPool::Instance().ReleaseAll();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  cuCtxSynchronize();
  return right && simHazardCount() == 0 && simMisuseCount() == 0 &&
         CudaMemoryPool::Instance().Statistics().live_blocks == 0;
}

TEST_F(StreamAllocatorDeathTest, ThreadsAndStreamsShareMemory) {
  for (const char* mode : {"auto", "none"}) {
    setenv("CMP_FREE_SYNC", mode, 1);
    ExpectInFreshProcess([] { return ThreadsShare(); });
    unsetenv("CMP_FREE_SYNC");
  }
}

TEST_F(StreamAllocatorDeathTest, TheDeviceIsTheOneThatIsNamed) {
  setenv("CMPSIM_DEVICES", "2", 1);
  ExpectInFreshProcess([] {
    void* of_one = cmp_stream_alloc(kBytes, 1, nullptr);
    if (DeviceOf(of_one) != 1 || Current() != nullptr) return false;
    CUcontext zero = nullptr;
    if (cuDevicePrimaryCtxRetain(&zero, 0) != CUDA_SUCCESS ||
        cuCtxSetCurrent(zero) != CUDA_SUCCESS) {
      return false;
    }
    void* of_zero = cmp_stream_alloc(kBytes, 0, nullptr);
    if (DeviceOf(of_zero) != 0) return false;
    // Freed under the other device's context, each comes back on its own.
    cmp_stream_free(of_one, kBytes, 1, nullptr);
    cmp_stream_free(of_zero, kBytes, 0, nullptr);
    const uint64_t real = simCallCount("cuMemAlloc_v2");
    const bool right = cmp_stream_alloc(kBytes, 1, nullptr) == of_one &&
                       cmp_stream_alloc(kBytes, 0, nullptr) == of_zero;
    return right && simCallCount("cuMemAlloc_v2") == real && Current() == zero;
  });
  unsetenv("CMPSIM_DEVICES");
}

// A context of one's own is served as it is.
TEST_F(StreamAllocatorDeathTest, TheCurrentContextIsUsedIfItIsOfTheDevice) {
  ExpectInFreshProcess([] {
    CUcontext own = nullptr;
    CUcontext owner = nullptr;
    if (cuInit(0) != CUDA_SUCCESS || cuCtxCreate_v2(&own, 0, 0) != CUDA_SUCCESS) return false;
    void* p = cmp_stream_alloc(1000, 0, nullptr);
    return cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, AddressOf(p)) ==
               CUDA_SUCCESS &&
           owner == own;
  });
}

}  // namespace
