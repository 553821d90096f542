// The loop of many programs: allocate, a kernel on the block, free. What an iteration costs with
// cudaMalloc and cudaFree, and with cudaMallocAsync and cudaFreeAsync, against the same kernels
// alone. The three take turns, so that what else happens on the machine meets all of them.
//
//   loop [--bytes N] [--kernel-us N] [--iterations N] [--repetitions N] [--streams N]
//        [--copy synchronised|pending]
//
// With --copy, each iteration also copies a word of its block to page-locked memory, and waits for
// that before it frees the block, or leaves it pending.
//
// Prints one JSON line: medians in µs an iteration, ratios to the kernels alone, and by how much
// free device memory had shrunk at most (a pool may count its idle blocks as free: its own report
// knows better).

#include "../demo/kernels.h"
#include "program.h"

namespace {

using cmp::demo::Corruptions;
using cmp::demo::Kernels;
using namespace cmp::gpu;

enum Way { kAlone, kMalloc, kMallocAsync, kWays };
enum class Copy { kNone, kSynchronised, kPending };

struct Loop {
  const Kernels& kernels;
  std::vector<cudaStream_t> streams;
  size_t bytes;
  uint64_t kernel_ns;
  int iterations;
  Copy copy;
  uint32_t* page_locked;  // where it copies to
  void* own_block;        // of the kernels alone
  Corruptions* corruptions;
};

size_t FreeBytes() {
  size_t free_bytes = 0;
  size_t total = 0;
  CHECK(cudaMemGetInfo(&free_bytes, &total));
  return free_bytes;
}

void Iterate(const Loop& loop, Way way, uint32_t id) {
  const cudaStream_t stream = loop.streams[id % loop.streams.size()];
  void* block = loop.own_block;
  if (way == kMalloc) CHECK(cudaMalloc(&block, loop.bytes));
  if (way == kMallocAsync) CHECK(cudaMallocAsync(&block, loop.bytes, stream));
  loop.kernels.Stamp(stream, block, static_cast<uint32_t>(loop.bytes / 4), id, true, loop.kernel_ns,
                     loop.corruptions);
  if (loop.copy != Copy::kNone) {
    CHECK(
        cudaMemcpyAsync(loop.page_locked, block, sizeof(uint32_t), cudaMemcpyDeviceToHost, stream));
  }
  if (loop.copy == Copy::kSynchronised) CHECK(cudaStreamSynchronize(stream));
  if (way == kMalloc) CHECK(cudaFree(block));
  if (way == kMallocAsync) CHECK(cudaFreeAsync(block, stream));
}

// Microseconds an iteration, until all kernels are done.
double Measure(const Loop& loop, Way way, size_t* least_free) {
  static uint32_t id = 0;
  CHECK(cudaDeviceSynchronize());
  const auto begin = Clock::now();
  for (int i = 0; i < loop.iterations; ++i) Iterate(loop, way, ++id);
  *least_free = std::min(*least_free, FreeBytes());
  CHECK(cudaDeviceSynchronize());
  return SecondsSince(begin) * 1e6 / loop.iterations;
}

Copy CopyNamed(const char* name) {
  if (std::strcmp(name, "synchronised") == 0) return Copy::kSynchronised;
  return std::strcmp(name, "pending") == 0 ? Copy::kPending : Copy::kNone;
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](const char* name, const char* otherwise) {
    return std::atoll(Argument(argc, argv, name, otherwise));
  };
  StartCudaOrSkip();
  Watchdog watchdog(30);
  const Kernels kernels;
  Loop loop{kernels,
            {},
            static_cast<size_t>(number("--bytes", "1048576")),
            static_cast<uint64_t>(number("--kernel-us", "20")) * 1000,
            static_cast<int>(number("--iterations", "2000")),
            CopyNamed(Argument(argc, argv, "--copy", "none")),
            nullptr,
            nullptr,
            AllocateZeros<Corruptions>(1)};
  for (int i = 0; i < number("--streams", "1"); ++i) {
    loop.streams.push_back(MakeStream(cudaStreamNonBlocking));
  }
  const int repetitions = static_cast<int>(number("--repetitions", "7"));
  KeepAsyncPool();
  CHECK(cudaMallocHost(reinterpret_cast<void**>(&loop.page_locked), sizeof(uint32_t)));
  loop.own_block = Allocate<char>(loop.bytes);
  std::vector<double> times[kWays];
  size_t least_free[kWays] = {};
  const size_t free_before = FreeBytes();
  for (size_t& bytes : least_free) bytes = free_before;
  for (int repetition = -1; repetition < repetitions; ++repetition) {  // the first warms up
    for (const Way way : {kAlone, kMalloc, kMallocAsync}) {
      watchdog.Progress("measuring");
      const double us = Measure(loop, way, &least_free[way]);
      if (repetition >= 0) times[way].push_back(us);
    }
  }
  const double alone = Median(times[kAlone]);
  const double with_malloc = Median(times[kMalloc]);
  const double with_async = Median(times[kMallocAsync]);
  const auto shrunk = [&](Way way) {
    return static_cast<double>(free_before - least_free[way]) / kMiB;
  };
  std::printf(
      "{\"bytes\": %zu, \"kernel_us\": %.0f, \"streams\": %zu, \"alone_us\": %.2f, "
      "\"malloc_us\": %.2f, \"malloc_ratio\": %.3f, \"async_us\": %.2f, \"async_ratio\": %.3f, "
      "\"malloc_mib\": %.0f, \"async_mib\": %.0f}\n",
      loop.bytes, static_cast<double>(loop.kernel_ns) / 1000, loop.streams.size(), alone,
      with_malloc, with_malloc / alone, with_async, with_async / alone, shrunk(kMalloc),
      shrunk(kMallocAsync));
  const Corruptions found = ReadBack(loop.corruptions);
  if (found.words == 0) return 0;
  // The kernels alone share a block, so with several streams they do find each other.
  if (loop.streams.size() > 1) return 0;
  std::fprintf(stderr, "loop: corruptions %llu\n", static_cast<unsigned long long>(found.words));
  return 1;
}
