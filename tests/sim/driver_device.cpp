// Driver entry points about the driver itself and its devices.
#include <cstring>

#include "driver_entry.h"

namespace cmp::sim {
namespace {

int Attribute(CUdevice_attribute attribute) {
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      return kMultiprocessors;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
      return kThreads;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      return 9;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      return 0;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
      return 1024;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      return 32;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
      return 3;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR:
    case CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED:
      return 1;
    case CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS:
      return TheSettings().pageable_access;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT:
      return 32;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
      return 512;
    case CU_DEVICE_ATTRIBUTE_MAX_PITCH:
      return 0x7fffffff;
    default:
      return 0;
  }
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuInit(unsigned int flags) {
  const CUresult result = Enter("cuInit", Needs::kNothing, [&](Simulation& sim, Lock&) -> CUresult {
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    static bool done = false;  // guarded by the simulator's lock
    if (done) return CUDA_SUCCESS;
    done = true;
    for (size_t i = 0; i < sim.devices.size(); ++i) {
      sim.allocations.AddDevice(TheSettings().memory);
    }
    if (sim.devices.empty()) return CUDA_ERROR_NO_DEVICE;
    NoteInitialised();
    return CUDA_SUCCESS;
  });
  // As the real driver does: one lookup of a symbol of its own, which must come back unreplaced.
  if (result == CUDA_SUCCESS) CheckOwnLookup();
  return result;
}

CUresult cuDriverGetVersion(int* version) {
  return Enter("cuDriverGetVersion", Needs::kNothing, [&](Simulation&, Lock&) -> CUresult {
    if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *version = TheSettings().driver_version;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetCount(int* count) {
  return Enter("cuDeviceGetCount", [&](Simulation& sim, Lock&) -> CUresult {
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *count = static_cast<int>(sim.devices.size());
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return Enter("cuDeviceGet", [&](Simulation& sim, Lock&) -> CUresult {
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  return Enter("cuDeviceGetName", [&](Simulation& sim, Lock&) -> CUresult {
    if (name == nullptr || length <= 0) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    std::strncpy(name, "Simulated CUDA device", static_cast<size_t>(length));
    name[length - 1] = '\0';
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  return Enter("cuDeviceGetUuid_v2", [&](Simulation& sim, Lock&) -> CUresult {
    if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    std::memset(uuid, 0x5C, sizeof *uuid);
    uuid->bytes[15] = static_cast<char>(device);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  return Enter("cuDeviceGetPCIBusId", [&](Simulation& sim, Lock&) -> CUresult {
    if (id == nullptr || length < 13) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    std::snprintf(id, static_cast<size_t>(length), "0000:%02X:00.0", (device + 3) & 0xff);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return Enter("cuDeviceTotalMem_v2", [&](Simulation& sim, Lock&) -> CUresult {
    if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = sim.allocations.device(device).capacity();
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return Enter("cuDeviceGetAttribute", [&](Simulation& sim, Lock&) -> CUresult {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    *value = Attribute(attribute);
    if (attribute == CU_DEVICE_ATTRIBUTE_PCI_BUS_ID) *value += device;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
  return Enter("cuDeviceCanAccessPeer", [&](Simulation& sim, Lock&) -> CUresult {
    if (can == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device) || !IsDevice(sim, peer)) return CUDA_ERROR_INVALID_DEVICE;
    *can = device != peer;
    return CUDA_SUCCESS;
  });
}

}  // extern "C"
