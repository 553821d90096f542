// Another tool's preload, as checkpointers make it: it takes the allocations by symbol and answers
// all lookups of the driver itself, with the C library's dlsym, so as to log what it must replay.
// What it gives out are the driver's own functions: nothing behind it sees the submissions.
#include <cuda_runtime_api.h>
#include <stdio.h>

#include <atomic>

#include "libc_dlsym.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

std::atomic<int> g_mallocs{0};
std::atomic<int> g_frees{0};

__attribute__((destructor)) void Report() {
  printf("# checkpointer: %d %d\n", g_mallocs.load(), g_frees.load());
  fflush(stdout);
}

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(LibcDlsym()(RTLD_NEXT, name));
}

}  // namespace

EXPORT void* dlsym(void* handle, const char* name) noexcept { return LibcDlsym()(handle, name); }

EXPORT cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  ++g_mallocs;
  return Next<decltype(&cudaMalloc)>("cudaMalloc")(pointer, bytes);
}

EXPORT cudaError_t cudaFree(void* pointer) {
  ++g_frees;
  return Next<decltype(&cudaFree)>("cudaFree")(pointer);
}
