// A kernel crashes, or a host function calls CUDA: what every call answers from then on. The same
// without and with the pool.
//
//   crashes WAY   device | stream | query | event | copy | free | array | module | graph |
//                 stream-destroy: the call that is the first to know
//   crashes host-function
#include <cuda.h>
#include <dlfcn.h>

#include <functional>
#include <map>
#include <string>

#include "program.h"

namespace {

using namespace cmp::gpu;

constexpr char kTrapPtx[] = R"(
.version 6.0
.target sm_50
.address_size 64
.visible .entry crash() { trap; }
)";

struct Scene {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  char* block = nullptr;
  char* other = nullptr;
  CUarray array = nullptr;
  CUmodule module = nullptr;
  cudaGraphExec_t graph = nullptr;
};

void Must(CUresult status, const char* call) {
  if (status != CUDA_SUCCESS) Fail(call, static_cast<int>(status));
}
#define MUST(call) Must(call, #call)

const std::map<std::string, std::function<int(Scene&)>>& Ways() {
  static const std::map<std::string, std::function<int(Scene&)>> ways = {
      {"device", [](Scene&) { return int{cudaDeviceSynchronize()}; }},
      {"stream", [](Scene& scene) { return int{cudaStreamSynchronize(scene.stream)}; }},
      {"query", [](Scene& scene) { return int{cudaStreamQuery(scene.stream)}; }},
      {"event", [](Scene& scene) { return int{cudaEventQuery(scene.event)}; }},
      {"copy",
       [](Scene& scene) {
         char word = 0;
         return int{cudaMemcpy(&word, scene.other, 1, cudaMemcpyDeviceToHost)};
       }},
      {"free", [](Scene& scene) { return int{cudaFree(scene.other)}; }},
      {"array", [](Scene& scene) { return int{cuArrayDestroy(scene.array)}; }},
      // They find out, and say nothing.
      {"module", [](Scene& scene) { return int{cuModuleUnload(scene.module)}; }},
      {"graph", [](Scene& scene) { return int{cudaGraphExecDestroy(scene.graph)}; }},
      {"stream-destroy", [](Scene& scene) { return int{cudaStreamDestroy(scene.stream)}; }},
  };
  return ways;
}

void SayAll(Scene& scene) {
  void* pointer = nullptr;
  size_t pitch = 0;
  CUdeviceptr address = 0;
  for (const size_t bytes : {4 * kKiB, 4 * kMiB}) {
    std::printf("cudaMalloc %d, ", int{cudaMalloc(&pointer, bytes)});
    std::printf("cuMemAlloc %d\n", int{cuMemAlloc(&address, bytes)});
  }
  std::printf("cudaMallocPitch %d\n", int{cudaMallocPitch(&pointer, &pitch, 1000, 10)});
  std::printf("cudaFree %d, ", int{cudaFree(scene.block)});
  std::printf("again %d, ", int{cudaFree(scene.block)});
  std::printf("of NULL %d\n", int{cudaFree(nullptr)});
  std::printf("last error %d\n", int{cudaGetLastError()});
}

void MakeObjects(Scene& scene) {
  const CUDA_ARRAY_DESCRIPTOR flat = {64, 64, CU_AD_FORMAT_FLOAT, 1};
  cudaGraph_t graph = nullptr;
  MUST(cuArrayCreate(&scene.array, &flat));
  MUST(cuModuleLoadData(&scene.module, kTrapPtx));
  CHECK(cudaStreamBeginCapture(scene.stream, cudaStreamCaptureModeRelaxed));
  CHECK(cudaMemsetAsync(scene.other, 0, 1, scene.stream));
  CHECK(cudaStreamEndCapture(scene.stream, &graph));
  CHECK(cudaGraphInstantiate(&scene.graph, graph, 0));
}

void Warm() {
  for (int round = 0; round < 3; ++round) {
    void* pointer = nullptr;
    size_t pitch = 0;
    for (const size_t bytes : {4 * kKiB, 4 * kMiB}) {
      CHECK(cudaMalloc(&pointer, bytes));
      CHECK(cudaFree(pointer));
    }
    CHECK(cudaMallocPitch(&pointer, &pitch, 1000, 10));
    CHECK(cudaFree(pointer));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string way = argc > 1 ? argv[1] : "device";
  StartCudaOrSkip();
  Watchdog watchdog(60);
  Scene scene;
  scene.stream = MakeStream(cudaStreamNonBlocking);
  CHECK(cudaEventCreateWithFlags(&scene.event, cudaEventDisableTiming));
  Warm();
  scene.block = Allocate<char>(4 * kKiB);
  scene.other = Allocate<char>(4 * kKiB);
  CHECK(cudaDeviceSynchronize());
  if (way == "host-function") {
    CHECK(cudaLaunchHostFunc(
        scene.stream, [](void* data) { SayAll(*static_cast<Scene*>(data)); }, &scene));
    CHECK(cudaStreamSynchronize(scene.stream));
    std::printf("afterwards: cudaFree %d, ", int{cudaFree(scene.block)});
    std::printf("again %d\n", int{cudaFree(scene.block)});
    return 0;
  }
  MakeObjects(scene);
  CUfunction crash = nullptr;
  // By name: the simulated driver has no kernels of modules.
  const auto find = reinterpret_cast<CUresult (*)(CUfunction*, CUmodule, const char*)>(
      dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuModuleGetFunction"));
  MUST(find(&crash, scene.module, "crash"));
  MUST(cuLaunchKernel(crash, 1, 1, 1, 1, 1, 1, 0, scene.stream, nullptr, nullptr));
  CHECK(cudaEventRecord(scene.event, scene.stream));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const auto found = Ways().find(way);
  if (found == Ways().end()) return 2;
  // A free may not have waited for the kernel: then the next call that waits tells.
  int told = found->second(scene);
  if (way == "free" && told == 0) told = cudaDeviceSynchronize();
  std::printf("told %d\n", told);
  SayAll(scene);
  return 0;
}
