// Driver functions from the runtime: cudaGetDriverEntryPoint, with and without a version, for each
// meaning of the stream 0, with and without a status; what comes is called.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

#include <initializer_list>

namespace {

constexpr int kNoVersion = 0;

cudaError_t Get(const char* name, void** function, int version, unsigned long long flags,
                cudaDriverEntryPointQueryResult* status) {
#if CUDART_VERSION >= 12050
  if (version != kNoVersion) {
    return cudaGetDriverEntryPointByVersion(name, function, static_cast<unsigned>(version), flags,
                                            status);
  }
#else
  if (version != kNoVersion) return cudaErrorNotSupported;
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  return cudaGetDriverEntryPoint(name, function, flags, status);
#pragma GCC diagnostic pop
}

template <typename Function>
Function Find(const char* name, int version, unsigned long long flags, bool with_status) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult status = {};
  const cudaError_t result = Get(name, &function, version, flags, with_status ? &status : nullptr);
  printf("%s, version %d, flags %llu: %d, status %d, %s\n", name, version, flags,
         static_cast<int>(result), static_cast<int>(status),
         function != nullptr ? "found" : "not found");
  return reinterpret_cast<Function>(function);
}

void Use(int version, unsigned long long flags, bool with_status) {
  using Alloc = CUresult (*)(CUdeviceptr*, size_t);
  using AllocAsync = CUresult (*)(CUdeviceptr*, size_t, CUstream);
  const auto alloc = Find<Alloc>("cuMemAlloc", version, flags, with_status);
  const auto free = Find<CUresult (*)(CUdeviceptr)>("cuMemFree", version, flags, with_status);
  const auto info = Find<CUresult (*)(size_t*, size_t*)>("cuMemGetInfo", version, flags, false);
  const auto async = Find<AllocAsync>("cuMemAllocAsync", version, flags, with_status);
  const auto free_async =
      Find<CUresult (*)(CUdeviceptr, CUstream)>("cuMemFreeAsync", version, flags, with_status);
  Find<void*>("cuGetProcAddress", version, flags, with_status);
  Find<void*>("cuMemAlloc_v2", version, flags, with_status);
  CUdeviceptr pointer = 0;
  if (alloc != nullptr && free != nullptr) {
    int last = 0;
    for (int i = 0; i < 20; ++i) {
      last = alloc(&pointer, 4096);
      if (last == 0) last = free(pointer);
    }
    printf("  alloc and free: %d, wrong free: %d\n", last, static_cast<int>(free(0x1234)));
  }
  size_t free_bytes = 0;
  size_t total = 0;
  if (info != nullptr) printf("  info: %d\n", static_cast<int>(info(&free_bytes, &total)));
  if (async != nullptr && free_async != nullptr) {
    printf("  async: %d", static_cast<int>(async(&pointer, 4096, nullptr)));
    printf(", %d\n", static_cast<int>(free_async(pointer, nullptr)));
  }
}

}  // namespace

int main() {
  if (cudaSetDevice(0) != cudaSuccess) return 3;
  for (const int version : {kNoVersion, 2000, 3020, 11020, 12000, CUDA_VERSION, 99000}) {
    for (const unsigned long long flags :
         {cudaEnableDefault, cudaEnableLegacyStream, cudaEnablePerThreadDefaultStream}) {
      Use(version, flags, true);
      Use(version, flags, false);
    }
  }
  printf("last error %d\n", static_cast<int>(cudaGetLastError()));
  return 0;
}
