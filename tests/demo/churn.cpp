// A program as many exist: several threads, each with its own stream, allocate buffers of mixed
// sizes, have kernels fill and check them, and free them at once or later. It knows nothing of the
// pool. What it prints on stdout depends on its arguments alone, not on addresses or timing:
// without and with the preload it must be the same. Timing goes to stderr.
//
//   churn [THREADS [STEPS [SEED]]]
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "kernels.h"

namespace {

using cmp::demo::Findings;
using cmp::demo::Kernels;

void Check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "churn: %s: error %d\n", call, static_cast<int>(status));
  std::exit(1);
}
#define CHECK(call) Check(call, #call)

struct Buffer {
  void* words = nullptr;
  uint32_t count = 0;
  uint32_t pattern = 0;
};

// 1 KiB to 8 MiB, as likely in every doubling: most small, most bytes large.
uint32_t DrawWords(std::mt19937& random) {
  const unsigned doubling = 8 + random() % 13;
  return (1u << doubling) + random() % (1u << doubling);
}

struct Result {
  Findings findings = {};
  double allocation_seconds = 0;  // inside cudaMalloc and cudaFree
};

Result Work(const Kernels& kernels, unsigned seed, int steps) {
  constexpr size_t kKept = 24;
  using Clock = std::chrono::steady_clock;
  std::mt19937 random(seed);
  Clock::duration inside = {};
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  Findings* findings = nullptr;
  CHECK(cudaMalloc(reinterpret_cast<void**>(&findings), sizeof(Findings)));
  CHECK(cudaMemsetAsync(findings, 0, sizeof(Findings), stream));
  std::vector<Buffer> kept(kKept);
  for (int step = 0; step < steps; ++step) {
    Buffer& place = kept[random() % kKept];
    if (place.words != nullptr) {
      kernels.Check(stream, place.words, place.count, place.pattern, findings);
      const auto begin = Clock::now();
      CHECK(cudaFree(place.words));
      inside += Clock::now() - begin;
      place = Buffer{};
    }
    place.count = DrawWords(random);
    place.pattern = random();
    const auto begin = Clock::now();
    CHECK(cudaMalloc(&place.words, size_t{place.count} * 4));
    inside += Clock::now() - begin;
    kernels.Fill(stream, place.words, place.count, place.pattern);
    if (random() % 2 == 0) {  // a short life
      kernels.Check(stream, place.words, place.count, place.pattern, findings);
      const auto end_of_life = Clock::now();
      CHECK(cudaFree(place.words));
      inside += Clock::now() - end_of_life;
      place = Buffer{};
    }
  }
  for (Buffer& place : kept) {
    if (place.words == nullptr) continue;
    kernels.Check(stream, place.words, place.count, place.pattern, findings);
    CHECK(cudaFree(place.words));
  }
  Result result;
  CHECK(cudaMemcpyAsync(&result.findings, findings, sizeof(Findings), cudaMemcpyDeviceToHost,
                        stream));
  CHECK(cudaStreamSynchronize(stream));
  CHECK(cudaFree(findings));
  CHECK(cudaStreamDestroy(stream));
  result.allocation_seconds = std::chrono::duration<double>(inside).count();
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 4;
  const int steps = argc > 2 ? std::atoi(argv[2]) : 2000;
  const auto seed = static_cast<unsigned>(argc > 3 ? std::atoi(argv[3]) : 1);
  if (threads < 1 || steps < 1) {
    std::fprintf(stderr, "usage: churn [THREADS [STEPS [SEED]]]\n");
    return 2;
  }
  if (cudaFree(nullptr) != cudaSuccess) {
    std::fprintf(stderr, "churn: no CUDA device\n");
    return 77;
  }
  const Kernels kernels;
  std::vector<Result> results(static_cast<size_t>(threads));
  std::vector<std::thread> workers;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&, i] {
      results[static_cast<size_t>(i)] =
          Work(kernels, seed * 1000 + static_cast<unsigned>(i), steps);
    });
  }
  for (std::thread& worker : workers) worker.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  Findings total = {};
  double inside = 0;
  for (const Result& result : results) {
    total.wrong_words += result.findings.wrong_words;
    total.sum += result.findings.sum;
    inside += result.allocation_seconds;
  }
  std::printf("threads %d, steps %d: wrong words %llu, sum %016llx\n", threads, steps,
              static_cast<unsigned long long>(total.wrong_words),
              static_cast<unsigned long long>(total.sum));
  std::fprintf(stderr, "churn: seconds %.6f inside %.6f\n", seconds.count(), inside / threads);
  return total.wrong_words == 0 ? 0 : 1;
}
