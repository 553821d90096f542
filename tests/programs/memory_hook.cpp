// Another tool's preload, as communication libraries make it (UCX): it learns of freed memory by
// patching the beginning of the driver's cuMemFree in place. Its hook puts the old code back for
// the time of the real call. x86-64 alone.
#include <cuda.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <mutex>

namespace {

using FreeFunction = CUresult (*)(CUdeviceptr pointer);

std::mutex g_lock;
FreeFunction g_free = nullptr;
unsigned char g_old[12];
unsigned char g_jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};  // mov rax; jmp rax
int g_seen = 0;

void Write(const unsigned char (&code)[12]) { memcpy(reinterpret_cast<void*>(g_free), code, 12); }

CUresult Hook(CUdeviceptr pointer) {
  const std::lock_guard<std::mutex> guard(g_lock);
  ++g_seen;
  Write(g_old);
  const CUresult status = g_free(pointer);
  Write(g_jump);
  return status;
}

__attribute__((constructor)) void Patch() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY);
  if (library == nullptr) return;
  g_free = reinterpret_cast<FreeFunction>(dlsym(library, "cuMemFree_v2"));
  if (g_free == nullptr) return;
  const uintptr_t page = reinterpret_cast<uintptr_t>(g_free) & ~uintptr_t{4095};
  mprotect(reinterpret_cast<void*>(page), 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
  memcpy(g_old, reinterpret_cast<void*>(g_free), 12);
  void* hook = reinterpret_cast<void*>(&Hook);
  memcpy(g_jump + 2, &hook, 8);
  Write(g_jump);
}

__attribute__((destructor)) void Report() {
  printf("# memory hook: %d\n", g_seen);
  fflush(stdout);
}

}  // namespace
