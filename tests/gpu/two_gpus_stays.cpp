// A kernel that runs for long on one device, as servers keep one, beside a loop on another device:
// cudaMalloc, kernel, copy within the device, synchronise, cudaFree. How much of the loop is done
// while the kernel runs, and what a turn costs.
//
//   two_gpus_stays [apart | copies | access] [--milliseconds N]
//
//   apart    the devices have nothing to do with each other
//   copies   something was copied between them before
//   access   each may use the other's memory
//
// Prints `wrong words N`; on stderr `us N` a turn, `copy_ns N` for a copy within the device, and
// `turns N`.
#include "two_gpus.h"

namespace {

using namespace cmp::gpu;

constexpr size_t kBytes = size_t{8} << 20;
constexpr uint32_t kWords = 1024;

}  // namespace

int main(int argc, char** argv) {
  DevicesOrSkip(2);
  const char* way = argc > 1 ? argv[1] : "apart";
  const double milliseconds = std::atof(Argument(argc, argv, "--milliseconds", "400"));
  if (std::strcmp(way, "access") == 0 && !EnableAllAccess(2)) return kNoDevice;
  const std::vector<cmp::demo::Kernels> kernels = LoadKernels(2);
  void* theirs = nullptr;
  Use(1);
  CHECK(cudaMalloc(&theirs, kBytes));
  cudaStream_t staying = nullptr;
  CHECK(cudaStreamCreateWithFlags(&staying, cudaStreamNonBlocking));
  Use(0);
  void* copy = nullptr;
  CHECK(cudaMalloc(&copy, kBytes));
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  if (std::strcmp(way, "copies") == 0) CHECK(cudaMemcpyPeer(theirs, 1, copy, 0, kBytes));
  CHECK(cudaDeviceSynchronize());
  Use(1);
  CHECK(cudaDeviceSynchronize());
  kernels[1].Delay(staying, static_cast<uint64_t>(milliseconds * 1e6));
  Use(0);
  std::vector<uint32_t> words(kWords);
  uint64_t wrong = 0;
  uint32_t turns = 0;
  const auto begin = Clock::now();
  while (SecondsSince(begin) < milliseconds / 2 / 1e3) {
    void* block = nullptr;
    CHECK(cudaMalloc(&block, kBytes));
    kernels[0].WriteLate(stream, static_cast<uint32_t*>(block), ++turns, 1000);
    CHECK(cudaMemcpyAsync(copy, block, kBytes, cudaMemcpyDeviceToDevice, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaFree(block));
    CHECK(cudaMemcpyAsync(words.data(), copy, 4, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    wrong += words[0] != turns;
  }
  const double turn = SecondsSince(begin) / turns;
  constexpr int kCopies = 200;
  const auto copies = Clock::now();
  for (int i = 0; i < kCopies; ++i) {
    CHECK(cudaMemcpyAsync(copy, static_cast<char*>(copy) + 4096, 4096, cudaMemcpyDeviceToDevice,
                          stream));
  }
  const double one = SecondsSince(copies) / kCopies;
  CHECK(cudaStreamSynchronize(stream));
  Use(1);
  const bool stayed = cudaStreamQuery(staying) == cudaErrorNotReady;
  CHECK(cudaDeviceSynchronize());
  std::printf("wrong words %llu\n", static_cast<unsigned long long>(wrong));
  std::fprintf(stderr, "two_gpus_stays %s: us %.2f copy_ns %.0f turns %u%s\n", way, turn * 1e6,
               one * 1e9, turns, stayed ? "" : " (the kernel had ended)");
  return wrong != 0 || !stayed;
}
