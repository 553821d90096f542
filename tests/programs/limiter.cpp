// Another tool's preload: a limiter of device memory, as those that share a GPU among containers
// are made (HAMi-core and its like). It wraps dlsym and what cuGetProcAddress answers, counts what
// cuMemAlloc and cuMemFree move, and refuses what is over the quota, LIMITER_QUOTA bytes. The real
// functions are those of the C library's own dlsym.
//
// BY_SYMBOL: it also takes the driver's functions by symbol.
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <map>
#include <mutex>

#include "libc_dlsym.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using AllocFunction = CUresult (*)(CUdeviceptr* pointer, size_t bytes);
using FreeFunction = CUresult (*)(CUdeviceptr pointer);
using InfoFunction = CUresult (*)(size_t* free, size_t* total);
using FindFunction = CUresult (*)(const char* name, void** function, int version, cuuint64_t flags,
                                  CUdriverProcAddressQueryResult* status);

// The driver's own.
template <typename Function>
Function Real(const char* name) {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY);
  return reinterpret_cast<Function>(LibcDlsym()(library, name));
}

size_t Quota() {
  const char* quota = getenv("LIMITER_QUOTA");
  return quota == nullptr ? ~size_t{0} : strtoull(quota, nullptr, 0);
}

std::mutex g_lock;
std::map<CUdeviceptr, size_t> g_blocks;
size_t g_used = 0;
size_t g_most = 0;
std::atomic<int> g_seen{0};

CUresult Alloc(CUdeviceptr* pointer, size_t bytes) {
  static const auto real = Real<AllocFunction>("cuMemAlloc_v2");
  ++g_seen;
  const std::lock_guard<std::mutex> guard(g_lock);
  if (g_used + bytes > Quota()) return CUDA_ERROR_OUT_OF_MEMORY;
  const CUresult status = real(pointer, bytes);
  if (status != CUDA_SUCCESS) return status;
  g_blocks[*pointer] = bytes;
  g_used += bytes;
  if (g_used > g_most) g_most = g_used;
  return status;
}

CUresult Free(CUdeviceptr pointer) {
  static const auto real = Real<FreeFunction>("cuMemFree_v2");
  const std::lock_guard<std::mutex> guard(g_lock);
  const CUresult status = real(pointer);
  const auto found = g_blocks.find(pointer);
  if (status == CUDA_SUCCESS && found != g_blocks.end()) {
    g_used -= found->second;
    g_blocks.erase(found);
  }
  return status;
}

CUresult Info(size_t* free, size_t* total) {
  static const auto real = Real<InfoFunction>("cuMemGetInfo_v2");
  const CUresult status = real(free, total);
  const std::lock_guard<std::mutex> guard(g_lock);
  if (status == CUDA_SUCCESS && Quota() < *total) {
    *total = Quota();
    *free = Quota() - g_used;
  }
  return status;
}

CUresult Find(const char* name, void** function, int version, cuuint64_t flags,
              CUdriverProcAddressQueryResult* status) {
  static const auto real = Real<FindFunction>("cuGetProcAddress_v2");
  const CUresult result = real(name, function, version, flags, status);
  if (result != CUDA_SUCCESS || *function == nullptr) return result;
  const auto is = [&](const char* wrapped, int since) {
    return strcmp(name, wrapped) == 0 && version >= since;
  };
  if (is("cuMemAlloc", 3020)) *function = reinterpret_cast<void*>(&Alloc);
  if (is("cuMemFree", 3020)) *function = reinterpret_cast<void*>(&Free);
  if (is("cuMemGetInfo", 3020)) *function = reinterpret_cast<void*>(&Info);
  if (is("cuGetProcAddress", 12000)) *function = reinterpret_cast<void*>(&Find);
  return result;
}

__attribute__((destructor)) void Report() {
  printf("# limiter: %d allocations, at most %zu MiB\n", g_seen.load(), g_most >> 20);
  fflush(stdout);
}

}  // namespace

EXPORT void* dlsym(void* handle, const char* name) noexcept {
  void* found = LibcDlsym()(handle, name);
  if (found == nullptr || strcmp(name, "cuGetProcAddress_v2") != 0) return found;
  return reinterpret_cast<void*>(&Find);
}

#if defined(BY_SYMBOL)
#undef cuMemAlloc
#undef cuMemFree
#undef cuMemGetInfo
EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) { return Alloc(pointer, bytes); }
EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) { return Free(pointer); }
EXPORT CUresult cuMemGetInfo_v2(size_t* free, size_t* total) { return Info(free, total); }
#endif
