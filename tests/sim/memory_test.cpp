// Memory of the simulated device: layout, capacity, contents, wrong frees, failures on demand.
#include <cstring>
#include <initializer_list>
#include <numeric>

#include "test_device.h"

namespace cmp::sim {
namespace {

constexpr size_t kPage = 2 * kMiB;

class Memory : public SimTest {};

size_t FreeBytes() {
  size_t free_bytes = 0;
  size_t total = 0;
  EXPECT_EQ(cuMemGetInfo(&free_bytes, &total), CUDA_SUCCESS);
  return free_bytes;
}

TEST_F(Memory, SmallBlocksShareAChunk) {
  const size_t before = FreeBytes();
  const CUdeviceptr a = NewBlock(1000);
  EXPECT_EQ(before - FreeBytes(), 2 * kMiB);
  const CUdeviceptr b = NewBlock(1000);
  EXPECT_EQ(before - FreeBytes(), 2 * kMiB);
  EXPECT_EQ(a % 512, 0U);
  EXPECT_EQ(b - a, 1024U);
  cuMemFree(a);
  EXPECT_EQ(before - FreeBytes(), 2 * kMiB);
  cuMemFree(b);
  EXPECT_EQ(FreeBytes(), before);
}

TEST_F(Memory, LargeBlocksAreAlignedAndRounded) {
  const size_t before = FreeBytes();
  const CUdeviceptr block = NewBlock(3 * kMiB);
  EXPECT_EQ(block % (2 * kMiB), 0U);
  EXPECT_EQ(before - FreeBytes(), 4 * kMiB);
  cuMemFree(block);
}

TEST_F(Memory, FreedAddressComesBackWithZeros) {
  for (const size_t bytes : {size_t{64} << 10, kMiB, 16 * kMiB}) {
    const CUdeviceptr block = NewBlock(bytes);
    std::memset(Word(block), 0xAB, bytes);
    ASSERT_EQ(cuMemFree(block), CUDA_SUCCESS);
    const CUdeviceptr again = NewBlock(bytes);
    EXPECT_EQ(again, block) << bytes;
    const auto* data = reinterpret_cast<unsigned char*>(again);
    EXPECT_EQ(std::accumulate(data, data + bytes, 0), 0) << bytes;
    cuMemFree(again);
  }
}

TEST_F(Memory, CapacityIsABound) {
  const size_t free_bytes = FreeBytes();
  const CUdeviceptr most = NewBlock(free_bytes - 2 * kMiB);
  const CUdeviceptr rest = NewBlock(2 * kMiB);
  CUdeviceptr none = 77;
  EXPECT_EQ(cuMemAlloc(&none, 512), CUDA_ERROR_OUT_OF_MEMORY);
  void* pointer = &none;
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaErrorMemoryAllocation);
  EXPECT_EQ(pointer, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  cuMemFree(rest);
  EXPECT_EQ(cuMemAlloc(&none, 512), CUDA_SUCCESS);
  cuMemFree(none);
  cuMemFree(most);
}

TEST_F(Memory, EveryBlockHasItsOwnRange) {
  const CUdeviceptr a = NewBlock(700);
  const CUdeviceptr b = NewBlock(900);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  EXPECT_EQ(cuMemGetAddressRange(&base, &bytes, b + 899), CUDA_SUCCESS);
  EXPECT_EQ(base, b);
  EXPECT_EQ(bytes, 900U);
  EXPECT_EQ(cuMemGetAddressRange(&base, &bytes, a + 700), CUDA_ERROR_NOT_FOUND);
  cuMemFree(a);
  cuMemFree(b);
}

TEST_F(Memory, WrongFreesFail) {
  const CUdeviceptr block = NewBlock(4096);
  EXPECT_EQ(cuMemFree(block + 8), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemFree(12345), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemFree(0), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(block), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(block), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cudaFree(reinterpret_cast<void*>(block)), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST_F(Memory, EveryKindGoesThroughCudaFree) {
  void* pointer = nullptr;
  size_t pitch = 0;
  ASSERT_EQ(cudaMallocManaged(&pointer, 100, cudaMemAttachGlobal), cudaSuccess);
  EXPECT_EQ(cudaFree(pointer), cudaSuccess);
  ASSERT_EQ(cudaMallocPitch(&pointer, &pitch, 100, 3), cudaSuccess);
  EXPECT_EQ(pitch, 512U);
  EXPECT_EQ(cudaFree(pointer), cudaSuccess);
  cudaPitchedPtr pitched{};
  ASSERT_EQ(cudaMalloc3D(&pitched, cudaExtent{100, 3, 2}), cudaSuccess);
  EXPECT_EQ(cudaFree(pitched.ptr), cudaSuccess);
  ASSERT_EQ(cudaMallocAsync(&pointer, 100, nullptr), cudaSuccess);
  EXPECT_EQ(cudaFree(pointer), cudaSuccess);
  cudaMemPool_t pool = nullptr;
  ASSERT_EQ(cudaDeviceGetDefaultMemPool(&pool, 0), cudaSuccess);
  ASSERT_EQ(cudaMallocFromPoolAsync(&pointer, 100, pool, nullptr), cudaSuccess);
  EXPECT_EQ(cudaFree(pointer), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&pointer, 100), cudaSuccess);
  EXPECT_EQ(cudaFreeAsync(pointer, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(simLiveAllocations(0), 0U);
}

TEST_F(Memory, RowsThatAreNotAllocatedAreNowhere) {
  const std::pair<size_t, size_t> shapes[] = {{0, 3}, {100, 0}, {100, size_t{1} << 50}};
  for (const auto& [width, height] : shapes) {
    const bool nothing = width == 0 || height == 0;
    void* pointer = &context_;
    size_t pitch = 7;
    EXPECT_EQ(cudaMallocPitch(&pointer, &pitch, width, height),
              nothing ? cudaSuccess : cudaErrorMemoryAllocation);
    EXPECT_EQ(pointer, nullptr);
    cudaPitchedPtr pitched{&context_, 7, 8, 9};
    EXPECT_EQ(cudaMalloc3D(&pitched, cudaExtent{width, height, 1}),
              nothing ? cudaSuccess : cudaErrorMemoryAllocation);
    EXPECT_EQ(pitched.ptr, nullptr);
    CUdeviceptr block = 7;
    EXPECT_EQ(cuMemAllocPitch(&block, &pitch, width, height, 4),
              nothing ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY);
    EXPECT_EQ(block, 0U);
  }
}

TEST_F(Memory, FreeAsyncFreesWhenItsStreamComesToIt) {
  const CUstream stream = NewStream();
  const CUdeviceptr block = NewBlock(4096);
  LaunchHash(stream, 1, 10 * kMillisecond, {}, {{Word(block), 64}});
  ASSERT_EQ(cuMemFreeAsync(block, stream), CUDA_SUCCESS);
  EXPECT_EQ(simLiveAllocations(0), 1U);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(simLiveAllocations(0), 0U);
}

TEST_F(Memory, FailuresOnDemand) {
  simFailNext("cuMemAlloc_v2", 2, CUDA_ERROR_OUT_OF_MEMORY);
  CUdeviceptr block = 0;
  EXPECT_EQ(cuMemAlloc(&block, 512), CUDA_SUCCESS);
  void* pointer = nullptr;
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaSuccess);
  simFailFrom("cudaMalloc", 1, cudaErrorNotPermitted);
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaErrorNotPermitted);
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaErrorNotPermitted);
  simFailNever();
  EXPECT_EQ(cudaMalloc(&pointer, 512), cudaSuccess);
  EXPECT_EQ(simCallCount("cudaMalloc"), 5U);
  EXPECT_EQ(simCallCount("cuMemAlloc_v2"), 4U);
}

TEST_F(Memory, RandomFailuresFollowTheirSeed) {
  const auto failures = [](uint64_t seed) {
    simReset();
    simFailRandomly("cuMemAlloc_v2", 0.5, seed, CUDA_ERROR_OUT_OF_MEMORY);
    uint64_t pattern = 0;
    for (int i = 0; i < 64; ++i) {
      CUdeviceptr block = 0;
      pattern = pattern << 1 | (cuMemAlloc(&block, 512) == CUDA_SUCCESS);
    }
    return pattern;
  };
  const uint64_t first = failures(7);
  EXPECT_EQ(failures(7), first);
  EXPECT_NE(failures(8), first);
}

TEST_F(Memory, WriteAfterTheRealFreeIsFound) {
  const CUdeviceptr keeps_the_chunk = NewBlock(512);
  const CUdeviceptr block = NewBlock(512);
  ASSERT_EQ(cuMemFree(block), CUDA_SUCCESS);
  *Word(block) = 1;
  const CUdeviceptr again = NewBlock(512);
  EXPECT_EQ(again, block);
  EXPECT_EQ(simHazardCount(), 1U);
  expected_hazards_ = 1;
  cuMemFree(again);
  cuMemFree(keeps_the_chunk);
}

TEST_F(Memory, IpcHandleNamesTheBase) {
  const CUdeviceptr a = NewBlock(700);
  const CUdeviceptr b = NewBlock(900);
  CUipcMemHandle handle;
  ASSERT_EQ(cuIpcGetMemHandle(&handle, b + 100), CUDA_SUCCESS);
  CUdeviceptr base = 0;
  size_t bytes = 0;
  int pid = 0;
  ASSERT_TRUE(simDescribeIpcHandle(&handle, &base, &bytes, &pid));
  EXPECT_EQ(base, b);
  EXPECT_EQ(bytes, 900U);
  EXPECT_EQ(pid, getpid());
  // At the places of a real one.
  const auto field = [&](size_t offset) {
    uint64_t value = 0;
    std::memcpy(&value, reinterpret_cast<char*>(&handle) + offset, sizeof value);
    return value;
  };
  EXPECT_EQ(static_cast<int>(field(8)), getpid());
  EXPECT_EQ(field(16), 900U);
  EXPECT_EQ(field(24), 512 + (b % kPage << 32));
  cuMemFree(a);
  cuMemFree(b);
}

TEST_F(Memory, PointerAttributes) {
  const CUdeviceptr block = NewBlock(700);
  CUdeviceptr start = 0;
  size_t bytes = 0;
  unsigned long long id = 0;
  unsigned long long next_id = 0;
  EXPECT_EQ(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, block + 3),
            CUDA_SUCCESS);
  EXPECT_EQ(cuPointerGetAttribute(&bytes, CU_POINTER_ATTRIBUTE_RANGE_SIZE, block), CUDA_SUCCESS);
  EXPECT_EQ(cuPointerGetAttribute(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID, block), CUDA_SUCCESS);
  EXPECT_EQ(start, block);
  EXPECT_EQ(bytes, 700U);
  cuMemFree(block);
  const CUdeviceptr again = NewBlock(700);
  EXPECT_EQ(cuPointerGetAttribute(&next_id, CU_POINTER_ATTRIBUTE_BUFFER_ID, again), CUDA_SUCCESS);
  EXPECT_NE(id, next_id);
  void* locked = nullptr;
  ASSERT_EQ(cudaMallocHost(&locked, 64), cudaSuccess);
  cudaPointerAttributes attributes{};
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, locked), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, Word(again)), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  EXPECT_EQ(attributes.hostPointer, nullptr);
  cudaFreeHost(locked);
  cuMemFree(again);
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, Word(again)), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
  EXPECT_EQ(attributes.hostPointer, Word(again));
}

TEST_F(Memory, WhatIsInOneChunkIsOneMemoryBlock) {
  const auto ask = [](CUdeviceptr pointer, CUpointer_attribute attribute) {
    uint64_t value = 0;
    EXPECT_EQ(cuPointerGetAttribute(&value, attribute, pointer), CUDA_SUCCESS);
    return value;
  };
  const auto id = [&](CUdeviceptr pointer) {
    return ask(pointer, CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID);
  };
  CUdeviceptr small[2] = {NewBlock(700), NewBlock(5000)};
  EXPECT_EQ(id(small[0]), id(small[1]));
  EXPECT_EQ(ask(small[1], CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR), small[1] / kPage * kPage);
  EXPECT_EQ(ask(small[1], CU_POINTER_ATTRIBUTE_MAPPING_SIZE), kPage);
  const CUdeviceptr large = NewBlock(kPage + 1);
  EXPECT_NE(id(large), id(small[0]));
  EXPECT_EQ(ask(large + kPage, CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR), large);
  EXPECT_EQ(ask(large, CU_POINTER_ATTRIBUTE_MAPPING_SIZE), 2 * kPage);
  const uint64_t before = id(large);
  cuMemFree(large);
  const CUdeviceptr again = NewBlock(kPage + 1);
  EXPECT_EQ(again, large);
  EXPECT_GT(id(again), before);
  cuMemFree(again);
  for (const CUdeviceptr block : small) cuMemFree(block);
}

TEST_F(Memory, RangesAreExportedAsFarAsTheMappingGoes) {
  const auto exported = [](CUdeviceptr pointer, size_t bytes) {
    int file = -1;
    const CUresult result = cuMemGetHandleForAddressRange(&file, pointer, bytes,
                                                          CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
    if (file >= 0) close(file);
    return result;
  };
  for (const size_t bytes : {size_t{5000}, kPage, kPage + 1}) {
    const CUdeviceptr block = NewBlock(bytes);
    const size_t most = (block % kPage + bytes + kPage - 1) / kPage * kPage - block % kPage;
    EXPECT_EQ(exported(block, 4096), CUDA_SUCCESS);
    EXPECT_EQ(exported(block, most), CUDA_SUCCESS);
    EXPECT_EQ(exported(block + 4096, most), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(exported(block, most + 4096), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(exported(block, 100), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(exported(block + 512, 4096), CUDA_ERROR_INVALID_VALUE);
    cuMemFree(block);
    EXPECT_EQ(exported(block, 4096), CUDA_ERROR_INVALID_VALUE);
  }
}

}  // namespace
}  // namespace cmp::sim
