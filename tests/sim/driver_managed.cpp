// Driver entry points that move managed memory, or say whose it is, in the order of a stream.
//
// There is one copy of it here, on the host: they take time, and change where it counts.
#include <functional>
#include <utility>

#include "driver_entry.h"

namespace cmp::sim {
namespace {

bool IsManaged(Simulation& sim, CUdeviceptr start, size_t bytes) {
  const Allocation* allocation = sim.allocations.Find(start);
  return bytes != 0 && allocation != nullptr && allocation->kind == MemoryKind::kManaged &&
         start + bytes <= allocation->range().end();
}

bool IsPlace(const Simulation& sim, const CUmemLocation& location) {
  if (location.type == CU_MEM_LOCATION_TYPE_DEVICE) return IsDevice(sim, location.id);
  return location.type == CU_MEM_LOCATION_TYPE_HOST ||
         location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA ||
         location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
}

// Not in a capture: there is no such node.
CUresult SubmitOn(Simulation& sim, CUstream handle, DefaultStream null_means, const char* what,
                  const Range& range, std::function<void(CUresult)> effect = {}) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (stream->capture != nullptr) return Invalidate(*stream->capture);
  Work work;
  work.what = what;
  work.duration_ns = 1000 + range.bytes / 25;
  work.reads = {range};
  work.brings_managed = false;
  work.effect = std::move(effect);
  return SubmitWork(sim, *stream, std::move(work));
}

CUresult Prefetch(Simulation& sim, CUdeviceptr start, size_t bytes, const CUmemLocation& location,
                  unsigned flags, CUstream stream, DefaultStream null_means) {
  if (flags != 0 || !IsManaged(sim, start, bytes)) return CUDA_ERROR_INVALID_VALUE;
  if (!IsPlace(sim, location)) return CUDA_ERROR_INVALID_DEVICE;
  const Range range{start, bytes};
  const bool home = location.type != CU_MEM_LOCATION_TYPE_DEVICE;
  return SubmitOn(sim, stream, null_means, "prefetch", range,
                  [&sim, range, home, device = location.id](CUresult) {
                    if (home) {
                      sim.allocations.SendManagedHome(range);
                    } else {
                      sim.allocations.BringManaged(device, {range});
                    }
                  });
}

CUmemLocation LocationOf(CUdevice device) {
  CUmemLocation location{};
  location.type = device == CU_DEVICE_CPU ? CU_MEM_LOCATION_TYPE_HOST : CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = device;
  return location;
}

CUresult Attach(Simulation& sim, CUstream stream, DefaultStream null_means, CUdeviceptr start,
                size_t bytes, unsigned flags) {
  if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST &&
      flags != CU_MEM_ATTACH_SINGLE) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Allocation* allocation = sim.allocations.FindBase(start);
  if (allocation == nullptr || allocation->kind != MemoryKind::kManaged ||
      (bytes != 0 && bytes != allocation->bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return SubmitOn(sim, stream, null_means, "attachment of managed memory", allocation->range());
}

#if CUDA_VERSION >= 13000

CUresult PrefetchBatch(Simulation& sim, const CUdeviceptr* starts, const size_t* bytes,
                       size_t count, const CUmemLocation* locations, const size_t* indices,
                       size_t location_count, unsigned long long flags, CUstream stream,
                       DefaultStream null_means) {
  if (starts == nullptr || bytes == nullptr || count == 0 || locations == nullptr ||
      indices == nullptr || location_count == 0 || location_count > count || indices[0] != 0 ||
      flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  size_t location = 0;
  for (size_t i = 0; i < count; ++i) {
    if (location + 1 < location_count && indices[location + 1] == i) ++location;
    const CUresult result =
        Prefetch(sim, starts[i], bytes[i], locations[location], 0, stream, null_means);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

#endif

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemPrefetchAsync(CUdeviceptr start, size_t bytes, CUdevice device, CUstream stream) {
  return Enter("cuMemPrefetchAsync", [&](Simulation& sim, Lock&) {
    return Prefetch(sim, start, bytes, LocationOf(device), 0, stream, kLegacy);
  });
}

CUresult cuMemPrefetchAsync_ptsz(CUdeviceptr start, size_t bytes, CUdevice device,
                                 CUstream stream) {
  return Enter("cuMemPrefetchAsync_ptsz", [&](Simulation& sim, Lock&) {
    return Prefetch(sim, start, bytes, LocationOf(device), 0, stream, kPerThread);
  });
}

CUresult cuMemPrefetchAsync_v2(CUdeviceptr start, size_t bytes, CUmemLocation location,
                               unsigned int flags, CUstream stream) {
  return Enter("cuMemPrefetchAsync_v2", [&](Simulation& sim, Lock&) {
    return Prefetch(sim, start, bytes, location, flags, stream, kLegacy);
  });
}

CUresult cuMemPrefetchAsync_v2_ptsz(CUdeviceptr start, size_t bytes, CUmemLocation location,
                                    unsigned int flags, CUstream stream) {
  return Enter("cuMemPrefetchAsync_v2_ptsz", [&](Simulation& sim, Lock&) {
    return Prefetch(sim, start, bytes, location, flags, stream, kPerThread);
  });
}

CUresult cuStreamAttachMemAsync(CUstream stream, CUdeviceptr start, size_t bytes,
                                unsigned int flags) {
  return Enter("cuStreamAttachMemAsync", [&](Simulation& sim, Lock&) {
    return Attach(sim, stream, kLegacy, start, bytes, flags);
  });
}

CUresult cuStreamAttachMemAsync_ptsz(CUstream stream, CUdeviceptr start, size_t bytes,
                                     unsigned int flags) {
  return Enter("cuStreamAttachMemAsync_ptsz", [&](Simulation& sim, Lock&) {
    return Attach(sim, stream, kPerThread, start, bytes, flags);
  });
}

#if CUDA_VERSION >= 13000

CUresult cuMemPrefetchBatchAsync(CUdeviceptr* starts, size_t* bytes, size_t count,
                                 CUmemLocation* locations, size_t* indices, size_t location_count,
                                 unsigned long long flags, CUstream stream) {
  return Enter("cuMemPrefetchBatchAsync", [&](Simulation& sim, Lock&) {
    return PrefetchBatch(sim, starts, bytes, count, locations, indices, location_count, flags,
                         stream, kLegacy);
  });
}

CUresult cuMemPrefetchBatchAsync_ptsz(CUdeviceptr* starts, size_t* bytes, size_t count,
                                      CUmemLocation* locations, size_t* indices,
                                      size_t location_count, unsigned long long flags,
                                      CUstream stream) {
  return Enter("cuMemPrefetchBatchAsync_ptsz", [&](Simulation& sim, Lock&) {
    return PrefetchBatch(sim, starts, bytes, count, locations, indices, location_count, flags,
                         stream, kPerThread);
  });
}

#endif

}  // extern "C"
