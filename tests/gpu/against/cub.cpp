// CUB's CachingDeviceAllocator, which comes with the toolkit. Its default constructor keeps at most
// 6 MiB and no block over 2 MiB; here it keeps everything, and its largest bin is 2 GiB.
#include <cub/util_allocator.cuh>

#include "allocator.h"

namespace {

class Cub : public cmp::against::Allocator {
 public:
  void* Allocate(size_t bytes, cudaStream_t stream) override {
    void* block = nullptr;
    return allocator_.DeviceAllocate(&block, bytes, stream) == cudaSuccess ? block : nullptr;
  }
  bool Free(void* block, size_t, cudaStream_t) override {
    return allocator_.DeviceFree(block) == cudaSuccess;  // it knows the stream
  }

 private:
  static constexpr unsigned kGrowth = 2;
  static constexpr unsigned kLeastBin = 8;
  static constexpr unsigned kMostBin = 31;
  cub::CachingDeviceAllocator allocator_{kGrowth, kLeastBin, kMostBin, ~size_t{0}, true};
};

}  // namespace

cmp::against::Made MakeAllocator(const char*, size_t) { return {new Cub, nullptr}; }
