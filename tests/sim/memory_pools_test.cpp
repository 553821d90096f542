// What pools of the stream-ordered allocator reserve, and when they give it back.
#include "test_device.h"

namespace cmp::sim {
namespace {

class MemoryPools : public SimTest {
 protected:
  void SetUp() override {
    SimTest::SetUp();
    ASSERT_EQ(cudaDeviceGetDefaultMemPool(&pool_, 0), cudaSuccess);
    stream_ = NewStream();
  }
  uint64_t Ask(CUmemPool_attribute attribute) const {
    cuuint64_t value = 0;
    EXPECT_EQ(cuMemPoolGetAttribute(pool_, attribute, &value), CUDA_SUCCESS);
    return value;
  }
  void SetThreshold(cuuint64_t bytes) const {
    EXPECT_EQ(cuMemPoolSetAttribute(pool_, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &bytes),
              CUDA_SUCCESS);
  }
  CUdeviceptr Allocate(size_t bytes) const {
    CUdeviceptr block = 0;
    EXPECT_EQ(cuMemAllocAsync(&block, bytes, stream_), CUDA_SUCCESS);
    return block;
  }
  void FreeInOrder(CUdeviceptr block) const {
    EXPECT_EQ(cuMemFreeAsync(block, stream_), CUDA_SUCCESS);
  }
  uint64_t Used() const { return Ask(CU_MEMPOOL_ATTR_USED_MEM_CURRENT); }
  uint64_t Reserved() const { return Ask(CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT); }
  static size_t FreeMemory() {
    size_t free = 0;
    size_t total = 0;
    EXPECT_EQ(cuMemGetInfo(&free, &total), CUDA_SUCCESS);
    return free;
  }

  CUmemoryPool pool_ = nullptr;
  CUstream stream_ = nullptr;
};

TEST_F(MemoryPools, GiveBackAtEverySynchronisation) {
  const size_t before = FreeMemory();
  EXPECT_EQ(Ask(CU_MEMPOOL_ATTR_RELEASE_THRESHOLD), 0U);
  for (const auto synchronise : {+[](CUstream stream) { return cuStreamSynchronize(stream); },
                                 +[](CUstream) { return cuCtxSynchronize(); }}) {
    FreeInOrder(Allocate(4 * kMiB));
    while (cuStreamQuery(stream_) != CUDA_SUCCESS) {
    }
    EXPECT_EQ(Used(), 0U);
    EXPECT_EQ(Reserved(), 4 * kMiB);
    EXPECT_EQ(FreeMemory(), before - 4 * kMiB);
    ASSERT_EQ(synchronise(stream_), CUDA_SUCCESS);
    EXPECT_EQ(Reserved(), 0U);
    EXPECT_EQ(FreeMemory(), before);
  }
  EXPECT_EQ(Ask(CU_MEMPOOL_ATTR_USED_MEM_HIGH), 4 * kMiB);
  EXPECT_EQ(Ask(CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH), 4 * kMiB);
}

TEST_F(MemoryPools, KeepUpToTheThreshold) {
  SetThreshold(7 * kMiB);
  const CUdeviceptr block = Allocate(4 * kMiB);
  const CUdeviceptr other = Allocate(2 * kMiB);
  FreeInOrder(block);
  FreeInOrder(other);
  FreeInOrder(Allocate(6 * kMiB));
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 6 * kMiB);  // the largest went
  EXPECT_EQ(Allocate(4 * kMiB), block);
  EXPECT_EQ(Used(), 4 * kMiB);
  EXPECT_EQ(Reserved(), 6 * kMiB);
  EXPECT_EQ(cuMemPoolTrimTo(pool_, 5 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 4 * kMiB);
  EXPECT_EQ(cuMemPoolTrimTo(pool_, 0), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 4 * kMiB);  // in use
}

TEST_F(MemoryPools, RestartTheirHighestValues) {
  FreeInOrder(Allocate(4 * kMiB));
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  cuuint64_t value = 1;
  EXPECT_EQ(cuMemPoolSetAttribute(pool_, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &value),
            CUDA_ERROR_INVALID_VALUE);
  value = 0;
  EXPECT_EQ(cuMemPoolSetAttribute(pool_, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &value), CUDA_SUCCESS);
  EXPECT_EQ(Ask(CU_MEMPOOL_ATTR_USED_MEM_HIGH), 0U);
  EXPECT_EQ(cuMemPoolSetAttribute(pool_, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value),
            CUDA_ERROR_INVALID_VALUE);
}

// Found on an H200: 104 GiB were reserved after a reset.
TEST_F(MemoryPools, KeepWhatTheyMayBeyondTheirContext) {
  SetThreshold(5 * kMiB);
  FreeInOrder(Allocate(4 * kMiB));
  Allocate(2 * kMiB);
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(Ask(CU_MEMPOOL_ATTR_RELEASE_THRESHOLD), 5 * kMiB);
  EXPECT_EQ(Used(), 0U);
  EXPECT_GT(Reserved(), 0U);
  EXPECT_LE(Reserved(), 5 * kMiB);
}

TEST_F(MemoryPools, OnesOwnCanBeTheDevices) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, {0}};
  cudaMemPool_t own = nullptr;
  ASSERT_EQ(cudaMemPoolCreate(&own, &properties), cudaSuccess);
  ASSERT_EQ(cudaDeviceSetMemPool(0, own), cudaSuccess);
  CUmemoryPool current = nullptr;
  ASSERT_EQ(cuDeviceGetMemPool(&current, 0), CUDA_SUCCESS);
  EXPECT_EQ(current, own);
  FreeInOrder(Allocate(4 * kMiB));
  EXPECT_EQ(Reserved(), 0U);
  std::swap(pool_, own);
  EXPECT_EQ(Reserved(), 4 * kMiB);
  const size_t before = FreeMemory();
  ASSERT_EQ(cuStreamQuery(stream_), CUDA_SUCCESS);
  ASSERT_EQ(cudaMemPoolDestroy(pool_), cudaSuccess);
  EXPECT_EQ(FreeMemory(), before + 4 * kMiB);
  ASSERT_EQ(cuDeviceGetMemPool(&current, 0), CUDA_SUCCESS);
  EXPECT_EQ(current, own);  // the default one
}

TEST_F(MemoryPools, UseWhatTheyKeepBeforeTheyFail) {
  SetThreshold(~cuuint64_t{0});
  const size_t most = FreeMemory();
  FreeInOrder(Allocate(most / 2 / kMiB * kMiB));
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  const CUdeviceptr large = Allocate(most - 4 * kMiB);
  EXPECT_NE(large, 0U);
}

TEST_F(MemoryPools, GiveWhatTheyKeepToWhatLacksMemory) {
  SetThreshold(~cuuint64_t{0});
  const size_t most = FreeMemory();
  FreeInOrder(Allocate(most / 2 / kMiB * kMiB));
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_GT(Reserved(), 0U);
  CUdeviceptr block = 0;
  ASSERT_EQ(cuMemAlloc(&block, most - 4 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 0U);
  EXPECT_EQ(cuMemFree(block), CUDA_SUCCESS);
}

TEST_F(MemoryPools, WhatTheyKeepIsNotThePrograms) {
  SetThreshold(~cuuint64_t{0});
  const CUdeviceptr block = Allocate(4 * kMiB);
  FreeInOrder(block);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(simLiveAllocations(0), 0U);
  LaunchHash(stream_, 1, 1000, {}, {{Word(block), 64}});
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(simHazardCount(), 1U);
  expected_hazards_ = 1;
}

}  // namespace
}  // namespace cmp::sim
