// Links the library and the runtime: under the preload both have one pool.
#include <string.h>

#include <thread>

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

// Frees and releases during captures, in the capturing thread and beside it, of a block that is
// pooled and one that is not: the capture lives, and no memory is lost. REQUIRES: the preload
static void DuringCaptures(CudaMemoryPool& pool) {
  const auto wait = [](CudaMemoryPool& of, void* block) { return of.Free(block); };
  const auto no_wait = [](CudaMemoryPool& of, void* block) { return of.FreeWithoutWait(block); };
  const auto release = [](CudaMemoryPool& of, void* block) {
    return of.ReleaseThreadCaches() != 0 && of.Free(block);
  };
  const struct {
    const char* name;
    bool (*free)(CudaMemoryPool& of, void* block);
  } kFrees[] = {{"free", wait}, {"free without a wait", no_wait}, {"release", release}};
  const cudaStream_t stream = program::NonBlockingStream();
  const cudaStream_t busy = program::NonBlockingStream();
  for (const auto mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                          cudaStreamCaptureModeRelaxed}) {
    for (const auto& [name, free] : kFrees) {
      for (const size_t bytes : {size_t{4096}, size_t{8} << 20}) {
        for (const bool own : {true, false}) {
          void* block = pool.Alloc(bytes);
          void* idle = pool.Alloc(16384);
          SimWork work = {};
          work.duration_ns = 1000000;
          MUST(program::Launch(busy, work));
          pool.FreeWithoutWait(idle);
          MUST(cudaStreamBeginCapture(stream, mode));
          MUST(program::Launch(stream, SimWork{}));
          bool freed = false;
          const auto call = [&] { freed = free(pool, block); };
          own ? call() : std::thread(call).join();
          cudaGraph_t graph = nullptr;
          const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
          const bool again = pool.Free(block);
          pool.ReleaseThreadCaches();
          printf("# %s, mode %d, %zu bytes, %s thread: %d %d %d, live %llu\n", name, mode, bytes,
                 own ? "own" : "other", freed, static_cast<int>(ended), again,
                 static_cast<unsigned long long>(simLiveAllocations(0)));
          if (graph != nullptr) MUST(cudaGraphDestroy(graph));
        }
      }
    }
  }
}

// No call of CUDA's is allowed there, so the block stays in use.
static void InHostFunction(CudaMemoryPool& pool) {
  static bool freed = false;
  static bool other_freed = false;
  static void* block = pool.Alloc(8 << 20);
  static void* other = pool.Alloc(4096);
  const cudaStream_t stream = program::NonBlockingStream();
  MUST(cudaLaunchHostFunc(
      stream,
      [](void*) {
        freed = CudaMemoryPool::Instance().Free(block);
        other_freed = CudaMemoryPool::Instance().FreeWithoutWait(other);
      },
      nullptr));
  MUST(cudaStreamSynchronize(stream));
  printf("# in a host function: %d %d\n", freed, other_freed);
  freed = pool.Free(block);
  other_freed = other_freed || pool.Free(other);
  pool.ReleaseThreadCaches();
  printf("# then: %d %d, live %llu\n", freed, other_freed,
         static_cast<unsigned long long>(simLiveAllocations(0)));
}

int main(int count, char**) {
  CudaMemoryPool& pool = CudaMemoryPool::Instance();
  if (count > 1) {
    DuringCaptures(pool);
    InHostFunction(pool);
    return 0;
  }
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
