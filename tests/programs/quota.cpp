// Allocates until it is refused, in several ways, and says how far it came. Knows the driver's API
// (quota driver) or the runtime's (quota).
#include <cuda.h>

#include <vector>

#include "program.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;
bool g_driver = false;

int Alloc(void** pointer, size_t bytes) {
  if (!g_driver) return cudaMalloc(pointer, bytes);
  return cuMemAlloc(reinterpret_cast<CUdeviceptr*>(pointer), bytes);
}

int Free(void* pointer) {
  return g_driver ? int{cuMemFree(reinterpret_cast<CUdeviceptr>(pointer))} : int{cudaFree(pointer)};
}

std::vector<void*> UntilRefused(size_t bytes) {
  std::vector<void*> blocks;
  void* pointer = nullptr;
  int status = 0;
  while (blocks.size() < 1000 && (status = Alloc(&pointer, bytes)) == 0) blocks.push_back(pointer);
  printf("%zu blocks of %zu KiB, then %d\n", blocks.size(), bytes >> 10, status);
  cudaGetLastError();
  return blocks;
}

void SayFree(const char* when) {
  size_t free = 0;
  size_t total = 0;
  const int status = cudaMemGetInfo(&free, &total);
  printf("%s: %d, %zu of %zu MiB are free\n", when, status, free / kMiB, total / kMiB);
}

}  // namespace

int main(int count, char** arguments) {
  g_driver = count > 1 && strcmp(arguments[1], "driver") == 0;
  if (g_driver) {
    CUcontext context = nullptr;
    if (cuInit(0) != 0 || cuDevicePrimaryCtxRetain(&context, 0) != 0) return 3;
    if (cuCtxSetCurrent(context) != 0) return 3;
  }
  SayFree("at first");
  for (const size_t bytes : {32 * kMiB, 4 * kMiB, 48 * kMiB}) {
    const std::vector<void*> blocks = UntilRefused(bytes);
    SayFree("then");
    int failed = 0;
    for (void* block : blocks) failed += Free(block) == 0 ? 0 : 1;
    printf("frees that failed: %d\n", failed);
    SayFree("afterwards");
  }
  program::SayHazards();
  return 0;
}
