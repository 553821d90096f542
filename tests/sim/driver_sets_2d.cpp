// Driver entry points that set two-dimensional memory.
//
// Each exists four times: synchronous and asynchronous, with the legacy and with the per-thread
// stream as the default. copies.h holds what they have in common.
#include "copies.h"
#include "driver_entry.h"

using namespace cmp::sim;

extern "C" {

CUresult cuMemsetD2D8_v2(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                         size_t height) {
  return Enter("cuMemsetD2D8_v2", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 1, width, height, nullptr, kLegacy, true});
  });
}

CUresult cuMemsetD2D8_v2_ptds(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                              size_t height) {
  return Enter("cuMemsetD2D8_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 1, width, height, nullptr, kPerThread, true});
  });
}

CUresult cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                           size_t height, CUstream stream) {
  return Enter("cuMemsetD2D8Async", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 1, width, height, stream, kLegacy, false});
  });
}

CUresult cuMemsetD2D8Async_ptsz(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                                size_t height, CUstream stream) {
  return Enter("cuMemsetD2D8Async_ptsz", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 1, width, height, stream, kPerThread, false});
  });
}

CUresult cuMemsetD2D16_v2(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                          size_t height) {
  return Enter("cuMemsetD2D16_v2", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 2, width, height, nullptr, kLegacy, true});
  });
}

CUresult cuMemsetD2D16_v2_ptds(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                               size_t height) {
  return Enter("cuMemsetD2D16_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 2, width, height, nullptr, kPerThread, true});
  });
}

CUresult cuMemsetD2D16Async(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                            size_t height, CUstream stream) {
  return Enter("cuMemsetD2D16Async", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 2, width, height, stream, kLegacy, false});
  });
}

CUresult cuMemsetD2D16Async_ptsz(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                                 size_t height, CUstream stream) {
  return Enter("cuMemsetD2D16Async_ptsz", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 2, width, height, stream, kPerThread, false});
  });
}

CUresult cuMemsetD2D32_v2(CUdeviceptr to, size_t pitch, unsigned int value, size_t width,
                          size_t height) {
  return Enter("cuMemsetD2D32_v2", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 4, width, height, nullptr, kLegacy, true});
  });
}

CUresult cuMemsetD2D32_v2_ptds(CUdeviceptr to, size_t pitch, unsigned int value, size_t width,
                               size_t height) {
  return Enter("cuMemsetD2D32_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 4, width, height, nullptr, kPerThread, true});
  });
}

CUresult cuMemsetD2D32Async(CUdeviceptr to, size_t pitch, unsigned int value, size_t width,
                            size_t height, CUstream stream) {
  return Enter("cuMemsetD2D32Async", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 4, width, height, stream, kLegacy, false});
  });
}

CUresult cuMemsetD2D32Async_ptsz(CUdeviceptr to, size_t pitch, unsigned int value, size_t width,
                                 size_t height, CUstream stream) {
  return Enter("cuMemsetD2D32Async_ptsz", [&](Simulation& sim, Lock& lock) {
    return Set(sim, lock, {to, pitch, value, 4, width, height, stream, kPerThread, false});
  });
}

}  // extern "C"
