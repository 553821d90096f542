// What a host function may not do: everything. Its calls are refused, and the memory stays as it
// is.
#include <cuda.h>

#include <vector>

#include "program.h"

namespace {

struct Calls {
  std::vector<char*> blocks;
  int again = 0;
};

void CallAll(void* data) {
  auto& calls = *static_cast<Calls*>(data);
  void* pointer = nullptr;
  size_t pitch = 0;
  CUdeviceptr address = 0;
  printf("in a host function: cudaMalloc %d", int{cudaMalloc(&pointer, 4096)});
  printf(", cudaMallocPitch %d", int{cudaMallocPitch(&pointer, &pitch, 1000, 10)});
  printf(", cuMemAlloc %d", int{cuMemAlloc(&address, 4096)});
  printf(", cuMemFree(0) %d", int{cuMemFree(0)});
  printf("\n  frees");
  for (char* block : calls.blocks) printf(" %d", int{cudaFree(block)});
  printf(" %d\n", int{cuMemFree(reinterpret_cast<CUdeviceptr>(calls.blocks[0]))});
  cudaGetLastError();
}

}  // namespace

int main() {
  const cudaStream_t stream = program::NonBlockingStream();
  size_t pitch = 0;
  for (const size_t bytes : {size_t{4096}, size_t{4} << 20}) program::Warm(bytes);
  void* pitched = nullptr;
  for (int i = 0; i < 2; ++i) {
    MUST(cudaMallocPitch(&pitched, &pitch, 1000, 10));
    MUST(cudaFree(pitched));
  }
  MUST(cudaDeviceSynchronize());
  for (const bool fenced : {false, true}) {
    Calls calls;
    for (const size_t bytes : {size_t{4096}, size_t{4096}, size_t{4} << 20}) {
      calls.blocks.push_back(program::Allocate(bytes));
    }
    char* unrelated = program::Allocate(4096);
    program::LaunchWrite(stream, program::Allocate(4096), 4096, 1, 100000);
    MUST(cudaLaunchHostFunc(stream, &CallAll, &calls));
    // A free that comes meanwhile may record a fence, or wait.
    if (fenced) MUST(cudaFree(unrelated));
    MUST(cudaStreamSynchronize(stream));
    printf("afterwards");
    for (char* block : calls.blocks) printf(" %d", int{cudaFree(block)});
    printf(", again %d\n", int{cudaFree(calls.blocks[0])});
    cudaGetLastError();
  }
  program::NoteServed("at last", 4096);
  printf("hazards %llu\n", static_cast<unsigned long long>(simHazardCount()));
  return 0;
}
