#include "core/device_buffer.h"

#include <cuda.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <memory>
#include <new>
#include <utility>

namespace cmp {
namespace {

static_assert(!std::is_copy_constructible_v<DeviceBuffer<int>>);
static_assert(!std::is_copy_assignable_v<DeviceBuffer<int>>);
static_assert(std::is_nothrow_move_constructible_v<DeviceBuffer<int>>);
static_assert(std::is_nothrow_move_assignable_v<DeviceBuffer<int>>);
static_assert(std::is_nothrow_swappable_v<DeviceBuffer<int>>);
static_assert(!std::is_convertible_v<size_t, DeviceBuffer<int>>);

class DeviceBufferTest : public testing::Test {
 protected:
  uint64_t Live() const { return CudaMemoryPool::Instance().Statistics().live_blocks - before_; }

 private:
  const uint64_t before_ = CudaMemoryPool::Instance().Statistics().live_blocks;
};

TEST_F(DeviceBufferTest, OwnsItsMemory) {
  {
    const DeviceBuffer<double> buffer(100);
    EXPECT_NE(buffer.data(), nullptr);
    EXPECT_EQ(buffer.size(), 100u);
    EXPECT_EQ(buffer.size_bytes(), 800u);
    EXPECT_FALSE(buffer.empty());
    EXPECT_EQ(cuMemsetD8(reinterpret_cast<CUdeviceptr>(buffer.data()), 0, buffer.size_bytes()),
              CUDA_SUCCESS);
    EXPECT_EQ(Live(), 1u);
  }
  EXPECT_EQ(Live(), 0u);
}

TEST_F(DeviceBufferTest, EmptyBuffersHaveNothing) {
  const DeviceBuffer<int> none;
  const DeviceBuffer<int> zero(0);
  for (const DeviceBuffer<int>* buffer : {&none, &zero}) {
    EXPECT_EQ(buffer->data(), nullptr);
    EXPECT_EQ(buffer->size(), 0u);
    EXPECT_EQ(buffer->size_bytes(), 0u);
    EXPECT_TRUE(buffer->empty());
  }
  EXPECT_EQ(Live(), 0u);
}

TEST_F(DeviceBufferTest, MovesHandTheMemoryOver) {
  DeviceBuffer<int> first(10);
  const int* data = first.data();
  DeviceBuffer<int> second(std::move(first));
  EXPECT_TRUE(first.empty());
  EXPECT_EQ(first.data(), nullptr);
  EXPECT_EQ(second.data(), data);
  EXPECT_EQ(second.size(), 10u);
  DeviceBuffer<int> third(20);
  third = std::move(second);
  EXPECT_EQ(Live(), 1u) << "what third had must be freed";
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size(), 10u);
  DeviceBuffer<int>& itself = third;
  third = std::move(itself);
  EXPECT_EQ(third.data(), data);
  third = DeviceBuffer<int>();
  EXPECT_EQ(Live(), 0u);
}

TEST_F(DeviceBufferTest, ReleaseGivesTheMemoryAway) {
  DeviceBuffer<int> buffer(10);
  int* data = buffer.data();
  EXPECT_EQ(buffer.release(), data);
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.release(), nullptr);
  EXPECT_EQ(Live(), 1u);
  EXPECT_TRUE(CudaMemoryPool::Instance().Free(data));
}

TEST_F(DeviceBufferTest, ResetFreesNow) {
  DeviceBuffer<int> buffer(10);
  buffer.reset();
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(Live(), 0u);
  buffer.reset();
}

TEST_F(DeviceBufferTest, Swaps) {
  DeviceBuffer<int> left(10);
  DeviceBuffer<int> right;
  const int* data = left.data();
  left.swap(right);
  EXPECT_TRUE(left.empty());
  EXPECT_EQ(right.data(), data);
  swap(left, right);
  EXPECT_EQ(left.data(), data);
  EXPECT_EQ(left.size(), 10u);
  EXPECT_TRUE(right.empty());
}

TEST_F(DeviceBufferTest, FailuresThrowAndLeaveNothing) {
  EXPECT_THROW(DeviceBuffer<double>(size_t{1} << 42), std::bad_alloc);
  EXPECT_THROW(DeviceBuffer<double>(~size_t{0}), std::bad_array_new_length);
  EXPECT_EQ(Live(), 0u);
}

TEST_F(DeviceBufferTest, TakesAnotherAllocator) {
  DeviceBuffer<int, std::allocator<int>> buffer(10);
  buffer.data()[9] = 1;  // this one is on the host
  EXPECT_EQ(Live(), 0u);
}

}  // namespace
}  // namespace cmp
