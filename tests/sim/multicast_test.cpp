// Multicast objects, and the access of devices to pools: what work uses of them.
#include "test_device.h"

namespace cmp::sim {
namespace {

constexpr size_t kWhole = size_t{4} << 20;
constexpr size_t kHalf = kWhole / 2;

class MulticastObjects : public SimTest {
 protected:
  static CUmemGenericAllocationHandle NewObject(unsigned devices = 1) {
    CUmulticastObjectProp properties{};
    properties.numDevices = devices;
    properties.size = kWhole;
    CUmemGenericAllocationHandle object = 0;
    EXPECT_EQ(cuMulticastCreate(&object, &properties), CUDA_SUCCESS);
    return object;
  }
  static CUmemGenericAllocationHandle NewMemory() {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemGenericAllocationHandle memory = 0;
    EXPECT_EQ(cuMemCreate(&memory, kWhole, &properties, 0), CUDA_SUCCESS);
    return memory;
  }
  static CUdeviceptr Map(CUmemGenericAllocationHandle handle) {
    CUdeviceptr start = 0;
    EXPECT_EQ(cuMemAddressReserve(&start, kWhole, 0, 0, 0), CUDA_SUCCESS);
    EXPECT_EQ(cuMemMap(start, kWhole, 0, handle, 0), CUDA_SUCCESS);
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    EXPECT_EQ(cuMemSetAccess(start, kWhole, &access, 1), CUDA_SUCCESS);
    return start;
  }
  // Of a device, with its memory bound.
  void SetUp() override {
    SimTest::SetUp();
    object_ = NewObject();
    memory_ = NewMemory();
    ASSERT_EQ(cuMulticastAddDevice(object_, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuMulticastBindMem(object_, 0, memory_, 0, kHalf, 0), CUDA_SUCCESS);
    ASSERT_EQ(cuMulticastBindMem(object_, kHalf, memory_, kHalf, kHalf, 0), CUDA_SUCCESS);
    start_ = Map(object_);
    stream_ = NewStream();
  }
  void TearDown() override {
    EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
    EXPECT_EQ(cuMemUnmap(start_, kWhole), CUDA_SUCCESS);
    EXPECT_EQ(cuMemRelease(object_), CUDA_SUCCESS);
    EXPECT_EQ(cuMemRelease(memory_), CUDA_SUCCESS);
    EXPECT_EQ(simUsedBytes(0), 0U);
    SimTest::TearDown();
  }

  CUmemGenericAllocationHandle object_ = 0;
  CUmemGenericAllocationHandle memory_ = 0;
  CUdeviceptr start_ = 0;
  CUstream stream_ = nullptr;
};

TEST_F(MulticastObjects, WorkMayUseWhatIsBound) {
  LaunchHash(stream_, 1, kMillisecond, {}, {{Word(start_ + kHalf), 64}});
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(cuMulticastUnbind(object_, 0, 0, kHalf), CUDA_SUCCESS);
  EXPECT_EQ(cuMulticastUnbind(object_, 0, kHalf, kHalf), CUDA_SUCCESS);
}

TEST_F(MulticastObjects, UnbindingDoesNotWaitAndTellsWhoStillUsesIt) {
  LaunchHash(stream_, 1, kMillisecond, {}, {{Word(start_), 64}});
  LaunchHash(stream_, 2, kMillisecond, {}, {{Word(start_ + kHalf), 64}});
  EXPECT_EQ(cuMulticastUnbind(object_, 0, kHalf, kHalf), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(nullptr), 2U);
  expected_hazards_ = 1;
}

TEST_F(MulticastObjects, NothingUsesWhatIsNotBound) {
  EXPECT_EQ(cuMulticastUnbind(object_, 0, kHalf, kHalf), CUDA_SUCCESS);
  LaunchHash(stream_, 1, kMillisecond, {}, {{Word(start_), 64}});
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(simHazardCount(), 0U);
  LaunchHash(stream_, 2, kMillisecond, {}, {{Word(start_ + kHalf), 64}});
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  expected_hazards_ = 1;
}

TEST_F(MulticastObjects, MemoryIsBoundByItsAddressToo) {
  const CUdeviceptr mapped = Map(memory_);
  const CUmemGenericAllocationHandle object = NewObject();
  EXPECT_EQ(cuMulticastAddDevice(object, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuMulticastBindAddr(object, 0, mapped, kWhole, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuMulticastBindAddr(object, 0, mapped, kWhole, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMulticastUnbind(object, 0, 0, kWhole), CUDA_SUCCESS);
  EXPECT_EQ(cuMemRelease(object), CUDA_SUCCESS);
  EXPECT_EQ(cuMemUnmap(mapped, kWhole), CUDA_SUCCESS);
}

TEST_F(MulticastObjects, RefuseWhatDoesNotFit) {
  size_t granularity = 0;
  CUmulticastObjectProp properties{};
  properties.numDevices = 1;
  EXPECT_EQ(cuMulticastGetGranularity(&granularity, &properties, CU_MULTICAST_GRANULARITY_MINIMUM),
            CUDA_SUCCESS);
  EXPECT_EQ(kHalf % granularity, 0U);
  CUmemGenericAllocationHandle object = 0;
  properties.size = granularity / 2;
  EXPECT_EQ(cuMulticastCreate(&object, &properties), CUDA_ERROR_INVALID_VALUE);
  properties.size = granularity;
  properties.numDevices = 99;
  EXPECT_EQ(cuMulticastCreate(&object, &properties), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(cuMulticastAddDevice(memory_, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMulticastAddDevice(object_, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMulticastBindMem(object_, kHalf, memory_, 0, kWhole, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMulticastBindMem(object_, 0, object_, 0, kHalf, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMulticastUnbind(object_, 0, 0, kWhole), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cuMulticastUnbind(object_, 5, 0, kHalf), CUDA_ERROR_INVALID_DEVICE);
}

TEST_F(MulticastObjects, BindingWaitsUntilAllDevicesHaveBeenAdded) {
  const CUmemGenericAllocationHandle object = NewObject();
  std::thread adds([&] {
    while (simCallCount("cuMulticastBindMem") < 3) std::this_thread::yield();
    cuMulticastAddDevice(object, 0);
  });
  EXPECT_EQ(cuMulticastBindMem(object, 0, memory_, 0, kHalf, 0), CUDA_SUCCESS);
  adds.join();
  EXPECT_EQ(cuMemRelease(object), CUDA_SUCCESS);
}

class PoolAccess : public SimTest {
 protected:
  static CUmemAccessDesc Of(int device, CUmemAccess_flags flags) {
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.location.id = device;
    access.flags = flags;
    return access;
  }
};

// The host's pool: the one whose access the only device can lose.
TEST_F(PoolAccess, TakenAwayItDoesNotWaitAndTellsWhoStillUsesIt) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_HOST;
  CUmemoryPool pool = nullptr;
  ASSERT_EQ(cuMemPoolCreate(&pool, &properties), CUDA_SUCCESS);
  const CUstream stream = NewStream();
  CUdeviceptr block = 0;
  ASSERT_EQ(cuMemAllocFromPoolAsync(&block, 4096, pool, stream), CUDA_SUCCESS);
  CUmemAccessDesc access = Of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  LaunchHash(stream, 1, kMillisecond, {{Word(block), 64}}, {});
  EXPECT_EQ(cuMemPoolSetAccess(pool, &access, 1), CUDA_SUCCESS);
  access = Of(0, CU_MEM_ACCESS_FLAGS_PROT_READ);
  EXPECT_EQ(cuMemPoolSetAccess(pool, &access, 1), CUDA_ERROR_NOT_SUPPORTED);
  EXPECT_EQ(simHazardCount(), 0U);
  access = Of(0, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  EXPECT_EQ(cuMemPoolSetAccess(pool, &access, 1), CUDA_SUCCESS);
  EXPECT_EQ(simPendingCount(nullptr), 1U);
  expected_hazards_ = 1;
  EXPECT_EQ(cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(cuMemFree(block), CUDA_SUCCESS);
  EXPECT_EQ(cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

TEST_F(PoolAccess, ADeviceKeepsThatToItsOwnMemory) {
  CUmemoryPool pool = nullptr;
  ASSERT_EQ(cuDeviceGetDefaultMemPool(&pool, 0), CUDA_SUCCESS);
  CUmemAccessDesc access = Of(0, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  EXPECT_EQ(cuMemPoolSetAccess(pool, &access, 1), CUDA_ERROR_INVALID_DEVICE);
  access = Of(99, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  EXPECT_EQ(cuMemPoolSetAccess(pool, &access, 1), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(cuMemPoolSetAccess(pool, &access, 0), CUDA_SUCCESS);
}

}  // namespace
}  // namespace cmp::sim
