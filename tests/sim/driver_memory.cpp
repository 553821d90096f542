// Driver entry points that allocate and free memory.
#include "driver_entry.h"
#include "memory_pools.h"

namespace cmp::sim {
namespace {

constexpr size_t kPitch = 512;

// What every call that may implicitly synchronise checks first; another thread's waiting free holds
// it up.
CUresult RequireUnsafe(Simulation& sim, Context** context) {
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  const CUresult result = RequireContext(sim, context);
  if (result != CUDA_SUCCESS) return result;
  LetFreesPass(sim, **context);
  return RequireContext(sim, context);
}

// Waits for nothing of the device's.
CUresult Allocate(Simulation& sim, CUdeviceptr* pointer, size_t bytes) {
  Context* context = nullptr;
  const CUresult result = RequireUnsafe(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  if (pointer == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  NoteAllocationCost(bytes);
  bool spoiled = false;
  const auto allocate = [&] {
    return sim.allocations.AllocateDevice(*context, bytes, MemoryKind::kDevice, &spoiled);
  };
  const Allocation* allocation = allocate();
  if (allocation == nullptr && TrimPoolsOf(sim, context->device)) allocation = allocate();
  if (allocation == nullptr) {
    *pointer = 0;
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (spoiled) sim.hazards.Add("really freed memory was written to before it was allocated again");
  *pointer = allocation->base;
  return CUDA_SUCCESS;
}

// Waits for all streams of the block's context, which need not be current; a call that fails waits
// for nothing, and neither does the free of stream-ordered memory, as measured.
CUresult Free(Simulation& sim, Lock& lock, CUdeviceptr pointer) {
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  const Allocation* found = sim.allocations.FindFreeable(pointer);
  if (found == nullptr) {
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    return pointer == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }
  const uint64_t buffer_id = found->buffer_id;
  if (found->kind == MemoryKind::kPool) {
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, found->context, &context);
    if (result != CUDA_SUCCESS) return result;
    sim.hazards.NoteReleased(found->range(), "freed without a wait");
  } else {
    const CUresult drained = DrainForFree(sim, lock, found->context, found->range());
    if (drained != CUDA_SUCCESS) return drained;
  }
  Allocation* allocation = sim.allocations.FindFreeable(pointer);
  if (allocation == nullptr || allocation->buffer_id != buffer_id) return CUDA_ERROR_INVALID_VALUE;
  const size_t bytes = allocation->bytes;
  const DeviceMemory& memory = sim.allocations.device(allocation->device);
  const size_t used_before = memory.used();
  if (allocation->pool != nullptr) return FreeInPool(sim, *allocation), CUDA_SUCCESS;
  sim.allocations.Release(*allocation);
  NoteFreeCost(bytes, memory.used() < used_before);
  return CUDA_SUCCESS;
}

CUresult AllocateHost(Simulation& sim, void** pointer, size_t bytes, unsigned flags) {
  Context* context = nullptr;
  const CUresult result = RequireUnsafe(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  constexpr unsigned kKnownFlags =
      CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
  if (pointer == nullptr || (flags & ~kKnownFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  *pointer = nullptr;
  if (bytes == 0) return CUDA_SUCCESS;
  const Allocation* allocation =
      sim.allocations.AllocateHost(*context, bytes, MemoryKind::kHost, flags);
  if (allocation == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *pointer = PointerTo(allocation->base);
  NoteHostAllocationCost(bytes);
  return CUDA_SUCCESS;
}

CUresult FreeHost(Simulation& sim, Lock& lock, void* pointer) {
  if (pointer == nullptr) return CUDA_SUCCESS;
  Context* context = nullptr;
  const CUresult result = RequireUnsafe(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  const auto find = [&]() -> Allocation* {
    Allocation* allocation = sim.allocations.FindBase(AddressOf(pointer));
    return allocation != nullptr && allocation->kind == MemoryKind::kHost ? allocation : nullptr;
  };
  const Allocation* found = find();
  if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult drained = DrainForFree(sim, lock, found->context);
  if (drained != CUDA_SUCCESS) return drained;
  Allocation* allocation = find();
  if (allocation == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NoteHostFreeCost(allocation->bytes);
  sim.hazards.NoteReleased(allocation->range(), "freed by cuMemFreeHost");  // by other contexts
  sim.allocations.Release(*allocation);
  return CUDA_SUCCESS;
}

bool IsPageLocked(Simulation& sim, const void* pointer) {
  const Allocation* allocation = sim.allocations.Find(AddressOf(pointer));
  return allocation != nullptr &&
         (allocation->kind == MemoryKind::kHost || allocation->kind == MemoryKind::kRegistered);
}

CUresult Register(Simulation& sim, void* pointer, size_t bytes, unsigned flags) {
  constexpr unsigned kKnownFlags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP |
                                   CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY;
  if (pointer == nullptr || bytes == 0 || (flags & ~kKnownFlags) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Context* context = nullptr;
  const CUresult result = RequireUnsafe(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  return sim.allocations.Register(*context, AddressOf(pointer), bytes, flags) == nullptr
             ? CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED
             : CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
  return Enter("cuMemAlloc_v2",
               [&](Simulation& sim, Lock&) { return Allocate(sim, pointer, bytes); });
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
  return Enter("cuMemFree_v2",
               [&](Simulation& sim, Lock& lock) { return Free(sim, lock, pointer); });
}

CUresult cuMemAllocPitch_v2(CUdeviceptr* pointer, size_t* pitch, size_t width, size_t height,
                            unsigned int element_bytes) {
  return Enter("cuMemAllocPitch_v2", [&](Simulation& sim, Lock&) -> CUresult {
    if (pitch == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (pointer != nullptr) *pointer = 0;
    if (element_bytes != 4 && element_bytes != 8 && element_bytes != 16) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (width > SIZE_MAX / 2 || (height != 0 && width > SIZE_MAX / 2 / height)) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    const size_t row = (width + kPitch - 1) / kPitch * kPitch;
    const CUresult result = Allocate(sim, pointer, row * height);
    *pitch = result == CUDA_SUCCESS ? row : 0;
    return result;
  });
}

CUresult cuMemAllocManaged(CUdeviceptr* pointer, size_t bytes, unsigned int flags) {
  return Enter("cuMemAllocManaged", [&](Simulation& sim, Lock&) -> CUresult {
    if (pointer == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Context* context = nullptr;
    const CUresult result = RequireUnsafe(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const Allocation* allocation =
        sim.allocations.AllocateHost(*context, bytes, MemoryKind::kManaged, flags);
    if (allocation == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    *pointer = allocation->base;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemAllocHost_v2(void** pointer, size_t bytes) {
  return Enter("cuMemAllocHost_v2",
               [&](Simulation& sim, Lock&) { return AllocateHost(sim, pointer, bytes, 0); });
}

CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned int flags) {
  return Enter("cuMemHostAlloc",
               [&](Simulation& sim, Lock&) { return AllocateHost(sim, pointer, bytes, flags); });
}

CUresult cuMemFreeHost(void* pointer) {
  return Enter("cuMemFreeHost",
               [&](Simulation& sim, Lock& lock) { return FreeHost(sim, lock, pointer); });
}

CUresult cuMemHostRegister(void* pointer, size_t bytes, unsigned int flags) {
  return Enter("cuMemHostRegister",
               [&](Simulation& sim, Lock&) { return Register(sim, pointer, bytes, flags); });
}

CUresult cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned int flags) {
  return Enter("cuMemHostRegister_v2",
               [&](Simulation& sim, Lock&) { return Register(sim, pointer, bytes, flags); });
}

CUresult cuMemHostUnregister(void* pointer) {
  return Enter("cuMemHostUnregister", [&](Simulation& sim, Lock& lock) -> CUresult {
    Context* context = nullptr;
    const CUresult result = RequireUnsafe(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const auto find = [&]() -> Allocation* {
      Allocation* allocation = sim.allocations.FindBase(AddressOf(pointer));
      return allocation != nullptr && allocation->kind == MemoryKind::kRegistered ? allocation
                                                                                  : nullptr;
    };
    if (find() == nullptr) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    const CUresult drained = DrainForFree(sim, lock, find()->context);
    if (drained != CUDA_SUCCESS) return drained;
    if (find() == nullptr) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    sim.allocations.Release(*find());
    return CUDA_SUCCESS;
  });
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device, void* pointer, unsigned int flags) {
  return Enter("cuMemHostGetDevicePointer_v2", [&](Simulation& sim, Lock&) -> CUresult {
    if (device == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    if (!IsPageLocked(sim, pointer)) return CUDA_ERROR_INVALID_VALUE;
    *device = AddressOf(pointer);  // unified addressing
    return CUDA_SUCCESS;
  });
}

CUresult cuMemHostGetFlags(unsigned int* flags, void* pointer) {
  return Enter("cuMemHostGetFlags", [&](Simulation& sim, Lock&) -> CUresult {
    if (flags == nullptr || !IsPageLocked(sim, pointer)) return CUDA_ERROR_INVALID_VALUE;
    *flags = CU_MEMHOSTALLOC_DEVICEMAP;  // whatever it was made with, as measured
    return CUDA_SUCCESS;
  });
}

CUresult cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  return Enter("cuMemGetInfo_v2", [&](Simulation& sim, Lock&) -> CUresult {
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const DeviceMemory& memory = sim.allocations.device(context->device);
    if (free_bytes != nullptr) *free_bytes = memory.capacity() - memory.used();
    if (total_bytes != nullptr) *total_bytes = memory.capacity();
    return CUDA_SUCCESS;
  });
}

// --- The 32-bit functions of CUDA 2.0: other signatures under the plain names
// ---------------------

CUresult cuMemAlloc(CUdeviceptr_v1*, unsigned int) {
  return Enter("cuMemAlloc", [](Simulation&, Lock&) { return CUDA_ERROR_NOT_SUPPORTED; });
}

CUresult cuMemFree(CUdeviceptr_v1) {
  return Enter("cuMemFree", [](Simulation&, Lock&) { return CUDA_ERROR_NOT_SUPPORTED; });
}

CUresult cuMemAllocPitch(CUdeviceptr_v1*, unsigned int*, unsigned int, unsigned int, unsigned int) {
  return Enter("cuMemAllocPitch", [](Simulation&, Lock&) { return CUDA_ERROR_NOT_SUPPORTED; });
}

CUresult cuMemGetInfo(unsigned int*, unsigned int*) {
  return Enter("cuMemGetInfo", [](Simulation&, Lock&) { return CUDA_ERROR_NOT_SUPPORTED; });
}

CUresult cuMemGetAddressRange(CUdeviceptr_v1*, unsigned int*, CUdeviceptr_v1) {
  return Enter("cuMemGetAddressRange", [](Simulation&, Lock&) { return CUDA_ERROR_NOT_SUPPORTED; });
}

}  // extern "C"
