// PyTorch's caching allocator, from libc10_cuda.so, without Python.
#include <c10/cuda/CUDACachingAllocator.h>

#include "allocator.h"

namespace {

namespace caching = c10::cuda::CUDACachingAllocator;

class Torch : public cmp::against::Allocator {
 public:
  void* Allocate(size_t bytes, cudaStream_t stream) override {
    return caching::raw_alloc_with_stream(bytes, stream);
  }
  bool Free(void* block, size_t, cudaStream_t) override {
    caching::raw_delete(block);  // it knows the stream
    return true;
  }
};

}  // namespace

cmp::against::Made MakeAllocator(const char*, size_t) {
  if (caching::get() == nullptr) return {nullptr, "libc10_cuda.so has no allocator"};
  caching::init(1);
  return {new Torch, nullptr};
}
