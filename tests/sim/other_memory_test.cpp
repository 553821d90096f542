// Memory that no cuMemAlloc gave: arrays, virtual memory, external memory, and which call ends
// what.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <initializer_list>

#include "test_device.h"

namespace cmp::sim {
namespace {

class OtherMemory : public SimTest {
 protected:
  static size_t Free() {
    size_t free_bytes = 0;
    size_t total = 0;
    EXPECT_EQ(cuMemGetInfo(&free_bytes, &total), CUDA_SUCCESS);
    return free_bytes;
  }
  static CUmemAllocationProp Properties() {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return properties;
  }
  static CUmemGenericAllocationHandle Create(size_t bytes) {
    CUmemGenericAllocationHandle handle = 0;
    const CUmemAllocationProp properties = Properties();
    EXPECT_EQ(cuMemCreate(&handle, bytes, &properties, 0), CUDA_SUCCESS);
    return handle;
  }
  static CUdeviceptr Reserve(size_t bytes) {
    CUdeviceptr start = 0;
    EXPECT_EQ(cuMemAddressReserve(&start, bytes, 0, 0, 0), CUDA_SUCCESS);
    return start;
  }
  static CUresult Allow(CUdeviceptr start, size_t bytes) {
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return cuMemSetAccess(start, bytes, &access, 1);
  }
};

TEST_F(OtherMemory, LimitsTakeMemoryWhenTheyAreSet) {
  const size_t before = Free();
  size_t value = 0;
  ASSERT_EQ(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE), CUDA_SUCCESS);
  EXPECT_EQ(value, 1024U);
  ASSERT_EQ(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 64 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(before - Free(), 64 * kMiB);
  ASSERT_EQ(cuCtxGetLimit(&value, CU_LIMIT_MALLOC_HEAP_SIZE), CUDA_SUCCESS);
  EXPECT_EQ(value, 64 * kMiB);
  ASSERT_EQ(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, kMiB), CUDA_SUCCESS);
  EXPECT_EQ(before, Free());
  EXPECT_EQ(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, size_t{1} << 20), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(before, Free());
}

TEST_F(OtherMemory, CallsThatNeedMemory) {
  simNeed("cuStreamCreate", Free() + 1, CUDA_ERROR_OUT_OF_MEMORY);
  CUstream stream = nullptr;
  EXPECT_EQ(cuStreamCreate(&stream, 0), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(stream, nullptr);
  simNeed("cuStreamCreate", Free(), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
  simNeed("cuStreamDestroy_v2", Free() + 1, CUDA_ERROR_OUT_OF_MEMORY);
  simFailNever();
  EXPECT_EQ(cuStreamDestroy(stream), CUDA_SUCCESS);
}

TEST_F(OtherMemory, ArraysCountAndEndWithTheirOwnCall) {
  const size_t before = Free();
  CUDA_ARRAY_DESCRIPTOR flat{};
  flat.Width = 1024;
  flat.Height = 1024;
  flat.Format = CU_AD_FORMAT_FLOAT;
  flat.NumChannels = 2;
  CUarray array = nullptr;
  ASSERT_EQ(cuArrayCreate(&array, &flat), CUDA_SUCCESS);
  EXPECT_EQ(before - Free(), 8 * kMiB);
  EXPECT_EQ(cuMemFree(reinterpret_cast<CUdeviceptr>(array)), CUDA_ERROR_INVALID_VALUE);
  CUDA_ARRAY3D_DESCRIPTOR back{};
  ASSERT_EQ(cuArray3DGetDescriptor(&back, array), CUDA_SUCCESS);
  EXPECT_EQ(back.Height, 1024U);
  EXPECT_EQ(cuArrayDestroy(array), CUDA_SUCCESS);
  EXPECT_EQ(cuArrayDestroy(array), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(Free(), before);

  CUDA_ARRAY3D_DESCRIPTOR levels{1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0};
  CUmipmappedArray mipmapped = nullptr;
  ASSERT_EQ(cuMipmappedArrayCreate(&mipmapped, &levels, 2), CUDA_SUCCESS);
  EXPECT_EQ(before - Free(), 6 * kMiB);  // 4 and 1, in whole pages
  EXPECT_EQ(cuMipmappedArrayDestroy(mipmapped), CUDA_SUCCESS);

  flat.NumChannels = 3;
  EXPECT_EQ(cuArrayCreate(&array, &flat), CUDA_ERROR_INVALID_VALUE);
  flat.NumChannels = 4;
  flat.Width = size_t{1} << 30;
  EXPECT_EQ(cuArrayCreate(&array, &flat), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(Free(), before);
}

TEST_F(OtherMemory, TheRuntimesArrays) {
  const size_t before = Free();
  const cudaChannelFormatDesc channels{16, 16, 0, 0, cudaChannelFormatKindUnsigned};
  cudaArray_t array = nullptr;
  ASSERT_EQ(cudaMallocArray(&array, &channels, 1024, 1024, 0), cudaSuccess);
  EXPECT_EQ(before - Free(), 4 * kMiB);
  EXPECT_EQ(cudaFreeArray(array), cudaSuccess);
  EXPECT_EQ(cudaFreeArray(array), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaFreeArray(nullptr), cudaSuccess);
  ASSERT_EQ(cudaMalloc3DArray(&array, &channels, {128, 128, 64}, 0), cudaSuccess);
  EXPECT_EQ(before - Free(), 4 * kMiB);
  EXPECT_EQ(cudaFreeArray(array), cudaSuccess);
  const cudaChannelFormatDesc wrong{16, 8, 0, 0, cudaChannelFormatKindUnsigned};
  EXPECT_EQ(cudaMallocArray(&array, &wrong, 64, 64, 0), cudaErrorInvalidChannelDescriptor);
  EXPECT_EQ(Free(), before);
}

TEST_F(OtherMemory, AnArrayEndsWithItsContextAndItsFreeWaits) {
  const size_t before = Free();
  const CUDA_ARRAY3D_DESCRIPTOR shape{1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0};
  CUarray array = nullptr;
  ASSERT_EQ(cuArray3DCreate(&array, &shape), CUDA_SUCCESS);
  SimWork slow{};
  slow.duration_ns = 10 * kMillisecond;
  ASSERT_EQ(simLaunch(NewStream(), &slow), CUDA_SUCCESS);
  ASSERT_EQ(cuArrayDestroy(array), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(context_), 0U);
  ASSERT_EQ(cuArray3DCreate(&array, &shape), CUDA_SUCCESS);
  ASSERT_EQ(cudaDeviceReset(), cudaSuccess);
  ASSERT_EQ(cudaFree(nullptr), cudaSuccess);
  EXPECT_EQ(Free(), before);
  EXPECT_EQ(cuArrayDestroy(array), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(OtherMemory, PhysicalMemoryLastsUntilItsLastHandleAndMapping) {
  const size_t before = Free();
  const CUmemGenericAllocationHandle handle = Create(4 * kMiB);
  EXPECT_EQ(before - Free(), 4 * kMiB);
  CUmemAllocationProp properties{};
  ASSERT_EQ(cuMemGetAllocationPropertiesFromHandle(&properties, handle), CUDA_SUCCESS);
  EXPECT_EQ(properties.requestedHandleTypes, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
  const CUdeviceptr start = Reserve(8 * kMiB);
  EXPECT_EQ(before - Free(), 4 * kMiB);
  ASSERT_EQ(cuMemMap(start, 4 * kMiB, 0, handle, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuMemMap(start, 4 * kMiB, 0, handle, 0), CUDA_ERROR_INVALID_VALUE);  // occupied
  ASSERT_EQ(cuMemMap(start + 4 * kMiB, 4 * kMiB, 0, handle, 0), CUDA_SUCCESS);
  uint64_t value = 5;
  EXPECT_EQ(cuMemcpyHtoD(start, &value, 8), CUDA_ERROR_INVALID_VALUE);  // no access yet
  ASSERT_EQ(Allow(start, 8 * kMiB), CUDA_SUCCESS);
  ASSERT_EQ(cuMemcpyHtoD(start, &value, 8), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(*Word(start + 4 * kMiB), 5U);  // the same bytes, mapped twice
  EXPECT_EQ(cuMemFree(start), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cuMemRelease(handle), CUDA_SUCCESS);
  EXPECT_EQ(cuMemRelease(handle), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(before - Free(), 4 * kMiB);
  EXPECT_EQ(cuMemAddressFree(start, 8 * kMiB), CUDA_ERROR_INVALID_VALUE);  // mapped
  EXPECT_EQ(cuMemUnmap(start, 2 * kMiB), CUDA_ERROR_INVALID_VALUE);        // a part of a mapping
  ASSERT_EQ(cuMemUnmap(start, 4 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(before - Free(), 4 * kMiB);
  ASSERT_EQ(cuMemUnmap(start + 4 * kMiB, 4 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(Free(), before);
  EXPECT_EQ(cuMemcpyHtoD(start, &value, 8), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemAddressFree(start, 4 * kMiB), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemAddressFree(start, 8 * kMiB), CUDA_SUCCESS);
}

TEST_F(OtherMemory, MappingsSideBySideAreOneRange) {
  const CUdeviceptr start = Reserve(4 * kMiB);
  for (const size_t offset : {size_t{0}, 2 * kMiB}) {
    const CUmemGenericAllocationHandle handle = Create(2 * kMiB);
    ASSERT_EQ(cuMemMap(start + offset, 2 * kMiB, 0, handle, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuMemRelease(handle), CUDA_SUCCESS);
  }
  ASSERT_EQ(Allow(start, 2 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8(start + kMiB, 7, 2 * kMiB), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(Allow(start, 4 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8(start + kMiB, 7, 2 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(cuMemsetD8(start + 3 * kMiB, 7, 2 * kMiB), CUDA_ERROR_INVALID_VALUE);
  LaunchHash(NewStream(), 1, 0, {}, {{Word(start + kMiB), 2 * kMiB}});
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  ASSERT_EQ(cuMemUnmap(start, 4 * kMiB), CUDA_SUCCESS);
  ASSERT_EQ(cuMemAddressFree(start, 4 * kMiB), CUDA_SUCCESS);
}

TEST_F(OtherMemory, WorkOnWhatWasUnmappedIsReported) {
  const CUdeviceptr start = Reserve(2 * kMiB);
  const CUmemGenericAllocationHandle handle = Create(2 * kMiB);
  ASSERT_EQ(cuMemMap(start, 2 * kMiB, 0, handle, 0), CUDA_SUCCESS);
  ASSERT_EQ(Allow(start, 2 * kMiB), CUDA_SUCCESS);
  LaunchHash(NewStream(), 1, 10 * kMillisecond, {}, {{Word(start), 8}});
  ASSERT_EQ(cuMemUnmap(start, 2 * kMiB), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(simHazardCount(), 1U);
  expected_hazards_ = 1;
  cuMemRelease(handle);
  cuMemAddressFree(start, 2 * kMiB);
}

TEST_F(OtherMemory, WrongRequestsForPhysicalMemory) {
  CUmemGenericAllocationHandle handle = 0;
  CUmemAllocationProp properties = Properties();
  size_t granularity = 0;
  ASSERT_EQ(
      cuMemGetAllocationGranularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
      CUDA_SUCCESS);
  EXPECT_EQ(granularity, 2 * kMiB);
  EXPECT_EQ(cuMemCreate(&handle, kMiB, &properties, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemCreate(&handle, Free() + 2 * kMiB, &properties, 0), CUDA_ERROR_OUT_OF_MEMORY);
  properties.location.id = 9;
  EXPECT_EQ(cuMemCreate(&handle, 2 * kMiB, &properties, 0), CUDA_ERROR_INVALID_DEVICE);
}

TEST_F(OtherMemory, AShareableHandleNamesTheSameBytes) {
  const CUmemGenericAllocationHandle handle = Create(2 * kMiB);
  int shared = -1;
  ASSERT_EQ(
      cuMemExportToShareableHandle(&shared, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
      CUDA_SUCCESS);
  CUmemGenericAllocationHandle imported = 0;
  ASSERT_EQ(cuMemImportFromShareableHandle(&imported,
                                           reinterpret_cast<void*>(static_cast<intptr_t>(shared)),
                                           CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
            CUDA_SUCCESS);
  close(shared);
  const CUdeviceptr start = Reserve(4 * kMiB);
  ASSERT_EQ(cuMemMap(start, 2 * kMiB, 0, handle, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuMemMap(start + 2 * kMiB, 2 * kMiB, 0, imported, 0), CUDA_SUCCESS);
  ASSERT_EQ(Allow(start, 4 * kMiB), CUDA_SUCCESS);
  *Word(start) = 9;
  EXPECT_EQ(*Word(start + 2 * kMiB), 9U);
  CUmemGenericAllocationHandle retained = 0;
  ASSERT_EQ(cuMemRetainAllocationHandle(&retained, Word(start)), CUDA_SUCCESS);
  EXPECT_EQ(retained, handle);
  EXPECT_EQ(cuMemUnmap(start, 4 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(cuMemRelease(imported), CUDA_SUCCESS);
  EXPECT_EQ(cuMemRelease(handle), CUDA_SUCCESS);
  EXPECT_EQ(cuMemRelease(retained), CUDA_SUCCESS);
  EXPECT_EQ(cuMemAddressFree(start, 4 * kMiB), CUDA_SUCCESS);
}

TEST_F(OtherMemory, ExternalBuffersAreFreedLikeBlocks) {
  const size_t before = Free();
  const int file = memfd_create("external", 0);
  ASSERT_EQ(ftruncate(file, 65536), 0);
  CUDA_EXTERNAL_MEMORY_HANDLE_DESC description{};
  description.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD;
  description.handle.fd = dup(file);
  description.size = 65536;
  CUexternalMemory memory = nullptr;
  ASSERT_EQ(cuImportExternalMemory(&memory, &description), CUDA_SUCCESS);
  CUDA_EXTERNAL_MEMORY_BUFFER_DESC part{};
  part.offset = 8192;
  part.size = 4096;
  CUdeviceptr buffer = 0;
  ASSERT_EQ(cuExternalMemoryGetMappedBuffer(&buffer, memory, &part), CUDA_SUCCESS);
  ASSERT_EQ(cuMemsetD32(buffer, 77, 2), CUDA_SUCCESS);
  ASSERT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  uint32_t seen = 0;
  ASSERT_EQ(pread(file, &seen, sizeof seen, 8192), static_cast<ssize_t>(sizeof seen));
  EXPECT_EQ(seen, 77U);
  EXPECT_EQ(Free(), before);
  EXPECT_EQ(cuDestroyExternalMemory(memory), CUDA_SUCCESS);
  EXPECT_EQ(cuDestroyExternalMemory(memory), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(cuMemFree(buffer), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(buffer), CUDA_ERROR_INVALID_VALUE);
  close(file);
}

}  // namespace
}  // namespace cmp::sim
