// Another tool's preload: wraps a few of the driver's functions by symbol, and counts them. Built
// once for each way to the real ones:
//
//   NEXT    RTLD_NEXT, which finds them only where the driver is in the global search order
//   HANDLE  dlsym with the driver's handle, as a program asks
//   LOOKUP  it takes cuGetProcAddress as well, and answers as the search order does
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>

#include <atomic>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

std::atomic<int> g_allocations{0};
std::atomic<int> g_launches{0};

__attribute__((destructor)) void Report() {
  printf("# driver wrapper: %d allocations, %d launches\n", g_allocations.load(),
         g_launches.load());
  fflush(stdout);
}

template <typename Function>
Function Real(const char* name, Function) {
#if defined(NEXT)
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
#else
  return reinterpret_cast<Function>(dlsym(dlopen("libcuda.so.1", RTLD_LAZY), name));
#endif
}

}  // namespace

#undef cuMemAlloc
EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
  static const auto real = Real("cuMemAlloc_v2", &cuMemAlloc_v2);
  ++g_allocations;
  return real(pointer, bytes);
}

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                               unsigned grid_z, unsigned block_x, unsigned block_y,
                               unsigned block_z, unsigned shared, CUstream stream,
                               void** parameters, void** extra) {
  static const auto real = Real("cuLaunchKernel", &cuLaunchKernel);
  ++g_launches;
  return real(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream,
              parameters, extra);
}

#if defined(LOOKUP)
#undef cuGetProcAddress
EXPORT CUresult cuGetProcAddress_v2(const char* name, void** function, int version,
                                    cuuint64_t flags, CUdriverProcAddressQueryResult* status) {
  static const auto real = Real("cuGetProcAddress_v2", &cuGetProcAddress_v2);
  const CUresult result = real(name, function, version, flags, status);
  if (result != CUDA_SUCCESS) return result;
  void* first = dlsym(RTLD_DEFAULT, name);
  if (first != nullptr) *function = first;
  return result;
}
#endif
