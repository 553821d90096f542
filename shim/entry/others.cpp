// The interposed entry points of the driver that allocate what the pool does not serve: the real
// calls, noted.
#include "shim/lookup/entry_points.h"
#include "shim/service/service.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/submission.h"

CUresult Driver_cuMemAllocManaged(CUdeviceptr* pointer, size_t bytes, unsigned flags) {
  CMP_REAL(cuMemAllocManaged);
  const CUresult status = real->cuMemAllocManaged(pointer, bytes, flags);
  if (status == CUDA_SUCCESS) {
    cmp::AddRange(cmp::Visible::kManaged, *pointer, bytes, CMP_CALLER);
    cmp::MakeRoomForManaged(bytes);
  }
  return status;
}

CUresult Driver_cuMemAllocAsync(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  CMP_REAL(cuMemAllocAsync);
  const cmp::Submission submission(cmp::Explicit(stream));
  return real->cuMemAllocAsync(pointer, bytes, stream);
}

CUresult Driver_cuMemAllocAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  CMP_REAL(cuMemAllocAsync_ptsz);
  const cmp::Submission submission(cmp::PerThread(stream));
  return real->cuMemAllocAsync_ptsz(pointer, bytes, stream);
}

CUresult Driver_cuMemAllocFromPoolAsync(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                        CUstream stream) {
  CMP_REAL(cuMemAllocFromPoolAsync);
  const cmp::Submission submission(cmp::Explicit(stream));
  return real->cuMemAllocFromPoolAsync(pointer, bytes, pool, stream);
}

CUresult Driver_cuMemAllocFromPoolAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                             CUstream stream) {
  CMP_REAL(cuMemAllocFromPoolAsync_ptsz);
  const cmp::Submission submission(cmp::PerThread(stream));
  return real->cuMemAllocFromPoolAsync_ptsz(pointer, bytes, pool, stream);
}

CUresult Driver_cuMemCreate(void* handle, size_t bytes, const void* properties,
                            unsigned long long flags) {
  CMP_REAL(cuMemCreate);
  if (properties != nullptr) {
    const auto* memory = static_cast<const CUmemAllocationProp*>(properties);
    cmp::NotePlace(static_cast<int>(memory->type), memory->location, CMP_CALLER);
  }
  return real->cuMemCreate(handle, bytes, properties, flags);
}
