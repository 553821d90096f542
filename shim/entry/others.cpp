// The interposed entry points of the driver that allocate what the pool does not serve, and those
// about the pools of the driver's own that do: the real calls, noted.
#include "shim/entry/process.h"
#include "shim/lookup/entry_points.h"
#include "shim/service/kept_pools.h"
#include "shim/service/service.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/owed.h"
#include "shim/work/submission.h"

namespace {

// `bytes` were allocated in the order of `stream`, from `pool` or the current one, if that is the
// status.
CUresult AllocatedInOrder(CUresult status, CUstream stream, CUmemoryPool pool, size_t bytes) {
  if (status != CUDA_SUCCESS || cmp::t_inside_real != 0) return status;
  if (cmp::g_async_use.load(std::memory_order_acquire) == cmp::AsyncUse::kUnknown) [[unlikely]] {
    if (const cmp::Driver* driver = cmp::LoadedDriver(); driver != nullptr) {
      cmp::Pool* started = cmp::StartedPool();
      cmp::CudaIsInitialised(*driver);
      cmp::DecideAsyncUse(started);
    }
  }
  if (cmp::g_async_use.load(std::memory_order_relaxed) > cmp::AsyncUse::kLeftAlone) {
    cmp::NoteAllocatedInOrder(stream, pool, bytes);
  }
  return status;
}

}  // namespace

CUresult Driver_cuMemAllocManaged(CUdeviceptr* pointer, size_t bytes, unsigned flags) {
  CMP_REAL(cuMemAllocManaged);
  const CUresult status = real->cuMemAllocManaged(pointer, bytes, flags);
  if (status == CUDA_SUCCESS) {
    cmp::AddRange(cmp::Visible::kManaged, *pointer, bytes, CMP_CALLER);
    cmp::MakeRoomForManaged(bytes);
    cmp::ReleaseKept(cmp::kAllDevices);
  }
  return status;
}

CUresult Driver_cuMemAllocAsync(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  CMP_REAL(cuMemAllocAsync);
  const cmp::Submission submission(cmp::Explicit(stream));
  return AllocatedInOrder(real->cuMemAllocAsync(pointer, bytes, stream), stream, nullptr, bytes);
}

CUresult Driver_cuMemAllocAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  CMP_REAL(cuMemAllocAsync_ptsz);
  const cmp::Submission submission(cmp::PerThread(stream));
  return AllocatedInOrder(real->cuMemAllocAsync_ptsz(pointer, bytes, stream), stream, nullptr,
                          bytes);
}

CUresult Driver_cuMemAllocFromPoolAsync(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                        CUstream stream) {
  CMP_REAL(cuMemAllocFromPoolAsync);
  const cmp::Submission submission(cmp::Explicit(stream));
  return AllocatedInOrder(real->cuMemAllocFromPoolAsync(pointer, bytes, pool, stream), stream, pool,
                          bytes);
}

CUresult Driver_cuMemAllocFromPoolAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                             CUstream stream) {
  CMP_REAL(cuMemAllocFromPoolAsync_ptsz);
  const cmp::Submission submission(cmp::PerThread(stream));
  return AllocatedInOrder(real->cuMemAllocFromPoolAsync_ptsz(pointer, bytes, pool, stream), stream,
                          pool, bytes);
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

// ---- Pools

CUresult Driver_cuMemPoolDestroy(CUmemoryPool pool) {
  CMP_REAL(cuMemPoolDestroy);
  cmp::PayBeforeDestruction();
  cmp::PoolInHand in_hand(pool);
  in_hand.GiveBack();  // while something of it is in use it may stay, and nobody could trim it
  const CUresult status = real->cuMemPoolDestroy(pool);
  if (status == CUDA_SUCCESS) in_hand.Forget();
  return status;
}

// What a pool keeps for us alone it does not reserve: it goes before the driver is asked. And the
// threshold is the program's, who left it at 0.
CUresult Driver_cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute,
                                      void* value) {
  CMP_REAL(cuMemPoolGetAttribute);
  cmp::PoolInHand in_hand(pool);
  if (attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) in_hand.GiveBack();
  const CUresult status = real->cuMemPoolGetAttribute(pool, attribute, value);
  if (status == CUDA_SUCCESS && attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD &&
      in_hand.raised()) {
    *static_cast<cuuint64_t*>(value) = 0;
  }
  return status;
}

CUresult Driver_cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute,
                                      void* value) {
  CMP_REAL(cuMemPoolSetAttribute);
  cmp::PoolInHand in_hand(pool);
  // What it kept for us would be its own affair from then on, or the most that it reserved.
  if (attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD ||
      attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) {
    in_hand.GiveBack();
  }
  const CUresult status = real->cuMemPoolSetAttribute(pool, attribute, value);
  if (status == CUDA_SUCCESS && attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) {
    in_hand.SetByTheProgram();
  }
  return status;
}

CUresult Driver_cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool) {
  CMP_REAL(cuDeviceSetMemPool);
  const CUresult status = real->cuDeviceSetMemPool(device, pool);
  cmp::CurrentPoolsChange();
  return status;
}

CUresult Driver_cuMemSetMemPool(void* location, int type, CUmemoryPool pool) {
  CMP_REAL(cuMemSetMemPool);
  const CUresult status = real->cuMemSetMemPool(location, type, pool);
  cmp::CurrentPoolsChange();
  return status;
}
