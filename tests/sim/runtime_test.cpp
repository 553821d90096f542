// The simulated runtime: edge cases of its own, error state, per-thread streams.
#include <cstdlib>
#include <initializer_list>

#include "test_device.h"

namespace cmp::sim {
namespace {

class Runtime : public SimTest {};

TEST_F(Runtime, EdgesOfMallocAndFree) {
  void* pointer = &pointer;
  EXPECT_EQ(cudaMalloc(&pointer, 0), cudaSuccess);
  EXPECT_EQ(pointer, nullptr);
  EXPECT_EQ(cudaMalloc(nullptr, 512), cudaErrorInvalidValue);
  pointer = &pointer;
  EXPECT_EQ(cudaMalloc(&pointer, size_t{1} << 60), cudaErrorMemoryAllocation);
  EXPECT_EQ(pointer, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
  EXPECT_EQ(cudaFree(&pointer), cudaErrorInvalidValue);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST_F(Runtime, TheLastErrorIsTheThreadsOwn) {
  EXPECT_EQ(cudaFree(this), cudaErrorInvalidValue);
  EXPECT_EQ(OnOtherThread(context_, [] { return cudaGetLastError(); }), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // a success keeps it
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST_F(Runtime, ReachesTheDriverByItsOwnEntryPoints) {
  void* pointer = nullptr;
  ASSERT_EQ(cudaMalloc(&pointer, 512), cudaSuccess);
  ASSERT_EQ(cudaMemset(pointer, 1, 512), cudaSuccess);
  uint64_t value = 0;
  ASSERT_EQ(cudaMemcpy(&value, pointer, 8, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(value, 0x0101010101010101U);
  ASSERT_EQ(cudaFree(pointer), cudaSuccess);
  for (const char* name : {"cuMemAlloc_v2", "cuMemsetD8_v2", "cuMemcpyDtoH_v2", "cuMemFree_v2"}) {
    EXPECT_EQ(simCallCount(name), 1U) << name;
  }
}

TEST_F(Runtime, CallsTheNewestAbiOfTheDriver) {
  const CUstream stream = NewStream();
  LaunchHash(stream, 1, 10 * kMillisecond, {}, {});
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(simPendingCount(context_), 0U);
  EXPECT_EQ(simCallCount("cuCtxSynchronize_v2"), CUDART_VERSION >= 13000 ? 1U : 0U);
  EXPECT_EQ(simCallCount("cuCtxSynchronize"), CUDART_VERSION >= 13000 ? 0U : 1U);
  const CUevent event = NewEvent();
  float milliseconds = 0;
  LaunchHash(stream, 2, 10 * kMillisecond, {}, {});
  ASSERT_EQ(cudaEventRecord(event, stream), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event, event), cudaErrorNotReady);
  EXPECT_EQ(simCallCount("cuEventElapsedTime_v2"), CUDART_VERSION >= 12080 ? 1U : 0U);
}

// In a process of its own: the driver's version is read once.
TEST_F(Runtime, CallsTheOldAbiOfAnOldDriver) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  setenv("CMPSIM_DRIVER_VERSION", "12040", 1);
  EXPECT_EXIT(
      {
        LaunchHash(NewStream(), 1, 10 * kMillisecond, {}, {});
        const bool synchronized =
            cudaDeviceSynchronize() == cudaSuccess && simPendingCount(nullptr) == 0;
        std::exit(synchronized && simCallCount("cuCtxSynchronize") == 1 &&
                          simCallCount("cuCtxSynchronize_v2") == 0
                      ? 0
                      : 1);
      },
      testing::ExitedWithCode(0), "");
  unsetenv("CMPSIM_DRIVER_VERSION");
}

TEST_F(Runtime, CopiesBetweenEveryTwoPlaces) {
  void* device[2] = {};
  void* locked = nullptr;
  ASSERT_EQ(cudaMalloc(&device[0], 64), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&device[1], 64), cudaSuccess);
  ASSERT_EQ(cudaMallocHost(&locked, 64), cudaSuccess);
  uint64_t value = 77;
  uint64_t back = 0;
  ASSERT_EQ(cudaMemcpy(device[0], &value, 8, cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(device[1], device[0], 8, cudaMemcpyDeviceToDevice), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(locked, device[1], 8, cudaMemcpyDefault), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(&back, locked, 8, cudaMemcpyHostToHost), cudaSuccess);
  EXPECT_EQ(back, 77U);
  EXPECT_EQ(cudaMemcpy(device[0], &value, 65, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  cudaFreeHost(locked);
}

TEST_F(Runtime, PropertiesAndVersions) {
  int version = 0;
  ASSERT_EQ(cudaRuntimeGetVersion(&version), cudaSuccess);
  EXPECT_EQ(version, CUDART_VERSION);
  ASSERT_EQ(cudaDriverGetVersion(&version), cudaSuccess);
  EXPECT_EQ(version, 13000);
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_EQ(properties.totalGlobalMem, size_t{8} << 30);
  EXPECT_EQ(cudaSetDevice(99), cudaErrorInvalidDevice);
  int device = -1;
  EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
  EXPECT_EQ(device, 0);
}

// Eight threads allocate, use and free; under a seed the schedule is jittered, the results are not.
TEST_F(Runtime, ManyThreads) {
  simSeed(11);
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([t] {
      cudaSetDevice(0);
      cudaStream_t stream = nullptr;
      ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
      for (uint64_t i = 0; i < 100; ++i) {
        void* pointer = nullptr;
        const size_t bytes = 256 << (i % 12);
        ASSERT_EQ(cudaMalloc(&pointer, bytes), cudaSuccess);
        simNoteAlloc(pointer, bytes);
        Store store{static_cast<uint64_t*>(pointer), t * 1000 + i};
        LaunchStore(stream, &store, 20000);
        uint64_t seen = 0;
        ASSERT_EQ(cudaMemcpyAsync(&seen, pointer, 8, cudaMemcpyDeviceToHost, stream), cudaSuccess);
        EXPECT_EQ(seen, t * 1000 + i);
        simNoteFree(pointer);
        ASSERT_EQ(cudaFree(pointer), cudaSuccess);
      }
      ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(simLiveAllocations(0), 0U);
}

}  // namespace
}  // namespace cmp::sim
