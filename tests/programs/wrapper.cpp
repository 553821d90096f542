// Another tool's preload: wraps cudaMalloc and cudaFree through RTLD_NEXT and counts them.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <atomic>

namespace {

std::atomic<int> g_mallocs{0};
std::atomic<int> g_frees{0};

__attribute__((destructor)) void Report() {
  printf("# wrapped %d %d\n", g_mallocs.load(), g_frees.load());
}

}  // namespace

extern "C" __attribute__((visibility("default"))) cudaError_t cudaMalloc(void** pointer,
                                                                         size_t bytes) {
  static const auto next = reinterpret_cast<decltype(&cudaMalloc)>(dlsym(RTLD_NEXT, "cudaMalloc"));
  ++g_mallocs;
  return next(pointer, bytes);
}

extern "C" __attribute__((visibility("default"))) cudaError_t cudaFree(void* pointer) {
  static const auto next = reinterpret_cast<decltype(&cudaFree)>(dlsym(RTLD_NEXT, "cudaFree"));
  ++g_frees;
  return next(pointer);
}
