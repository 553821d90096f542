// Driver entry points that copy and set memory.
//
// Each exists four times: synchronous and asynchronous, with the legacy and with the per-thread
// stream as the default. copies.h holds what they have in common.
#include "copies.h"
#include "driver_entry.h"

namespace cmp::sim {
namespace {

struct Kind {
  int to_device;
  int from_device;
};
constexpr Kind kAnyToAny{-1, -1};
constexpr Kind kHostToDevice{1, 0};
constexpr Kind kDeviceToHost{0, 1};
constexpr Kind kDeviceToDevice{1, 1};

CopyRequest Synchronous(Kind kind, uintptr_t to, uintptr_t from, size_t bytes,
                        DefaultStream default_stream) {
  return {
      {to, kind.to_device}, {from, kind.from_device}, bytes, 1, 1, nullptr, default_stream, true};
}

CopyRequest Asynchronous(Kind kind, uintptr_t to, uintptr_t from, size_t bytes, CUstream stream,
                         DefaultStream default_stream) {
  return {
      {to, kind.to_device}, {from, kind.from_device}, bytes, 1, 1, stream, default_stream, false};
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return Enter("cuMemcpy", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kAnyToAny, to, from, bytes, kLegacy));
  });
}

CUresult cuMemcpy_ptds(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return Enter("cuMemcpy_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kAnyToAny, to, from, bytes, kPerThread));
  });
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return Enter("cuMemcpyAsync", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Asynchronous(kAnyToAny, to, from, bytes, stream, kLegacy));
  });
}

CUresult cuMemcpyAsync_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return Enter("cuMemcpyAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Asynchronous(kAnyToAny, to, from, bytes, stream, kPerThread));
  });
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return Enter("cuMemcpyHtoD_v2", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kHostToDevice, to, AddressOf(from), bytes, kLegacy));
  });
}

CUresult cuMemcpyHtoD_v2_ptds(CUdeviceptr to, const void* from, size_t bytes) {
  return Enter("cuMemcpyHtoD_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kHostToDevice, to, AddressOf(from), bytes, kPerThread));
  });
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return Enter("cuMemcpyHtoDAsync_v2", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock,
                Asynchronous(kHostToDevice, to, AddressOf(from), bytes, stream, kLegacy));
  });
}

CUresult cuMemcpyHtoDAsync_v2_ptsz(CUdeviceptr to, const void* from, size_t bytes,
                                   CUstream stream) {
  return Enter("cuMemcpyHtoDAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock,
                Asynchronous(kHostToDevice, to, AddressOf(from), bytes, stream, kPerThread));
  });
}

CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return Enter("cuMemcpyDtoH_v2", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kDeviceToHost, AddressOf(to), from, bytes, kLegacy));
  });
}

CUresult cuMemcpyDtoH_v2_ptds(void* to, CUdeviceptr from, size_t bytes) {
  return Enter("cuMemcpyDtoH_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kDeviceToHost, AddressOf(to), from, bytes, kPerThread));
  });
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return Enter("cuMemcpyDtoHAsync_v2", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock,
                Asynchronous(kDeviceToHost, AddressOf(to), from, bytes, stream, kLegacy));
  });
}

CUresult cuMemcpyDtoHAsync_v2_ptsz(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return Enter("cuMemcpyDtoHAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock,
                Asynchronous(kDeviceToHost, AddressOf(to), from, bytes, stream, kPerThread));
  });
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return Enter("cuMemcpyDtoD_v2", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kDeviceToDevice, to, from, bytes, kLegacy));
  });
}

CUresult cuMemcpyDtoD_v2_ptds(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return Enter("cuMemcpyDtoD_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kDeviceToDevice, to, from, bytes, kPerThread));
  });
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return Enter("cuMemcpyDtoDAsync_v2", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Asynchronous(kDeviceToDevice, to, from, bytes, stream, kLegacy));
  });
}

CUresult cuMemcpyDtoDAsync_v2_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                   CUstream stream) {
  return Enter("cuMemcpyDtoDAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Asynchronous(kDeviceToDevice, to, from, bytes, stream, kPerThread));
  });
}

CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes) {
  return Enter("cuMemcpyPeer", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kDeviceToDevice, to, from, bytes, kLegacy));
  });
}

CUresult cuMemcpyPeer_ptds(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes) {
  return Enter("cuMemcpyPeer_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Synchronous(kDeviceToDevice, to, from, bytes, kPerThread));
  });
}

CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes,
                           CUstream stream) {
  return Enter("cuMemcpyPeerAsync", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Asynchronous(kDeviceToDevice, to, from, bytes, stream, kLegacy));
  });
}

CUresult cuMemcpyPeerAsync_ptsz(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext,
                                size_t bytes, CUstream stream) {
  return Enter("cuMemcpyPeerAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy(sim, lock, Asynchronous(kDeviceToDevice, to, from, bytes, stream, kPerThread));
  });
}

CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
  return Enter("cuMemsetD8_v2", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 1, count, 1, nullptr, kLegacy, true});
  });
}

CUresult cuMemsetD8_v2_ptds(CUdeviceptr to, unsigned char value, size_t count) {
  return Enter("cuMemsetD8_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 1, count, 1, nullptr, kPerThread, true});
  });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return Enter("cuMemsetD8Async", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 1, count, 1, stream, kLegacy, false});
  });
}

CUresult cuMemsetD8Async_ptsz(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
  return Enter("cuMemsetD8Async_ptsz", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 1, count, 1, stream, kPerThread, false});
  });
}

CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count) {
  return Enter("cuMemsetD16_v2", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 2, count, 1, nullptr, kLegacy, true});
  });
}

CUresult cuMemsetD16_v2_ptds(CUdeviceptr to, unsigned short value, size_t count) {
  return Enter("cuMemsetD16_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 2, count, 1, nullptr, kPerThread, true});
  });
}

CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
  return Enter("cuMemsetD16Async", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 2, count, 1, stream, kLegacy, false});
  });
}

CUresult cuMemsetD16Async_ptsz(CUdeviceptr to, unsigned short value, size_t count,
                               CUstream stream) {
  return Enter("cuMemsetD16Async_ptsz", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 2, count, 1, stream, kPerThread, false});
  });
}

CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t count) {
  return Enter("cuMemsetD32_v2", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 4, count, 1, nullptr, kLegacy, true});
  });
}

CUresult cuMemsetD32_v2_ptds(CUdeviceptr to, unsigned int value, size_t count) {
  return Enter("cuMemsetD32_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 4, count, 1, nullptr, kPerThread, true});
  });
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream stream) {
  return Enter("cuMemsetD32Async", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 4, count, 1, stream, kLegacy, false});
  });
}

CUresult cuMemsetD32Async_ptsz(CUdeviceptr to, unsigned int value, size_t count, CUstream stream) {
  return Enter("cuMemsetD32Async_ptsz", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, 0, value, 4, count, 1, stream, kPerThread, false});
  });
}

}  // extern "C"
