// A managed variable of the program, which the runtime registers when it starts: a kernel writes it
// late, an unrelated block is freed, and the host looks at once. A program of its own, for memory
// that the host sees stays in it from the start.
//
// Prints `managed variable: right` or `managed variable: wrong`, or why it was skipped.
#include "program.h"

__managed__ uint32_t managed_word = 0;

__global__ void WriteLate(uint32_t value, uint64_t nanoseconds) {
  uint64_t begin = 0;
  uint64_t now = 0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now - begin < nanoseconds);
  managed_word = value;
}

int main() {
  using namespace cmp::gpu;
  StartCudaOrSkip();
  const Watchdog watchdog(20);
  int concurrent = 0;
  CHECK(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, 0));
  if (concurrent == 0) {
    std::printf("managed variable: skipped: no access to managed memory while a kernel runs\n");
    return 0;
  }
  const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
  char* const block = Allocate<char>(4096);
  WriteLate<<<1, 1, 0, stream>>>(1, 0);
  CHECK(cudaDeviceSynchronize());
  WriteLate<<<1, 1, 0, stream>>>(2, 50000000);
  CHECK(cudaFree(block));
  const uint32_t seen = *const_cast<const volatile uint32_t*>(&managed_word);
  std::printf("managed variable: %s\n", seen == 2 ? "right" : "wrong");
  CHECK(cudaDeviceSynchronize());
  return 0;
}
