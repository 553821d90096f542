// RMM's resources, of releases before and after they became copyable and lost their template
// parameter: rmm-pool, rmm-arena, rmm-binning (bins from 256 KiB to 4 MiB over a pool, as in RMM's
// own benchmarks), rmm-async. The first three take `reserve_bytes` at their start.
#if __has_include(<rmm/mr/pool_memory_resource.hpp>)
#include <rmm/mr/arena_memory_resource.hpp>
#include <rmm/mr/binning_memory_resource.hpp>
#include <rmm/mr/cuda_async_memory_resource.hpp>
#include <rmm/mr/cuda_memory_resource.hpp>
#include <rmm/mr/pool_memory_resource.hpp>
#else
#include <rmm/mr/device/arena_memory_resource.hpp>
#include <rmm/mr/device/binning_memory_resource.hpp>
#include <rmm/mr/device/cuda_async_memory_resource.hpp>
#include <rmm/mr/device/cuda_memory_resource.hpp>
#include <rmm/mr/device/pool_memory_resource.hpp>
#endif
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <rmm/cuda_stream_view.hpp>
#include <utility>

#include "allocator.h"

namespace {

using cmp::against::Allocator;
namespace mr = rmm::mr;

template <typename Resource>
class Rmm : public Allocator {
 public:
  explicit Rmm(Resource& resource) : resource_(resource) {}

  void* Allocate(size_t bytes, cudaStream_t handle) override {
    return Take(resource_, bytes, rmm::cuda_stream_view{handle});
  }
  bool Free(void* block, size_t bytes, cudaStream_t handle) override {
    Give(resource_, block, bytes, rmm::cuda_stream_view{handle});
    return true;
  }

 private:
  static constexpr size_t kAlignment = 256;

  static void* Take(auto& resource, size_t bytes, rmm::cuda_stream_view stream) {
    if constexpr (requires { resource.allocate(stream, bytes, kAlignment); }) {
      return resource.allocate(stream, bytes, kAlignment);
    } else {
      return resource.allocate(bytes, stream);
    }
  }
  static void Give(auto& resource, void* block, size_t bytes, rmm::cuda_stream_view stream) {
    if constexpr (requires { resource.deallocate(stream, block, bytes, kAlignment); }) {
      resource.deallocate(stream, block, bytes, kAlignment);
    } else {
      resource.deallocate(block, bytes, stream);
    }
  }

  Resource& resource_;
};

// A resource over another one; both live as long as the process.
template <typename Resource, typename... Arguments>
auto* Over(auto& upstream, Arguments... arguments) {
  if constexpr (requires { Resource(upstream, arguments...); }) {
    return new Resource(upstream, arguments...);
  } else {
    return new Resource(&upstream, arguments...);
  }
}
template <template <typename> typename Resource, typename... Arguments>
auto* Over(auto& upstream, Arguments... arguments) {
  return Over<Resource<std::remove_reference_t<decltype(upstream)>>>(upstream, arguments...);
}

Allocator* Adapt(auto* resource) { return new Rmm(*resource); }

}  // namespace

cmp::against::Made MakeAllocator(const char* name, size_t reserve_bytes) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("rmm-async")) return {Adapt(new mr::cuda_async_memory_resource), nullptr};
  size_t free = 0;
  size_t total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return {nullptr, "cudaMemGetInfo fails"};
  const size_t reserve = std::min(reserve_bytes, free / 2) & ~size_t{0xfffff};
  auto& upstream = *new mr::cuda_memory_resource;
  if (is("rmm-arena")) return {Adapt(Over<mr::arena_memory_resource>(upstream, reserve)), nullptr};
  auto* pool = Over<mr::pool_memory_resource>(upstream, reserve);
  if (is("rmm-pool")) return {Adapt(pool), nullptr};
  if (!is("rmm-binning")) return {nullptr, "no such resource"};
  return {Adapt(Over<mr::binning_memory_resource>(*pool, int8_t{18}, int8_t{22})), nullptr};
}
