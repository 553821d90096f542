// Driver entry points that copy boxes of memory: two and three dimensions.
//
// Device and host memory only; an array on either side is CUDA_ERROR_NOT_SUPPORTED. copies.h holds
// what they have in common.
#include "copies.h"
#include "driver_entry.h"

namespace cmp::sim {
namespace {

// One side, as the parameters of all these calls describe it.
CUresult SideOf(CUmemorytype type, const void* host, CUdeviceptr device, size_t x, size_t y,
                size_t z, size_t pitch, size_t rows_of_slice, size_t width, CopySide* side) {
  if (type == CU_MEMORYTYPE_ARRAY) return CUDA_ERROR_NOT_SUPPORTED;
  if (type != CU_MEMORYTYPE_HOST && type != CU_MEMORYTYPE_DEVICE && type != CU_MEMORYTYPE_UNIFIED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (pitch != 0 && pitch < x + width) return CUDA_ERROR_INVALID_VALUE;
  side->pitch = pitch;
  side->slice = pitch * rows_of_slice;
  side->on_device = type == CU_MEMORYTYPE_HOST ? 0 : type == CU_MEMORYTYPE_DEVICE ? 1 : -1;
  const uintptr_t base = type == CU_MEMORYTYPE_HOST ? AddressOf(host) : device;
  side->start = base + z * side->slice + y * side->pitch + x;
  return CUDA_SUCCESS;
}

struct Submission {
  CUstream stream = nullptr;
  DefaultStream null_means = kLegacy;
  bool synchronous = false;
};

CUresult Copy2D(Simulation& sim, Lock& lock, const CUDA_MEMCPY2D* box, const Submission& how) {
  if (box == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CopyRequest request{{}, {},         box->WidthInBytes, box->Height,
                      1,  how.stream, how.null_means,    how.synchronous};
  CUresult result = SideOf(box->dstMemoryType, box->dstHost, box->dstDevice, box->dstXInBytes,
                           box->dstY, 0, box->dstPitch, 0, box->WidthInBytes, &request.to);
  if (result != CUDA_SUCCESS) return result;
  result = SideOf(box->srcMemoryType, box->srcHost, box->srcDevice, box->srcXInBytes, box->srcY, 0,
                  box->srcPitch, 0, box->WidthInBytes, &request.from);
  return result != CUDA_SUCCESS ? result : Copy(sim, lock, request);
}

// CUDA_MEMCPY3D, and CUDA_MEMCPY3D_PEER, whose contexts say nothing here.
template <typename Box>
CUresult Copy3D(Simulation& sim, Lock& lock, const Box* box, const Submission& how) {
  if (box == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CopyRequest request{{},         {},         box->WidthInBytes, box->Height,
                      box->Depth, how.stream, how.null_means,    how.synchronous};
  CUresult result =
      SideOf(box->dstMemoryType, box->dstHost, box->dstDevice, box->dstXInBytes, box->dstY,
             box->dstZ, box->dstPitch, box->dstHeight, box->WidthInBytes, &request.to);
  if (result != CUDA_SUCCESS) return result;
  result = SideOf(box->srcMemoryType, box->srcHost, box->srcDevice, box->srcXInBytes, box->srcY,
                  box->srcZ, box->srcPitch, box->srcHeight, box->WidthInBytes, &request.from);
  return result != CUDA_SUCCESS ? result : Copy(sim, lock, request);
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* box) {
  return Enter("cuMemcpy2D_v2", [&](Simulation& sim, Lock& lock) {
    return Copy2D(sim, lock, box, {nullptr, kLegacy, true});
  });
}

CUresult cuMemcpy2D_v2_ptds(const CUDA_MEMCPY2D* box) {
  return Enter("cuMemcpy2D_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy2D(sim, lock, box, {nullptr, kPerThread, true});
  });
}

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* box) {
  return Enter("cuMemcpy2DUnaligned_v2", [&](Simulation& sim, Lock& lock) {
    return Copy2D(sim, lock, box, {nullptr, kLegacy, true});
  });
}

CUresult cuMemcpy2DUnaligned_v2_ptds(const CUDA_MEMCPY2D* box) {
  return Enter("cuMemcpy2DUnaligned_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy2D(sim, lock, box, {nullptr, kPerThread, true});
  });
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* box, CUstream stream) {
  return Enter("cuMemcpy2DAsync_v2", [&](Simulation& sim, Lock& lock) {
    return Copy2D(sim, lock, box, {stream, kLegacy, false});
  });
}

CUresult cuMemcpy2DAsync_v2_ptsz(const CUDA_MEMCPY2D* box, CUstream stream) {
  return Enter("cuMemcpy2DAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy2D(sim, lock, box, {stream, kPerThread, false});
  });
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D* box) {
  return Enter("cuMemcpy3D_v2", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, {nullptr, kLegacy, true});
  });
}

CUresult cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D* box) {
  return Enter("cuMemcpy3D_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, {nullptr, kPerThread, true});
  });
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D* box, CUstream stream) {
  return Enter("cuMemcpy3DAsync_v2", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, {stream, kLegacy, false});
  });
}

CUresult cuMemcpy3DAsync_v2_ptsz(const CUDA_MEMCPY3D* box, CUstream stream) {
  return Enter("cuMemcpy3DAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, {stream, kPerThread, false});
  });
}

CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER* box) {
  return Enter("cuMemcpy3DPeer", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, {nullptr, kLegacy, true});
  });
}

CUresult cuMemcpy3DPeer_ptds(const CUDA_MEMCPY3D_PEER* box) {
  return Enter("cuMemcpy3DPeer_ptds", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, {nullptr, kPerThread, true});
  });
}

CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER* box, CUstream stream) {
  return Enter("cuMemcpy3DPeerAsync", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, {stream, kLegacy, false});
  });
}

CUresult cuMemcpy3DPeerAsync_ptsz(const CUDA_MEMCPY3D_PEER* box, CUstream stream) {
  return Enter("cuMemcpy3DPeerAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, {stream, kPerThread, false});
  });
}

}  // extern "C"
