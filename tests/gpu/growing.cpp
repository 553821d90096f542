// Blocks that grow, one at a time: none serves the next one, so what is idle is only held.
//
//   growing [--most MIB] [--busy]
//
// Frees one of 4 MiB and rests, so that what a first release costs is paid; then allocates and
// frees blocks of 20, 22, 24 ... MIB (420). --busy: each is written to until after its free. Prints
// how long the allocations and the frees took, at most, in milliseconds.
#include <thread>

#include "program.h"

using namespace cmp::gpu;

int main(int argc, char** argv) {
  StartCudaOrSkip();
  const auto most = static_cast<size_t>(std::atoi(Argument(argc, argv, "--most", "420")));
  const bool busy = HasFlag(argc, argv, "--busy");
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  void* block = nullptr;
  CHECK(cudaMalloc(&block, 4 * kMiB));
  CHECK(cudaFree(block));
  std::this_thread::sleep_for(std::chrono::seconds(1));
  double allocation = 0;
  double release = 0;
  for (size_t mib = 20; mib <= most; mib += 2) {
    const auto begin = Clock::now();
    CHECK(cudaMalloc(&block, mib * kMiB));
    allocation = std::max(allocation, SecondsSince(begin) * 1e3);
    for (int i = 0; busy && i < 4; ++i) CHECK(cudaMemsetAsync(block, i, mib * kMiB, stream));
    const auto freed = Clock::now();
    CHECK(cudaFree(block));
    release = std::max(release, SecondsSince(freed) * 1e3);
  }
  CHECK(cudaDeviceSynchronize());
  std::printf("{\"allocation_ms\": %.3f, \"free_ms\": %.3f}\n", allocation, release);
  return 0;
}
