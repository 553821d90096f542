// A kernel crashes: who is told, and by what. crashes WAY: the call that reports it, after a free
// that did not wait for the kernel; then what allocations and frees answer.
#include <cuda.h>

#include <functional>
#include <string>
#include <vector>

#include "create_context.h"
#include "program.h"

namespace {

constexpr uint64_t kLong = 3'000'000;

struct Scene {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  char* block = nullptr;
  char* other = nullptr;
};

struct Way {
  const char* name;
  std::function<int(Scene&)> call;
};

int Launch(cudaStream_t stream) {
  SimWork work{};
  work.id = 2;
  return program::Launch(stream, work);
}

std::vector<Way> Ways() {
  return {
      {"device", [](Scene&) { return int{cudaDeviceSynchronize()}; }},
      {"stream", [](Scene& scene) { return int{cudaStreamSynchronize(scene.stream)}; }},
      {"event", [](Scene& scene) { return int{cudaEventSynchronize(scene.event)}; }},
      {"query", [](Scene& scene) { return int{cudaStreamQuery(scene.stream)}; }},
      {"event-query", [](Scene& scene) { return int{cudaEventQuery(scene.event)}; }},
      {"copy",
       [](Scene& scene) {
         char word = 0;
         return int{cudaMemcpy(&word, scene.other, 1, cudaMemcpyDeviceToHost)};
       }},
      {"host-free",
       [](Scene&) {
         void* host = nullptr;
         MUST(cudaMallocHost(&host, 4096));
         return int{cudaFreeHost(host)};
       }},
      {"launches",  // never told by themselves; a copy that waits is
       [](Scene& scene) {
         printf("launch %d, record %d\n", Launch(scene.stream),
                int{cudaEventRecord(scene.event, scene.stream)});
         return int{cudaStreamSynchronize(scene.stream)};
       }},
      {"nobody", [](Scene&) { return 0; }},
  };
}

void SayAfterwards(Scene& scene) {
  void* pointer = nullptr;
  size_t pitch = 0;
  CUdeviceptr address = 0;
  for (int round = 0; round < 2; ++round) {
    printf("cudaMalloc %d\n", int{cudaMalloc(&pointer, 4096)});
    printf("large cudaMalloc %d\n", int{cudaMalloc(&pointer, 4 << 20)});
    printf("cudaMallocPitch %d\n", int{cudaMallocPitch(&pointer, &pitch, 100, 10)});
    printf("cuMemAlloc %d\n", int{cuMemAlloc(&address, 4096)});
    printf("launch %d\n", Launch(scene.stream));
  }
  printf("cudaFree %d\n", int{cudaFree(scene.other)});
  printf("cudaFree(NULL) %d\n", int{cudaFree(nullptr)});
}

}  // namespace

int main(int count, char** arguments) {
  const std::string way = count > 1 ? arguments[1] : "device";
  Scene scene;
  scene.stream = program::NonBlockingStream();
  MUST(cudaEventCreateWithFlags(&scene.event, cudaEventDisableTiming));
  program::Warm(4096, 16);
  program::Warm(4 << 20, 2);
  scene.block = program::Allocate(4096);
  scene.other = program::Allocate(4096);
  CUcontext second = nullptr;
  if (way == "destroy") {
    if (CreateContext(&second) != CUDA_SUCCESS) return 3;
    scene.stream = nullptr;
    CUdeviceptr address = 0;
    if (cuMemAlloc(&address, 4096) != CUDA_SUCCESS) return 3;
    scene.block = reinterpret_cast<char*>(address);
  }
  MUST(cudaDeviceSynchronize());
  SimWork crash{};
  crash.id = 1;
  crash.duration_ns = kLong;
  crash.flags = SIM_WORK_TRAP;
  MUST(program::Launch(scene.stream, crash));
  if (way != "destroy") MUST(cudaEventRecord(scene.event, scene.stream));
  // The one call whose answer may differ.
  const bool frees = count > 2;
  if (frees) {
    const int status = way == "destroy" ? int{cuMemFree(reinterpret_cast<CUdeviceptr>(scene.block))}
                                        : int{cudaFree(scene.block)};
    printf("# cudaFree: %d\n", status);
  }
  simAdvance(10 * kLong);
  if (way == "reset") {
    printf("# cudaDeviceReset: %d\n", int{cudaDeviceReset()});
    return 0;
  }
  if (way == "destroy") {
    printf("# cuCtxDestroy: %d\n", int{cuCtxDestroy(second)});
    return 0;
  }
  for (const Way& one : Ways()) {
    if (way == one.name) printf("told %d\n", one.call(scene));
  }
  if (way != "nobody") SayAfterwards(scene);
  return 0;
}
