// cmp::device_memory_resource(): device memory for code that is told at run time where its memory
// comes from.
#include "core/device_memory_resource.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <new>

// A part of some program that does not care whose memory it works in.
bool ZeroesAre(std::pmr::memory_resource* resource, std::size_t bytes) {
  void* p = resource->allocate(bytes, 256);
  unsigned char last = 1;
  const bool right = cudaMemset(p, 0, bytes) == cudaSuccess &&
                     cudaMemcpy(&last, static_cast<unsigned char*>(p) + bytes - 1, 1,
                                cudaMemcpyDeviceToHost) == cudaSuccess &&
                     last == 0;
  resource->deallocate(p, bytes, 256);
  return right;
}

int main() {
  if (!ZeroesAre(cmp::device_memory_resource(), 100000)) return 1;
  try {
    (void)cmp::device_memory_resource()->allocate(std::size_t{1} << 60);
    return 1;
  } catch (const std::bad_alloc&) {
    std::printf("too much is std::bad_alloc, as with every memory resource\n");
  }
  return 0;
}
