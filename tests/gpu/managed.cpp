// Managed memory beside memory that the pool keeps: what the device holds (NVML) before managed
// memory is first touched, and how fast passes over it are.
//
//   managed [--idle MIB] [--managed MIB] [--touched MIB] [--passes N]
//
// Allocates and frees MIB (61440) in blocks of 256 MiB; allocates MIB (102400) of managed memory;
// then uses the first MIB (4096) of it N times (5). Prints a line of JSON: what NVML says is used,
// in MiB, after the frees and before the first touch, and milliseconds of each pass.
#include "../demo/kernels.h"
#include "used_memory.h"

using namespace cmp::gpu;

int main(int argc, char** argv) {
  StartCudaOrSkip();
  const auto idle = static_cast<size_t>(std::atoi(Argument(argc, argv, "--idle", "61440")));
  const auto managed = static_cast<size_t>(std::atoi(Argument(argc, argv, "--managed", "102400")));
  const auto touched = static_cast<size_t>(std::atoi(Argument(argc, argv, "--touched", "4096")));
  const int passes = std::atoi(Argument(argc, argv, "--passes", "5"));
  const cmp::demo::Kernels kernels;
  constexpr size_t kBlock = 256 * kMiB;
  std::vector<void*> blocks(idle * kMiB / kBlock);
  for (void*& block : blocks) CHECK(cudaMalloc(&block, kBlock));
  for (void* block : blocks) CHECK(cudaFree(block));
  const double kept = UsedMiB();
  void* memory = nullptr;
  CHECK(cudaMallocManaged(&memory, managed * kMiB, cudaMemAttachGlobal));
  const double before_touch = UsedMiB();
  std::printf("{\"kept_mib\": %.0f, \"before_touch_mib\": %.0f, \"pass_ms\": [", kept,
              before_touch);
  const auto words = static_cast<uint32_t>(touched * kMiB / sizeof(uint32_t));
  for (int pass = 0; pass < passes; ++pass) {
    const auto begin = Clock::now();
    kernels.Fill(nullptr, memory, words, static_cast<uint32_t>(pass));
    CHECK(cudaDeviceSynchronize());
    std::printf("%s%.2f", pass == 0 ? "" : ", ", SecondsSince(begin) * 1e3);
  }
  std::printf("]}\n");
  CHECK(cudaFree(memory));
  return 0;
}
