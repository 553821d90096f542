// Driver entry points of the stream-ordered allocator, and of its pools (memory_pools.h).
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "driver_entry.h"
#include "memory_pools.h"

namespace cmp::sim {
namespace {

// What is in the file that stands for a shareable handle.
struct SharedPool {
  char magic[8];
  CUmemLocation location;
};
constexpr char kPoolMagic[8] = {'c', 'm', 'p', 's', 'i', 'm', 'p', 0};

// The device whose memory it is; -1: the host's.
int OwnerOf(const MemoryPool& pool) {
  return pool.location.type == CU_MEM_LOCATION_TYPE_DEVICE ? pool.location.id : -1;
}

CUresult Create(Simulation& sim, CUmemoryPool* pool, const CUmemPoolProps& properties) {
  const CUmemLocation& location = properties.location;
  const bool device = location.type == CU_MEM_LOCATION_TYPE_DEVICE;
  const bool host = location.type == CU_MEM_LOCATION_TYPE_HOST;
  if (!device && !host && location.type != CU_MEM_LOCATION_TYPE_HOST_NUMA) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (properties.allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
      (host && properties.handleTypes != CU_MEM_HANDLE_TYPE_NONE)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (device && !IsDevice(sim, location.id)) return CUDA_ERROR_INVALID_DEVICE;
  auto created = std::make_unique<MemoryPool>();
  created->location = location;
  created->handle_types = properties.handleTypes;
  *pool = sim.pools.Add(std::move(created));
  return CUDA_SUCCESS;
}

CUresult Export(const MemoryPool& pool, int* shared) {
  if ((pool.handle_types & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) == 0 || pool.imported) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  SharedPool described{};
  std::memcpy(described.magic, kPoolMagic, sizeof kPoolMagic);
  described.location = pool.location;
  const int file = memfd_create("cmp_sim_shareable_pool", MFD_CLOEXEC);
  if (file < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  if (pwrite(file, &described, sizeof described, 0) != sizeof described) {
    close(file);
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  *shared = file;
  return CUDA_SUCCESS;
}

CUresult Import(Simulation& sim, int shared, CUmemoryPool* pool) {
  SharedPool described{};
  if (pread(shared, &described, sizeof described, 0) != sizeof described ||
      std::memcmp(described.magic, kPoolMagic, sizeof kPoolMagic) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto imported = std::make_unique<MemoryPool>();
  imported->location = described.location;
  imported->imported = true;
  *pool = sim.pools.Add(std::move(imported));
  return CUDA_SUCCESS;
}

// Memory of the stream-ordered allocator; no pool stands for the current one. The block is there at
// once; when the device is full, frees that are pending on any stream are run first.
CUresult AllocateAsync(Simulation& sim, Lock& lock, CUdeviceptr* pointer, size_t bytes,
                       CUmemoryPool of_pool, CUstream handle, DefaultStream null_means) {
  if (pointer == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (of_pool == nullptr) of_pool = CurrentPool(sim, stream->context->device);
  const MemoryPool* pool = FindPool(sim, of_pool);
  if (stream->capture != nullptr) return CUDA_ERROR_NOT_SUPPORTED;  // memory nodes: left out
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  *pointer = 0;
  if (bytes == 0) return CUDA_SUCCESS;
  const CUcontext context = stream->context->handle;
  const bool on_host = pool->location.type != CU_MEM_LOCATION_TYPE_DEVICE;
  Allocation* allocation = AllocateFrom(sim, *stream->context, of_pool, bytes);
  if (allocation == nullptr && !on_host) {
    const CUresult drained = Drain(sim, lock, context);
    if (drained != CUDA_SUCCESS) return drained;
    allocation = AllocateFrom(sim, *sim.contexts.Find(context), of_pool, bytes);
  }
  if (allocation == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *pointer = allocation->base;
  return CUDA_SUCCESS;
}

CUresult AllocateFromPool(Simulation& sim, Lock& lock, CUdeviceptr* pointer, size_t bytes,
                          CUmemoryPool handle, CUstream stream, DefaultStream null_means) {
  const MemoryPool* pool = FindPool(sim, handle);
  if (pool == nullptr || pool->imported) return CUDA_ERROR_INVALID_VALUE;
  return AllocateAsync(sim, lock, pointer, bytes, handle, stream, null_means);
}

// A handle of none is misuse: the real driver may crash (a guess).
MemoryPool* FindKnownPool(Simulation& sim, CUmemoryPool handle) {
  MemoryPool* pool = FindPool(sim, handle);
  if (pool == nullptr) sim.misuse.Add("a pool was asked about that there is not");
  return pool;
}

CUresult Get(const MemoryPool& pool, CUmemPool_attribute attribute, void* value) {
  auto* bytes = static_cast<cuuint64_t*>(value);
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      *static_cast<int*>(value) = pool.reuses[attribute - 1];
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      return *bytes = pool.threshold, CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      return *bytes = pool.reserved.now, CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      return *bytes = pool.reserved.high, CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
      return *bytes = pool.used.now, CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      return *bytes = pool.used.high, CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// The highest values can be set to what they are now, by a 0.
CUresult Set(MemoryPool& pool, CUmemPool_attribute attribute, const void* value) {
  const auto* bytes = static_cast<const cuuint64_t*>(value);
  const auto restart = [&](MemoryPool::Bytes& of) {
    if (*bytes != 0) return CUDA_ERROR_INVALID_VALUE;
    of.high = of.now;
    return CUDA_SUCCESS;
  };
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      pool.reuses[attribute - 1] = *static_cast<const int*>(value);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      return pool.threshold = *bytes, CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      return restart(pool.reserved);
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      return restart(pool.used);
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// Pending work of a device that loses its access is told so; whose own the memory is cannot lose
// it.
CUresult SetAccess(Simulation& sim, CUmemoryPool handle, const CUmemAccessDesc* access,
                   size_t count) {
  const MemoryPool* pool = FindPool(sim, handle);
  if (pool == nullptr || (access == nullptr && count != 0)) return CUDA_ERROR_INVALID_VALUE;
  const int owner = OwnerOf(*pool);
  for (size_t i = 0; i < count; ++i) {
    const CUmemLocation& place = access[i].location;
    if (place.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, place.id)) return CUDA_ERROR_INVALID_DEVICE;
    if (place.id == owner && access[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READ) return CUDA_ERROR_NOT_SUPPORTED;
  }
  for (size_t i = 0; i < count; ++i) {
    if (access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE) continue;
    for (const Range& memory : sim.allocations.AllocatedFrom(handle)) {
      sim.hazards.NoteReleased(memory, "made inaccessible", false, access[i].location.id);
    }
  }
  return CUDA_SUCCESS;
}

// The block goes back when the stream comes to it. Freed once more before that, it answers no
// error, and the stream never comes to its end (measured).
CUresult FreeAsync(Simulation& sim, CUdeviceptr pointer, CUstream handle,
                   DefaultStream null_means) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  const CUresult unsafe = stream->capture == nullptr ? CheckUnsafeCall(sim) : CUDA_SUCCESS;
  if (unsafe != CUDA_SUCCESS) return unsafe;
  if (pointer == 0) return CUDA_SUCCESS;
  Allocation* allocation = sim.allocations.FindFreeable(pointer);
  if (allocation == nullptr || allocation->kind == MemoryKind::kManaged ||
      allocation->kind == MemoryKind::kExternal) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (stream->capture != nullptr) {
    // What no memory node of the capture made; of pools a guess.
    return allocation->kind == MemoryKind::kDevice ? CUDA_ERROR_INVALID_VALUE
                                                   : CUDA_ERROR_NOT_SUPPORTED;
  }
  Work work;
  if (std::exchange(allocation->freed_in_order, true)) {
    sim.misuse.Add("memory was freed twice before the stream of the first free came to it");
    work.what = "second asynchronous free";
    work.endless = true;
    return SubmitWork(sim, *stream, std::move(work));
  }
  work.what = "asynchronous free";
  work.runs_after_error = true;
  work.effect = [&sim, pointer, id = allocation->buffer_id](CUresult) {
    Allocation* freed = sim.allocations.FindBase(pointer);
    if (freed == nullptr || freed->buffer_id != id) return;
    sim.hazards.NoteReleased(freed->range(), "freed in the order of a stream");
    FreeInPool(sim, *freed);
  };
  return SubmitWork(sim, *stream, std::move(work));
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemAllocAsync(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  return Enter("cuMemAllocAsync", [&](Simulation& sim, Lock& lock) {
    return AllocateAsync(sim, lock, pointer, bytes, nullptr, stream, kLegacy);
  });
}

CUresult cuMemAllocAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUstream stream) {
  return Enter("cuMemAllocAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return AllocateAsync(sim, lock, pointer, bytes, nullptr, stream, kPerThread);
  });
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                 CUstream stream) {
  return Enter("cuMemAllocFromPoolAsync", [&](Simulation& sim, Lock& lock) {
    return AllocateFromPool(sim, lock, pointer, bytes, pool, stream, kLegacy);
  });
}

CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                      CUstream stream) {
  return Enter("cuMemAllocFromPoolAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return AllocateFromPool(sim, lock, pointer, bytes, pool, stream, kPerThread);
  });
}

CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) {
  return Enter("cuMemFreeAsync",
               [&](Simulation& sim, Lock&) { return FreeAsync(sim, pointer, stream, kLegacy); });
}

CUresult cuMemFreeAsync_ptsz(CUdeviceptr pointer, CUstream stream) {
  return Enter("cuMemFreeAsync_ptsz",
               [&](Simulation& sim, Lock&) { return FreeAsync(sim, pointer, stream, kPerThread); });
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  return Enter("cuDeviceGetDefaultMemPool", [&](Simulation& sim, Lock&) -> CUresult {
    if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    *pool = DefaultPool(sim, device);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
  return Enter("cuDeviceGetMemPool", [&](Simulation& sim, Lock&) -> CUresult {
    if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    *pool = CurrentPool(sim, device);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool handle) {
  return Enter("cuDeviceSetMemPool", [&](Simulation& sim, Lock&) -> CUresult {
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    const MemoryPool* pool = FindPool(sim, handle);
    if (pool == nullptr || OwnerOf(*pool) != device) return CUDA_ERROR_INVALID_VALUE;
    sim.devices[static_cast<size_t>(device)].current_pool = handle;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps* properties) {
  return Enter("cuMemPoolCreate", [&](Simulation& sim, Lock&) {
    return pool == nullptr || properties == nullptr ? CUDA_ERROR_INVALID_VALUE
                                                    : Create(sim, pool, *properties);
  });
}

// Its memory stays until it is freed.
CUresult cuMemPoolDestroy(CUmemoryPool handle) {
  return Enter("cuMemPoolDestroy", [&](Simulation& sim, Lock&) -> CUresult {
    const std::unique_ptr<MemoryPool> pool = sim.pools.Remove(handle);
    if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
    TrimPool(sim, *pool, 0);
    return CUDA_SUCCESS;
  });
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc* access, size_t count) {
  return Enter("cuMemPoolSetAccess",
               [&](Simulation& sim, Lock&) { return SetAccess(sim, pool, access, count); });
}

// (That a capture forbids this and questions about attributes is a guess.)
CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t least) {
  return Enter("cuMemPoolTrimTo", [&](Simulation& sim, Lock&) -> CUresult {
    const CUresult unsafe = CheckUnsafeCall(sim);
    if (unsafe != CUDA_SUCCESS) return unsafe;
    MemoryPool* pool = FindKnownPool(sim, handle);
    if (pool == nullptr) return CUDA_ERROR_INVALID_VALUE;
    TrimPool(sim, *pool, least);
    return CUDA_SUCCESS;
  });
}

CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return Enter("cuMemPoolGetAttribute", [&](Simulation& sim, Lock&) -> CUresult {
    const CUresult unsafe = CheckUnsafeCall(sim);
    if (unsafe != CUDA_SUCCESS) return unsafe;
    MemoryPool* pool = FindKnownPool(sim, handle);
    return pool == nullptr || value == nullptr ? CUDA_ERROR_INVALID_VALUE
                                               : Get(*pool, attribute, value);
  });
}

CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void* value) {
  return Enter("cuMemPoolSetAttribute", [&](Simulation& sim, Lock&) -> CUresult {
    const CUresult unsafe = CheckUnsafeCall(sim);
    if (unsafe != CUDA_SUCCESS) return unsafe;
    MemoryPool* pool = FindKnownPool(sim, handle);
    return pool == nullptr || value == nullptr ? CUDA_ERROR_INVALID_VALUE
                                               : Set(*pool, attribute, value);
  });
}

CUresult cuMemPoolExportToShareableHandle(void* shared, CUmemoryPool pool,
                                          CUmemAllocationHandleType type,
                                          unsigned long long flags) {
  return Enter("cuMemPoolExportToShareableHandle", [&](Simulation& sim, Lock&) -> CUresult {
    const MemoryPool* found = FindPool(sim, pool);
    if (shared == nullptr || found == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    return Export(*found, static_cast<int*>(shared));
  });
}

CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool* pool, void* shared,
                                            CUmemAllocationHandleType type,
                                            unsigned long long flags) {
  return Enter("cuMemPoolImportFromShareableHandle", [&](Simulation& sim, Lock&) -> CUresult {
    if (pool == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    return Import(sim, static_cast<int>(AddressOf(shared)), pool);
  });
}

}  // extern "C"
