// Runtime entry points that allocate, free and describe memory.
#include <cstdint>
#include <cstring>

#include "runtime_driver.h"

namespace cmp::sim {
namespace {

constexpr unsigned kPitchElement = 4;

cudaError_t PutPointer(void** out, CUresult result, CUdeviceptr pointer) {
  *out = result == CUDA_SUCCESS ? reinterpret_cast<void*>(pointer) : nullptr;
  return FromDriver(result);
}

cudaError_t HostAlloc(const char* name, void** pointer, size_t bytes, unsigned flags) {
  return Call(name, Needs::kContext, [&](const Driver& driver) -> cudaError_t {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    return FromDriver(driver.legacy.cuMemHostAlloc(pointer, bytes, flags));
  });
}

template <typename Allocate>
cudaError_t AllocAsync(const char* name, void** pointer, size_t bytes, Allocate allocate) {
  return Call(name, Needs::kContext, [&](const Driver& driver) -> cudaError_t {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    CUdeviceptr address = 0;
    const CUresult result = allocate(driver, &address);
    return PutPointer(pointer, result, address);
  });
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return Call("cudaMalloc", Needs::kContext, [&](const Driver& driver) -> cudaError_t {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    CUdeviceptr address = 0;
    const CUresult result = driver.legacy.cuMemAlloc(&address, bytes);
    return PutPointer(pointer, result, address);
  });
}

cudaError_t cudaFree(void* pointer) {
  return CallDriver("cudaFree", [&](const Driver& driver) {
    return driver.legacy.cuMemFree(DeviceAddress(pointer));
  });
}

cudaError_t cudaMallocManaged(void** pointer, size_t bytes, unsigned int flags) {
  return Call("cudaMallocManaged", Needs::kContext, [&](const Driver& driver) -> cudaError_t {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    CUdeviceptr address = 0;
    const CUresult result = driver.legacy.cuMemAllocManaged(&address, bytes, flags);
    return PutPointer(pointer, result, address);
  });
}

cudaError_t cudaMallocPitch(void** pointer, size_t* pitch, size_t width, size_t height) {
  return Call("cudaMallocPitch", Needs::kContext, [&](const Driver& driver) -> cudaError_t {
    if (pointer == nullptr || pitch == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    *pitch = 0;
    if (width == 0 || height == 0) return cudaSuccess;
    CUdeviceptr address = 0;
    const CUresult result =
        driver.legacy.cuMemAllocPitch(&address, pitch, width, height, kPitchElement);
    return PutPointer(pointer, result, address);
  });
}

cudaError_t cudaMalloc3D(cudaPitchedPtr* pitched, cudaExtent extent) {
  return Call("cudaMalloc3D", Needs::kContext, [&](const Driver& driver) -> cudaError_t {
    if (pitched == nullptr) return cudaErrorInvalidValue;
    *pitched = cudaPitchedPtr{nullptr, 0, extent.width, extent.height};
    if (extent.width == 0 || extent.height == 0 || extent.depth == 0) return cudaSuccess;
    CUdeviceptr address = 0;
    const CUresult result = driver.legacy.cuMemAllocPitch(
        &address, &pitched->pitch, extent.width, extent.height * extent.depth, kPitchElement);
    return PutPointer(&pitched->ptr, result, address);
  });
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return HostAlloc("cudaMallocHost", pointer, bytes, 0);
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned int flags) {
  return HostAlloc("cudaHostAlloc", pointer, bytes, flags);
}

cudaError_t cudaFreeHost(void* pointer) {
  return CallDriver("cudaFreeHost", [&](const Driver& driver) {
    return pointer == nullptr ? CUDA_SUCCESS : driver.legacy.cuMemFreeHost(pointer);
  });
}

cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned int flags) {
  return CallDriver("cudaHostRegister", [&](const Driver& driver) {
    return driver.legacy.cuMemHostRegister(pointer, bytes, flags);
  });
}

cudaError_t cudaHostUnregister(void* pointer) {
  return CallDriver("cudaHostUnregister", [&](const Driver& driver) {
    return driver.legacy.cuMemHostUnregister(pointer);
  });
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned int flags) {
  return Call(
      "cudaHostGetDevicePointer", Needs::kContext, [&](const Driver& driver) -> cudaError_t {
        if (device == nullptr) return cudaErrorInvalidValue;
        CUdeviceptr address = 0;
        const CUresult result = driver.legacy.cuMemHostGetDevicePointer(&address, host, flags);
        return PutPointer(device, result, address);
      });
}

cudaError_t cudaHostGetFlags(unsigned int* flags, void* host) {
  return CallDriver("cudaHostGetFlags", [&](const Driver& driver) {
    return driver.legacy.cuMemHostGetFlags(flags, host);
  });
}

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return AllocAsync("cudaMallocAsync", pointer, bytes,
                    [=](const Driver& driver, CUdeviceptr* address) {
                      return driver.legacy.cuMemAllocAsync(address, bytes, stream);
                    });
}

cudaError_t cudaMallocAsync_ptsz(void** pointer, size_t bytes, cudaStream_t stream) {
  return AllocAsync("cudaMallocAsync_ptsz", pointer, bytes,
                    [=](const Driver& driver, CUdeviceptr* address) {
                      return driver.per_thread.cuMemAllocAsync(address, bytes, stream);
                    });
}

cudaError_t cudaMallocFromPoolAsync(void** pointer, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  return AllocAsync("cudaMallocFromPoolAsync", pointer, bytes,
                    [=](const Driver& driver, CUdeviceptr* address) {
                      return driver.legacy.cuMemAllocFromPoolAsync(address, bytes, pool, stream);
                    });
}

cudaError_t cudaMallocFromPoolAsync_ptsz(void** pointer, size_t bytes, cudaMemPool_t pool,
                                         cudaStream_t stream) {
  return AllocAsync("cudaMallocFromPoolAsync_ptsz", pointer, bytes,
                    [=](const Driver& driver, CUdeviceptr* address) {
                      return driver.per_thread.cuMemAllocFromPoolAsync(address, bytes, pool,
                                                                       stream);
                    });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return CallDriver("cudaFreeAsync", [&](const Driver& driver) {
    return driver.legacy.cuMemFreeAsync(DeviceAddress(pointer), stream);
  });
}

cudaError_t cudaFreeAsync_ptsz(void* pointer, cudaStream_t stream) {
  return CallDriver("cudaFreeAsync_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuMemFreeAsync(DeviceAddress(pointer), stream);
  });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return CallDriver("cudaDeviceGetDefaultMemPool", [&](const Driver& driver) {
    return driver.legacy.cuDeviceGetDefaultMemPool(pool, device);
  });
}

cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
  return CallDriver("cudaDeviceGetMemPool", [&](const Driver& driver) {
    return driver.legacy.cuDeviceGetMemPool(pool, device);
  });
}

cudaError_t cudaDeviceSetMemPool(int device, cudaMemPool_t pool) {
  return CallDriver("cudaDeviceSetMemPool", [&](const Driver& driver) {
    return driver.legacy.cuDeviceSetMemPool(device, pool);
  });
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  return CallDriver("cudaMemPoolCreate", [&](const Driver& driver) {
    static_assert(sizeof(cudaMemPoolProps) == sizeof(CUmemPoolProps));
    return driver.legacy.cuMemPoolCreate(pool, reinterpret_cast<const CUmemPoolProps*>(properties));
  });
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  return CallDriver("cudaMemPoolDestroy",
                    [&](const Driver& driver) { return driver.legacy.cuMemPoolDestroy(pool); });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t least) {
  return CallDriver("cudaMemPoolTrimTo", [&](const Driver& driver) {
    return driver.legacy.cuMemPoolTrimTo(pool, least);
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return CallDriver("cudaMemPoolGetAttribute", [&](const Driver& driver) {
    return driver.legacy.cuMemPoolGetAttribute(pool, static_cast<CUmemPool_attribute>(attribute),
                                               value);
  });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  return CallDriver("cudaMemPoolSetAttribute", [&](const Driver& driver) {
    return driver.legacy.cuMemPoolSetAttribute(pool, static_cast<CUmemPool_attribute>(attribute),
                                               value);
  });
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  return CallDriver("cudaMemGetInfo", [&](const Driver& driver) {
    return driver.legacy.cuMemGetInfo(free_bytes, total_bytes);
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return Call("cudaPointerGetAttributes", Needs::kContext,
              [&](const Driver& driver) -> cudaError_t {
                if (attributes == nullptr) return cudaErrorInvalidValue;
                unsigned type = 0;
                unsigned managed = 0;
                int device = 0;
                CUdeviceptr device_pointer = 0;
                void* host_pointer = nullptr;
                CUcontext context = nullptr;
                CUpointer_attribute wanted[] = {
                    CU_POINTER_ATTRIBUTE_CONTEXT,        CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                    CU_POINTER_ATTRIBUTE_DEVICE_POINTER, CU_POINTER_ATTRIBUTE_HOST_POINTER,
                    CU_POINTER_ATTRIBUTE_IS_MANAGED,     CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
                void* data[] = {&context, &type, &device_pointer, &host_pointer, &managed, &device};
                const CUresult result =
                    driver.legacy.cuPointerGetAttributes(6, wanted, data, DeviceAddress(pointer));
                if (result != CUDA_SUCCESS) return FromDriver(result);
                std::memset(attributes, 0, sizeof *attributes);
                attributes->type = managed != 0                   ? cudaMemoryTypeManaged
                                   : type == CU_MEMORYTYPE_HOST   ? cudaMemoryTypeHost
                                   : type == CU_MEMORYTYPE_DEVICE ? cudaMemoryTypeDevice
                                                                  : cudaMemoryTypeUnregistered;
                attributes->device = device;
                attributes->devicePointer = reinterpret_cast<void*>(device_pointer);
                attributes->hostPointer = host_pointer;
                return cudaSuccess;
              });
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* pointer) {
  return CallDriver("cudaIpcGetMemHandle", [&](const Driver& driver) {
    static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(CUipcMemHandle));
    return driver.legacy.cuIpcGetMemHandle(reinterpret_cast<CUipcMemHandle*>(handle),
                                           DeviceAddress(pointer));
  });
}

cudaError_t cudaIpcOpenMemHandle(void** pointer, cudaIpcMemHandle_t handle, unsigned int flags) {
  return Call("cudaIpcOpenMemHandle", Needs::kContext, [&](const Driver& driver) -> cudaError_t {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    CUipcMemHandle driver_handle;
    std::memcpy(&driver_handle, &handle, sizeof driver_handle);
    CUdeviceptr address = 0;
    const CUresult result = driver.legacy.cuIpcOpenMemHandle(&address, driver_handle, flags);
    return PutPointer(pointer, result, address);
  });
}

cudaError_t cudaIpcCloseMemHandle(void* pointer) {
  return CallDriver("cudaIpcCloseMemHandle", [&](const Driver& driver) {
    return driver.legacy.cuIpcCloseMemHandle(DeviceAddress(pointer));
  });
}

}  // extern "C"
