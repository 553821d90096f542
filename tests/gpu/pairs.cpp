// What a pair of cudaMalloc and cudaFree costs, by size and number of threads, on an idle device,
// beside a pair of cudaMallocAsync and cudaFreeAsync in the same process. Prints one JSON line per
// case; tests/gpu/compare_pairs.py runs it without and with the preload and prints ratios.
//
//   pairs [MILLISECONDS_PER_CASE]
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

enum class Way { kMalloc, kMallocAsync };

// Nanoseconds per pair in one thread: the median of short runs, so that what another program on
// the machine takes does not count.
double Measure(Way way, size_t bytes, double milliseconds) {
  cudaStream_t stream = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) std::exit(1);
  const auto pair = [&] {
    void* pointer = nullptr;
    const bool good =
        way == Way::kMalloc
            ? cudaMalloc(&pointer, bytes) == cudaSuccess && cudaFree(pointer) == cudaSuccess
            : cudaMallocAsync(&pointer, bytes, stream) == cudaSuccess &&
                  cudaFreeAsync(pointer, stream) == cudaSuccess;
    if (!good) std::exit(1);
  };
  constexpr int kRun = 20;
  for (int i = 0; i < kRun; ++i) pair();
  std::vector<double> runs;
  const auto end = Clock::now() + std::chrono::duration<double, std::milli>(milliseconds);
  while (Clock::now() < end) {
    const auto begin = Clock::now();
    for (int i = 0; i < kRun; ++i) pair();
    runs.push_back(std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / kRun);
  }
  cudaStreamSynchronize(stream);
  cudaStreamDestroy(stream);
  std::nth_element(runs.begin(), runs.begin() + static_cast<long>(runs.size() / 2), runs.end());
  return runs[runs.size() / 2];
}

void Case(Way way, size_t bytes, int threads, double milliseconds) {
  std::vector<double> results(static_cast<size_t>(threads));
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back(
        [&, i] { results[static_cast<size_t>(i)] = Measure(way, bytes, milliseconds); });
  }
  for (std::thread& worker : workers) worker.join();
  double sum = 0;
  for (const double result : results) sum += result;
  std::printf("{\"way\": \"%s\", \"bytes\": %zu, \"threads\": %d, \"ns\": %.1f}\n",
              way == Way::kMalloc ? "cudaMalloc" : "cudaMallocAsync", bytes, threads,
              sum / threads);
}

}  // namespace

int main(int argc, char** argv) {
  const double milliseconds = argc > 1 ? std::atof(argv[1]) : 200;
  void* keep = nullptr;  // keeps the driver's chunk of small blocks alive
  if (cudaMalloc(&keep, 256) != cudaSuccess) {
    std::fprintf(stderr, "pairs: no CUDA device\n");
    return 77;
  }
  cudaMemPool_t pool = nullptr;
  uint64_t threshold = ~uint64_t{0};
  // Found by name: the simulated CUDA has no such pool.
  const auto get_pool = reinterpret_cast<cudaError_t (*)(cudaMemPool_t*, int)>(
      dlsym(RTLD_DEFAULT, "cudaDeviceGetDefaultMemPool"));
  const auto set = reinterpret_cast<cudaError_t (*)(cudaMemPool_t, cudaMemPoolAttr, void*)>(
      dlsym(RTLD_DEFAULT, "cudaMemPoolSetAttribute"));
  const bool has_pool = get_pool != nullptr && set != nullptr &&
                        get_pool(&pool, 0) == cudaSuccess &&
                        set(pool, cudaMemPoolAttrReleaseThreshold, &threshold) == cudaSuccess;
  for (const int threads : {1, 4, 16}) {
    for (const size_t bytes : {size_t{256}, size_t{4096}, size_t{1} << 20, size_t{2} << 20,
                               size_t{16} << 20, size_t{256} << 20}) {
      Case(Way::kMalloc, bytes, threads, milliseconds);
      if (has_pool) Case(Way::kMallocAsync, bytes, threads, milliseconds);
    }
  }
  cudaFree(keep);
  return 0;
}
