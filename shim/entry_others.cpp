// The interposed entry points of the driver that allocate what the pool does not serve. They are
// the real calls; where the device is out of memory, the pool's idle blocks make room first.
#include "shim/entry_driver.h"
#include "shim/service.h"
#include "shim/visible_memory.h"
#include "shim/work.h"

// `arguments` are those of the entry point, in parentheses.
#define CMP_WITH_RELEASES(name, arguments)                                         \
  const cmp::DriverCalls* real = cmp::RealDriver();                                \
  if (real == nullptr || real->name == nullptr) return CUDA_ERROR_NOT_INITIALIZED; \
  return cmp::WithReleases([&] { return real->name arguments; })

CUresult Driver_cuMemAllocManaged(CUdeviceptr* pointer, size_t bytes, unsigned flags) {
  const cmp::DriverCalls* real = cmp::RealDriver();
  if (real == nullptr) return CUDA_ERROR_NOT_INITIALIZED;
  const CUresult status =
      cmp::WithReleases([&] { return real->cuMemAllocManaged(pointer, bytes, flags); });
  if (status == CUDA_SUCCESS) {
    cmp::AddRange(cmp::Visible::kManaged, *pointer, bytes, CMP_CALLER);
  }
  return status;
}

CUresult Driver_cuMemAllocAsync(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  const cmp::Submission submission(cmp::Explicit(stream));
  CMP_WITH_RELEASES(cuMemAllocAsync, (pointer, bytes, stream));
}

CUresult Driver_cuMemAllocAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  const cmp::Submission submission(cmp::PerThread(stream));
  CMP_WITH_RELEASES(cuMemAllocAsync_ptsz, (pointer, bytes, stream));
}

CUresult Driver_cuMemAllocFromPoolAsync(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                        CUstream stream) {
  const cmp::Submission submission(cmp::Explicit(stream));
  CMP_WITH_RELEASES(cuMemAllocFromPoolAsync, (pointer, bytes, pool, stream));
}

CUresult Driver_cuMemAllocFromPoolAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                             CUstream stream) {
  const cmp::Submission submission(cmp::PerThread(stream));
  CMP_WITH_RELEASES(cuMemAllocFromPoolAsync_ptsz, (pointer, bytes, pool, stream));
}

CUresult Driver_cuMemCreate(void* handle, size_t bytes, const void* properties,
                            unsigned long long flags) {
  if (properties != nullptr) {
    const auto* memory = static_cast<const CUmemAllocationProp*>(properties);
    cmp::NotePlace(static_cast<int>(memory->type), memory->location, CMP_CALLER);
  }
  CMP_WITH_RELEASES(cuMemCreate, (handle, bytes, properties, flags));
}

CUresult Driver_cuArrayCreate_v2(void* array, const void* descriptor) {
  CMP_WITH_RELEASES(cuArrayCreate_v2, (array, descriptor));
}

CUresult Driver_cuArray3DCreate_v2(void* array, const void* descriptor) {
  CMP_WITH_RELEASES(cuArray3DCreate_v2, (array, descriptor));
}

CUresult Driver_cuMipmappedArrayCreate(void* array, const void* descriptor, unsigned levels) {
  CMP_WITH_RELEASES(cuMipmappedArrayCreate, (array, descriptor, levels));
}
