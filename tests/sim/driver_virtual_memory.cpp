// Driver entry points for virtual memory management: physical memory, addresses, mappings.
//
// Physical memory counts against its device until its last handle and its last mapping are gone. It
// belongs to no context. Nothing here waits for work: who unmaps what work still uses is told so.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "driver_entry.h"

namespace cmp::sim {
namespace {

// What is in the file that stands for a shareable handle: where the bytes are, and of which
// process.
struct SharedMemory {
  char magic[8];
  int pid;
  int file;
  uint64_t bytes;
  uint64_t offset;
  CUmemAllocationProp properties;
};
constexpr char kMappingMagic[8] = {'c', 'm', 'p', 's', 'i', 'm', 'v', 0};

CUresult CheckProperties(const Simulation& sim, const CUmemAllocationProp* properties) {
  if (properties == nullptr || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (properties->location.type == CU_MEM_LOCATION_TYPE_HOST) {
    return properties->requestedHandleTypes == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  }
  if (properties->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA) return CUDA_SUCCESS;
  if (properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_INVALID_VALUE;
  return IsDevice(sim, properties->location.id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

// The host is no location for the device's memory.
CUresult CheckLocation(const Simulation& sim, const CUmemLocation& location,
                       const Allocation& mapped) {
  if (location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    return mapped.on_host ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
  }
  return IsDevice(sim, location.id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

void SetAccess(Simulation& sim, Allocation& mapped, CUmemAccess_flags access) {
  if (access != CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
    sim.hazards.NoteReleased(mapped.range(), "made inaccessible",
                             access == CU_MEM_ACCESS_FLAGS_PROT_READ);
  }
  sim.allocations.SetAccess(mapped, access);
}

bool IsWhole(uint64_t bytes) { return bytes != 0 && bytes % kGranularity == 0; }

CUmemGenericAllocationHandle AddHandle(Simulation& sim, std::shared_ptr<PhysicalMemory> memory) {
  auto handle = std::make_unique<PhysicalHandle>();
  handle->memory = std::move(memory);
  return sim.physical.Add(std::move(handle));
}

CUresult Export(const PhysicalMemory& memory, int* shared) {
  if (memory.imported) return CUDA_ERROR_NOT_SUPPORTED;
  if ((memory.properties.requestedHandleTypes & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  SharedMemory described{};
  std::memcpy(described.magic, kMappingMagic, sizeof kMappingMagic);
  described.pid = getpid();
  described.file = memory.file;
  described.bytes = memory.bytes;
  described.offset = memory.offset;
  described.properties = memory.properties;
  const int file = memfd_create("cmp_sim_shareable", MFD_CLOEXEC);
  if (file < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  if (pwrite(file, &described, sizeof described, 0) != sizeof described) {
    close(file);
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  *shared = file;
  return CUDA_SUCCESS;
}

CUresult Import(Simulation& sim, int shared, CUmemGenericAllocationHandle* handle) {
  SharedMemory described{};
  if (pread(shared, &described, sizeof described, 0) != sizeof described ||
      std::memcmp(described.magic, kMappingMagic, sizeof kMappingMagic) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/fd/%d", described.pid, described.file);
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return CUDA_ERROR_INVALID_VALUE;
  auto memory = std::make_shared<PhysicalMemory>();
  memory->imported = true;
  memory->bytes = described.bytes;
  memory->properties = described.properties;
  memory->file = file;
  memory->offset = described.offset;
  *handle = AddHandle(sim, std::move(memory));
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemGetAllocationGranularity(size_t* granularity, const CUmemAllocationProp* properties,
                                       CUmemAllocationGranularity_flags) {
  return Enter("cuMemGetAllocationGranularity", [&](Simulation& sim, Lock&) -> CUresult {
    if (granularity == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const CUresult checked = CheckProperties(sim, properties);
    if (checked == CUDA_SUCCESS) *granularity = kGranularity;
    return checked;
  });
}

CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, size_t bytes,
                     const CUmemAllocationProp* properties, unsigned long long flags) {
  return Enter("cuMemCreate", [&](Simulation& sim, Lock&) -> CUresult {
    if (handle == nullptr || flags != 0 || !IsWhole(bytes)) return CUDA_ERROR_INVALID_VALUE;
    const CUresult checked = CheckProperties(sim, properties);
    if (checked != CUDA_SUCCESS) return checked;
    auto memory = properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE
                      ? sim.allocations.CreatePhysical(properties->location.id, bytes)
                      : sim.allocations.CreatePhysicalOfHost(bytes);
    if (memory == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    memory->properties = *properties;
    *handle = AddHandle(sim, std::move(memory));
    return CUDA_SUCCESS;
  });
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  return Enter("cuMemRelease", [&](Simulation& sim, Lock&) -> CUresult {
    PhysicalHandle* found = sim.physical.Find(handle);
    if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (--found->references == 0) sim.physical.Remove(handle);
    return CUDA_SUCCESS;
  });
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* handle, void* address) {
  return Enter("cuMemRetainAllocationHandle", [&](Simulation& sim, Lock&) -> CUresult {
    const Allocation* mapped = sim.allocations.Find(AddressOf(address));
    if (handle == nullptr || mapped == nullptr || mapped->kind != MemoryKind::kMapped) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    for (const auto& [known, object] : sim.physical.all()) {
      if (object->memory != mapped->backing) continue;
      ++object->references;
      *handle = known;
      return CUDA_SUCCESS;
    }
    *handle = AddHandle(sim, mapped->backing);
    return CUDA_SUCCESS;
  });
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties,
                                                CUmemGenericAllocationHandle handle) {
  return Enter("cuMemGetAllocationPropertiesFromHandle", [&](Simulation& sim, Lock&) -> CUresult {
    const PhysicalHandle* found = sim.physical.Find(handle);
    if (properties == nullptr || found == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *properties = found->memory->properties;
    return CUDA_SUCCESS;
  });
}

CUresult cuMemAddressReserve(CUdeviceptr* start, size_t bytes, size_t alignment, CUdeviceptr,
                             unsigned long long flags) {
  return Enter("cuMemAddressReserve", [&](Simulation& sim, Lock&) -> CUresult {
    if (start == nullptr || flags != 0 || !IsWhole(bytes) || (alignment & (alignment - 1)) != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *start = sim.allocations.Reserve(bytes, std::max(alignment, kGranularity));
    return *start == 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
  });
}

CUresult cuMemAddressFree(CUdeviceptr start, size_t bytes) {
  return Enter("cuMemAddressFree", [&](Simulation& sim, Lock&) -> CUresult {
    return sim.allocations.Unreserve(start, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  });
}

CUresult cuMemMap(CUdeviceptr start, size_t bytes, size_t offset,
                  CUmemGenericAllocationHandle handle, unsigned long long flags) {
  return Enter("cuMemMap", [&](Simulation& sim, Lock&) -> CUresult {
    const PhysicalHandle* found = sim.physical.Find(handle);
    if (found == nullptr || flags != 0 || !IsWhole(bytes) || start % kGranularity != 0 ||
        offset % kGranularity != 0 || offset + bytes > found->memory->bytes) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const auto memory = found->memory;
    if (memory->multicast != nullptr) {
      sim.scheduler.WaitForCalls(*t_lock, "the devices of a multicast object",
                                 [&] { return memory->multicast->IsComplete(); });
    }
    return sim.allocations.Map(start, bytes, offset, memory) ? CUDA_SUCCESS
                                                             : CUDA_ERROR_INVALID_VALUE;
  });
}

CUresult cuMemUnmap(CUdeviceptr start, size_t bytes) {
  return Enter("cuMemUnmap", [&](Simulation& sim, Lock&) -> CUresult {
    const std::vector<Allocation*> mapped = sim.allocations.MappedIn({start, bytes});
    if (mapped.empty()) return CUDA_ERROR_INVALID_VALUE;
    for (Allocation* each : mapped) {
      sim.hazards.NoteReleased(each->range(), "unmapped");
      sim.allocations.Release(*each);
    }
    return CUDA_SUCCESS;
  });
}

CUresult cuMemSetAccess(CUdeviceptr start, size_t bytes, const CUmemAccessDesc* access,
                        size_t count) {
  return Enter("cuMemSetAccess", [&](Simulation& sim, Lock&) -> CUresult {
    const std::vector<Allocation*> mapped = sim.allocations.MappedIn({start, bytes});
    if (mapped.empty() || access == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; ++i) {
      const CUresult checked = CheckLocation(sim, access[i].location, *mapped.front());
      if (checked != CUDA_SUCCESS) return checked;
      for (Allocation* each : mapped) SetAccess(sim, *each, access[i].flags);
    }
    return CUDA_SUCCESS;
  });
}

CUresult cuMemExportToShareableHandle(void* shared, CUmemGenericAllocationHandle handle,
                                      CUmemAllocationHandleType type, unsigned long long flags) {
  return Enter("cuMemExportToShareableHandle", [&](Simulation& sim, Lock&) -> CUresult {
    const PhysicalHandle* found = sim.physical.Find(handle);
    if (shared == nullptr || found == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    return Export(*found->memory, static_cast<int*>(shared));
  });
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* handle, void* shared,
                                        CUmemAllocationHandleType type) {
  return Enter("cuMemImportFromShareableHandle", [&](Simulation& sim, Lock&) -> CUresult {
    if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
    return Import(sim, static_cast<int>(AddressOf(shared)), handle);
  });
}

}  // extern "C"
