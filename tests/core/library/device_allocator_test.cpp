#include "core/device_allocator.h"

#include <cuda.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <limits>
#include <memory>
#include <type_traits>

namespace cmp {
namespace {

// A pointer class as thrust::device_ptr is one.
template <typename T>
class TaggedPointer {
 public:
  using element_type = T;
  TaggedPointer() = default;
  explicit TaggedPointer(T* pointer) : pointer_(pointer) {}
  T* operator->() const { return pointer_; }

 private:
  T* pointer_ = nullptr;
};

// ---- The requirements of the C++ standard, [allocator.requirements], as far as types go.

using Allocator = DeviceAllocator<float>;
using Traits = std::allocator_traits<Allocator>;

static_assert(std::is_same_v<Traits::value_type, float>);
static_assert(std::is_same_v<Traits::pointer, float*>);
static_assert(std::is_same_v<Traits::const_pointer, const float*>);
static_assert(std::is_same_v<Traits::void_pointer, void*>);
static_assert(std::is_same_v<Traits::rebind_alloc<double>, DeviceAllocator<double>>);
static_assert(std::is_same_v<Traits::rebind_alloc<double>::rebind<float>::other, Allocator>);
static_assert(Traits::is_always_equal::value);
static_assert(std::is_nothrow_default_constructible_v<Allocator>);
static_assert(std::is_nothrow_copy_constructible_v<Allocator>);
static_assert(std::is_nothrow_copy_assignable_v<Allocator>);
static_assert(std::is_nothrow_constructible_v<Allocator, const DeviceAllocator<int>&>);
static_assert(std::is_empty_v<Allocator>);
static_assert(noexcept(Allocator() == Allocator()) && noexcept(Allocator() ==
                                                               DeviceAllocator<int>()));

using Tagged = DeviceAllocator<float, TaggedPointer<float>>;
static_assert(std::is_same_v<std::allocator_traits<Tagged>::pointer, TaggedPointer<float>>);
static_assert(std::is_same_v<std::allocator_traits<Tagged>::rebind_alloc<int>,
                             DeviceAllocator<int, TaggedPointer<int>>>);

TEST(DeviceAllocatorTest, AllocatesAndFrees) {
  const CudaMemoryPool& pool = CudaMemoryPool::Instance();
  const uint64_t live = pool.Statistics().live_blocks;
  Allocator allocator;
  float* p = Traits::allocate(allocator, 1000);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 256, 0u);
  EXPECT_EQ(cuMemsetD32(reinterpret_cast<CUdeviceptr>(p), 0, 1000), CUDA_SUCCESS);
  EXPECT_EQ(pool.Statistics().live_blocks, live + 1);
  Traits::deallocate(allocator, p, 1000);
  EXPECT_EQ(pool.Statistics().live_blocks, live);
}

TEST(DeviceAllocatorTest, AllAreEqualAndFreeEachOthersMemory) {
  DeviceAllocator<int> ints;
  DeviceAllocator<int> others(DeviceAllocator<double>{});
  EXPECT_TRUE(ints == others);
  EXPECT_FALSE(ints != others);
  EXPECT_TRUE(ints == DeviceAllocator<char>());
  EXPECT_FALSE(ints != DeviceAllocator<char>());
  int* p = ints.allocate(10);
  others.deallocate(p, 10);
}

TEST(DeviceAllocatorTest, NoElementsAreANullPointer) {
  Allocator allocator;
  float* p = allocator.allocate(0);
  EXPECT_EQ(p, nullptr);
  allocator.deallocate(p, 0);
}

TEST(DeviceAllocatorTest, BytesThatOverflowAreABadArrayNewLength) {
  constexpr size_t kMost = std::numeric_limits<size_t>::max();
  EXPECT_THROW((void)DeviceAllocator<double>().allocate(kMost / 8 + 1), std::bad_array_new_length);
  EXPECT_THROW((void)DeviceAllocator<double>().allocate(kMost), std::bad_array_new_length);
}

TEST(DeviceAllocatorTest, NoMemoryIsABadAlloc) {
  constexpr size_t kMost = std::numeric_limits<size_t>::max();
  for (const size_t count : {size_t{1} << 42, kMost / 8}) {
    try {
      (void)DeviceAllocator<double>().allocate(count);
      ADD_FAILURE() << count;
    } catch (const std::bad_array_new_length&) {
      ADD_FAILURE() << "the bytes of " << count << " do fit a size_t";
    } catch (const std::bad_alloc&) {
      EXPECT_EQ(CudaMemoryPool::Instance().last_status(), CUDA_ERROR_OUT_OF_MEMORY);
    }
  }
}

TEST(DeviceAllocatorTest, PointersMayBeOfAClass) {
  Tagged allocator;
  TaggedPointer<float> p = allocator.allocate(100);
  ASSERT_NE(p.operator->(), nullptr);
  DeviceAllocator<float>().deallocate(p.operator->(), 100);
  p = allocator.allocate(0);
  EXPECT_EQ(p.operator->(), nullptr);
  allocator.deallocate(p, 0);
  p = allocator.allocate(100);
  allocator.deallocate(p, 100);
}

}  // namespace
}  // namespace cmp
