// Driver entry points that copy boxes of memory: two and three dimensions.
//
// Device and host memory only; an array on either side is CUDA_ERROR_NOT_SUPPORTED. copies.h holds
// what they have in common.
#include "copies.h"
#include "driver_entry.h"

namespace cmp::sim {
namespace {

struct Submission {
  CUstream stream = nullptr;
  DefaultStream null_means = kLegacy;
  bool synchronous = false;
};

template <typename Box>
CUresult CopyBox(Simulation& sim, Lock& lock, const Box* box, const Submission& how) {
  if (box == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CopyRequest request;
  request.stream = how.stream;
  request.null_means = how.null_means;
  request.synchronous = how.synchronous;
  const CUresult result = ToRequest(*box, &request);
  return result != CUDA_SUCCESS ? result : Copy(sim, lock, request);
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D* box) {
  return Enter("cuMemcpy2D_v2", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {nullptr, kLegacy, true});
  });
}

CUresult cuMemcpy2D_v2_ptds(const CUDA_MEMCPY2D* box) {
  return Enter("cuMemcpy2D_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {nullptr, kPerThread, true});
  });
}

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* box) {
  return Enter("cuMemcpy2DUnaligned_v2", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {nullptr, kLegacy, true});
  });
}

CUresult cuMemcpy2DUnaligned_v2_ptds(const CUDA_MEMCPY2D* box) {
  return Enter("cuMemcpy2DUnaligned_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {nullptr, kPerThread, true});
  });
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* box, CUstream stream) {
  return Enter("cuMemcpy2DAsync_v2", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {stream, kLegacy, false});
  });
}

CUresult cuMemcpy2DAsync_v2_ptsz(const CUDA_MEMCPY2D* box, CUstream stream) {
  return Enter("cuMemcpy2DAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {stream, kPerThread, false});
  });
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D* box) {
  return Enter("cuMemcpy3D_v2", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {nullptr, kLegacy, true});
  });
}

CUresult cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D* box) {
  return Enter("cuMemcpy3D_v2_ptds", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {nullptr, kPerThread, true});
  });
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D* box, CUstream stream) {
  return Enter("cuMemcpy3DAsync_v2", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {stream, kLegacy, false});
  });
}

CUresult cuMemcpy3DAsync_v2_ptsz(const CUDA_MEMCPY3D* box, CUstream stream) {
  return Enter("cuMemcpy3DAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {stream, kPerThread, false});
  });
}

CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER* box) {
  return Enter("cuMemcpy3DPeer", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {nullptr, kLegacy, true});
  });
}

CUresult cuMemcpy3DPeer_ptds(const CUDA_MEMCPY3D_PEER* box) {
  return Enter("cuMemcpy3DPeer_ptds", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {nullptr, kPerThread, true});
  });
}

CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER* box, CUstream stream) {
  return Enter("cuMemcpy3DPeerAsync", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {stream, kLegacy, false});
  });
}

CUresult cuMemcpy3DPeerAsync_ptsz(const CUDA_MEMCPY3D_PEER* box, CUstream stream) {
  return Enter("cuMemcpy3DPeerAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return CopyBox(sim, lock, box, {stream, kPerThread, false});
  });
}

}  // extern "C"
