// Runtime entry points that make and free arrays.
#include <cstdint>

#include "runtime_driver.h"

namespace cmp::sim {
namespace {

// The driver's description of what the runtime's channels say. False: there is no such format.
bool Describe(const cudaChannelFormatDesc& channels, const cudaExtent& extent, unsigned flags,
              CUDA_ARRAY3D_DESCRIPTOR* array) {
  const int sizes[] = {channels.x, channels.y, channels.z, channels.w};
  unsigned count = 0;
  while (count < 4 && sizes[count] != 0) ++count;
  for (unsigned i = 1; i < 4; ++i) {
    if (sizes[i] != (i < count ? sizes[0] : 0)) return false;
  }
  const int bits = sizes[0];
  if (bits != 8 && bits != 16 && bits != 32) return false;
  if (channels.f == cudaChannelFormatKindFloat) {
    if (bits == 8) return false;
    array->Format = bits == 16 ? CU_AD_FORMAT_HALF : CU_AD_FORMAT_FLOAT;
  } else if (channels.f == cudaChannelFormatKindSigned) {
    array->Format = bits == 8    ? CU_AD_FORMAT_SIGNED_INT8
                    : bits == 16 ? CU_AD_FORMAT_SIGNED_INT16
                                 : CU_AD_FORMAT_SIGNED_INT32;
  } else if (channels.f == cudaChannelFormatKindUnsigned) {
    array->Format = bits == 8    ? CU_AD_FORMAT_UNSIGNED_INT8
                    : bits == 16 ? CU_AD_FORMAT_UNSIGNED_INT16
                                 : CU_AD_FORMAT_UNSIGNED_INT32;
  } else {
    return false;
  }
  array->NumChannels = count;
  array->Width = extent.width;
  array->Height = extent.height;
  array->Depth = extent.depth;
  array->Flags = flags;
  return true;
}

template <typename Array, typename Create>
cudaError_t MallocArray(const char* name, Array* array, const cudaChannelFormatDesc* channels,
                        const cudaExtent& extent, unsigned flags, Create create) {
  return Call(name, Needs::kContext, [&](const Driver& driver) -> cudaError_t {
    if (array == nullptr || channels == nullptr) return cudaErrorInvalidValue;
    *array = nullptr;
    CUDA_ARRAY3D_DESCRIPTOR description{};
    if (!Describe(*channels, extent, flags, &description)) {
      return cudaErrorInvalidChannelDescriptor;
    }
    return FromDriver(create(driver, description));
  });
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

cudaError_t cudaMallocArray(cudaArray_t* array, const cudaChannelFormatDesc* channels, size_t width,
                            size_t height, unsigned int flags) {
  return MallocArray("cudaMallocArray", array, channels, {width, height, 0}, flags,
                     [=](const Driver& driver, const CUDA_ARRAY3D_DESCRIPTOR& description) {
                       return driver.legacy.cuArray3DCreate(reinterpret_cast<CUarray*>(array),
                                                            &description);
                     });
}

cudaError_t cudaMalloc3DArray(cudaArray_t* array, const cudaChannelFormatDesc* channels,
                              cudaExtent extent, unsigned int flags) {
  return MallocArray("cudaMalloc3DArray", array, channels, extent, flags,
                     [=](const Driver& driver, const CUDA_ARRAY3D_DESCRIPTOR& description) {
                       return driver.legacy.cuArray3DCreate(reinterpret_cast<CUarray*>(array),
                                                            &description);
                     });
}

cudaError_t cudaMallocMipmappedArray(cudaMipmappedArray_t* array,
                                     const cudaChannelFormatDesc* channels, cudaExtent extent,
                                     unsigned int levels, unsigned int flags) {
  return MallocArray("cudaMallocMipmappedArray", array, channels, extent, flags,
                     [=](const Driver& driver, const CUDA_ARRAY3D_DESCRIPTOR& description) {
                       return driver.legacy.cuMipmappedArrayCreate(
                           reinterpret_cast<CUmipmappedArray*>(array), &description, levels);
                     });
}

cudaError_t cudaFreeArray(cudaArray_t array) {
  return CallDriver("cudaFreeArray", [&](const Driver& driver) {
    return array == nullptr ? CUDA_SUCCESS
                            : driver.legacy.cuArrayDestroy(reinterpret_cast<CUarray>(array));
  });
}

cudaError_t cudaFreeMipmappedArray(cudaMipmappedArray_t array) {
  return CallDriver("cudaFreeMipmappedArray", [&](const Driver& driver) {
    return array == nullptr
               ? CUDA_SUCCESS
               : driver.legacy.cuMipmappedArrayDestroy(reinterpret_cast<CUmipmappedArray>(array));
  });
}

}  // extern "C"
