#include "core/device_memory_resource.h"

#include <cuda.h>
#include <gtest/gtest.h>

#include <new>

namespace cmp {
namespace {

class DeviceMemoryResourceTest : public testing::Test {
 protected:
  uint64_t Live() const { return CudaMemoryPool::Instance().Statistics().live_blocks - before_; }
  std::pmr::memory_resource* resource_ = device_memory_resource();

 private:
  const uint64_t before_ = CudaMemoryPool::Instance().Statistics().live_blocks;
};

TEST_F(DeviceMemoryResourceTest, AllocatesAndFrees) {
  void* p = resource_->allocate(1000);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(cuMemsetD8(reinterpret_cast<CUdeviceptr>(p), 0, 1000), CUDA_SUCCESS);
  EXPECT_EQ(Live(), 1u);
  resource_->deallocate(p, 1000);
  EXPECT_EQ(Live(), 0u);
}

TEST_F(DeviceMemoryResourceTest, AlignsUpTo256) {
  for (size_t alignment = 1; alignment <= 256; alignment *= 2) {
    void* pointers[3];
    for (void*& p : pointers) {
      p = resource_->allocate(300, alignment);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % alignment, 0u);
    }
    for (void* p : pointers) resource_->deallocate(p, 300, alignment);
  }
}

TEST_F(DeviceMemoryResourceTest, AStricterAlignmentIsABadAlloc) {
  for (size_t alignment = 512; alignment <= size_t{1} << 30; alignment *= 8) {
    EXPECT_THROW((void)resource_->allocate(100, alignment), std::bad_alloc);
  }
  EXPECT_EQ(Live(), 0u);
}

TEST_F(DeviceMemoryResourceTest, NoMemoryIsABadAlloc) {
  EXPECT_THROW((void)resource_->allocate(size_t{1} << 45), std::bad_alloc);
  volatile size_t impossible = ~size_t{0};  // the compiler would warn of the constant
  EXPECT_THROW((void)resource_->allocate(impossible), std::bad_alloc);
}

TEST_F(DeviceMemoryResourceTest, NoBytesAreDistinctPointers) {
  void* first = resource_->allocate(0);
  void* second = resource_->allocate(0);
  EXPECT_NE(first, nullptr);
  EXPECT_NE(first, second);
  resource_->deallocate(first, 0);
  resource_->deallocate(second, 0);
  EXPECT_EQ(Live(), 0u);
}

TEST_F(DeviceMemoryResourceTest, AllAreEqualAndNoOtherKindIs) {
  DeviceMemoryResource own;
  EXPECT_EQ(device_memory_resource(), device_memory_resource());
  EXPECT_TRUE(own.is_equal(*resource_));
  EXPECT_TRUE(own == *resource_);
  EXPECT_FALSE(own.is_equal(*std::pmr::new_delete_resource()));
  void* p = own.allocate(100);
  resource_->deallocate(p, 100);
  EXPECT_EQ(Live(), 0u);
}

}  // namespace
}  // namespace cmp
