// What the host can see of the device's work, and when: which calls wait, when page-locked memory
// is read and written, what pointers are said to be. Each answer was measured on an H200.
#include <cstdlib>
#include <functional>
#include <vector>

#include "test_device.h"

namespace cmp::sim {
namespace {

class HostView : public SimTest {
 protected:
  void SetUp() override {
    SimTest::SetUp();
    block_ = NewBlock(32 * kMiB);
    other_ = NewBlock(kMiB);
    locked_ = NewLocked(kMiB);
    pageable_.assign(32 * kMiB, 0);
  }

  static unsigned char* NewLocked(size_t bytes, unsigned flags = 0) {
    void* locked = nullptr;
    EXPECT_EQ(cuMemHostAlloc(&locked, bytes, flags), CUDA_SUCCESS);
    return static_cast<unsigned char*>(locked);
  }
  static CUdeviceptr Address(const void* host) { return reinterpret_cast<CUdeviceptr>(host); }

  // Does `call` return only when a long kernel on `stream` is done?
  bool Waits(CUstream stream, const std::function<CUresult()>& call, const char* what,
             CUresult expected = CUDA_SUCCESS) {
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    SimWork work{};
    work.duration_ns = kLong;
    EXPECT_EQ(simLaunch(stream, &work), CUDA_SUCCESS);
    const uint64_t before = simNow();
    EXPECT_EQ(call(), expected) << what;
    const bool waited = simNow() - before >= kLong - kMillisecond;
    EXPECT_EQ(waited, cuStreamQuery(stream) == CUDA_SUCCESS) << what;
    return waited;
  }

  CUdeviceptr block_ = 0;
  CUdeviceptr other_ = 0;
  unsigned char* locked_ = nullptr;
  std::vector<unsigned char> pageable_;
};

// A pool that hands a buffer out again too early is found out, as with device memory.
TEST_F(HostView, APageLockedBufferUnderAPendingCopyIsAHazard) {
  const CUstream s = NewStream();
  simNoteAlloc(locked_, kMiB);
  LaunchHash(s, 1, kLong, {}, {{Word(block_), 8}});
  ASSERT_EQ(cuMemcpyDtoHAsync(locked_, block_, kMiB, s), CUDA_SUCCESS);
  simNoteFree(locked_);
  EXPECT_EQ(simHazardCount(), 0U);
  simNoteAlloc(locked_, kMiB);
  EXPECT_EQ(simHazardCount(), 1U) << simHazardReport();
  simNoteFree(locked_);
  EXPECT_EQ(simHostBytes(), kMiB);
  ASSERT_EQ(cuMemFreeHost(locked_), CUDA_SUCCESS);  // waits
  EXPECT_EQ(cuStreamQuery(s), CUDA_SUCCESS);
  EXPECT_EQ(simHostBytes(), 0U);
  expected_hazards_ = 1;
}

// The real free waits for its own context's work alone.
TEST_F(HostView, APageLockedBufferThatAnotherContextUsesIsAHazardToFree) {
  const CUcontext other = NewContext();
  const CUstream s = NewStream();
  LaunchHash(s, 1, kLong, {}, {{locked_, 8}});
  ASSERT_EQ(cuCtxSetCurrent(context_), CUDA_SUCCESS);
  ASSERT_EQ(cuMemFreeHost(locked_), CUDA_SUCCESS);
  EXPECT_EQ(simHazardCount(), 1U) << simHazardReport();
  ASSERT_EQ(cuCtxDestroy(other), CUDA_SUCCESS);
  expected_hazards_ = 1;
}

TEST_F(HostView, AsynchronousCopiesThatReturnAtOnceAndThoseThatWait) {
  const CUstream s = NewStream();
  struct Case {
    const char* what;
    bool waits;
    std::function<CUresult()> call;
  };
  unsigned char* const locked = locked_;
  unsigned char* const more_locked = NewLocked(4096);
  unsigned char* const pageable = pageable_.data();
  const Case cases[] = {
      {"locked to device", false, [=, this] { return cuMemcpyHtoDAsync(block_, locked, kMiB, s); }},
      {"device to locked", false, [=, this] { return cuMemcpyDtoHAsync(locked, block_, kMiB, s); }},
      {"locked, any kind", false,
       [=, this] { return cuMemcpyAsync(block_, Address(locked), kMiB, s); }},
      {"device to device", false, [=, this] { return cuMemcpyDtoDAsync(other_, block_, kMiB, s); }},
      {"1 KiB of pageable to device", false,
       [=, this] { return cuMemcpyHtoDAsync(block_, pageable, 1024, s); }},
      {"32 MiB of pageable to device", true,
       [=, this] { return cuMemcpyHtoDAsync(block_, pageable, 32 * kMiB, s); }},
      {"device to 8 bytes of pageable", true,
       [=, this] { return cuMemcpyDtoHAsync(pageable, block_, 8, s); }},
      {"device to 32 MiB of pageable", true,
       [=, this] { return cuMemcpyDtoHAsync(pageable, block_, 32 * kMiB, s); }},
      {"device to no byte of pageable", false,
       [=, this] { return cuMemcpyDtoHAsync(pageable, block_, 0, s); }},
      {"locked to locked", true,
       [=] { return cuMemcpyAsync(Address(locked), Address(more_locked), 8, s); }},
      {"locked to pageable", true,
       [=] { return cuMemcpyAsync(Address(pageable), Address(locked), 8, s); }},
      {"pageable to locked", true,
       [=] { return cuMemcpyAsync(Address(locked), Address(pageable), 8, s); }},
      {"pageable to pageable", true,
       [=] { return cuMemcpyAsync(Address(pageable), Address(pageable + 64), 8, s); }},
      {"set of locked", false, [=] { return cuMemsetD8Async(Address(locked), 1, kMiB, s); }},
      {"set of device", false, [=, this] { return cuMemsetD8Async(block_, 1, kMiB, s); }},
  };
  for (const Case& each : cases) EXPECT_EQ(Waits(s, each.call, each.what), each.waits) << each.what;
}

TEST_F(HostView, SynchronousCallsOnTheLegacyStreamBehindABlockingOne) {
  unsigned char* const pageable = pageable_.data();
  struct Case {
    const char* what;
    bool waits;
    std::function<CUresult()> call;
  };
  const Case cases[] = {
      {"locked to device", true, [&] { return cuMemcpyHtoD(block_, locked_, kMiB); }},
      {"pageable to device", true, [&] { return cuMemcpyHtoD(block_, pageable, 1024); }},
      {"device to locked", true, [&] { return cuMemcpyDtoH(locked_, block_, kMiB); }},
      {"device to pageable", true, [&] { return cuMemcpyDtoH(pageable, block_, 8); }},
      {"host to host", true, [&] { return cuMemcpy(Address(pageable), Address(locked_), 8); }},
      {"set of locked", true, [&] { return cuMemsetD8(Address(locked_), 1, 8); }},
      {"set of device", false, [&] { return cuMemsetD8(block_, 1, 8); }},
      {"device to device", false, [&] { return cuMemcpyDtoD(other_, block_, 8); }},
      {"device to no byte", false, [&] { return cuMemcpyDtoH(pageable, block_, 0); }},
      {"the stream itself", true, [] { return cuStreamSynchronize(nullptr); }},
      {"the per-thread stream", false, [] { return cuStreamSynchronize(CU_STREAM_PER_THREAD); }},
  };
  const CUstream blocking = NewStream(CU_STREAM_DEFAULT);
  const CUstream free_running = NewStream();
  for (const Case& each : cases) {
    EXPECT_EQ(Waits(blocking, each.call, each.what), each.waits) << each.what;
    EXPECT_FALSE(Waits(free_running, each.call, each.what)) << each.what;
  }
  const CUevent event = NewEvent();
  const auto event_on_legacy = [&] {
    EXPECT_EQ(cuEventRecord(event, nullptr), CUDA_SUCCESS);
    return cuEventSynchronize(event);
  };
  EXPECT_TRUE(Waits(blocking, event_on_legacy, "event on the legacy stream"));
  EXPECT_FALSE(Waits(free_running, event_on_legacy, "event on the legacy stream"));
  const auto query = [] { return cuStreamQuery(nullptr); };
  EXPECT_FALSE(Waits(blocking, query, "query of the legacy stream", CUDA_ERROR_NOT_READY));
  EXPECT_FALSE(Waits(free_running, query, "query of the legacy stream"));
}

TEST_F(HostView, QueriesSayNotReadyUntilTheWorkIsDone) {
  const CUstream s = NewStream();
  const CUevent start = NewEvent();
  const CUevent end = NewEvent();
  float milliseconds = 0;
  ASSERT_EQ(cuEventRecord(start, s), CUDA_SUCCESS);
  LaunchHash(s, 1, kLong, {}, {});
  ASSERT_EQ(cuEventRecord(end, s), CUDA_SUCCESS);
  EXPECT_EQ(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cuEventQuery(start), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(end), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady);
  EXPECT_EQ(milliseconds, 0);
  simAdvance(kLong);
  EXPECT_EQ(cuStreamQuery(s), CUDA_SUCCESS);
  EXPECT_EQ(cuEventQuery(end), CUDA_SUCCESS);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess);
  EXPECT_NEAR(milliseconds, 17, 0.1);
}

// The host writes a source, and reads a target, while the copy is pending.
TEST_F(HostView, LockedMemoryIsReadAndWrittenWhenTheCopyRuns) {
  std::vector<unsigned char> registered(4096, 0);
  ASSERT_EQ(cuMemHostRegister(registered.data(), 4096, 0), CUDA_SUCCESS);
  const CUstream s = NewStream();
  for (unsigned char* host : {locked_, registered.data()}) {
    host[0] = 1;
    pageable_[0] = 1;
    LaunchHash(s, 1, kLong, {}, {});
    ASSERT_EQ(cuMemcpyHtoDAsync(block_, host, 1, s), CUDA_SUCCESS);
    ASSERT_EQ(cuMemcpyHtoDAsync(block_ + 1, pageable_.data(), 1, s), CUDA_SUCCESS);
    host[0] = 2;
    pageable_[0] = 2;
    ASSERT_EQ(cuMemcpyDtoHAsync(host + 1, block_, 2, s), CUDA_SUCCESS);
    ASSERT_EQ(cuMemsetD8Async(Address(host + 3), 9, 1, s), CUDA_SUCCESS);
    host[1] = host[2] = host[3] = 7;
    ASSERT_EQ(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
    EXPECT_EQ(host[1], 7);
    EXPECT_EQ(host[3], 7);
    ASSERT_EQ(cuStreamSynchronize(s), CUDA_SUCCESS);
    EXPECT_EQ(host[1], 2);  // the locked source as it was when the copy ran
    EXPECT_EQ(host[2], 1);  // the pageable one as it was at the call
    EXPECT_EQ(host[3], 9);
  }
  ASSERT_EQ(cuMemHostUnregister(registered.data()), CUDA_SUCCESS);
}

TEST_F(HostView, AKernelWritesEveryKindOfHostMemoryAtItsEnd) {
  std::vector<uint64_t> registered(8, 0);
  ASSERT_EQ(cuMemHostRegister(registered.data(), 64, CU_MEMHOSTREGISTER_DEVICEMAP), CUDA_SUCCESS);
  CUdeviceptr managed = 0;
  ASSERT_EQ(cuMemAllocManaged(&managed, 64, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  const CUstream s = NewStream();
  for (uint64_t* word : {Word(managed), registered.data(), reinterpret_cast<uint64_t*>(locked_),
                         reinterpret_cast<uint64_t*>(NewLocked(64, CU_MEMHOSTALLOC_DEVICEMAP))}) {
    CUdeviceptr mapped = managed;
    if (word != Word(managed)) {
      ASSERT_EQ(cuMemHostGetDevicePointer(&mapped, word, 0), CUDA_SUCCESS);
    }
    EXPECT_EQ(Word(mapped), word);  // the host's address is the device's
    const Store store{Word(mapped), 5};
    LaunchStore(s, &store, kLong);
    simAdvance(kLong / 2);
    EXPECT_EQ(*word, 0U);
    simAdvance(kLong);
    EXPECT_EQ(*word, 5U);
  }
  ASSERT_EQ(cuMemHostUnregister(registered.data()), CUDA_SUCCESS);
}

TEST_F(HostView, EndsOfHostMemoryWait) {
  std::vector<unsigned char> memory(4096);
  CUdeviceptr managed = 0;
  ASSERT_EQ(cuMemHostRegister(memory.data(), 4096, 0), CUDA_SUCCESS);
  ASSERT_EQ(cuMemAllocManaged(&managed, 64, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  const CUstream s = NewStream();
  void* more = nullptr;
  const auto begins = [&] {
    std::vector<unsigned char> another(4096);
    EXPECT_EQ(cuMemAllocHost(&more, 64), CUDA_SUCCESS);
    EXPECT_EQ(cuMemHostRegister(another.data(), 4096, 0), CUDA_SUCCESS);
    EXPECT_EQ(simPendingCount(context_), 1U);
    return cuMemHostUnregister(another.data());
  };
  EXPECT_TRUE(Waits(s, begins, "cuMemHostUnregister"));
  EXPECT_TRUE(Waits(
      s, [&] { return cuMemHostUnregister(memory.data()); }, "cuMemHostUnregister"));
  EXPECT_TRUE(Waits(
      s, [&] { return cuMemFreeHost(more); }, "cuMemFreeHost"));
  EXPECT_TRUE(Waits(
      s, [&] { return cuMemFree(managed); }, "cuMemFree of managed memory"));
}

TEST_F(HostView, PageLockedMemoryTellsTheSameFlagsWhateverItWasMadeWith) {
  std::vector<unsigned char> registered(4096);
  ASSERT_EQ(cuMemHostRegister(registered.data(), 4096, 0), CUDA_SUCCESS);
  for (unsigned char* host :
       {locked_, registered.data(), NewLocked(64, CU_MEMHOSTALLOC_PORTABLE),
        NewLocked(64, CU_MEMHOSTALLOC_DEVICEMAP), NewLocked(64, CU_MEMHOSTALLOC_WRITECOMBINED)}) {
    unsigned flags = 0;
    ASSERT_EQ(cuMemHostGetFlags(&flags, host + 8), CUDA_SUCCESS);
    EXPECT_EQ(flags, 2U);
    CUdeviceptr device = 0;
    void* back = nullptr;
    unsigned type = 0;
    unsigned managed = 1;
    const CUdeviceptr address = Address(host + 8);
    ASSERT_EQ(cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, address),
              CUDA_SUCCESS);
    ASSERT_EQ(cuPointerGetAttribute(&back, CU_POINTER_ATTRIBUTE_HOST_POINTER, address),
              CUDA_SUCCESS);
    ASSERT_EQ(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address),
              CUDA_SUCCESS);
    ASSERT_EQ(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address),
              CUDA_SUCCESS);
    EXPECT_EQ(device, address);
    EXPECT_EQ(back, host + 8);
    EXPECT_EQ(type, static_cast<unsigned>(CU_MEMORYTYPE_HOST));
    EXPECT_EQ(managed, 0U);
    cudaPointerAttributes attributes{};
    ASSERT_EQ(cudaPointerGetAttributes(&attributes, host), cudaSuccess);
    EXPECT_EQ(attributes.devicePointer, host);
  }
  unsigned flags = 0;
  CUdeviceptr device = 0;
  EXPECT_EQ(cuMemHostGetFlags(&flags, Word(block_)), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemHostGetDevicePointer(&device, pageable_.data(), 0), CUDA_ERROR_INVALID_VALUE);
  void* none = nullptr;
  EXPECT_EQ(cuMemHostAlloc(&none, 64, 0x100), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMemHostRegister(pageable_.data(), 64, 0x100), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cuMemHostUnregister(registered.data()), CUDA_SUCCESS);
}

// Both in processes of their own: the environment is read once.
TEST_F(HostView, AccessToPageableMemoryIsAsTheEnvironmentSays) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto exit_with_attribute = [] {
    int access = -1;
    cuDeviceGetAttribute(&access, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0);
    std::exit(access);
  };
  unsetenv("CMPSIM_PAGEABLE_ACCESS");
  EXPECT_EXIT(exit_with_attribute(), testing::ExitedWithCode(0), "");
  setenv("CMPSIM_PAGEABLE_ACCESS", "1", 1);
  EXPECT_EXIT(exit_with_attribute(), testing::ExitedWithCode(1), "");
  unsetenv("CMPSIM_PAGEABLE_ACCESS");
}

}  // namespace
}  // namespace cmp::sim
