// What a pair of cudaMalloc and cudaFree costs a program that switches devices between them, on
// idle devices: beside the same on one device, and beside the switches alone. Every device is used
// before, so that all contexts exist in every case. Prints one JSON line per case.
//
//   two_gpus_alternate [--devices N] [--milliseconds PER_CASE]
#include "two_gpus.h"

namespace {

using namespace cmp::gpu;

enum class Way {
  kSwitch,     // cudaSetDevice, each time to the next device, and nothing else
  kOneDevice,  // pairs
  kAlternate,  // cudaSetDevice to the next device, then a pair there
  kForeign,    // the same, and the free under the device after that: two switches a pair
};
constexpr struct {
  Way way;
  const char* name;
} kWays[] = {{Way::kSwitch, "switch"},
             {Way::kOneDevice, "one device"},
             {Way::kAlternate, "alternating"},
             {Way::kForeign, "alternating, freed under another"}};

// Nanoseconds per step in one thread: the median of short runs.
double Measure(Way way, size_t bytes, int devices, int first, double milliseconds) {
  int device = first;
  const auto next = [&] {
    device = (device + 1) % devices;
    Use(device);
  };
  const auto step = [&] {
    if (way != Way::kOneDevice) next();
    if (way == Way::kSwitch) return;
    void* block = nullptr;
    CHECK(cudaMalloc(&block, bytes));
    if (way == Way::kForeign) next();
    CHECK(cudaFree(block));
  };
  Use(first);
  constexpr int kRun = 32;
  for (int i = 0; i < kRun; ++i) step();
  std::vector<double> runs;
  const auto end = Clock::now() + std::chrono::duration<double, std::milli>(milliseconds);
  do {
    const auto begin = Clock::now();
    for (int i = 0; i < kRun; ++i) step();
    runs.push_back(SecondsSince(begin) * 1e9 / kRun);
  } while (Clock::now() < end);
  return Median(runs);
}

}  // namespace

int main(int argc, char** argv) {
  const int devices = DevicesOrSkip(std::atoi(Argument(argc, argv, "--devices", "64")));
  const double milliseconds = std::atof(Argument(argc, argv, "--milliseconds", "60"));
  std::vector<void*> kept;  // keeps the driver's chunks of small blocks alive
  for (int device = 0; device < devices; ++device) {
    Use(device);
    kept.push_back(Allocate<char>(256));
    CHECK(
        cudaDeviceSynchronize());  // what came before is finished, as the program and the pool know
  }
  for (const int threads : {1, 8}) {
    for (const size_t bytes : {4 * kKiB, kMiB, 16 * kMiB}) {
      for (const auto& [way, name] : kWays) {
        std::vector<double> results(static_cast<size_t>(threads));
        std::vector<std::thread> workers;
        for (int i = 0; i < threads; ++i) {
          workers.emplace_back([&, i, which = way] {
            results[static_cast<size_t>(i)] =
                Measure(which, bytes, devices, i % devices, milliseconds);
          });
        }
        for (std::thread& worker : workers) worker.join();
        double sum = 0;
        for (const double result : results) sum += result;
        std::printf("{\"way\": \"%s\", \"bytes\": %zu, \"threads\": %d, \"ns\": %.1f}\n", name,
                    bytes, threads, sum / threads);
      }
    }
  }
  for (void* block : kept) CHECK(cudaFree(block));
  return 0;
}
