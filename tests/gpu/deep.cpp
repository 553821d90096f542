// Memory that a library's kernels write to after it was freed, launched past every preload: the
// library was loaded with RTLD_DEEPBIND. The real cudaFree waits for them. Prints how many words
// were written once they were others'.
#include "program.h"

int main() {
  using namespace cmp::gpu;
  StartCudaOrSkip();
  Watchdog watchdog(60);
  using WriteLate = void (*)(cudaStream_t stream, uint32_t * word, uint32_t value, uint64_t ns);
  void* library = dlopen("libdeep_launches.so", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (library == nullptr) Fail(dlerror(), 0);
  const auto write_late = reinterpret_cast<WriteLate>(dlsym(library, "deep_write_late"));
  if (write_late == nullptr) Fail(dlerror(), 0);

  const cudaStream_t theirs = MakeStream(cudaStreamNonBlocking);
  const cudaStream_t ours = MakeStream(cudaStreamNonBlocking);
  int overwritten = 0;
  for (uint32_t i = 1; i <= 200; ++i) {
    watchdog.Progress("rounds");
    auto* word = Allocate<uint32_t>(1000);
    write_late(theirs, word, i, 500'000);
    CHECK(cudaFree(word));
    auto* other = Allocate<uint32_t>(1000);
    CHECK(cudaMemsetAsync(other, 0, sizeof(uint32_t), ours));
    CHECK(cudaStreamSynchronize(ours));
    CHECK(cudaStreamSynchronize(theirs));
    overwritten += ReadBack(other) != 0;
    CHECK(cudaFree(other));
  }
  std::printf("overwritten: %d\n", overwritten);
}
