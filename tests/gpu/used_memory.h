// What a device really holds, whoever asks and whatever is preloaded: by NVML, or on the simulated
// CUDA by its own count. Found by name, so that nothing is linked.
#ifndef CMP_TESTS_GPU_USED_MEMORY_H_
#define CMP_TESTS_GPU_USED_MEMORY_H_

#include "program.h"

namespace cmp::gpu {

// Of the current device, by all processes, in MiB; 0: nobody says.
inline double UsedMiB() {
  struct Memory {
    unsigned long long total, free, used;
  };
  using Init = int (*)();
  using HandleOf = int (*)(const char*, void**);
  using MemoryOf = int (*)(void*, Memory*);
  using PlaceOf = int (*)(char*, int, int);
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  static const auto simulated = reinterpret_cast<uint64_t (*)(int)>(
      driver == nullptr ? nullptr : dlsym(driver, "simUsedBytes"));
  if (simulated != nullptr) return static_cast<double>(simulated(0)) / kMiB;
  static void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (library == nullptr) return 0;
  const auto init = reinterpret_cast<Init>(dlsym(library, "nvmlInit_v2"));
  const auto handle_of =
      reinterpret_cast<HandleOf>(dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
  const auto place_of = reinterpret_cast<PlaceOf>(dlsym(RTLD_DEFAULT, "cudaDeviceGetPCIBusId"));
  const auto memory_of = reinterpret_cast<MemoryOf>(dlsym(library, "nvmlDeviceGetMemoryInfo"));
  // NVML counts other devices than CUDA_VISIBLE_DEVICES leaves.
  int current = 0;
  char place[32] = "";
  void* device = nullptr;
  Memory memory{};
  if (cudaGetDevice(&current) != cudaSuccess || place_of(place, sizeof(place), current) != 0 ||
      init() != 0 || handle_of(place, &device) != 0 || memory_of(device, &memory) != 0) {
    return 0;
  }
  return static_cast<double>(memory.used) / kMiB;
}

}  // namespace cmp::gpu

#endif  // CMP_TESTS_GPU_USED_MEMORY_H_
