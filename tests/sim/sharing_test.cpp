// What the program shares with others, who may look at it at any time: external semaphores, IPC
// events.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "test_device.h"

namespace cmp::sim {
namespace {

constexpr uint64_t kLong = 17 * kMillisecond;

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
