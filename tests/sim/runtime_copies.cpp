// Runtime entry points that copy and set memory.
#include "runtime_driver.h"

namespace cmp::sim {
namespace {

// By kind, as the real runtime does it; cudaMemcpyDefault and host to host through cuMemcpy, which
// tells by the addresses.
CUresult Copy(const DriverFunctions& functions, void* to, const void* from, size_t bytes,
              cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToDevice:
      return functions.cuMemcpyHtoD(DeviceAddress(to), from, bytes);
    case cudaMemcpyDeviceToHost:
      return functions.cuMemcpyDtoH(to, DeviceAddress(from), bytes);
    case cudaMemcpyDeviceToDevice:
      return functions.cuMemcpyDtoD(DeviceAddress(to), DeviceAddress(from), bytes);
    case cudaMemcpyHostToHost:
    case cudaMemcpyDefault:
      return functions.cuMemcpy(DeviceAddress(to), DeviceAddress(from), bytes);
  }
  return static_cast<CUresult>(cudaErrorInvalidMemcpyDirection);
}

CUresult CopyAsync(const DriverFunctions& functions, void* to, const void* from, size_t bytes,
                   cudaMemcpyKind kind, cudaStream_t stream) {
  switch (kind) {
    case cudaMemcpyHostToDevice:
      return functions.cuMemcpyHtoDAsync(DeviceAddress(to), from, bytes, stream);
    case cudaMemcpyDeviceToHost:
      return functions.cuMemcpyDtoHAsync(to, DeviceAddress(from), bytes, stream);
    case cudaMemcpyDeviceToDevice:
      return functions.cuMemcpyDtoDAsync(DeviceAddress(to), DeviceAddress(from), bytes, stream);
    case cudaMemcpyHostToHost:
    case cudaMemcpyDefault:
      return functions.cuMemcpyAsync(DeviceAddress(to), DeviceAddress(from), bytes, stream);
  }
  return static_cast<CUresult>(cudaErrorInvalidMemcpyDirection);
}

unsigned char Byte(int value) { return static_cast<unsigned char>(value); }

// The primary contexts of both devices exist by the time of a peer copy; their handles say nothing
// that the addresses do not.
CUresult CopyPeer(const DriverFunctions& functions, void* to, const void* from, size_t bytes) {
  CUcontext context = nullptr;
  functions.cuCtxGetCurrent(&context);
  return functions.cuMemcpyPeer(DeviceAddress(to), context, DeviceAddress(from), context, bytes);
}

CUresult CopyPeerAsync(const DriverFunctions& functions, void* to, const void* from, size_t bytes,
                       cudaStream_t stream) {
  CUcontext context = nullptr;
  functions.cuCtxGetCurrent(&context);
  return functions.cuMemcpyPeerAsync(DeviceAddress(to), context, DeviceAddress(from), context,
                                     bytes, stream);
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return CallDriver("cudaMemcpy", [&](const Driver& driver) {
    return Copy(driver.legacy, to, from, bytes, kind);
  });
}

cudaError_t cudaMemcpy_ptds(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return CallDriver("cudaMemcpy_ptds", [&](const Driver& driver) {
    return Copy(driver.per_thread, to, from, bytes, kind);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return CallDriver("cudaMemcpyAsync", [&](const Driver& driver) {
    return CopyAsync(driver.legacy, to, from, bytes, kind, stream);
  });
}

cudaError_t cudaMemcpyAsync_ptsz(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                 cudaStream_t stream) {
  return CallDriver("cudaMemcpyAsync_ptsz", [&](const Driver& driver) {
    return CopyAsync(driver.per_thread, to, from, bytes, kind, stream);
  });
}

cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t bytes) {
  return CallDriver("cudaMemcpyPeer",
                    [&](const Driver& driver) { return CopyPeer(driver.legacy, to, from, bytes); });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return CallDriver("cudaMemcpyPeerAsync", [&](const Driver& driver) {
    return CopyPeerAsync(driver.legacy, to, from, bytes, stream);
  });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return CallDriver("cudaMemset", [&](const Driver& driver) {
    return driver.legacy.cuMemsetD8(DeviceAddress(to), Byte(value), bytes);
  });
}

cudaError_t cudaMemset_ptds(void* to, int value, size_t bytes) {
  return CallDriver("cudaMemset_ptds", [&](const Driver& driver) {
    return driver.per_thread.cuMemsetD8(DeviceAddress(to), Byte(value), bytes);
  });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return CallDriver("cudaMemsetAsync", [&](const Driver& driver) {
    return driver.legacy.cuMemsetD8Async(DeviceAddress(to), Byte(value), bytes, stream);
  });
}

cudaError_t cudaMemsetAsync_ptsz(void* to, int value, size_t bytes, cudaStream_t stream) {
  return CallDriver("cudaMemsetAsync_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuMemsetD8Async(DeviceAddress(to), Byte(value), bytes, stream);
  });
}

cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return CallDriver("cudaMemset2D", [&](const Driver& driver) {
    return driver.legacy.cuMemsetD2D8(DeviceAddress(to), pitch, Byte(value), width, height);
  });
}

cudaError_t cudaMemset2D_ptds(void* to, size_t pitch, int value, size_t width, size_t height) {
  return CallDriver("cudaMemset2D_ptds", [&](const Driver& driver) {
    return driver.per_thread.cuMemsetD2D8(DeviceAddress(to), pitch, Byte(value), width, height);
  });
}

cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
  return CallDriver("cudaMemset2DAsync", [&](const Driver& driver) {
    return driver.legacy.cuMemsetD2D8Async(DeviceAddress(to), pitch, Byte(value), width, height,
                                           stream);
  });
}

cudaError_t cudaMemset2DAsync_ptsz(void* to, size_t pitch, int value, size_t width, size_t height,
                                   cudaStream_t stream) {
  return CallDriver("cudaMemset2DAsync_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuMemsetD2D8Async(DeviceAddress(to), pitch, Byte(value), width, height,
                                               stream);
  });
}

}  // extern "C"
