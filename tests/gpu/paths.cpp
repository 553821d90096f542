// What the less usual paths of cudaMalloc and cudaFree cost on an idle device, which pairs.cpp does
// not measure. Prints one JSON line per case; compare_paths.py runs it without and with the preload
// and prints ratios.
//
//   paths [--milliseconds N] [--live N] [--seed N]
//
//   random sizes     a pair of a size drawn log-uniformly from 256 B to 1 MiB, beside N live blocks
//   hand-over        a block of 4 KiB that one thread allocates and another frees; 1 and 8 such
//   pairs
//   thread           a thread that lives for ten pairs of 4 KiB, over one that does nothing; and of
//                    that what is not the pool's: a thread that makes the device current by
//                    cudaSetDevice, as the first cudaMalloc of a thread does, or by cuCtxSetCurrent
//   first touch      each of 1,000 blocks of sizes that the process has not had before; the worst
//   attributes       cudaPointerGetAttributes of a live block
//   memory info      cudaMemGetInfo
//   synchronise      cudaStreamSynchronize of an idle stream
//
// Each figure but the first touch's is a median over short runs, in nanoseconds.
#include <cuda.h>
#include <dlfcn.h>

#include <cmath>
#include <functional>
#include <random>

#include "program.h"

namespace {

using namespace cmp::gpu;

double NanosecondsSince(Clock::time_point begin) { return SecondsSince(begin) * 1e9; }

// Of one call of `step`: the median of runs of 20, so that what another program on the machine
// takes does not count.
double Measure(double milliseconds, const std::function<void()>& step) {
  constexpr int kRun = 20;
  for (int i = 0; i < kRun; ++i) step();
  std::vector<double> runs;
  for (const auto begin = Clock::now(); runs.empty() || SecondsSince(begin) * 1e3 < milliseconds;) {
    const auto run = Clock::now();
    for (int i = 0; i < kRun; ++i) step();
    runs.push_back(NanosecondsSince(run) / kRun);
  }
  return Median(std::move(runs));
}

void Print(const char* what, double ns) {
  std::printf("{\"what\": \"%s\", \"ns\": %.1f}\n", what, ns);
}

size_t DrawBytes(std::mt19937& random, double least, double most) {
  std::uniform_real_distribution<double> doublings(std::log2(least), std::log2(most));
  return static_cast<size_t>(std::exp2(doublings(random)));
}

void Pair(size_t bytes) {
  void* block = nullptr;
  CHECK(cudaMalloc(&block, bytes));
  CHECK(cudaFree(block));
}

void RandomSizes(double milliseconds, int live, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<void*> kept(static_cast<size_t>(live));
  for (void*& block : kept) CHECK(cudaMalloc(&block, DrawBytes(random, 256, 4 * kKiB)));
  std::vector<size_t> sizes(1000);
  for (size_t& bytes : sizes) bytes = DrawBytes(random, 256, kMiB);
  for (const size_t bytes : sizes) Pair(bytes);
  size_t next = 0;
  Print("random sizes", Measure(milliseconds, [&] { Pair(sizes[next++ % sizes.size()]); }));
  for (void* block : kept) CHECK(cudaFree(block));
}

// One thread allocates, another frees, with a few blocks on their way.
class HandOver {
 public:
  double Run(double milliseconds) {
    std::thread freeing([this] {
      for (size_t next = 0;; ++next) {
        void* block = nullptr;
        while ((block = ways_[next % kWays].exchange(nullptr, std::memory_order_acquire)) ==
               nullptr) {
          if (done_.load(std::memory_order_acquire)) return;
        }
        CHECK(cudaFree(block));
      }
    });
    size_t next = 0;
    const double ns = Measure(milliseconds, [&] {
      void* block = nullptr;
      CHECK(cudaMalloc(&block, 4 * kKiB));
      std::atomic<void*>& way = ways_[next++ % kWays];
      while (way.load(std::memory_order_relaxed) != nullptr) {
      }
      way.store(block, std::memory_order_release);
    });
    for (std::atomic<void*>& way : ways_) {
      while (way.load(std::memory_order_relaxed) != nullptr) std::this_thread::yield();
    }
    done_.store(true, std::memory_order_release);
    freeing.join();
    return ns;
  }

 private:
  static constexpr size_t kWays = 64;
  std::atomic<void*> ways_[kWays] = {};
  std::atomic<bool> done_{false};
};

void HandOvers(double milliseconds, size_t pairs, const char* what) {
  std::vector<double> results(pairs);
  std::vector<std::thread> threads;
  for (double& result : results) {
    threads.emplace_back([&] {
      HandOver hand_over;
      result = hand_over.Run(milliseconds);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Print(what, Median(results));
}

void ThreadLife(double milliseconds) {
  const auto live = [&](auto body) {
    return Measure(milliseconds, [=] { std::thread(body).join(); });
  };
  const double empty = live([] {});
  Print("thread", live([] {
                    for (int i = 0; i < 10; ++i) Pair(4 * kKiB);
                  }) - empty);
  Print("thread, cudaSetDevice alone", live([] { CHECK(cudaSetDevice(0)); }) - empty);
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  const auto get = reinterpret_cast<decltype(&cuCtxGetCurrent)>(dlsym(driver, "cuCtxGetCurrent"));
  const auto set = reinterpret_cast<decltype(&cuCtxSetCurrent)>(dlsym(driver, "cuCtxSetCurrent"));
  CUcontext context = nullptr;
  get(&context);
  Print("thread, cuCtxSetCurrent alone", live([=] { set(context); }) - empty);
}

void FirstTouch(unsigned seed) {
  std::mt19937 random(seed + 1);
  std::vector<void*> blocks(1000);
  std::vector<double> took;
  for (void*& block : blocks) {
    const size_t bytes = DrawBytes(random, 256, kMiB);
    const auto begin = Clock::now();
    CHECK(cudaMalloc(&block, bytes));
    took.push_back(NanosecondsSince(begin));
  }
  double sum = 0;
  for (const double ns : took) sum += ns;
  Print("first touch, mean", sum / static_cast<double>(took.size()));
  Print("first touch, worst", *std::max_element(took.begin(), took.end()));
  for (void* block : blocks) CHECK(cudaFree(block));
}

void Questions(double milliseconds) {
  auto* block = Allocate<char>(kMiB);
  Print("attributes", Measure(milliseconds, [=] {
          cudaPointerAttributes attributes = {};
          CHECK(cudaPointerGetAttributes(&attributes, block));
        }));
  Print("memory info", Measure(milliseconds, [] {
          size_t free = 0;
          size_t total = 0;
          CHECK(cudaMemGetInfo(&free, &total));
        }));
  cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
  Print("synchronise", Measure(milliseconds, [=] { CHECK(cudaStreamSynchronize(stream)); }));
  CHECK(cudaStreamDestroy(stream));
  CHECK(cudaFree(block));
}

}  // namespace

int main(int argc, char** argv) {
  const double milliseconds = std::atof(Argument(argc, argv, "--milliseconds", "200"));
  const int live = std::atoi(Argument(argc, argv, "--live", "100000"));
  const auto seed = static_cast<unsigned>(std::atoi(Argument(argc, argv, "--seed", "1")));
  StartCudaOrSkip();
  FirstTouch(seed);  // before anything else has made blocks
  RandomSizes(milliseconds, live, seed);
  HandOvers(milliseconds, 1, "hand-over, 1 pair of threads");
  HandOvers(milliseconds, 8, "hand-over, 8 pairs of threads");
  ThreadLife(milliseconds);
  Questions(milliseconds);
  return 0;
}
