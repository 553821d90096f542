// Runtime entry points about devices, versions and the driver's entry points.
#include <cstdio>
#include <cstring>

#include "runtime_driver.h"

namespace cmp::sim {
namespace {

// Of the current context, or the one that the thread would get.
cudaError_t CurrentDevice(const Driver& driver, int* device) {
  CUcontext context = nullptr;
  const CUresult result = driver.legacy.cuCtxGetCurrent(&context);
  if (result != CUDA_SUCCESS) return FromDriver(result);
  CUdevice of_context = 0;
  if (context == nullptr || driver.legacy.cuCtxGetDevice(&of_context) != CUDA_SUCCESS) {
    *device = ThreadDevice();
  } else {
    *device = of_context;
  }
  return cudaSuccess;
}

cudaError_t EntryPoint(const char* name, const char* symbol, void** address, unsigned version,
                       unsigned long long flags, unsigned long long default_flags,
                       cudaDriverEntryPointQueryResult* status) {
  return Call(name, Needs::kDriver, [&](const Driver& driver) -> cudaError_t {
    if (symbol == nullptr || address == nullptr) return cudaErrorInvalidValue;
    CUdriverProcAddressQueryResult found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    const CUresult result =
        driver.get_address(symbol, address, static_cast<int>(version),
                           flags == cudaEnableDefault ? default_flags : flags, &found);
    if (status != nullptr) *status = static_cast<cudaDriverEntryPointQueryResult>(found);
    return FromDriver(result);
  });
}

cudaError_t Properties(const char* name, cudaDeviceProp* properties, int device) {
  return Call(name, Needs::kDriver, [&](const Driver& driver) -> cudaError_t {
    if (properties == nullptr) return cudaErrorInvalidValue;
    std::memset(properties, 0, sizeof *properties);
    CUresult result =
        driver.legacy.cuDeviceGetName(properties->name, sizeof properties->name, device);
    if (result != CUDA_SUCCESS) return FromDriver(result);
    result = driver.legacy.cuDeviceTotalMem(&properties->totalGlobalMem, device);
    const auto get = [&](CUdevice_attribute attribute) {
      int value = 0;
      driver.legacy.cuDeviceGetAttribute(&value, attribute, device);
      return value;
    };
    properties->major = get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    properties->minor = get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    properties->multiProcessorCount = get(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    properties->warpSize = get(CU_DEVICE_ATTRIBUTE_WARP_SIZE);
    properties->maxThreadsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    properties->pciBusID = get(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID);
    properties->unifiedAddressing = 1;
    properties->managedMemory = 1;
    return FromDriver(result);
  });
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

cudaError_t cudaRuntimeGetVersion(int* version) {
  if (version == nullptr) return Note(cudaErrorInvalidValue);
  *version = CUDART_VERSION;
  return cudaSuccess;
}

// Zero, and no error, where there is no driver.
cudaError_t cudaDriverGetVersion(int* version) {
  if (version == nullptr) return Note(cudaErrorInvalidValue);
  *version = 0;
  const Driver& driver = TheDriver();
  if (driver.legacy.cuDriverGetVersion == nullptr) return cudaSuccess;
  return Note(FromDriver(driver.legacy.cuDriverGetVersion(version)));
}

cudaError_t cudaGetDeviceCount(int* count) {
  if (count != nullptr) *count = 0;
  return Call("cudaGetDeviceCount", Needs::kDriver, [&](const Driver& driver) {
    return FromDriver(driver.legacy.cuDeviceGetCount(count));
  });
}

cudaError_t cudaGetDevice(int* device) {
  return Call("cudaGetDevice", Needs::kDriver, [&](const Driver& driver) -> cudaError_t {
    return device == nullptr ? cudaErrorInvalidValue : CurrentDevice(driver, device);
  });
}

cudaError_t cudaSetDevice(int device) {
  return Call("cudaSetDevice", Needs::kDriver,
              [&](const Driver& driver) { return SetDevice(driver, device); });
}

cudaError_t cudaInitDevice(int device, unsigned int, unsigned int) {
  return Call("cudaInitDevice", Needs::kDriver,
              [&](const Driver& driver) { return SetDevice(driver, device); });
}

cudaError_t cudaDeviceSynchronize() {
  return Call("cudaDeviceSynchronize", Needs::kDriver, [&](const Driver& driver) -> cudaError_t {
    CUcontext context = nullptr;
    const cudaError_t result = EnsureContext(driver, &context);
    if (result != cudaSuccess) return result;
    // Only runtime 13 knows the second version.
    if (CUDART_VERSION < 13000 || driver.legacy.cuCtxSynchronize_v2 == nullptr) {
      return FromDriver(driver.legacy.cuCtxSynchronize());
    }
    return FromDriver(driver.legacy.cuCtxSynchronize_v2(context));
  });
}

cudaError_t cudaDeviceReset() {
  return Call("cudaDeviceReset", Needs::kDriver, [&](const Driver& driver) -> cudaError_t {
    int device = 0;
    const cudaError_t result = CurrentDevice(driver, &device);
    if (result != cudaSuccess) return result;
    ForgetPrimary(device);
    return FromDriver(driver.legacy.cuDevicePrimaryCtxReset(device));
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return Call("cudaDeviceGetAttribute", Needs::kDriver, [&](const Driver& driver) {
    return FromDriver(driver.legacy.cuDeviceGetAttribute(
        value, static_cast<CUdevice_attribute>(attribute), device));
  });
}

#if CUDART_VERSION < 13000
// Version 12 has this name and, for the structure of version 11, the plain one.
cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp* properties, int device) {
  return Properties("cudaGetDeviceProperties_v2", properties, device);
}
#endif

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return Properties("cudaGetDeviceProperties", properties, device);
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  return Call("cudaDeviceCanAccessPeer", Needs::kDriver, [&](const Driver& driver) {
    return FromDriver(driver.legacy.cuDeviceCanAccessPeer(can, device, peer));
  });
}

cudaError_t cudaDeviceEnablePeerAccess(int device, unsigned int flags) {
  return Call("cudaDeviceEnablePeerAccess", Needs::kContext, [&](const Driver& driver) {
    CUcontext peer = nullptr;
    const cudaError_t result = ContextOf(driver, device, &peer);
    return result != cudaSuccess ? result
                                 : FromDriver(driver.legacy.cuCtxEnablePeerAccess(peer, flags));
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return CallDriver("cudaDeviceGetStreamPriorityRange", [&](const Driver& driver) {
    return driver.legacy.cuCtxGetStreamPriorityRange(least, greatest);
  });
}

cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** address, unsigned long long flags,
                                    cudaDriverEntryPointQueryResult* status) {
  return EntryPoint("cudaGetDriverEntryPoint", symbol, address, CUDART_VERSION, flags,
                    cudaEnableLegacyStream, status);
}

cudaError_t cudaGetDriverEntryPoint_ptsz(const char* symbol, void** address,
                                         unsigned long long flags,
                                         cudaDriverEntryPointQueryResult* status) {
  return EntryPoint("cudaGetDriverEntryPoint_ptsz", symbol, address, CUDART_VERSION, flags,
                    cudaEnablePerThreadDefaultStream, status);
}

#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** address,
                                             unsigned int version, unsigned long long flags,
                                             cudaDriverEntryPointQueryResult* status) {
  return EntryPoint("cudaGetDriverEntryPointByVersion", symbol, address, version, flags,
                    cudaEnableLegacyStream, status);
}

cudaError_t cudaGetDriverEntryPointByVersion_ptsz(const char* symbol, void** address,
                                                  unsigned int version, unsigned long long flags,
                                                  cudaDriverEntryPointQueryResult* status) {
  return EntryPoint("cudaGetDriverEntryPointByVersion_ptsz", symbol, address, version, flags,
                    cudaEnablePerThreadDefaultStream, status);
}
#endif

}  // extern "C"
