// What stress.cpp and two_gpus.cpp share: threads that allocate blocks of mixed sizes, of which
// each belongs to one kernel from its beginning to its end, and free them while that is pending, or
// hand them to another thread to free.
#ifndef CMP_TESTS_GPU_OWNED_BLOCKS_H_
#define CMP_TESTS_GPU_OWNED_BLOCKS_H_

#include <mutex>
#include <random>
#include <utility>

#include "program.h"

namespace cmp::gpu {

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

// Every doubling from 256 B to 8 MiB, small ones more often.
inline uint32_t DrawWords(std::mt19937& random) {
  constexpr uint32_t kLeastWords = 64;
  constexpr uint32_t kMostWords = 2u << 20;
  constexpr uint32_t kDoublings = 15;
  const uint32_t least = std::min(random() % kDoublings, random() % kDoublings);
  const uint32_t words = kLeastWords << least;
  return std::min(words + static_cast<uint32_t>(random()) % words, kMostWords);
}

// For how long a kernel keeps its block.
inline uint64_t DrawNanoseconds(std::mt19937& random) {
  const uint64_t usual = 3000 + random() % 25000;
  return random() % 32 == 0 ? usual + 200000 : usual;
}

// --threads, --blocks, --seconds, --seed, --expect-corruption
struct Amount {
  Amount(int argc, char** argv, const char* default_threads)
      : threads(static_cast<unsigned>(
            std::max(1, std::atoi(Argument(argc, argv, "--threads", default_threads))))),
        blocks(static_cast<uint32_t>(std::atoll(Argument(argc, argv, "--blocks", "2000000")))),
        seconds(std::atof(Argument(argc, argv, "--seconds", "80"))),
        seed(static_cast<unsigned>(std::atoi(Argument(argc, argv, "--seed", "1")))),
        expects_corruption(HasFlag(argc, argv, "--expect-corruption")) {}

  unsigned threads;
  uint32_t blocks;
  double seconds;
  unsigned seed;
  bool expects_corruption;
};

// What the threads of a run share.
class Traffic {
 public:
  Traffic(Watchdog& watchdog, const Amount& amount)
      : watchdog_(watchdog),
        amount_(amount),
        begin_(Clock::now()),
        end_(begin_ + std::chrono::milliseconds(static_cast<int64_t>(amount.seconds * 1000))),
        mailboxes_(amount.threads) {}

  // One thread each: Worker(index).Step(id) for its part of the blocks, with Pause() now and then
  // and FreeAll(words) for what others sent; then Finish().
  template <typename MakeWorker>
  void Run(MakeWorker make_worker) {
    const uint32_t each = (amount_.blocks + amount_.threads - 1) / amount_.threads;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < amount_.threads; ++i) {
      threads.emplace_back([this, i, each, &make_worker] {
        auto worker = make_worker(i);
        uint32_t done = 0;
        for (; done < each; ++done) {
          worker.Step(i * each + 1 + done);
          if (done % 64 != 0) continue;
          worker.Pause();
          watchdog_.Progress("allocating and freeing");
          worker.FreeAll(mailboxes_[i].TakeAll());
          if (Clock::now() >= end_) break;
        }
        blocks_ += done;
        worker.FreeAll(mailboxes_[i].TakeAll());
        worker.Finish();
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  // What was sent to threads that had ended.
  std::vector<void*> Left() {
    std::vector<void*> left;
    for (Mailbox& mailbox : mailboxes_) {
      for (void* words : mailbox.TakeAll()) left.push_back(words);
    }
    return left;
  }

  Mailbox& Draw(std::mt19937& random) { return mailboxes_[random() % mailboxes_.size()]; }

  void AskWhetherPending(cudaStream_t stream) {
    const cudaError_t status = cudaStreamQuery(stream);
    if (status != cudaErrorNotReady) CHECK(status);
    ++asked_;
    pending_ += status == cudaErrorNotReady ? 1 : 0;
    cudaGetLastError();
  }

  unsigned long long blocks() const { return blocks_; }
  // "seconds N blocks_per_second N WHAT N%", on stderr.
  void PrintRate(const char* what) const {
    const double taken = SecondsSince(begin_);
    std::fprintf(
        stderr, "%s: seconds %.3f blocks_per_second %.0f %s %.1f%%\n",
        program_invocation_short_name, taken, static_cast<double>(blocks_) / taken, what,
        100.0 * static_cast<double>(pending_) / static_cast<double>(std::max<uint64_t>(asked_, 1)));
  }
  int ExitCode(uint64_t corruptions) const {
    return (corruptions != 0) == amount_.expects_corruption ? 0 : 1;
  }

 private:
  Watchdog& watchdog_;
  const Amount amount_;
  const Clock::time_point begin_;
  const Clock::time_point end_;
  std::vector<Mailbox> mailboxes_;
  std::atomic<uint64_t> blocks_{0};
  std::atomic<uint64_t> asked_{0};
  std::atomic<uint64_t> pending_{0};
};

}  // namespace cmp::gpu

#endif  // CMP_TESTS_GPU_OWNED_BLOCKS_H_
