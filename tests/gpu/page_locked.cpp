// Page-locked memory of the host, without and with CMP_HOST=on.
//
//   page_locked times [--repetitions N]   prints a line for each size and number of threads:
//                                         nanoseconds of a pair of cudaMallocHost and cudaFreeHost
//                                         on an idle device; the median of its threads' medians.
//   page_locked copies [--rounds N]       with copies pending, both ways: microseconds of a round,
//                                         and of the same round over buffers that are kept; what is
//                                         wrong in the contents.
//   page_locked contents [--rounds N]     threads that write, copy, free and reuse buffers of
//   random
//                                         sizes: what is wrong in the contents.
//   page_locked questions                 what the calls answer, for comparison without the pool.
//
// Lines that begin with "# " are figures; the others are the same without and with the pool.
#include <cuda.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "../demo/kernels.h"
#include "program.h"

namespace {

using namespace cmp::gpu;

void* Host(size_t bytes) {
  void* pointer = nullptr;
  CHECK(cudaMallocHost(&pointer, bytes));
  return pointer;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Nanoseconds of a pair, in batches, so that the clock costs nothing.
double PairNs(size_t bytes, int repetitions) {
  const int batch = repetitions >= 1000 ? 100 : 1;
  for (int i = 0; i < 3; ++i) CHECK(cudaFreeHost(Host(bytes)));
  std::vector<double> times;
  for (int i = 0; i < repetitions; i += batch) {
    const auto begin = Clock::now();
    for (int j = 0; j < batch; ++j) CHECK(cudaFreeHost(Host(bytes)));
    times.push_back(SecondsSince(begin) * 1e9 / batch);
  }
  return Median(times);
}

void Times(int repetitions) {
  for (const int threads : {1, 16}) {
    for (const size_t bytes : {size_t{4} << 10, size_t{64} << 10, size_t{1} << 20, size_t{8} << 20,
                               size_t{64} << 20, size_t{256} << 20}) {
      if (threads * bytes > size_t{256} << 20) continue;  // more than may be idle
      // Without the pool a pair takes up to 140 ms; enough of them for a median.
      const auto begin = Clock::now();
      CHECK(cudaFreeHost(Host(bytes)));
      CHECK(cudaFreeHost(Host(bytes)));
      const bool slow = SecondsSince(begin) > 2e-3;
      const auto later = Clock::now();
      CHECK(cudaFreeHost(Host(bytes)));
      const bool recycled = SecondsSince(later) < 20e-6;
      const int count = recycled ? repetitions : slow ? 5 : 50;
      std::vector<double> medians(static_cast<size_t>(threads));
      std::vector<std::thread> all;
      for (int i = 0; i < threads; ++i) {
        all.emplace_back([&, i] { medians[static_cast<size_t>(i)] = PairNs(bytes, count); });
      }
      for (std::thread& thread : all) thread.join();
      std::printf("# %d threads, %zu KiB: %.1f ns a pair\n", threads, bytes >> 10, Median(medians));
    }
  }
  std::printf("times measured\n");
}

// Words that tell the round, at both ends and in the middle.
void Fill(void* pointer, size_t bytes, uint32_t seed) {
  auto* words = static_cast<uint32_t*>(pointer);
  const size_t count = bytes / sizeof(uint32_t);
  for (size_t i = 0; i < count; i += 97) words[i] = seed + static_cast<uint32_t>(i);
  words[count - 1] = ~seed;
}
int Wrong(const void* pointer, size_t bytes, uint32_t seed) {
  const auto* words = static_cast<const uint32_t*>(pointer);
  const size_t count = bytes / sizeof(uint32_t);
  int wrong = words[count - 1] != ~seed ? 1 : 0;
  for (size_t i = 0; i < count; i += 97) {
    if (i != count - 1 && words[i] != seed + static_cast<uint32_t>(i)) ++wrong;
  }
  return wrong;
}

// Each round: a buffer is filled and copied to the device, freed at once; another takes the copy
// back, is freed, and allocated again; what the device has is checked at the end of some rounds.
void Copies(int rounds) {
  const cmp::demo::Kernels kernels;
  for (const size_t bytes : {size_t{64} << 10, size_t{4} << 20}) {
    void* device = nullptr;
    CHECK(cudaMalloc(&device, bytes));
    const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
    void* kept_from = Host(bytes);
    void* kept_to = Host(bytes);
    int wrong = 0;
    double seconds[2] = {};
    for (const bool kept : {true, false}) {
      const auto begin = Clock::now();
      for (int i = 0; i < rounds; ++i) {
        const auto seed = static_cast<uint32_t>(i) * 1000003;
        void* from = kept ? kept_from : Host(bytes);
        if (kept) CHECK(cudaStreamSynchronize(stream));
        Fill(from, bytes, seed);
        CHECK(cudaMemcpyAsync(device, from, bytes, cudaMemcpyHostToDevice, stream));
        if (!kept) CHECK(cudaFreeHost(from));
        void* to = kept ? kept_to : Host(bytes);
        if (!kept) Fill(to, bytes, ~seed);  // were it `from` still, the copy would send this
        CHECK(cudaMemcpyAsync(to, device, bytes, cudaMemcpyDeviceToHost, stream));
        if (i % 8 == 0) {
          CHECK(cudaStreamSynchronize(stream));
          wrong += Wrong(to, bytes, seed);
        }
        if (!kept) CHECK(cudaFreeHost(to));
      }
      CHECK(cudaStreamSynchronize(stream));
      seconds[kept ? 0 : 1] = SecondsSince(begin);
    }
    std::printf("%zu KiB: %d wrong words\n", bytes >> 10, wrong);
    std::printf("# %zu KiB: %.1f us a round, %.1f us with buffers that are kept\n", bytes >> 10,
                seconds[1] * 1e6 / rounds, seconds[0] * 1e6 / rounds);
    CHECK(cudaFreeHost(kept_from));
    CHECK(cudaFreeHost(kept_to));
    CHECK(cudaStreamDestroy(stream));
    CHECK(cudaFree(device));
  }
}

void Contents(int rounds) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 8; ++number) {
    threads.emplace_back([&, number] {
      std::mt19937 random(number);
      const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
      constexpr size_t kMost = size_t{2} << 20;
      void* device = nullptr;
      CHECK(cudaMalloc(&device, kMost));
      for (int i = 0; i < rounds; ++i) {
        const size_t bytes = size_t{512} << random() % 13;
        const uint32_t seed = random();
        void* from = Host(bytes);
        Fill(from, bytes, seed);
        CHECK(cudaMemcpyAsync(device, from, bytes, cudaMemcpyHostToDevice, stream));
        CHECK(cudaFreeHost(from));
        void* between = Host(bytes);  // another's, perhaps from's next owner
        Fill(between, bytes, ~seed);
        void* to = Host(bytes);
        CHECK(cudaMemcpyAsync(to, device, bytes, cudaMemcpyDeviceToHost, stream));
        CHECK(cudaStreamSynchronize(stream));
        wrong += Wrong(to, bytes, seed) + Wrong(between, bytes, ~seed);
        CHECK(cudaFreeHost(to));
        CHECK(cudaFreeHost(between));
      }
      CHECK(cudaFree(device));
      CHECK(cudaStreamDestroy(stream));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("%d wrong words\n", wrong.load());
}

void Questions() {
  for (const unsigned flags : {0U, 1U, 2U, 4U, 7U}) {
    for (int round = 0; round < 2; ++round) {
      void* pointer = nullptr;
      std::printf("flags %u: %d\n", flags, static_cast<int>(cudaHostAlloc(&pointer, 5000, flags)));
      cudaPointerAttributes of = {};
      std::printf("  attributes %d", static_cast<int>(cudaPointerGetAttributes(&of, pointer)));
      std::printf(", type %d, device %d, host %d, device pointer %d\n", static_cast<int>(of.type),
                  of.device, of.hostPointer == pointer, of.devicePointer == pointer);
      unsigned its_flags = 0;
      std::printf("  flags %d: %u\n", static_cast<int>(cudaHostGetFlags(&its_flags, pointer)),
                  its_flags);
      void* mapped = nullptr;
      std::printf("  device pointer %d: %d\n",
                  static_cast<int>(cudaHostGetDevicePointer(&mapped, pointer, 0)),
                  mapped == pointer);
      std::printf("  register %d\n", static_cast<int>(cudaHostRegister(pointer, 4096, 0)));
      std::printf("  unregister %d\n", static_cast<int>(cudaHostUnregister(pointer)));
      std::printf("  cudaFree %d\n", static_cast<int>(cudaFree(pointer)));
      std::printf("  inside %d\n",
                  static_cast<int>(cudaFreeHost(static_cast<char*>(pointer) + 256)));
      std::printf("  free %d\n", static_cast<int>(cudaFreeHost(pointer)));
      std::printf("  again %d\n", static_cast<int>(cudaFreeHost(pointer)));
      std::printf("  last error %d\n", static_cast<int>(cudaGetLastError()));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  StartCudaOrSkip();
  const char* part = argc > 1 ? argv[1] : "";
  if (std::strcmp(part, "times") == 0) {
    Times(std::atoi(Argument(argc, argv, "--repetitions", "20000")));
  } else if (std::strcmp(part, "copies") == 0) {
    Copies(std::atoi(Argument(argc, argv, "--rounds", "400")));
  } else if (std::strcmp(part, "contents") == 0) {
    Contents(std::atoi(Argument(argc, argv, "--rounds", "400")));
  } else if (std::strcmp(part, "questions") == 0) {
    Questions();
  } else {
    std::printf("which part?\n");
    return 2;
  }
  return 0;
}
