#include "calls.h"

#include "../program.h"

namespace cmp::against {

namespace {

class Real : public Allocator {
 public:
  void* Allocate(size_t bytes, cudaStream_t) override {
    void* block = nullptr;
    return cudaMalloc(&block, bytes) == cudaSuccess ? block : nullptr;
  }
  bool Free(void* block, size_t, cudaStream_t) override { return cudaFree(block) == cudaSuccess; }
};

class Async : public Allocator {
 public:
  void* Allocate(size_t bytes, cudaStream_t stream) override {
    void* block = nullptr;
    return cudaMallocAsync(&block, bytes, stream) == cudaSuccess ? block : nullptr;
  }
  bool Free(void* block, size_t, cudaStream_t stream) override {
    return cudaFreeAsync(block, stream) == cudaSuccess;
  }
};

class Malloc : public Allocator {
 public:
  void* Allocate(size_t bytes, cudaStream_t) override { return std::malloc(bytes); }
  bool Free(void* block, size_t, cudaStream_t) override {
    std::free(block);
    return true;
  }
};

}  // namespace

Made MakeCalls(const char* name) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("real")) return {new Real, nullptr};
  if (is("malloc")) return {new Malloc, nullptr};
  if (!is("async") && !is("async-max")) return {nullptr, "no such allocator"};
  if (is("async-max") && !gpu::KeepAsyncPool()) {
    return {nullptr, "the threshold of its pool cannot be set"};
  }
  void* block = nullptr;
  if (cudaMallocAsync(&block, 256, nullptr) != cudaSuccess ||
      cudaFreeAsync(block, nullptr) != cudaSuccess) {
    return {nullptr, "the device has no stream-ordered pools"};
  }
  return {new Async, nullptr};
}

}  // namespace cmp::against
