// The resource of RMM, with RMM's own headers and library, over the simulated driver.
#include "core/rmm_resource.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <rmm/device_uvector.hpp>
#include <rmm/mr/failure_callback_resource_adaptor.hpp>
#include <rmm/mr/limiting_resource_adaptor.hpp>
#include <rmm/mr/per_device_resource.hpp>
#include <rmm/mr/pool_memory_resource.hpp>
#include <rmm/mr/statistics_resource_adaptor.hpp>
#include <rmm/resource_ref.hpp>

#include "sim.h"

namespace cmp {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

class RmmResourceTest : public testing::Test {
 protected:
  RmmResourceTest() {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    CudaMemoryPool::Instance().ReleaseThreadCaches();
    simReset();
  }
  ~RmmResourceTest() override {
    EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
    EXPECT_EQ(CudaMemoryPool::Instance().Statistics().live_blocks, 0u);
    EXPECT_EQ(simHazardCount(), 0u) << simHazardReport();
  }
  static uint64_t RealCalls() { return simCallCount("cuMemAlloc_v2"); }

  cudaStream_t stream_ = nullptr;
  RmmResource resource_;
};

TEST_F(RmmResourceTest, ItIsAResourceAsRmmsOwn) {
  cuda::mr::any_resource<cuda::mr::device_accessible> owned{resource_};
  rmm::device_async_resource_ref ref{owned};
  void* p = ref.allocate(cuda::stream_ref{stream_}, 1000, 256);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(cuMemsetD8(reinterpret_cast<CUdeviceptr>(p), 0, 1000), CUDA_SUCCESS);
  ref.deallocate(cuda::stream_ref{stream_}, p, 1000, 256);
  p = ref.allocate_sync(1000, 256);
  ref.deallocate_sync(p, 1000, 256);
  EXPECT_EQ(resource_, RmmResource());
  EXPECT_FALSE(resource_ != RmmResource());
}

TEST_F(RmmResourceTest, ContainersReuseItsMemoryWithoutARealCall) {
  const void* first = rmm::device_uvector<int>(1000, stream_, resource_).data();
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  const uint64_t real = RealCalls();
  for (int i = 0; i < 10; ++i) {
    const rmm::device_uvector<int> numbers(1000, stream_, resource_);
    EXPECT_EQ(numbers.data(), first);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  }
  EXPECT_EQ(RealCalls(), real);
}

TEST_F(RmmResourceTest, WhatIsPendingOnAnotherStreamKeepsTheMemory) {
  void* p = resource_.allocate(cuda::stream_ref{stream_}, 4 * kMiB);
  simNoteAlloc(p, 4 * kMiB);
  cudaStream_t other = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
  const SimRange written = {p, 4 * kMiB};
  SimWork work = {};
  work.id = 1;
  work.writes = &written;
  work.write_count = 1;
  work.spin_until_id = 2;
  ASSERT_EQ(simLaunch(other, &work), CUDA_SUCCESS);
  simNoteFree(p);
  resource_.deallocate(cuda::stream_ref{stream_}, p, 4 * kMiB);
  EXPECT_NE(simPendingCount(nullptr), 0u) << "it has not waited";
  void* q = resource_.allocate(cuda::stream_ref{stream_}, 4 * kMiB);
  EXPECT_NE(q, p);
  resource_.deallocate(cuda::stream_ref{stream_}, q, 4 * kMiB);
  work.id = 2;
  work.spin_until_id = 0;
  work.write_count = 0;
  ASSERT_EQ(simLaunch(stream_, &work), CUDA_SUCCESS);
  ASSERT_EQ(cudaStreamDestroy(other), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

TEST_F(RmmResourceTest, AlignsTo256AndRefusesMore) {
  for (size_t alignment = 1; alignment <= 256; alignment *= 2) {
    void* p = resource_.allocate_sync(300, alignment);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % alignment, 0u);
    resource_.deallocate_sync(p, 300, alignment);
  }
  EXPECT_THROW((void)resource_.allocate_sync(300, 512), rmm::bad_alloc);
}

TEST_F(RmmResourceTest, NoBytesAreNoMemory) {
  void* p = resource_.allocate_sync(0);
  EXPECT_EQ(p, nullptr);
  resource_.deallocate_sync(p, 0);
  EXPECT_EQ(rmm::device_uvector<int>(0, stream_, resource_).size(), 0u);
}

// By the exceptions that RMM's adaptors look for.
TEST_F(RmmResourceTest, WithoutMemoryItIsOutOfMemory) {
  EXPECT_THROW((void)resource_.allocate_sync(size_t{1} << 45), rmm::out_of_memory);
  size_t asked = 0;
  rmm::mr::failure_callback_resource_adaptor<rmm::out_of_memory> calls_back(
      resource_,
      [](size_t bytes, void* argument) {
        *static_cast<size_t*>(argument) = bytes;
        return false;
      },
      &asked);
  EXPECT_THROW((void)calls_back.allocate(cuda::stream_ref{stream_}, size_t{1} << 45, 256),
               rmm::out_of_memory);
  EXPECT_EQ(asked, size_t{1} << 45);
}

TEST_F(RmmResourceTest, RmmsAdaptorsStandOnIt) {
  rmm::mr::statistics_resource_adaptor counted(resource_);
  rmm::mr::limiting_resource_adaptor limited(counted, 8 * kMiB);
  {
    const rmm::device_uvector<char> some(6 * kMiB, stream_, limited);
    EXPECT_EQ(counted.get_bytes_counter().value, static_cast<int64_t>(6 * kMiB));
    EXPECT_THROW(rmm::device_uvector<char>(6 * kMiB, stream_, limited), rmm::out_of_memory);
  }
  EXPECT_EQ(counted.get_bytes_counter().value, 0);
}

TEST_F(RmmResourceTest, ItIsTheResourceOfTheDevice) {
  const auto before = rmm::mr::set_current_device_resource(resource_);
  const uint64_t requests = CudaMemoryPool::Instance().Statistics().requests;
  { const rmm::device_uvector<int> numbers(1000, stream_); }
  EXPECT_EQ(CudaMemoryPool::Instance().Statistics().requests, requests + 1);
  rmm::mr::set_current_device_resource(before);
}

}  // namespace
}  // namespace cmp
