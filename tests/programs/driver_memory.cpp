// Allocates with the driver's API, to which it is linked, and launches through the runtime: is
// memory handed out before the kernels that use it are done?
#include <cuda.h>

#include "program.h"

int main() {
  MUST(cudaDeviceSynchronize());
  const cudaStream_t streams[2] = {program::NonBlockingStream(), program::NonBlockingStream()};
  for (uint64_t i = 0; i < 200; ++i) {
    CUdeviceptr address = 0;
    if (cuMemAlloc(&address, 4096) != CUDA_SUCCESS) return 3;
    auto* block = reinterpret_cast<char*>(address);
    simNoteAlloc(block, 4096);
    program::LaunchWrite(streams[i % 2], block, 4096, i, 1'000'000);
    simNoteFree(block);
    if (cuMemFree(address) != CUDA_SUCCESS) return 4;
  }
  MUST(cudaDeviceSynchronize());
  program::SayHazards();
  return 0;
}
