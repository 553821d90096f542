// Calls whose way through the pool is known. traced kinds prints, for each allocation and free,
// what a trace of CMP_FREE_SYNC=wait and CMP_MAX_BLOCK=16M says of it. traced limit BYTES PAIRS,
// traced closed FILE PAIRS and traced removed FILE PAIRS TRACE take the room, the descriptors, or
// these and the name, from under a trace.
#include <cuda.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>

#include "program.h"

namespace {

void Expect(const char* outcome, size_t bytes, int status = 0) {
  printf("%s %zu %d\n", outcome, bytes, status);
}

void* Allocate(size_t bytes, const char* outcome) {
  Expect(outcome, bytes);
  return program::Allocate(bytes);
}

void Free(void* pointer, size_t bytes, const char* outcome) {
  Expect(outcome, bytes);
  MUST(cudaFree(pointer));
}

void Pairs(int count) {
  for (int i = 0; i < count; ++i) MUST(cudaFree(program::Allocate(4096)));
}

void Kinds() {
  void* first = Allocate(1000, "refill");
  MUST(cudaDeviceSynchronize());  // what was before the pool may be unfinished
  Free(first, 1000, "pooled");
  void* again = Allocate(900, "thread_cache");
  Free(again, 900, "pooled");
  Expect("double_free", 0, cudaFree(again));
  CUdeviceptr driver = 0;
  Expect("thread_cache", 1001);
  if (cuMemAlloc(&driver, 1001) != CUDA_SUCCESS) _Exit(3);
  Expect("pooled", 1001);
  if (cuMemFree(driver) != CUDA_SUCCESS) _Exit(3);

  void* large = Allocate(3 << 20, "refill");
  Free(large, 3 << 20, "pooled");
  Free(Allocate(3 << 20, "global_pool"), 3 << 20, "pooled");
  Free(Allocate(20 << 20, "real"), 20 << 20, "real_free");

  void* busy = Allocate(1024, "thread_cache");
  program::LaunchWrite(nullptr, busy, 1024, 1, 20000);
  Free(busy, 1024, "waited");
  MUST(cudaDeviceSynchronize());

  void* impossible = nullptr;  // what is idle stays
  Expect("failed", size_t{1} << 45, cudaMalloc(&impossible, size_t{1} << 45));
  Expect("foreign_free", 0, cudaFree(reinterpret_cast<void*>(uintptr_t{12345})));
  void* managed = nullptr;
  MUST(cudaMallocManaged(&managed, 4096));
  Free(managed, 0, "foreign_free");

  void* pitched = nullptr;
  size_t pitch = 0;
  MUST(cudaMallocPitch(&pitched, &pitch, 100, 10));
  Expect("real", pitch * 10);
  Free(pitched, 0, "foreign_free");
  Expect("refill", pitch * 10);
  MUST(cudaMallocPitch(&pitched, &pitch, 100, 10));
  Free(pitched, pitch * 10, "pooled");

  void* asynchronous = Allocate(1024, "thread_cache");
  Expect("real_free", 1024);
  MUST(cudaFreeAsync(asynchronous, nullptr));
  MUST(cudaDeviceSynchronize());

  cudaStream_t stream = program::NonBlockingStream();
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  void* captured = Allocate(2000, "real");
  Free(captured, 2000, "real_free");
  cudaGraph_t graph = nullptr;
  MUST(cudaStreamEndCapture(stream, &graph));

  // No call of these is the program's: not in the trace.
  MUST(cudaFree(nullptr));
  void* nothing = nullptr;
  MUST(cudaMalloc(&nothing, 0));
  // Of another thread, freed here.
  void* others = nullptr;
  std::thread([&] { others = Allocate(5000, "refill"); }).join();
  Free(others, 5000, "pooled");
  cudaGetLastError();
}

}  // namespace

int main(int count, char** arguments) {
  const char* way = count > 1 ? arguments[1] : "";
  if (strcmp(way, "kinds") == 0) {
    Kinds();
    return 0;
  }
  if (count < 4) return 2;
  if (strcmp(way, "limit") == 0) {
    MUST(cudaDeviceSynchronize());  // the simulator's own file is there now
    const rlimit most = {strtoull(arguments[2], nullptr, 0), RLIM_INFINITY};
    if (setrlimit(RLIMIT_FSIZE, &most) != 0) return 8;
  }
  Pairs(10);
  const bool removed = strcmp(way, "removed") == 0;
  if (removed && unlink(arguments[4]) != 0) return 8;
  if (removed || strcmp(way, "closed") == 0) {
    // Where ours may be: numbers that the program counts on, and those that it would not.
    for (int file = 3; file < 1024; ++file) close(file);
    for (int i = 3; i < 1020; ++i) {
      if (open(arguments[2], O_RDWR | O_CREAT, 0600) < 0) return 8;
    }
  }
  Pairs(atoi(arguments[3]) - 10);
  printf("done\n");
  return 0;
}
