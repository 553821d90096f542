// Driver entry points of the stream-ordered allocator, and of its pools.
//
// A pool says where its memory is and whether it may be shared; nothing is kept in one.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "driver_entry.h"

namespace cmp::sim {
namespace {

constexpr CUmemLocation kThisDevice = {CU_MEM_LOCATION_TYPE_DEVICE, {0}};
constexpr MemoryPool kDefaultPool = {kThisDevice, CU_MEM_HANDLE_TYPE_NONE, false};

// What is in the file that stands for a shareable handle.
struct SharedPool {
  char magic[8];
  CUmemLocation location;
};
constexpr char kPoolMagic[8] = {'c', 'm', 'p', 's', 'i', 'm', 'p', 0};

// One default pool per device; the handle says no more than which.
CUmemoryPool DefaultPool(Simulation& sim, CUdevice device) {
  return reinterpret_cast<CUmemoryPool>(&sim.devices[static_cast<size_t>(device)]);
}

// Null: no pool's handle.
const MemoryPool* FindPool(Simulation& sim, CUmemoryPool pool) {
  for (Device& device : sim.devices) {
    if (pool == reinterpret_cast<CUmemoryPool>(&device)) return &kDefaultPool;
  }
  return sim.pools.Find(pool);
}

// The device whose memory it is; -1: the host's.
int OwnerOf(Simulation& sim, CUmemoryPool handle, const MemoryPool& pool) {
  if (&pool != &kDefaultPool) {
    return pool.location.type == CU_MEM_LOCATION_TYPE_DEVICE ? pool.location.id : -1;
  }
  return static_cast<int>(reinterpret_cast<Device*>(handle) - sim.devices.data());
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

// On the stream's device, if not of the host's, whichever the pool was made for.
Allocation* Allocate(Simulation& sim, const Context& context, size_t bytes, bool on_host) {
  if (!on_host) {
    bool spoiled = false;
    return sim.allocations.AllocateDevice(context, bytes, MemoryKind::kPool, &spoiled);
  }
  Allocation* allocation = sim.allocations.AllocateHost(context, bytes, MemoryKind::kPool, 0);
  if (allocation != nullptr) allocation->on_host = true;
  return allocation;
}

// Memory of the stream-ordered allocator; no pool stands for the default one. The block is there at
// once; when the device is full, frees that are pending on any stream are run first.
CUresult AllocateAsync(Simulation& sim, Lock& lock, CUdeviceptr* pointer, size_t bytes,
                       CUmemoryPool of_pool, CUstream handle, DefaultStream null_means) {
  if (pointer == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (of_pool == nullptr) of_pool = DefaultPool(sim, stream->context->device);
  const MemoryPool* pool = FindPool(sim, of_pool);
  if (stream->capture != nullptr) return CUDA_ERROR_NOT_SUPPORTED;  // memory nodes: left out
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  *pointer = 0;
  if (bytes == 0) return CUDA_SUCCESS;
  const CUcontext context = stream->context->handle;
  const bool on_host = pool->location.type != CU_MEM_LOCATION_TYPE_DEVICE;
  Allocation* allocation = Allocate(sim, *stream->context, bytes, on_host);
  if (allocation == nullptr && !on_host) {
    const CUresult drained = Drain(sim, lock, context);
    if (drained != CUDA_SUCCESS) return drained;
    allocation = Allocate(sim, *sim.contexts.Find(context), bytes, on_host);
  }
  if (allocation == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  allocation->pool = of_pool;
  *pointer = allocation->base;
  return CUDA_SUCCESS;
}

CUresult AllocateFrom(Simulation& sim, Lock& lock, CUdeviceptr* pointer, size_t bytes,
                      CUmemoryPool handle, CUstream stream, DefaultStream null_means) {
  const MemoryPool* pool = FindPool(sim, handle);
  if (pool == nullptr || pool->imported) return CUDA_ERROR_INVALID_VALUE;
  return AllocateAsync(sim, lock, pointer, bytes, handle, stream, null_means);
}

// Pending work of a device that loses its access is told so; whose own the memory is cannot lose
// it.
CUresult SetAccess(Simulation& sim, CUmemoryPool handle, const CUmemAccessDesc* access,
                   size_t count) {
  const MemoryPool* pool = FindPool(sim, handle);
  if (pool == nullptr || (access == nullptr && count != 0)) return CUDA_ERROR_INVALID_VALUE;
  const auto owner = OwnerOf(sim, handle, *pool);
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
    sim.allocations.Release(*freed);
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
    return AllocateFrom(sim, lock, pointer, bytes, pool, stream, kLegacy);
  });
}

CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUmemoryPool pool,
                                      CUstream stream) {
  return Enter("cuMemAllocFromPoolAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return AllocateFrom(sim, lock, pointer, bytes, pool, stream, kPerThread);
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
    *pool = DefaultPool(sim, device);
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
CUresult cuMemPoolDestroy(CUmemoryPool pool) {
  return Enter("cuMemPoolDestroy", [&](Simulation& sim, Lock&) -> CUresult {
    return sim.pools.Remove(pool) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc* access, size_t count) {
  return Enter("cuMemPoolSetAccess",
               [&](Simulation& sim, Lock&) { return SetAccess(sim, pool, access, count); });
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t) {
  return Enter("cuMemPoolTrimTo", [&](Simulation& sim, Lock&) -> CUresult {
    return FindPool(sim, pool) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
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
