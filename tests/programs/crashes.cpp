// A kernel crashes: who is told, and by what. crashes WAY: the call that reports it, after a free
// that did not wait for the kernel; then what allocations and frees answer.
#include <cuda.h>
#include <dlfcn.h>

// cuCtxDetach is deprecated, and still there.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#include <functional>
#include <string>
#include <vector>

#include "create_context.h"
#include "libc_dlsym.h"
#include "program.h"

namespace {

constexpr uint64_t kLong = 3'000'000;

struct Scene {
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  char* block = nullptr;
  char* other = nullptr;
  CUarray array = nullptr;
  CUmipmappedArray levels = nullptr;
  CUmodule module = nullptr;
  cudaGraphExec_t graph = nullptr;
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

void MakeObjects(Scene& scene) {
  CUDA_ARRAY3D_DESCRIPTOR description{};
  description.Width = description.Height = 64;
  description.NumChannels = 1;
  description.Format = CU_AD_FORMAT_FLOAT;
  if (cuArray3DCreate(&scene.array, &description) != CUDA_SUCCESS ||
      cuMipmappedArrayCreate(&scene.levels, &description, 1) != CUDA_SUCCESS ||
      cuModuleLoadData(&scene.module, "global x 64") != CUDA_SUCCESS) {
    exit(3);
  }
  cudaGraph_t graph = nullptr;
  cudaStream_t captured = program::NonBlockingStream();
  MUST(cudaStreamBeginCapture(captured, cudaStreamCaptureModeRelaxed));
  MUST(cudaMemsetAsync(scene.other, 0, 1, captured));
  MUST(cudaStreamEndCapture(captured, &graph));
  MUST(cudaGraphInstantiate(&scene.graph, graph, 0));
}

// The driver finds out, and neither the program nor the shim hears of it.
void FindOutPastTheShim() {
  // By the C library's dlopen: what comes by ours ends the serving (shim/state/deep_loads.h).
  using Dlopen = void* (*)(const char* file, int mode);
  const auto open = reinterpret_cast<Dlopen>(LibcFunction("dlopen"));
  void* library = open("libpast_the_shim.so", RTLD_NOW | RTLD_DEEPBIND);
  if (library == nullptr) exit(3);
  const auto wait = reinterpret_cast<int (*)()>(dlsym(library, "SynchronizePastTheShim"));
  printf("past the shim %d\n", wait());
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
      {"array", [](Scene& scene) { return int{cuArrayDestroy(scene.array)}; }},
      {"levels", [](Scene& scene) { return int{cuMipmappedArrayDestroy(scene.levels)}; }},
      {"module", [](Scene& scene) { return int{cuModuleUnload(scene.module)}; }},
      {"stream-destroy",  // finds out, and says nothing
       [](Scene&) {
         cudaStream_t another = program::NonBlockingStream();
         return int{cudaStreamDestroy(another)};
       }},
      {"graph-destroy",  // likewise
       [](Scene& scene) { return int{cudaGraphExecDestroy(scene.graph)}; }},
      {"is-capturing",
       [](Scene& scene) {
         FindOutPastTheShim();
         cudaStreamCaptureStatus status{};
         return int{cudaStreamIsCapturing(scene.stream, &status)};
       }},
      {"priority",
       [](Scene& scene) {
         FindOutPastTheShim();
         int priority = 0;
         return int{cudaStreamGetPriority(scene.stream, &priority)};
       }},
      {"nobody", [](Scene&) { return 0; }},
  };
}

// A context that can end, current, and what ends it: the second device's primary one, so that the
// runtime holds none of its references, or one that is made.
struct Ending {
  CUcontext context = nullptr;
  std::function<int()> call;
};

CUgreenCtx GreenContext(CUdevice device) {
  CUdevResource resource{};
  CUdevResourceDesc description = nullptr;
  CUgreenCtx green = nullptr;
  if (cuDeviceGetDevResource(device, &resource, CU_DEV_RESOURCE_TYPE_SM) != CUDA_SUCCESS ||
      cuDevResourceGenerateDesc(&description, &resource, 1) != CUDA_SUCCESS ||
      cuGreenCtxCreate(&green, description, device, CU_GREEN_CTX_DEFAULT_STREAM) != CUDA_SUCCESS) {
    exit(3);
  }
  return green;
}

Ending MakeContext(const std::string& way) {
  constexpr CUdevice kSecond = 1;
  Ending ending;
  if (way == "destroy" || way == "detach") {
    if (CreateContext(&ending.context) != CUDA_SUCCESS) exit(3);
    ending.call = [way, context = ending.context] {
      return int{way == "detach" ? cuCtxDetach(context) : cuCtxDestroy(context)};
    };
    return ending;
  }
  for (int i = 0; i < 2; ++i) {
    if (cuDevicePrimaryCtxRetain(&ending.context, kSecond) != CUDA_SUCCESS) exit(3);
  }
  ending.call = [] {
    printf("# cuDevicePrimaryCtxRelease: %d\n", int{cuDevicePrimaryCtxRelease(kSecond)});
    return int{cuDevicePrimaryCtxRelease(kSecond)};  // the last
  };
  if (way == "green") {
    const CUgreenCtx green = GreenContext(kSecond);
    for (int i = 0; i < 2; ++i) cuDevicePrimaryCtxRelease(kSecond);
    ending.call = [green] { return int{cuGreenCtxDestroy(green)}; };
  }
  if (cuCtxSetCurrent(ending.context) != CUDA_SUCCESS) exit(3);
  return ending;
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
  const bool ends = way == "destroy" || way == "detach" || way == "release" || way == "green";
  Ending ending;
  if (ends) {
    ending = MakeContext(way);
    scene.stream = nullptr;
    CUdeviceptr address = 0;
    if (cuMemAlloc(&address, 4096) != CUDA_SUCCESS) return 3;
    scene.block = reinterpret_cast<char*>(address);
  }
  MakeObjects(scene);
  MUST(cudaDeviceSynchronize());
  SimWork crash{};
  crash.id = 1;
  crash.duration_ns = kLong;
  crash.flags = SIM_WORK_TRAP;
  MUST(program::Launch(scene.stream, crash));
  if (!ends) MUST(cudaEventRecord(scene.event, scene.stream));
  // The one call whose answer may differ.
  const bool frees = count > 2;
  if (frees) {
    const int status = ends ? int{cuMemFree(reinterpret_cast<CUdeviceptr>(scene.block))}
                            : int{cudaFree(scene.block)};
    printf("# cudaFree: %d\n", status);
  }
  simAdvance(10 * kLong);
  if (way == "reset") {
    printf("# cuEnd: %d\n", int{cudaDeviceReset()});
    return 0;
  }
  if (ends) {
    printf("# cuEnd: %d\n", ending.call());
    return 0;
  }
  for (const Way& one : Ways()) {
    if (way == one.name) printf("told %d\n", one.call(scene));
  }
  if (way != "nobody") SayAfterwards(scene);
  return 0;
}
