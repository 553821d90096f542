// Driver entry points for multicast objects, as documented. Their handles are those of physical
// memory (driver_virtual_memory.cpp), so that one is mapped, released and asked about likewise.
//
// Nothing here waits for work: who unbinds what work still uses is told so.
#include "driver_entry.h"

namespace cmp::sim {
namespace {

bool IsAligned(size_t bytes) { return bytes % kGranularity == 0; }

CUresult CheckProperties(const Simulation& sim, const CUmulticastObjectProp* properties) {
  if (properties == nullptr || properties->numDevices == 0 || properties->flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (properties->numDevices > sim.devices.size()) return CUDA_ERROR_INVALID_DEVICE;
  return properties->handleTypes == 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

// Null: the handle is not a multicast object's.
std::shared_ptr<PhysicalMemory> FindObject(const Simulation& sim,
                                           CUmemGenericAllocationHandle handle) {
  const PhysicalHandle* found = sim.physical.Find(handle);
  return found == nullptr || found->memory->multicast == nullptr ? nullptr : found->memory;
}

CUresult Create(Simulation& sim, CUmemGenericAllocationHandle* handle,
                const CUmulticastObjectProp* properties) {
  if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult checked = CheckProperties(sim, properties);
  if (checked != CUDA_SUCCESS) return checked;
  if (properties->size == 0 || !IsAligned(properties->size)) return CUDA_ERROR_INVALID_VALUE;
  auto object = std::make_unique<PhysicalHandle>();
  object->memory = sim.allocations.CreatePhysicalOfHost(properties->size);
  if (object->memory == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  object->memory->properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, {0}};
  object->memory->multicast = std::make_unique<Multicast>();
  object->memory->multicast->devices_wanted = properties->numDevices;
  *handle = sim.physical.Add(std::move(object));
  return CUDA_SUCCESS;
}

bool IsOf(const Multicast& object, int device) {
  return std::find(object.devices.begin(), object.devices.end(), device) != object.devices.end();
}

CUresult AddDevice(Simulation& sim, CUmemGenericAllocationHandle handle, CUdevice device) {
  const auto object = FindObject(sim, handle);
  if (object == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
  Multicast& multicast = *object->multicast;
  if (multicast.IsComplete() || IsOf(multicast, device)) return CUDA_ERROR_INVALID_VALUE;
  multicast.devices.push_back(device);
  sim.scheduler.NoteChange();
  return CUDA_SUCCESS;
}

// Waits until all devices have been added. `bound.device` is the memory's.
CUresult Bind(Simulation& sim, Lock& lock, CUmemGenericAllocationHandle handle,
              const Multicast::Bound& bound) {
  const auto object = FindObject(sim, handle);
  if (object == nullptr || bound.bytes == 0 || !IsAligned(bound.bytes) ||
      !IsAligned(bound.offset) || bound.offset + bound.bytes > object->bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Multicast& multicast = *object->multicast;
  sim.scheduler.WaitForCalls(lock, "the devices of a multicast object",
                             [&] { return multicast.IsComplete(); });
  if (!IsOf(multicast, bound.device)) return CUDA_ERROR_INVALID_DEVICE;
  for (const Multicast::Bound& each : multicast.bound) {
    const Range there{each.offset, each.bytes};
    if (each.device == bound.device && there.Overlaps({bound.offset, bound.bytes})) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  multicast.bound.push_back(bound);
  return CUDA_SUCCESS;
}

CUresult Unbind(Simulation& sim, CUmemGenericAllocationHandle handle, CUdevice device,
                size_t offset, size_t bytes) {
  const auto object = FindObject(sim, handle);
  if (object == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
  const size_t ended = std::erase_if(object->multicast->bound, [&](const Multicast::Bound& bound) {
    return bound.device == device && bound.offset == offset && bound.bytes == bytes;
  });
  if (ended == 0) return CUDA_ERROR_INVALID_VALUE;
  for (const Range& mapped : sim.allocations.MappingsOf(*object, offset, bytes)) {
    sim.hazards.NoteReleased(mapped, "unbound from a multicast object");
  }
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMulticastGetGranularity(size_t* granularity, const CUmulticastObjectProp* properties,
                                   CUmulticastGranularity_flags) {
  return Enter("cuMulticastGetGranularity", [&](Simulation& sim, Lock&) -> CUresult {
    if (granularity == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const CUresult checked = CheckProperties(sim, properties);
    if (checked == CUDA_SUCCESS) *granularity = kGranularity;
    return checked;
  });
}

CUresult cuMulticastCreate(CUmemGenericAllocationHandle* handle,
                           const CUmulticastObjectProp* properties) {
  return Enter("cuMulticastCreate",
               [&](Simulation& sim, Lock&) { return Create(sim, handle, properties); });
}

CUresult cuMulticastAddDevice(CUmemGenericAllocationHandle handle, CUdevice device) {
  return Enter("cuMulticastAddDevice",
               [&](Simulation& sim, Lock&) { return AddDevice(sim, handle, device); });
}

CUresult cuMulticastBindMem(CUmemGenericAllocationHandle handle, size_t offset,
                            CUmemGenericAllocationHandle memory_handle, size_t memory_offset,
                            size_t bytes, unsigned long long flags) {
  return Enter("cuMulticastBindMem", [&](Simulation& sim, Lock& lock) -> CUresult {
    const PhysicalHandle* found = sim.physical.Find(memory_handle);
    if (found == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    const auto memory = found->memory;
    if (memory->multicast != nullptr || !IsAligned(memory_offset) ||
        memory_offset + bytes > memory->bytes) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (memory->properties.location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    return Bind(sim, lock, handle, {memory->properties.location.id, offset, bytes, memory});
  });
}

CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle handle, size_t offset,
                             CUdeviceptr address, size_t bytes, unsigned long long flags) {
  return Enter("cuMulticastBindAddr", [&](Simulation& sim, Lock& lock) -> CUresult {
    const Allocation* found = sim.allocations.Find(address);
    if (found == nullptr || flags != 0 || !IsAligned(address) ||
        !sim.allocations.Covers({address, bytes}) ||
        (found->kind != MemoryKind::kMapped && found->kind != MemoryKind::kPool)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return Bind(sim, lock, handle, {found->device, offset, bytes, found->backing});
  });
}

CUresult cuMulticastUnbind(CUmemGenericAllocationHandle handle, CUdevice device, size_t offset,
                           size_t bytes) {
  return Enter("cuMulticastUnbind",
               [&](Simulation& sim, Lock&) { return Unbind(sim, handle, device, offset, bytes); });
}

}  // extern "C"
