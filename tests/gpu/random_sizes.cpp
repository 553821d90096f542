// Sizes that do not repeat from one allocation to the next: RMM's random_allocations, in rounds.
//
//   random_sizes COUNT MEGABYTES ROUNDS [new] [async]
//
// A round is 2 * COUNT steps; a step allocates with probability 73% while fewer than COUNT were
// made and live bytes stay under 16,000 MiB, else it frees a random live block; sizes are uniform
// from 1 byte to MEGABYTES MiB; at its end everything is freed. Every round has the same seed, with
// `new` a new one. async: cudaMallocAsync with its pool's threshold at the maximum in place of
// cudaMalloc. Prints the milliseconds of each round.
#include <random>

#include "program.h"

namespace {

using cmp::gpu::Clock;
using cmp::gpu::kMiB;
constexpr size_t kMostLive = 16000 * kMiB;

struct Block {
  void* pointer;
  size_t bytes;
};

class Rounds {
 public:
  Rounds(int count, size_t most, bool async) : count_(count), most_(most), async_(async) {
    if (async_) cmp::gpu::KeepAsyncPool();
  }

  double Run(unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<size_t> sizes(1, most_);
    const auto begin = Clock::now();
    std::vector<Block> live;
    size_t bytes_live = 0;
    int made = 0;
    for (int step = 0; step < 2 * count_; ++step) {
      const size_t bytes = sizes(random);
      const bool allocate = random() % 100 < 73 && made < count_ && bytes_live + bytes < kMostLive;
      if (allocate || (live.empty() && made < count_)) {
        live.push_back({Allocate(bytes), bytes});
        bytes_live += bytes;
        ++made;
      } else if (!live.empty()) {
        const size_t index = random() % live.size();
        bytes_live -= live[index].bytes;
        Free(live[index].pointer);
        live[index] = live.back();
        live.pop_back();
      }
    }
    for (const Block& block : live) Free(block.pointer);
    if (async_) CHECK(cudaStreamSynchronize(nullptr));
    return cmp::gpu::SecondsSince(begin) * 1e3;
  }

 private:
  void* Allocate(size_t bytes) const {
    void* pointer = nullptr;
    CHECK(async_ ? cudaMallocAsync(&pointer, bytes, nullptr) : cudaMalloc(&pointer, bytes));
    return pointer;
  }
  void Free(void* pointer) const {
    CHECK(async_ ? cudaFreeAsync(pointer, nullptr) : cudaFree(pointer));
  }

  const int count_;
  const size_t most_;
  const bool async_;
};

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) return 2;
  bool is_new = false;
  bool async = false;
  for (int i = 4; i < count; ++i) {
    is_new |= strcmp(arguments[i], "new") == 0;
    async |= strcmp(arguments[i], "async") == 0;
  }
  cmp::gpu::StartCudaOrSkip();
  Rounds rounds(atoi(arguments[1]), static_cast<size_t>(atoi(arguments[2])) * kMiB, async);
  for (int round = 0; round < atoi(arguments[3]); ++round) {
    printf("%.3f\n", rounds.Run(is_new ? static_cast<unsigned>(round) : 1));
  }
  return 0;
}
