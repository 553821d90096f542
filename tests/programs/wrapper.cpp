// Another tool's preload: wraps cudaMalloc and cudaFree through RTLD_NEXT and counts them.
// LAUNCHES: launches, too; ALL: and what a runtime is asked about itself, so that it has all that
// one has.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <atomic>

#define EXPORT extern "C" __attribute__((visibility("default")))
#define PASS_ON(name, parameters, arguments)                                                       \
  EXPORT cudaError_t name parameters {                                                             \
    static const auto next = reinterpret_cast<cudaError_t(*) parameters>(dlsym(RTLD_NEXT, #name)); \
    return next arguments;                                                                         \
  }

namespace {

std::atomic<int> g_mallocs{0};
std::atomic<int> g_frees{0};

__attribute__((destructor)) void Report() {
  printf("# wrapped %d %d\n", g_mallocs.load(), g_frees.load());
}

}  // namespace

EXPORT cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  static const auto next = reinterpret_cast<decltype(&cudaMalloc)>(dlsym(RTLD_NEXT, "cudaMalloc"));
  ++g_mallocs;
  return next(pointer, bytes);
}

EXPORT cudaError_t cudaFree(void* pointer) {
  static const auto next = reinterpret_cast<decltype(&cudaFree)>(dlsym(RTLD_NEXT, "cudaFree"));
  ++g_frees;
  return next(pointer);
}

#if defined LAUNCHES || defined ALL
PASS_ON(cudaLaunchKernel,
        (const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
         cudaStream_t stream),
        (kernel, grid, block, arguments, shared, stream))
#endif

#ifdef ALL
PASS_ON(cudaMallocPitch, (void** pointer, size_t* pitch, size_t width, size_t height),
        (pointer, pitch, width, height))
PASS_ON(cudaMalloc3D, (cudaPitchedPtr * pitched, cudaExtent extent), (pitched, extent))
PASS_ON(cudaMallocHost, (void** pointer, size_t bytes), (pointer, bytes))
PASS_ON(cudaHostAlloc, (void** pointer, size_t bytes, unsigned flags), (pointer, bytes, flags))
PASS_ON(cudaFreeHost, (void* pointer), (pointer))
PASS_ON(cudaGetDevice, (int* device), (device))
PASS_ON(cudaSetDevice, (int device), (device))
PASS_ON(cudaGetLastError, (), ())
PASS_ON(cudaPeekAtLastError, (), ())
PASS_ON(cudaRuntimeGetVersion, (int* version), (version))
#endif
