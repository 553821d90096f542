// The pool as a memory resource of RMM, for programs that give RMM's containers and adaptors, cuDF
// and others one:
//
//   cmp::RmmResource resource;
//   rmm::mr::set_current_device_resource(resource);         // all that follows, on this device
//   rmm::device_uvector<int> numbers(n, stream, resource);  // or one container
//
// It is a resource as RMM's own, of the concept cuda::mr::resource_with<..., device_accessible>:
// copyable, without state, all of them equal. For RMM from 26.06 on; in older releases resources
// are classes derived from one of theirs.
//
// Memory is of the calling thread's current context, as that of rmm::mr::cuda_memory_resource. It
// may be used on any stream at once. deallocate() does not wait: what it gives back is handed
// out again, to whatever stream, only when the GPU is done with all work that its context had been
// given by then (CudaMemoryPool::FreeWithoutWait), so work of other streams need not be made to
// wait first.
//
// All functions are thread-safe. Includes headers of RMM; link what RMM asks for, and cmp::cmp.
#ifndef CMP_CORE_RMM_RESOURCE_H_
#define CMP_CORE_RMM_RESOURCE_H_

#include <cstddef>
#include <cuda/memory_resource>
#include <cuda/stream_ref>
#include <rmm/error.hpp>
#include <string>

#include "core/cuda_memory_pool.h"

namespace cmp {

class RmmResource {
 public:
  // The strictest alignment that can be asked for, in bytes; the default of RMM's resources.
  static constexpr std::size_t kMaxAlignment = 256;

  // `bytes` of device memory, its contents undefined; nullptr for none. Waits for the GPU only
  // where memory is short. Throws rmm::out_of_memory without memory, rmm::bad_alloc for another
  // failure and for an alignment over kMaxAlignment.
  [[nodiscard]] void* allocate(cuda::stream_ref, std::size_t bytes,
                               std::size_t alignment = kMaxAlignment) {
    return allocate_sync(bytes, alignment);
  }
  [[nodiscard]] void* allocate_sync(std::size_t bytes, std::size_t alignment = kMaxAlignment) {
    if (alignment > kMaxAlignment) throw rmm::bad_alloc("cmp: alignment over 256 bytes");
    if (bytes == 0) return nullptr;
    CudaMemoryPool& pool = CudaMemoryPool::Instance();
    void* memory = pool.Alloc(bytes);
    if (memory != nullptr) return memory;
    constexpr int kOutOfMemory = 2;  // CUDA_ERROR_OUT_OF_MEMORY
    const std::string why = "cmp: no memory for " + std::to_string(bytes) + " bytes (CUresult " +
                            std::to_string(pool.last_status()) + ")";
    if (pool.last_status() == kOutOfMemory) throw rmm::out_of_memory(why);
    throw rmm::bad_alloc(why);
  }

  // Gives back what either allocated, and waits for nothing.
  void deallocate(cuda::stream_ref, void* memory, std::size_t,
                  std::size_t = kMaxAlignment) noexcept {
    CudaMemoryPool::Instance().FreeWithoutWait(memory);
  }
  // The same, and waits as CudaMemoryPool::Free does.
  void deallocate_sync(void* memory, std::size_t bytes, std::size_t = kMaxAlignment) noexcept {
    CudaMemoryPool::Instance().Free(memory, bytes);
  }

  friend bool operator==(const RmmResource&, const RmmResource&) noexcept { return true; }
  friend void get_property(const RmmResource&, cuda::mr::device_accessible) noexcept {}
};

static_assert(cuda::mr::resource_with<RmmResource, cuda::mr::device_accessible>);

}  // namespace cmp

#endif  // CMP_CORE_RMM_RESOURCE_H_
