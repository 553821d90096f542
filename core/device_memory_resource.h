// The pool as a std::pmr::memory_resource, for code that takes its memory from one at run time.
//
//   std::pmr::memory_resource* resource = cmp::device_memory_resource();
//   void* p = resource->allocate(bytes);
//   resource->deallocate(p, bytes);
//
// What it returns is device memory. Do not give it to the containers of std::pmr, nor to the pool
// resources of the standard library: these write to the memory from the host.
//
// All functions are thread-safe.
#ifndef CMP_CORE_DEVICE_MEMORY_RESOURCE_H_
#define CMP_CORE_DEVICE_MEMORY_RESOURCE_H_

#include <cstddef>
#include <memory_resource>
#include <new>

#include "core/cuda_memory_pool.h"

namespace cmp {

class DeviceMemoryResource : public std::pmr::memory_resource {
 public:
  // The strictest alignment that can be asked for, in bytes.
  static constexpr std::size_t kMaxAlignment = 256;

 private:
  // `bytes` of device memory of the calling thread's current context, its contents undefined. For 0
  // bytes the smallest block, so that every pointer is a different one.
  // Throws std::bad_alloc when the pool has no memory, and for an alignment over kMaxAlignment.
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    if (alignment > kMaxAlignment) throw std::bad_alloc();
    void* memory = CudaMemoryPool::Instance().Alloc(bytes == 0 ? 1 : bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
  }

  // Waits for the GPU as CudaMemoryPool::Free does.
  void do_deallocate(void* memory, std::size_t bytes, std::size_t) override {
    CudaMemoryPool::Instance().Free(memory, bytes);
  }

  // All are equal: there is one pool.
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return dynamic_cast<const DeviceMemoryResource*>(&other) != nullptr;
  }
};

// The process's resource; never destroyed, so static objects may use it until the very end.
inline DeviceMemoryResource* device_memory_resource() noexcept {
  alignas(DeviceMemoryResource) static unsigned char storage[sizeof(DeviceMemoryResource)];
  static DeviceMemoryResource* const resource = new (storage) DeviceMemoryResource;
  return resource;
}

}  // namespace cmp

#endif  // CMP_CORE_DEVICE_MEMORY_RESOURCE_H_
