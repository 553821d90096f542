// Idle memory is each device's own: how much of it is kept, and how long. Device 0 frees all that
// it had; device 1 frees all but goes on with blocks of one size; and then device 1 rests, too.
//
//   two_gpus_memory [--seconds S] [--blocks N]
//
// Rests S seconds each time. Prints for each moment what NVML says that is in use of every device,
// in MiB beyond what it was before the first allocation.
#include "two_gpus.h"

namespace {

using namespace cmp::gpu;

constexpr size_t kBytes = 64 * kMiB;

// NVML counts what the driver holds, whoever asks; found by name, so that nothing is linked.
class Nvml {
 public:
  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
    const auto begin = Find<int (*)()>("nvmlInit_v2");
    if (begin == nullptr || begin() != 0) {
      std::fprintf(stderr, "two_gpus_memory: no NVML\n");
      std::exit(kNoDevice);
    }
    by_bus_ = Find<int (*)(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
    bus_of_ = reinterpret_cast<decltype(bus_of_)>(dlsym(RTLD_DEFAULT, "cudaDeviceGetPCIBusId"));
    memory_ = Find<int (*)(void*, Memory*)>("nvmlDeviceGetMemoryInfo");
  }
  double UsedMib(int device) const {
    char bus[32] = "";
    CHECK(bus_of_(bus, sizeof(bus), device));
    void* handle = nullptr;
    Memory memory = {};
    if (by_bus_(bus, &handle) != 0 || memory_(handle, &memory) != 0) Fail("NVML", 0);
    return static_cast<double>(memory.used) / kMiB;
  }

 private:
  struct Memory {
    unsigned long long total, free, used;
  };
  template <typename F>
  F Find(const char* name) const {
    return library_ == nullptr ? nullptr : reinterpret_cast<F>(dlsym(library_, name));
  }
  void* library_;
  int (*by_bus_)(const char*, void**) = nullptr;
  int (*memory_)(void*, Memory*) = nullptr;
  cudaError_t (*bus_of_)(char*, int, int) = nullptr;  // the simulated CUDA has none, nor NVML
};

void AllocateAndFree(int device, int count) {
  Use(device);
  std::vector<char*> blocks;
  for (int i = 0; i < count; ++i) blocks.push_back(Allocate<char>(kBytes));
  for (char* block : blocks) CHECK(cudaFree(block));
}

}  // namespace

int main(int argc, char** argv) {
  DevicesOrSkip(2);
  const double seconds = std::atof(Argument(argc, argv, "--seconds", "3"));
  const int blocks = std::atoi(Argument(argc, argv, "--blocks", "64"));
  const std::vector<cmp::demo::Kernels> kernels = LoadKernels(2);
  const Nvml nvml;
  const double before[] = {nvml.UsedMib(0), nvml.UsedMib(1)};
  const auto say = [&](const char* when) {
    std::printf("%s: device 0 %.0f, device 1 %.0f\n", when, nvml.UsedMib(0) - before[0],
                nvml.UsedMib(1) - before[1]);
  };
  AllocateAndFree(0, blocks);
  AllocateAndFree(1, blocks / 2);
  say("all free");
  for (const auto begin = Clock::now(); SecondsSince(begin) < seconds;) {
    void* block = nullptr;
    CHECK(cudaMalloc(&block, kBytes));
    kernels[1].Fill(nullptr, block, 1024, 1);
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(block));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  say("device 0 has rested");
  std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(seconds * 1000)));
  say("both have rested");
  return 0;
}
