// A C++ allocator for device memory, over the process's CudaMemoryPool.
//
//   cmp::DeviceAllocator<float> allocator;
//   float* p = allocator.allocate(n);      // n floats in device memory, uninitialised
//   allocator.deallocate(p, n);            // waits as CudaMemoryPool::Free does
//
// For containers that keep their elements in device memory: cmp::DeviceBuffer, or thrust, which
// tells device memory from host memory by the pointer's type and so needs the second parameter:
//
//   thrust::device_vector<float, cmp::DeviceAllocator<float, thrust::device_ptr<float>>> v(n);
//
// NOT for host containers such as std::vector: these construct their elements on the host, in
// memory that the host cannot touch. With the default pointer type such a container does not
// compile as soon as it constructs an element.
//
// Allocators have no state; all of them are equal, so memory of one may be given back by another,
// of any element type, on any thread. All functions are thread-safe. This header includes nothing
// of CUDA or thrust.
#ifndef CMP_CORE_DEVICE_ALLOCATOR_H_
#define CMP_CORE_DEVICE_ALLOCATOR_H_

#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

#include "core/cuda_memory_pool.h"

namespace cmp {

// T: the element. Pointer: what allocate returns; T*, or a class that is made of a T* explicitly
// and gives it back through operator->, as thrust::device_ptr<T>.
template <typename T, typename Pointer = T*>
class DeviceAllocator {
 public:
  static_assert(std::is_object_v<T> && !std::is_const_v<T> && !std::is_volatile_v<T>);
  static_assert(alignof(T) <= 256, "the pool aligns to 256 bytes");

  using value_type = T;
  using pointer = Pointer;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using is_always_equal = std::true_type;
  using propagate_on_container_move_assignment = std::true_type;
  template <typename U>
  struct rebind {
    using other = DeviceAllocator<U, typename std::pointer_traits<Pointer>::template rebind<U>>;
  };

  constexpr DeviceAllocator() noexcept = default;
  template <typename U, typename UPointer>
  constexpr DeviceAllocator(const DeviceAllocator<U, UPointer>&) noexcept {}

  // Device memory of the calling thread's current context for `count` elements, aligned to 256
  // bytes or better, its contents undefined; a null pointer for 0 elements.
  // Throws std::bad_array_new_length when the bytes of `count` elements are more than a size_t
  // holds, std::bad_alloc when the pool has no memory (CudaMemoryPool::last_status() says why).
  [[nodiscard]] pointer allocate(std::size_t count) {
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) {
      throw std::bad_array_new_length();
    }
    if (count == 0) return pointer(static_cast<T*>(nullptr));
    void* memory = CudaMemoryPool::Instance().Alloc(count * sizeof(T));
    if (memory == nullptr) throw std::bad_alloc();
    return pointer(static_cast<T*>(memory));
  }

  // Gives back what allocate(count) of any DeviceAllocator returned. Waits for the GPU as
  // CudaMemoryPool::Free does. A pointer that is not from the pool is reported there and ignored.
  void deallocate(pointer memory, std::size_t count) noexcept {
    CudaMemoryPool::Instance().Free(std::to_address(memory), count * sizeof(T));
  }

  // Elements are not constructed from the host. Only there to say so to who tries.
  template <typename U, typename... Arguments>
  requires std::is_pointer_v<Pointer>
  void construct(U*, Arguments&&...) {
    static_assert(sizeof(U) == 0, "device memory: the host cannot construct elements in it");
  }
};

template <typename T, typename TPointer, typename U, typename UPointer>
constexpr bool operator==(const DeviceAllocator<T, TPointer>&,
                          const DeviceAllocator<U, UPointer>&) noexcept {
  return true;
}

}  // namespace cmp

#endif  // CMP_CORE_DEVICE_ALLOCATOR_H_
