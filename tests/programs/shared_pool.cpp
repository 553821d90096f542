// Links the library and the runtime: under the preload both have one pool.
#include <string.h>

#include "core/cuda_memory_pool.h"
#include "core/stream_allocator.h"
#include "program.h"

// The host goes on, the block does not come back before the kernel is done, and what other streams
// are given does not wait for that: the kernel stays until it has run.
static void FreeWithoutWait(CudaMemoryPool& pool) {
  constexpr size_t kBytes = 4096;
  void* used = pool.Alloc(kBytes);
  const SimRange written = {used, kBytes};
  SimWork work = {};
  work.id = 1;
  work.spin_until_id = 2;
  work.writes = &written;
  work.write_count = 1;
  const cudaStream_t stream = program::NonBlockingStream();
  const cudaStream_t other = program::NonBlockingStream();
  simNoteAlloc(used, kBytes);
  MUST(program::Launch(stream, work));
  simNoteFree(used);
  const bool freed = pool.FreeWithoutWait(used);
  const bool runs = cudaStreamQuery(stream) == cudaErrorNotReady;
  void* next = cmp_stream_alloc(kBytes, 0, stream);
  printf("# without a wait: %d %d %d\n", freed, runs, next != used);
  cmp_stream_free(next, kBytes, 0, stream);
  MUST(program::Launch(other, SimWork{}));
  for (int i = 0; i < 5000 && cudaStreamQuery(other) == cudaErrorNotReady; ++i) usleep(1000);
  printf("# beside it: %d\n", cudaStreamQuery(other) == cudaSuccess);
  SimWork end = {};
  end.id = 2;
  MUST(program::Launch(other, end));
  MUST(cudaStreamDestroy(stream));
  MUST(cudaStreamDestroy(other));
  MUST(cudaDeviceSynchronize());
}

int main() {
  CudaMemoryPool& pool = CudaMemoryPool::Instance();
  void* from_runtime = program::Allocate(4096);
  void* from_pool = pool.Alloc(4096);
  printf("from the pool: %s\n", from_pool != nullptr ? "set" : "NULL");
  const bool freed = pool.Free(from_runtime, 4096);
  const cudaError_t result = cudaFree(from_pool);
  const cudaError_t again = cudaFree(from_pool);
  const bool freed_again = pool.Free(from_runtime);
  cudaGetLastError();
  printf("# crosswise: %d %d\n", freed, static_cast<int>(result));
  printf("# again: %d %d\n", freed_again, static_cast<int>(again));
  const uint64_t before = program::RealAllocations();
  for (int i = 0; i < 10; ++i) {
    void* pointer = pool.Alloc(4096);
    if (i % 2 == 0) {
      pool.Free(pointer, 4096);
    } else {
      cudaFree(pointer);
    }
    pointer = program::Allocate(4096);
    if (i % 2 != 0) {
      cudaFree(pointer);
    } else {
      pool.Free(pointer);
    }
  }
  printf("# real: %llu\n", static_cast<unsigned long long>(program::RealAllocations() - before));
  FreeWithoutWait(pool);
  const CudaMemoryPoolStatistics statistics = pool.Statistics();
  printf(
      "# seen: %llu requests, %llu hits\n", static_cast<unsigned long long>(statistics.requests),
      static_cast<unsigned long long>(statistics.thread_cache_hits + statistics.global_pool_hits));
  printf("# released: %zu\n", pool.ReleaseThreadCaches());
  printf("# live: %llu\n", static_cast<unsigned long long>(simLiveAllocations(0)));
  return 0;
}
