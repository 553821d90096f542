// Is memory ever handed out while earlier work may still touch it? Many threads allocate blocks of
// mixed sizes, give each to one kernel on a random stream of theirs, and free it while that kernel
// is pending. The kernel owns its block from its beginning to its end: it writes a stamp that no
// other block has, takes its time, and looks whether the stamp is still there (Kernels::Stamp). Two
// kernels on one block at the same time find each other, whichever came first. Some blocks live
// longer and get a second kernel; some are freed by another thread.
//
//   stress [--threads N] [--blocks N] [--seconds S] [--seed N] [--expect-corruption]
//
// Ends after so many blocks or seconds. Prints `blocks N corruptions N`; exit code 1 if there was a
// corruption, or with --expect-corruption if there was none: for pools whose rules are broken on
// purpose, so that it is known that this program would notice.
#include "../demo/kernels.h"
#include "owned_blocks.h"

namespace {

using cmp::demo::Corruptions;
using cmp::demo::Kernels;
using namespace cmp::gpu;

struct Block {
  void* words = nullptr;
  uint32_t count = 0;
  uint32_t id = 0;
  cudaStream_t stream = nullptr;
};

class Worker {
 public:
  Worker(Traffic& traffic, const Kernels& kernels, Corruptions* corruptions, unsigned seed)
      : traffic_(traffic), kernels_(kernels), corruptions_(corruptions), random_(seed), kept_(16) {
    for (const unsigned flags : {cudaStreamNonBlocking, cudaStreamNonBlocking, cudaStreamDefault}) {
      streams_.push_back(MakeStream(flags));
    }
    streams_.push_back(cudaStreamPerThread);
  }

  void Step(uint32_t id) {
    Block block;
    block.count = DrawWords(random_);
    block.id = id;
    block.stream = DrawStream();
    CHECK(cudaMalloc(&block.words, size_t{block.count} * 4));
    kernels_.Stamp(block.stream, block.words, block.count, id, true, DrawNanoseconds(random_),
                   corruptions_);
    const unsigned fate = random_() % 16;
    if (fate == 0) {
      traffic_.Draw(random_).Put(block.words);
    } else if (fate < 3) {
      std::swap(block, kept_[random_() % kept_.size()]);
      Retire(block);
    } else {
      if (random_() % 128 == 0) traffic_.AskWhetherPending(block.stream);
      CHECK(cudaFree(block.words));
    }
  }
  // A GPU's queues have an end, where launches wait; the simulated ones have none.
  void Pause() {
    if (kernels_.simulated()) CHECK(cudaStreamSynchronize(DrawStream()));
  }
  static void FreeAll(const std::vector<void*>& blocks) {
    for (void* words : blocks) CHECK(cudaFree(words));
  }
  void Finish() {
    for (Block& block : kept_) Retire(block);
    streams_.pop_back();
    for (cudaStream_t stream : streams_) CHECK(cudaStreamDestroy(stream));
  }

 private:
  cudaStream_t DrawStream() {
    // The legacy stream holds up all blocking ones: seldom.
    return random_() % 256 == 0 ? cudaStreamLegacy : streams_[random_() % streams_.size()];
  }

  // The stamp of a block that was kept must still be there.
  void Retire(Block& block) {
    if (block.words == nullptr) return;
    kernels_.Stamp(block.stream, block.words, block.count, block.id, false,
                   DrawNanoseconds(random_), corruptions_);
    CHECK(cudaFree(block.words));
    block = Block{};
  }

  Traffic& traffic_;
  const Kernels& kernels_;
  Corruptions* corruptions_;
  std::mt19937 random_;
  std::vector<cudaStream_t> streams_;
  std::vector<Block> kept_;
};

}  // namespace

int main(int argc, char** argv) {
  const Amount amount(argc, argv, "16");
  StartCudaOrSkip();
  Watchdog watchdog(20);
  const Kernels kernels;
  auto* corruptions = AllocateZeros<Corruptions>(1);
  Traffic traffic(watchdog, amount);
  traffic.Run([&](unsigned index) {
    return Worker(traffic, kernels, corruptions, amount.seed * 1000 + index);
  });
  Worker::FreeAll(traffic.Left());
  CHECK(cudaDeviceSynchronize());
  traffic.PrintRate("pending_at_free");
  const Corruptions found = ReadBack(corruptions);
  CHECK(cudaFree(corruptions));
  std::printf("blocks %llu corruptions %llu\n", traffic.blocks(),
              static_cast<unsigned long long>(found.words));
  if (found.words != 0) {
    std::fprintf(stderr, "stress: the first: block %u found the stamp of block %u\n",
                 found.expected, found.found);
  }
  return traffic.ExitCode(found.words);
}
