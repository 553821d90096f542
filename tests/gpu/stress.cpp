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
#include <mutex>
#include <random>
#include <utility>

#include "../demo/kernels.h"
#include "program.h"

namespace {

using cmp::demo::Corruptions;
using cmp::demo::Kernels;
using namespace cmp::gpu;

constexpr uint32_t kLeastWords = 64;       // 256 B
constexpr uint32_t kMostWords = 2u << 20;  // 8 MiB

struct Block {
  void* words = nullptr;
  uint32_t count = 0;
  uint32_t id = 0;
  cudaStream_t stream = nullptr;
};

// Blocks on their way to another thread, which frees them.
class Mailbox {
 public:
  void Put(void* words) {
    const std::lock_guard<std::mutex> lock(mutex_);
    words_.push_back(words);
  }
  std::vector<void*> TakeAll() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(words_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<void*> words_;
};

struct Shared {
  const Kernels& kernels;
  Corruptions* corruptions;
  Watchdog& watchdog;
  Clock::time_point end;
  std::vector<Mailbox> mailboxes;
  std::atomic<uint64_t> blocks{0};
  std::atomic<uint64_t> asked{0};
  std::atomic<uint64_t> pending{0};
};

// Every doubling from 256 B to 8 MiB, small ones more often.
uint32_t DrawWords(std::mt19937& random) {
  constexpr uint32_t kDoublings = 15;
  const uint32_t least = std::min(random() % kDoublings, random() % kDoublings);
  const uint32_t words = kLeastWords << least;
  return std::min(words + static_cast<uint32_t>(random()) % words, kMostWords);
}

uint64_t DrawNanoseconds(std::mt19937& random) {
  const uint64_t usual = 3000 + random() % 25000;
  return random() % 32 == 0 ? usual + 200000 : usual;
}

class Worker {
 public:
  Worker(Shared& shared, unsigned index, unsigned seed)
      : shared_(shared), index_(index), random_(seed * 1000 + index), kept_(16) {
    for (const unsigned flags : {cudaStreamNonBlocking, cudaStreamNonBlocking, cudaStreamDefault}) {
      streams_.push_back(MakeStream(flags));
    }
    streams_.push_back(cudaStreamPerThread);
  }

  void Run(uint32_t first_id, uint32_t blocks) {
    uint32_t done = 0;
    for (; done < blocks; ++done) {
      Step(first_id + done);
      if (done % 64 != 0) continue;
      // A GPU's queues have an end, where launches wait; the simulated ones have none.
      if (shared_.kernels.simulated()) CHECK(cudaStreamSynchronize(DrawStream()));
      shared_.watchdog.Progress("allocating and freeing");
      for (void* words : shared_.mailboxes[index_].TakeAll()) CHECK(cudaFree(words));
      if (Clock::now() >= shared_.end) break;
    }
    for (Block& block : kept_) Retire(block);
    shared_.blocks += done;
  }

  void Finish() {
    for (void* words : shared_.mailboxes[index_].TakeAll()) CHECK(cudaFree(words));
    streams_.pop_back();
    for (cudaStream_t stream : streams_) CHECK(cudaStreamDestroy(stream));
  }

 private:
  cudaStream_t DrawStream() {
    // The legacy stream holds up all blocking ones: seldom.
    return random_() % 256 == 0 ? cudaStreamLegacy : streams_[random_() % streams_.size()];
  }

  void Step(uint32_t id) {
    Block block;
    block.count = DrawWords(random_);
    block.id = id;
    block.stream = DrawStream();
    CHECK(cudaMalloc(&block.words, size_t{block.count} * 4));
    shared_.kernels.Stamp(block.stream, block.words, block.count, id, true,
                          DrawNanoseconds(random_), shared_.corruptions);
    const unsigned fate = random_() % 16;
    if (fate == 0) {
      const size_t other = random_() % shared_.mailboxes.size();
      shared_.mailboxes[other].Put(block.words);
    } else if (fate < 3) {
      std::swap(block, kept_[random_() % kept_.size()]);
      Retire(block);
    } else {
      if (random_() % 128 == 0) AskWhetherPending(block.stream);
      CHECK(cudaFree(block.words));
    }
  }

  // The stamp of a block that was kept must still be there.
  void Retire(Block& block) {
    if (block.words == nullptr) return;
    shared_.kernels.Stamp(block.stream, block.words, block.count, block.id, false,
                          DrawNanoseconds(random_), shared_.corruptions);
    CHECK(cudaFree(block.words));
    block = Block{};
  }

  void AskWhetherPending(cudaStream_t stream) {
    const cudaError_t status = cudaStreamQuery(stream);
    if (status != cudaErrorNotReady) CHECK(status);
    ++shared_.asked;
    shared_.pending += status == cudaErrorNotReady ? 1 : 0;
    cudaGetLastError();
  }

  Shared& shared_;
  unsigned index_;
  std::mt19937 random_;
  std::vector<cudaStream_t> streams_;
  std::vector<Block> kept_;
};

}  // namespace

int main(int argc, char** argv) {
  const auto threads =
      static_cast<unsigned>(std::max(1, std::atoi(Argument(argc, argv, "--threads", "16"))));
  const auto blocks =
      static_cast<uint32_t>(std::atoll(Argument(argc, argv, "--blocks", "2000000")));
  const double seconds = std::atof(Argument(argc, argv, "--seconds", "80"));
  const auto seed = static_cast<unsigned>(std::atoi(Argument(argc, argv, "--seed", "1")));
  const bool expected = HasFlag(argc, argv, "--expect-corruption");
  StartCudaOrSkip();
  Watchdog watchdog(20);
  const Kernels kernels;
  const auto begin = Clock::now();
  Shared shared{kernels, AllocateZeros<Corruptions>(1), watchdog,
                begin + std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)),
                std::vector<Mailbox>(threads)};
  const uint32_t each = (blocks + threads - 1) / threads;
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < threads; ++i) {
    workers.emplace_back([&shared, i, seed, each] {
      Worker worker(shared, i, seed);
      worker.Run(i * each + 1, each);
      worker.Finish();
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (Mailbox& mailbox : shared.mailboxes) {  // of threads that had ended
    for (void* words : mailbox.TakeAll()) CHECK(cudaFree(words));
  }
  CHECK(cudaDeviceSynchronize());
  const double taken = SecondsSince(begin);
  const Corruptions found = ReadBack(shared.corruptions);
  CHECK(cudaFree(shared.corruptions));
  std::printf("blocks %llu corruptions %llu\n", static_cast<unsigned long long>(shared.blocks),
              static_cast<unsigned long long>(found.words));
  if (found.words != 0) {
    std::fprintf(stderr, "stress: the first: block %u found the stamp of block %u\n",
                 found.expected, found.found);
  }
  std::fprintf(stderr, "stress: seconds %.3f blocks_per_second %.0f pending_at_free %.1f%%\n",
               taken, static_cast<double>(shared.blocks) / taken,
               100.0 * static_cast<double>(shared.pending) /
                   static_cast<double>(std::max<uint64_t>(shared.asked, 1)));
  return (found.words != 0) == expected ? 0 : 1;
}
