// Kernels that stay until a later launch, while idle memory goes back to the driver: a real free
// that waits for the device, or holds up the next launch, would never end.
//
//   staying [--seconds S] [--seed N]
//
// Over and over: blocks of up to 64 MiB come and go; a kernel starts on one stream that stays until
// a word changes; after a random pause another stream's kernel changes it. Prints whether any
// stayed in vain.
#include <random>

#include "../demo/kernels.h"
#include "program.h"

namespace {

using namespace cmp::gpu;

class Blocks {
 public:
  explicit Blocks(unsigned seed) : random_(seed) {}
  // Some are freed, some made.
  void ComeAndGo(int steps) {
    for (int i = 0; i < steps; ++i) {
      if (!live_.empty() && random_() % 2 == 0) {
        std::swap(live_[random_() % live_.size()], live_.back());
        CHECK(cudaFree(live_.back()));
        live_.pop_back();
      } else if (live_.size() < 60) {
        void* block = nullptr;
        CHECK(cudaMalloc(&block, (size_t{1} << (10 + random_() % 17)) + random_() % 1000));
        live_.push_back(block);
      }
    }
  }
  void AllGo() {
    for (void* block : live_) CHECK(cudaFree(block));
    live_.clear();
  }
  unsigned Below(unsigned most) { return static_cast<unsigned>(random_() % most); }

 private:
  std::mt19937 random_;
  std::vector<void*> live_;
};

}  // namespace

int main(int argc, char** argv) {
  StartCudaOrSkip();
  const double seconds = std::atof(Argument(argc, argv, "--seconds", "10"));
  const auto seed = static_cast<unsigned>(std::atoi(Argument(argc, argv, "--seed", "1")));
  const cmp::demo::Kernels kernels;
  const cudaStream_t stays = MakeStream(cudaStreamNonBlocking);
  const cudaStream_t ends = MakeStream(cudaStreamNonBlocking);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 2 * sizeof(uint32_t)));
  auto* const words = static_cast<uint32_t*>(memory);
  CHECK(cudaMemset(words, 0, 2 * sizeof(uint32_t)));
  CHECK(cudaDeviceSynchronize());
  Blocks blocks(seed);
  Watchdog watchdog(20);
  double worst = 0;
  uint32_t stayed = 0;
  for (const auto begin = Clock::now(); SecondsSince(begin) < seconds;) {
    blocks.ComeAndGo(12);
    if (blocks.Below(50) == 0) blocks.AllGo();
    ++stayed;
    watchdog.Progress("a kernel that stays");
    kernels.SpinUntil(stays, words, stayed, words + 1);
    usleep(blocks.Below(blocks.Below(8) == 0 ? 5000 : 400));
    const auto launch = Clock::now();
    kernels.WriteLate(ends, words, stayed, 1000);
    worst = std::max(worst, SecondsSince(launch));
    CHECK(cudaStreamSynchronize(stays));
    CHECK(cudaStreamSynchronize(ends));
  }
  const uint32_t gave_up = ReadBack(words + 1);
  std::printf("in vain: %s\n", gave_up == 0 ? "none" : "some");
  std::fprintf(stderr, "stayed %u worst_launch_us %.0f\n", stayed, worst * 1e6);
  return gave_up == 0 ? 0 : 1;
}
