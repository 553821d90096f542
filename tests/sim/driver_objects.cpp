// Driver entry points that make and destroy texture and surface objects.
//
// Nothing is fetched through them: work names those that it uses, and finds them gone or not. As
// measured, neither call waits.
#include "driver_entry.h"

namespace cmp::sim {
namespace {

bool IsBacked(Simulation& sim, const CUDA_RESOURCE_DESC& resource, bool texture) {
  const auto covers = [&](CUdeviceptr start, size_t bytes) {
    return texture && bytes != 0 && sim.allocations.Covers({start, bytes});
  };
  switch (resource.resType) {
    case CU_RESOURCE_TYPE_ARRAY:
      return sim.arrays.Find(resource.res.array.hArray) != nullptr;
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY:
      return texture && sim.mipmapped_arrays.Find(resource.res.mipmap.hMipmappedArray) != nullptr;
    case CU_RESOURCE_TYPE_LINEAR:
      return covers(resource.res.linear.devPtr, resource.res.linear.sizeInBytes);
    case CU_RESOURCE_TYPE_PITCH2D:
      return covers(resource.res.pitch2D.devPtr,
                    resource.res.pitch2D.pitchInBytes * resource.res.pitch2D.height);
    default:
      return false;
  }
}

CUresult Create(Simulation& sim, unsigned long long* handle, const CUDA_RESOURCE_DESC* resource,
                bool texture) {
  Context* context = nullptr;
  const CUresult result = RequireContext(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  if (handle == nullptr || resource == nullptr || !IsBacked(sim, *resource, texture)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto object = std::make_unique<DeviceObject>();
  object->texture = texture;
  object->context_id = context->id;
  *handle = sim.device_objects.Add(std::move(object));
  return CUDA_SUCCESS;
}

CUresult Destroy(Simulation& sim, unsigned long long handle, bool texture) {
  const DeviceObject* object = sim.device_objects.Find(handle);
  if (object == nullptr || object->texture != texture) return CUDA_ERROR_INVALID_VALUE;
  sim.device_objects.Remove(handle);
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuTexObjectCreate(CUtexObject* handle, const CUDA_RESOURCE_DESC* resource,
                           const CUDA_TEXTURE_DESC* texture, const CUDA_RESOURCE_VIEW_DESC*) {
  return Enter("cuTexObjectCreate", [&](Simulation& sim, Lock&) {
    return texture == nullptr ? CUDA_ERROR_INVALID_VALUE : Create(sim, handle, resource, true);
  });
}

CUresult cuTexObjectDestroy(CUtexObject handle) {
  return Enter("cuTexObjectDestroy",
               [&](Simulation& sim, Lock&) { return Destroy(sim, handle, true); });
}

CUresult cuSurfObjectCreate(CUsurfObject* handle, const CUDA_RESOURCE_DESC* resource) {
  return Enter("cuSurfObjectCreate",
               [&](Simulation& sim, Lock&) { return Create(sim, handle, resource, false); });
}

CUresult cuSurfObjectDestroy(CUsurfObject handle) {
  return Enter("cuSurfObjectDestroy",
               [&](Simulation& sim, Lock&) { return Destroy(sim, handle, false); });
}

}  // extern "C"
