// cmp::DeviceAllocator: device memory through the interface that C++ containers use. For host
// containers it is not meant: see its header, and thrust_device_vector.cpp for thrust.
#include "core/device_allocator.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <memory>
#include <vector>

// A container of one's own that leaves memory to its allocator and elements to the device.
template <typename T, typename Allocator = cmp::DeviceAllocator<T>>
class DeviceStack {
  using Traits = std::allocator_traits<Allocator>;

 public:
  explicit DeviceStack(std::size_t capacity)
      : data_(Traits::allocate(allocator_, capacity)), capacity_(capacity) {}
  ~DeviceStack() { Traits::deallocate(allocator_, data_, capacity_); }
  DeviceStack(const DeviceStack&) = delete;
  DeviceStack& operator=(const DeviceStack&) = delete;

  bool Push(const std::vector<T>& elements) {
    if (elements.size() > capacity_ - size_) return false;
    const cudaError_t status = cudaMemcpy(data_ + size_, elements.data(),
                                          elements.size() * sizeof(T), cudaMemcpyHostToDevice);
    if (status != cudaSuccess) return false;
    size_ += elements.size();
    return true;
  }
  std::vector<T> Pop(std::size_t count) {
    std::vector<T> elements(count);
    size_ -= count;
    cudaMemcpy(elements.data(), data_ + size_, count * sizeof(T), cudaMemcpyDeviceToHost);
    return elements;
  }

 private:
  Allocator allocator_;
  typename Traits::pointer data_;
  std::size_t capacity_;
  std::size_t size_ = 0;
};

int main() {
  DeviceStack<int> stack(1000);
  if (!stack.Push({1, 2, 3}) || !stack.Push({4, 5})) return 1;
  const bool right = stack.Pop(3) == std::vector<int>{3, 4, 5};
  std::printf("the stack gave back %s\n", right ? "3 4 5" : "something else");
  return right ? 0 : 1;
}
