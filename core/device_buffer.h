// Owns a stretch of device memory: freed when the buffer goes, moved but never copied.
//
//   cmp::DeviceBuffer<float> buffer(n);                       // n floats, uninitialised
//   cudaMemcpy(buffer.data(), host, buffer.size_bytes(), cudaMemcpyHostToDevice);
//   Kernel<<<grid, block>>>(buffer.data(), buffer.size());
//
// Freeing waits for the GPU as CudaMemoryPool::Free does, so a buffer may go while a kernel that
// uses it still runs.
//
// Different buffers may be used by different threads at once; one buffer like any other object: by
// one thread at a time. A buffer may go on another thread than it was made on.
#ifndef CMP_CORE_DEVICE_BUFFER_H_
#define CMP_CORE_DEVICE_BUFFER_H_

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "core/device_allocator.h"

namespace cmp {

// T: the element, moved between host and device as bytes. Allocator: a stateless allocator of T,
// whose memory and pointer type the buffer uses.
template <typename T, typename Allocator = DeviceAllocator<T>>
class DeviceBuffer {
  using Traits = std::allocator_traits<Allocator>;

 public:
  static_assert(std::is_trivially_copyable_v<T>, "elements are copied to the device as bytes");
  static_assert(std::is_same_v<typename Traits::value_type, T>);
  static_assert(Traits::is_always_equal::value, "a buffer keeps no allocator");

  using value_type = T;
  using pointer = typename Traits::pointer;

  // Empty: data() is null, size() is 0, nothing is allocated.
  DeviceBuffer() noexcept = default;

  // `size` elements, uninitialised; empty for 0. Throws what Allocator::allocate throws:
  // std::bad_alloc without memory, std::bad_array_new_length when the bytes overflow.
  explicit DeviceBuffer(std::size_t size) {
    if (size == 0) return;
    Allocator allocator;
    data_ = Traits::allocate(allocator, size);
    size_ = size;
  }

  ~DeviceBuffer() { Free(); }

  // The other buffer is empty afterwards.
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  // Device memory; the host must not read or write through it.
  pointer data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }  // in elements
  std::size_t size_bytes() const noexcept { return size_ * sizeof(T); }
  bool empty() const noexcept { return size_ == 0; }

  // Gives the memory to the caller, who frees it (with Allocator, or for DeviceAllocator with
  // CudaMemoryPool::Free). The buffer is empty afterwards. Null if it was empty.
  [[nodiscard]] pointer release() noexcept {
    size_ = 0;
    return std::exchange(data_, pointer());
  }

  // Frees the memory now; the buffer is empty afterwards.
  void reset() noexcept {
    Free();
    data_ = pointer();
    size_ = 0;
  }

  void swap(DeviceBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  friend void swap(DeviceBuffer& left, DeviceBuffer& right) noexcept { left.swap(right); }

 private:
  void Free() noexcept {
    if (size_ == 0) return;
    Allocator allocator;
    Traits::deallocate(allocator, data_, size_);
  }

  pointer data_ = pointer();
  std::size_t size_ = 0;
};

}  // namespace cmp

#endif  // CMP_CORE_DEVICE_BUFFER_H_
