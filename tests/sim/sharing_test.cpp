// What the program shares with others or with the host, who may look at it at any time: external
// semaphores, IPC events, memory of the host that the driver makes, pools.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "test_device.h"

namespace cmp::sim {
namespace {

constexpr size_t kBytes = size_t{2} << 20;

class Sharing : public SimTest {
 protected:
  // A semaphore whose value is in `*value`.
  static CUexternalSemaphore NewSemaphore(CUexternalSemaphoreHandleType type,
                                          volatile uint64_t** value) {
    const int file = memfd_create("semaphore", 0);
    EXPECT_EQ(ftruncate(file, 4096), 0);
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    EXPECT_NE(page, MAP_FAILED);
    *value = static_cast<volatile uint64_t*>(page);
    CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC description{};
    description.type = type;
    description.handle.fd = file;
    CUexternalSemaphore semaphore = nullptr;
    EXPECT_EQ(cuImportExternalSemaphore(&semaphore, &description), CUDA_SUCCESS);
    return semaphore;
  }
  static CUresult Signal(CUexternalSemaphore semaphore, uint64_t value, CUstream stream) {
    CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS parameters{};
    parameters.params.fence.value = value;
    return cuSignalExternalSemaphoresAsync(&semaphore, &parameters, 1, stream);
  }
  static CUresult Wait(CUexternalSemaphore semaphore, uint64_t value, CUstream stream) {
    CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS parameters{};
    parameters.params.fence.value = value;
    return cuWaitExternalSemaphoresAsync(&semaphore, &parameters, 1, stream);
  }
};

TEST_F(Sharing, ASignalShowsWhenTheStreamComesToIt) {
  volatile uint64_t* value = nullptr;
  const CUexternalSemaphore semaphore =
      NewSemaphore(CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD, &value);
  const CUstream stream = NewStream();
  LaunchHash(stream, 1, kLong, {}, {});
  ASSERT_EQ(Signal(semaphore, 3, stream), CUDA_SUCCESS);
  EXPECT_EQ(*value, 0U);
  ASSERT_EQ(cuMemFree(NewBlock(64)), CUDA_SUCCESS);
  EXPECT_EQ(*value, 3U);
  EXPECT_EQ(cuDestroyExternalSemaphore(semaphore), CUDA_SUCCESS);
  EXPECT_EQ(cuDestroyExternalSemaphore(semaphore), CUDA_ERROR_INVALID_HANDLE);
  EXPECT_EQ(Signal(semaphore, 3, stream), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(Sharing, AWaitEndsWithTheOthersSignal) {
  volatile uint64_t* value = nullptr;
  const CUstream stream = NewStream();
  const CUexternalSemaphore timeline =
      NewSemaphore(CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD, &value);
  ASSERT_EQ(Wait(timeline, 5, stream), CUDA_SUCCESS);
  *value = 4;
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  *value = 6;
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(*value, 6U);
  const CUexternalSemaphore binary =
      NewSemaphore(CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD, &value);
  ASSERT_EQ(Wait(binary, 0, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(Signal(binary, 0, NewStream()), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(*value, 0U);  // taken
}

TEST_F(Sharing, ASemaphoreDestroyedUnderPendingWork) {
  volatile uint64_t* value = nullptr;
  const CUexternalSemaphore semaphore =
      NewSemaphore(CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD, &value);
  const CUstream stream = NewStream();
  LaunchHash(stream, 1, kLong, {}, {});
  ASSERT_EQ(Signal(semaphore, 0, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuDestroyExternalSemaphore(semaphore), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(context_), 2U);
  ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(*value, 0U);
  EXPECT_EQ(simHazardCount(), 1U);
  const CUexternalSemaphore another =
      NewSemaphore(CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD, &value);
  ASSERT_EQ(Wait(another, 0, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cuDestroyExternalSemaphore(another), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
  EXPECT_EQ(simHazardCount(), 2U);
  expected_hazards_ = 2;
}

TEST_F(Sharing, WhatIsNoSemaphoreIsRefused) {
  CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC description{};
  CUexternalSemaphore semaphore = nullptr;
  description.type = CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_WIN32;
  EXPECT_EQ(cuImportExternalSemaphore(&semaphore, &description), CUDA_ERROR_NOT_SUPPORTED);
  description.type = CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD;
  description.handle.fd = -1;
  EXPECT_EQ(cuImportExternalSemaphore(&semaphore, &description), CUDA_ERROR_OPERATING_SYSTEM);
}

TEST_F(Sharing, AnOpenedEventIsTheSameEvent) {
  CUevent event = nullptr;
  ASSERT_EQ(cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
  CUipcEventHandle shared;
  ASSERT_EQ(cuIpcGetEventHandle(&shared, event), CUDA_SUCCESS);
  CUevent opened = nullptr;
  ASSERT_EQ(cuIpcOpenEventHandle(&opened, shared), CUDA_SUCCESS);
  EXPECT_NE(opened, event);
  const CUstream stream = NewStream();
  LaunchHash(stream, 1, kLong, {}, {});
  ASSERT_EQ(cuEventRecord(event, stream), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(opened), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(cuEventSynchronize(opened), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(event), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(context_), 0U);
  ASSERT_EQ(cuEventDestroy(event), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(opened), CUDA_SUCCESS);
  ASSERT_EQ(cuEventDestroy(opened), CUDA_SUCCESS);
  EXPECT_EQ(cuIpcOpenEventHandle(&opened, shared), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Sharing, HostLocatedPhysicalMemoryIsTheHosts) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  const CUdeviceptr zeros = NewBlock(64);
  const uint64_t used = simUsedBytes(0);
  const CUstream stream = NewStream();
  for (const CUmemLocationType type : {CU_MEM_LOCATION_TYPE_HOST, CU_MEM_LOCATION_TYPE_HOST_NUMA}) {
    properties.location.type = type;
    CUmemGenericAllocationHandle handle = 0;
    CUdeviceptr start = 0;
    ASSERT_EQ(cuMemCreate(&handle, kBytes, &properties, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuMemAddressReserve(&start, kBytes, 0, 0, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuMemMap(start, kBytes, 0, handle, 0), CUDA_SUCCESS);
    CUmemAccessDesc access[2] = {};
    access[0].location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access[1].location.type = type;
    access[0].flags = access[1].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    ASSERT_EQ(cuMemSetAccess(start, kBytes, access, 2), CUDA_SUCCESS);
    EXPECT_EQ(simUsedBytes(0), used);
    unsigned place = 0;
    ASSERT_EQ(cuPointerGetAttribute(&place, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, start), CUDA_SUCCESS);
    EXPECT_EQ(place, static_cast<unsigned>(CU_MEMORYTYPE_HOST));
    LaunchHash(stream, 1, kLong, {}, {});
    ASSERT_EQ(cuMemcpyDtoHAsync(Word(start), zeros, 8, stream), CUDA_SUCCESS);
    EXPECT_EQ(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);  // as of page-locked memory
    *Word(start) = 7;
    ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
    EXPECT_EQ(*Word(start), 0U);
    ASSERT_EQ(cuMemUnmap(start, kBytes), CUDA_SUCCESS);
    ASSERT_EQ(cuMemAddressFree(start, kBytes), CUDA_SUCCESS);
    ASSERT_EQ(cuMemRelease(handle), CUDA_SUCCESS);
    properties.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
    EXPECT_EQ(cuMemCreate(&handle, kBytes, &properties, 0), CUDA_ERROR_INVALID_VALUE);
  }
}

TEST_F(Sharing, PoolsOfTheDeviceAndOfTheHost) {
  const CUstream stream = NewStream();
  for (const CUmemLocationType type : {CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_LOCATION_TYPE_HOST}) {
    CUmemPoolProps properties{};
    properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = type;
    CUmemoryPool pool = nullptr;
    ASSERT_EQ(cuMemPoolCreate(&pool, &properties), CUDA_SUCCESS);
    EXPECT_EQ(cuMemPoolTrimTo(pool, 0), CUDA_SUCCESS);
    CUdeviceptr block = 0;
    ASSERT_EQ(cuMemAllocFromPoolAsync(&block, 64, pool, stream), CUDA_SUCCESS);
    ASSERT_EQ(cuMemPoolDestroy(pool), CUDA_SUCCESS);
    EXPECT_EQ(cuMemPoolDestroy(pool), CUDA_ERROR_INVALID_VALUE);
    EXPECT_EQ(cuMemAllocFromPoolAsync(&block, 64, pool, stream), CUDA_ERROR_INVALID_VALUE);
    unsigned place = 0;
    ASSERT_EQ(cuPointerGetAttribute(&place, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, block), CUDA_SUCCESS);
    const bool device = type == CU_MEM_LOCATION_TYPE_DEVICE;
    EXPECT_EQ(place, static_cast<unsigned>(device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST));
    EXPECT_EQ(simLiveAllocations(0), device ? 1U : 0U);
    const Store store{Word(block), 5};
    LaunchStore(stream, &store, kLong);
    EXPECT_EQ(*Word(block), 0U);
    ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
    EXPECT_EQ(*Word(block), 5U);
    ASSERT_EQ(cuMemFreeAsync(block, stream), CUDA_SUCCESS);
    ASSERT_EQ(cuStreamSynchronize(stream), CUDA_SUCCESS);
    EXPECT_EQ(cuMemFree(block), CUDA_ERROR_INVALID_VALUE);
  }
  CUmemPoolProps wrong{};
  CUmemoryPool pool = nullptr;
  wrong.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  EXPECT_EQ(cuMemPoolCreate(&pool, &wrong), CUDA_ERROR_INVALID_VALUE);
  wrong.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  wrong.location.id = 9;
  EXPECT_EQ(cuMemPoolCreate(&pool, &wrong), CUDA_ERROR_INVALID_DEVICE);
  ASSERT_EQ(cuDeviceGetDefaultMemPool(&pool, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuMemPoolDestroy(pool), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(Sharing, AnImportedPointerOfAPoolIsTheSameMemory) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  CUmemoryPool pool = nullptr;
  ASSERT_EQ(cuMemPoolCreate(&pool, &properties), CUDA_SUCCESS);
  int file = -1;
  ASSERT_EQ(cuMemPoolExportToShareableHandle(&file, pool, properties.handleTypes, 0), CUDA_SUCCESS);
  CUmemoryPool imported = nullptr;
  ASSERT_EQ(cuMemPoolImportFromShareableHandle(&imported,
                                               reinterpret_cast<void*>(static_cast<intptr_t>(file)),
                                               properties.handleTypes, 0),
            CUDA_SUCCESS);
  close(file);
  const CUstream stream = NewStream();
  CUdeviceptr block = 0;
  CUdeviceptr again = 0;
  EXPECT_EQ(cuMemAllocFromPoolAsync(&block, 64, imported, stream), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cuMemAllocFromPoolAsync(&block, 64, pool, stream), CUDA_SUCCESS);
  CUmemPoolPtrExportData shared;
  ASSERT_EQ(cuMemPoolExportPointer(&shared, block), CUDA_SUCCESS);
  EXPECT_EQ(cuMemPoolImportPointer(&again, pool, &shared), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cuMemPoolImportPointer(&again, imported, &shared), CUDA_SUCCESS);
  EXPECT_NE(again, block);
  *Word(block) = 9;
  EXPECT_EQ(*Word(again), 9U);
  EXPECT_EQ(cuMemFree(again), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(block), CUDA_SUCCESS);
  EXPECT_EQ(cuMemPoolDestroy(imported), CUDA_SUCCESS);
  EXPECT_EQ(cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

TEST_F(Sharing, EventsThatAreNotForIt) {
  CUevent event = nullptr;
  EXPECT_EQ(cuEventCreate(&event, CU_EVENT_INTERPROCESS), CUDA_ERROR_INVALID_VALUE);
  CUipcEventHandle shared;
  EXPECT_EQ(cuIpcGetEventHandle(&shared, NewEvent()), CUDA_ERROR_INVALID_HANDLE);
  std::memset(&shared, 0, sizeof shared);
  EXPECT_EQ(cuIpcOpenEventHandle(&event, shared), CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace cmp::sim
