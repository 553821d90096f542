// What single calls cost: mixed sizes, with kernels on the blocks under way. The worst call matters
// to whoever has a deadline, so this prints percentiles and the worst, not means.
//
//   latencies [--operations N] [--streams N] [--seed N] [--most MIB] [--live N]
//
// Sizes are log-uniform from 256 B to MIB (64); about half of the operations allocate, and launch a
// kernel of about 20 us on the new block; the others free a random one of at most N (400) live
// ones. Prints a line of JSON: microseconds of cudaMalloc and of cudaFree, and of launches, and of
// the process's first cudaMalloc, which is not among the others (no kernel is under way, and the
// pool begins); on stderr the five slowest of the others: what, at which operation, of how many
// bytes.
#include <cmath>
#include <random>

#include "../demo/kernels.h"
#include "program.h"

namespace {

using namespace cmp::gpu;

struct Call {
  double seconds;
  const char* name;
  int operation;
  size_t bytes;
};

void Print(const char* name, std::vector<double> seconds, const char* end) {
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double part) {
    const auto index = static_cast<size_t>(part * static_cast<double>(seconds.size()));
    return seconds[std::min(index, seconds.size() - 1)] * 1e6;
  };
  std::printf("\"%s\": {\"median\": %.3f, \"p99\": %.2f, \"p99.9\": %.2f, \"worst\": %.2f}%s", name,
              at(0.5), at(0.99), at(0.999), seconds.back() * 1e6, end);
}

}  // namespace

int main(int argc, char** argv) {
  StartCudaOrSkip();
  const int operations = std::atoi(Argument(argc, argv, "--operations", "40000"));
  const int stream_count = std::atoi(Argument(argc, argv, "--streams", "2"));
  const auto seed = static_cast<unsigned>(std::atoi(Argument(argc, argv, "--seed", "1")));
  const double most = std::atof(Argument(argc, argv, "--most", "64")) * kMiB;
  const auto most_live = static_cast<size_t>(std::atoi(Argument(argc, argv, "--live", "400")));
  const cmp::demo::Kernels kernels;
  std::vector<cudaStream_t> streams;
  for (int i = 0; i < stream_count; ++i) streams.push_back(MakeStream(cudaStreamNonBlocking));
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> doublings(8, std::log2(most));
  struct Block {
    void* pointer;
    size_t bytes;
  };
  std::vector<Block> live;
  std::vector<Call> calls;
  double first = 0;
  std::vector<double> mallocs;
  std::vector<double> frees;
  std::vector<double> launches;
  for (int i = 0; i < operations; ++i) {
    const bool allocate = live.empty() || (live.size() < most_live && random() % 100 < 52);
    const auto begin = Clock::now();
    if (allocate) {
      void* block = nullptr;
      const auto bytes = static_cast<size_t>(std::exp2(doublings(random)));
      CHECK(cudaMalloc(&block, bytes));
      const double seconds = SecondsSince(begin);
      if (i == 0) {
        first = seconds;
      } else {
        mallocs.push_back(seconds);
        calls.push_back({seconds, "cudaMalloc", i, bytes});
      }
      live.push_back({block, bytes});
      const auto launch = Clock::now();
      kernels.WriteLate(streams[random() % streams.size()], static_cast<uint32_t*>(block), 1,
                        20000);
      launches.push_back(SecondsSince(launch));
      calls.push_back({launches.back(), "the launch", i, bytes});
    } else {
      std::swap(live[random() % live.size()], live.back());
      CHECK(cudaFree(live.back().pointer));
      frees.push_back(SecondsSince(begin));
      calls.push_back({frees.back(), "cudaFree", i, live.back().bytes});
      live.pop_back();
    }
    // Not far behind: a queue that is full holds up launches, and that is another matter.
    if (i % 256 == 0) CHECK(cudaStreamSynchronize(streams[random() % streams.size()]));
  }
  CHECK(cudaDeviceSynchronize());
  std::sort(calls.begin(), calls.end(),
            [](const Call& a, const Call& b) { return a.seconds > b.seconds; });
  for (size_t i = 0; i < std::min<size_t>(calls.size(), 5); ++i) {
    std::fprintf(stderr, "%s at operation %d, %zu bytes: %.1f us\n", calls[i].name,
                 calls[i].operation, calls[i].bytes, calls[i].seconds * 1e6);
  }
  std::printf("{\"first_malloc\": {\"median\": %.2f}, ", first * 1e6);
  Print("malloc", mallocs, ", ");
  Print("free", frees, ", ");
  Print("launch", launches, "}\n");
  return 0;
}
