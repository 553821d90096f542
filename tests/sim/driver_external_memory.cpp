// Driver entry points for memory that another API allocated, and that is imported here.
//
// A file descriptor stands for it: any file of the program's whose pages can be mapped. It counts
// against no device: who allocated it paid for it.
#include <sys/stat.h>
#include <unistd.h>

#include "driver_entry.h"

using namespace cmp::sim;

extern "C" {

// On success the descriptor is the driver's.
CUresult cuImportExternalMemory(CUexternalMemory* memory,
                                const CUDA_EXTERNAL_MEMORY_HANDLE_DESC* description) {
  return Enter("cuImportExternalMemory", [&](Simulation& sim, Lock&) -> CUresult {
    if (memory == nullptr || description == nullptr || description->size == 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    if (description->type != CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    struct stat status {};
    if (fstat(description->handle.fd, &status) != 0 ||
        static_cast<unsigned long long>(status.st_size) < description->size) {
      return CUDA_ERROR_OPERATING_SYSTEM;
    }
    auto imported = std::make_unique<ExternalMemory>();
    imported->file = description->handle.fd;
    imported->bytes = description->size;
    *memory = sim.external.Add(std::move(imported));
    return CUDA_SUCCESS;
  });
}

// The program frees the pointer with cuMemFree.
CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr* pointer, CUexternalMemory memory,
                                         const CUDA_EXTERNAL_MEMORY_BUFFER_DESC* description) {
  return Enter("cuExternalMemoryGetMappedBuffer", [&](Simulation& sim, Lock&) -> CUresult {
    const ExternalMemory* found = sim.external.Find(memory);
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (pointer == nullptr || description == nullptr || description->flags != 0 ||
        description->size == 0 || description->offset + description->size > found->bytes) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const Allocation* buffer =
        sim.allocations.AddExternal(*context, found->file, description->offset, description->size);
    if (buffer == nullptr) return CUDA_ERROR_OPERATING_SYSTEM;
    *pointer = buffer->base;
    return CUDA_SUCCESS;
  });
}

// Buffers stay.
CUresult cuDestroyExternalMemory(CUexternalMemory memory) {
  return Enter("cuDestroyExternalMemory", [&](Simulation& sim, Lock&) -> CUresult {
    const std::unique_ptr<ExternalMemory> removed = sim.external.Remove(memory);
    if (removed == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    close(removed->file);
    return CUDA_SUCCESS;
  });
}

}  // extern "C"
