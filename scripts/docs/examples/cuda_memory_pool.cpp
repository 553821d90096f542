// CudaMemoryPool: device memory that costs nanoseconds after the first time.
#include "core/cuda_memory_pool.h"

#include <cstdio>

int main() {
  const std::size_t bytes = 1000;

  CudaMemoryPool& pool = CudaMemoryPool::Instance();
  void* p = pool.Alloc(bytes);  // nullptr: out of memory, or no GPU; pool.last_status() says which
  pool.Free(p, bytes);          // waits for the GPU, as cudaFree does

  for (int step = 0; step < 99; ++step) {
    p = pool.Alloc(bytes);
    if (p == nullptr) {
      std::fprintf(stderr, "no memory: CUresult %d\n", pool.last_status());
      return 1;
    }
    // ... launch kernels that use p ...
    pool.FreeWithoutWait(p);
  }

  const CudaMemoryPoolStatistics statistics = pool.Statistics();
  std::printf("%llu allocations, %llu real calls\n",
              static_cast<unsigned long long>(statistics.requests),
              static_cast<unsigned long long>(statistics.real_malloc_calls));

  // What is idle can be given back to the device at any time.
  pool.ReleaseThreadCaches();

  const bool right = statistics.requests == 100 && statistics.real_malloc_calls == 1 &&
                     pool.Statistics().reserved_bytes == 0;
  return right ? 0 : 1;
}
