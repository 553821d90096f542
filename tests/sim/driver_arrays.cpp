// Driver entry points that make and destroy arrays.
//
// An array is memory of the device without an address that the program sees. Nothing is copied to
// or from it here.
#include "driver_entry.h"

namespace cmp::sim {
namespace {

size_t FormatBytes(CUarray_format format) {
  switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
      return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      return 4;
    default:
      return 0;
  }
}

// 0: no array. A height or depth of 0 says that the array has not that dimension.
size_t BytesOf(const CUDA_ARRAY3D_DESCRIPTOR& array, unsigned level) {
  const auto extent = [level](size_t count) { return std::max(count >> level, size_t{1}); };
  const bool channels = array.NumChannels == 1 || array.NumChannels == 2 || array.NumChannels == 4;
  if (array.Width == 0 || !channels || (array.Height == 0 && array.Depth != 0)) return 0;
  return extent(array.Width) * extent(array.Height) * extent(array.Depth) * array.NumChannels *
         FormatBytes(array.Format);
}

template <typename Handle>
CUresult Create(Simulation& sim, HandleTable<Handle, Array>& arrays, Handle* handle,
                const CUDA_ARRAY3D_DESCRIPTOR& description, unsigned levels) {
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  Context* context = nullptr;
  const CUresult result = RequireContext(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  if (handle == nullptr || levels == 0 || levels > 32) return CUDA_ERROR_INVALID_VALUE;
  size_t bytes = 0;
  for (unsigned level = 0; level < levels; ++level) bytes += BytesOf(description, level);
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  bool spoiled = false;
  const Allocation* allocation =
      sim.allocations.AllocateDevice(*context, bytes, MemoryKind::kArray, &spoiled);
  if (allocation == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  auto array = std::make_unique<Array>();
  array->base = allocation->base;
  array->context_id = allocation->context_id;
  array->description = description;
  *handle = arrays.Add(std::move(array));
  return CUDA_SUCCESS;
}

// Waits for the context's work, as other frees do.
template <typename Handle>
CUresult Destroy(Simulation& sim, Lock& lock, HandleTable<Handle, Array>& arrays, Handle handle) {
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  const Array* array = arrays.Find(handle);
  if (array == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  const CUresult drained = Drain(sim, lock, sim.allocations.FindBase(array->base)->context);
  if (drained != CUDA_SUCCESS) return drained;
  const std::unique_ptr<Array> removed = arrays.Remove(handle);
  if (removed == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  sim.allocations.Release(*sim.allocations.FindBase(removed->base));
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuArrayCreate_v2(CUarray* array, const CUDA_ARRAY_DESCRIPTOR* description) {
  return Enter("cuArrayCreate_v2", [&](Simulation& sim, Lock&) -> CUresult {
    if (description == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const CUDA_ARRAY3D_DESCRIPTOR full{description->Width,  description->Height,      0,
                                       description->Format, description->NumChannels, 0};
    return Create(sim, sim.arrays, array, full, 1);
  });
}

CUresult cuArray3DCreate_v2(CUarray* array, const CUDA_ARRAY3D_DESCRIPTOR* description) {
  return Enter("cuArray3DCreate_v2", [&](Simulation& sim, Lock&) -> CUresult {
    if (description == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return Create(sim, sim.arrays, array, *description, 1);
  });
}

CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR* description, CUarray array) {
  return Enter("cuArray3DGetDescriptor_v2", [&](Simulation& sim, Lock&) -> CUresult {
    const Array* found = sim.arrays.Find(array);
    if (description == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (found == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *description = found->description;
    return CUDA_SUCCESS;
  });
}

CUresult cuArrayDestroy(CUarray array) {
  return Enter("cuArrayDestroy",
               [&](Simulation& sim, Lock& lock) { return Destroy(sim, lock, sim.arrays, array); });
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray* array, const CUDA_ARRAY3D_DESCRIPTOR* description,
                                unsigned int levels) {
  return Enter("cuMipmappedArrayCreate", [&](Simulation& sim, Lock&) -> CUresult {
    if (description == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return Create(sim, sim.mipmapped_arrays, array, *description, levels);
  });
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray array) {
  return Enter("cuMipmappedArrayDestroy", [&](Simulation& sim, Lock& lock) {
    return Destroy(sim, lock, sim.mipmapped_arrays, array);
  });
}

}  // extern "C"
