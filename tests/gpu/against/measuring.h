// How the workloads measure: an allocator whose every result is looked at, streams, a busy device,
// threads that begin together, and the median of short runs.
#ifndef CMP_TESTS_GPU_AGAINST_MEASURING_H_
#define CMP_TESTS_GPU_AGAINST_MEASURING_H_

#include <barrier>
#include <cmath>
#include <random>

#include "../program.h"
#include "workloads.h"

namespace cmp::against {

using namespace gpu;

inline double NanosecondsSince(Clock::time_point begin) { return SecondsSince(begin) * 1e9; }

struct Block {
  void* pointer;
  size_t bytes;
};

// The allocator, each result looked at.
class Memory {
 public:
  explicit Memory(Allocator& allocator) : allocator_(allocator) {}

  void* Allocate(size_t bytes, cudaStream_t stream) const {
    void* block = allocator_.Allocate(bytes, stream);
    if (block == nullptr) Fail("an allocation", 2);
    return block;
  }
  void Free(void* block, size_t bytes, cudaStream_t stream) const {
    if (!allocator_.Free(block, bytes, stream)) Fail("a free", 1);
  }
  void Pair(size_t bytes, cudaStream_t stream) const {
    Free(Allocate(bytes, stream), bytes, stream);
  }

 private:
  Allocator& allocator_;
};

class Stream {
 public:
  Stream() : stream_(MakeStream(cudaStreamNonBlocking)) {}
  ~Stream() {
    CHECK(cudaStreamSynchronize(stream_));
    CHECK(cudaStreamDestroy(stream_));
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_;
};

// A thread that keeps the device at work: two kernels of 50 us ahead, no more, so that a call that
// waits for the device has as much to wait for each time.
class Busy {
 public:
  Busy(const demo::Kernels& kernels, bool wanted) {
    if (wanted) thread_ = std::thread([this, &kernels] { Work(kernels); });
    while (wanted && !working_.load()) std::this_thread::yield();
  }
  ~Busy() {
    done_.store(true);
    if (thread_.joinable()) thread_.join();
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  void Work(const demo::Kernels& kernels) {
    const Stream stream;
    cudaEvent_t ends[2] = {};
    for (cudaEvent_t& end : ends) {
      CHECK(cudaEventCreateWithFlags(&end, cudaEventDisableTiming));
      CHECK(cudaEventRecord(end, stream));
    }
    for (size_t i = 0; !done_.load(); ++i) {
      CHECK(cudaEventSynchronize(ends[i % 2]));
      kernels.Delay(stream, 50000);
      CHECK(cudaEventRecord(ends[i % 2], stream));
      working_.store(true);
    }
    CHECK(cudaStreamSynchronize(stream));
    for (const cudaEvent_t end : ends) CHECK(cudaEventDestroy(end));
  }

  std::atomic<bool> working_{false};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

// Of one call of `step`: the median of short runs, so that what another program on the machine
// takes does not count, and the mean. Runs of 20 where a call takes less than 5 us, else of one.
template <typename Step>
Figures Measure(double milliseconds, const Step& step) {
  constexpr int kRun = 20;
  constexpr double kShortNs = 5000;
  const auto warm_up = Clock::now();
  int calls = 0;
  do {
    step();
    ++calls;
  } while (calls < kRun && SecondsSince(warm_up) * 4e3 < milliseconds);
  const auto last = Clock::now();
  step();
  const int run = NanosecondsSince(last) < kShortNs ? kRun : 1;
  std::vector<double> runs;
  const auto begin = Clock::now();
  do {
    const auto one = Clock::now();
    for (int i = 0; i < run; ++i) step();
    runs.push_back(NanosecondsSince(one) / run);
  } while (SecondsSince(begin) * 1e3 < milliseconds);
  Figures figures;
  figures.mean_ns = NanosecondsSince(begin) / static_cast<double>(runs.size()) / run;
  figures.ns = Median(std::move(runs));
  return figures;
}

// `measure(thread)` in threads that begin together; the means of what they return.
template <typename Each>
Figures InThreads(size_t count, const Each& measure) {
  std::vector<Figures> results(count);
  std::barrier start(static_cast<ptrdiff_t>(count));
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      results[i] = measure(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Figures sum;
  for (const Figures& result : results) {
    sum.ns += result.ns / static_cast<double>(count);
    sum.mean_ns += result.mean_ns / static_cast<double>(count);
  }
  return sum;
}

inline size_t DrawBytes(std::mt19937& random, double most) {
  std::uniform_real_distribution<double> doublings(8, std::log2(most));
  return static_cast<size_t>(std::exp2(doublings(random)));
}

inline std::vector<size_t> DrawSizes(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<size_t> sizes(count);
  for (size_t& bytes : sizes) bytes = DrawBytes(random, kMiB);
  return sizes;
}

}  // namespace cmp::against

#endif  // CMP_TESTS_GPU_AGAINST_MEASURING_H_
