// A program that lives with 95% of the device's memory in use: it fills it with blocks of mixed
// sizes, and replaces them one after the other by blocks of other sizes, never asking for more than
// fits. Kernels stamp every block and look at its end whether the stamp is still there. What fits
// without a pool must fit with one.
//
//   full [--steps N] [--percent N] [--seed N]
//
// Prints `failed N corruptions N`; exit code 1 if one of them is not 0.
#include <random>

#include "../demo/kernels.h"
#include "program.h"

namespace {

using cmp::demo::Corruptions;
using cmp::demo::Kernels;
using namespace cmp::gpu;

struct Block {
  void* words = nullptr;
  size_t bytes = 0;
  uint32_t id = 0;
  // What it may take from the device: whole pieces of 2 MiB, also for a small block alone in one.
  size_t taken() const { return (bytes + 2 * kMiB - 1) / (2 * kMiB) * (2 * kMiB); }
};

// From a 4,096th to a 16th of the budget, and now and then a small one.
size_t DrawBytes(std::mt19937_64& random, size_t budget) {
  if (random() % 8 == 0) return 256 + random() % kMiB;
  const size_t least = (budget >> 12) << (random() % 8);
  return (least + random() % least) / 4 * 4;
}

class Filler {
 public:
  Filler(const Kernels& kernels, size_t budget, unsigned seed)
      : kernels_(kernels),
        budget_(budget),
        corruptions_(AllocateZeros<Corruptions>(1)),
        random_(seed) {
    for (int i = 0; i < 3; ++i) streams_.push_back(MakeStream(cudaStreamNonBlocking));
  }

  // One block in; first as many out as it needs.
  void Step() {
    Block block;
    block.bytes = DrawBytes(random_, budget_);
    block.id = ++last_id_;
    while (taken_ + block.taken() > budget_) FreeOne();
    if (cudaMalloc(&block.words, block.bytes) != cudaSuccess) {
      cudaGetLastError();
      ++failed_;
      return;
    }
    taken_ += block.taken();
    most_taken_ = std::max(most_taken_, taken_);
    Stamp(block, true);
    blocks_.push_back(block);
  }

  void FreeAll() {
    while (!blocks_.empty()) FreeOne();
  }

  Corruptions corruptions() const { return ReadBack(corruptions_); }
  unsigned failed() const { return failed_; }
  size_t most_taken() const { return most_taken_; }

 private:
  void FreeOne() {
    std::swap(blocks_[random_() % blocks_.size()], blocks_.back());
    const Block block = blocks_.back();
    blocks_.pop_back();
    Stamp(block, false);
    CHECK(cudaFree(block.words));
    taken_ -= block.taken();
  }

  // At the block's beginning and end.
  void Stamp(const Block& block, bool fresh) {
    const auto words = static_cast<uint32_t>(std::min<size_t>(block.bytes / 4, 1 << 20));
    const cudaStream_t stream = streams_[block.id % streams_.size()];
    char* const end = static_cast<char*>(block.words) + block.bytes / 4 * 4;
    kernels_.Stamp(stream, block.words, words, block.id, fresh, 5000, corruptions_);
    kernels_.Stamp(stream, end - size_t{words} * 4, words, block.id, fresh, 5000, corruptions_);
  }

  const Kernels& kernels_;
  size_t budget_;
  Corruptions* corruptions_;
  std::mt19937_64 random_;
  std::vector<cudaStream_t> streams_;
  std::vector<Block> blocks_;
  size_t taken_ = 0;
  size_t most_taken_ = 0;
  uint32_t last_id_ = 0;
  unsigned failed_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const int steps = std::atoi(Argument(argc, argv, "--steps", "3000"));
  const auto percent = static_cast<size_t>(std::atoi(Argument(argc, argv, "--percent", "95")));
  const auto seed = static_cast<unsigned>(std::atoi(Argument(argc, argv, "--seed", "1")));
  StartCudaOrSkip();
  Watchdog watchdog(20);
  const Kernels kernels;
  size_t free_bytes = 0;
  size_t total = 0;
  CHECK(cudaMemGetInfo(&free_bytes, &total));
  Filler filler(kernels, free_bytes / 100 * percent, seed);
  const auto begin = Clock::now();
  for (int i = 0; i < steps; ++i) {
    watchdog.Progress("replacing blocks");
    filler.Step();
  }
  filler.FreeAll();
  CHECK(cudaDeviceSynchronize());
  const Corruptions found = filler.corruptions();
  std::printf("%zu%% of the memory in use, %d steps: failed %u corruptions %llu\n",
              filler.most_taken() * 100 / free_bytes, steps, filler.failed(),
              static_cast<unsigned long long>(found.words));
  std::fprintf(stderr, "full: seconds %.3f\n", SecondsSince(begin));
  return filler.failed() == 0 && found.words == 0 ? 0 : 1;
}
