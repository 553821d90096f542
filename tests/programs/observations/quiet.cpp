// What the host cannot see: a free need not wait, and long work of another stream goes on.
#include <dlfcn.h>

#include "create_context.h"
#include "scene.h"

namespace observations {
namespace {

// Long work that nobody looks at, and a free.
void FreeBehindKernel(char* device) {
  WriteWord(NonBlockingStream(), device + 128, 1, kLong);
  FreeUnrelated();
  NoteRunning();
  MUST(cudaDeviceSynchronize());
}

void Kernels() {
  char* device = DeviceWord();
  FreeBehindKernel(device);
  WriteWord(nullptr, device, 1, kLong);
  FreeBehindKernel(device);
}

// Small enough to be staged.
void PageableCopy() {
  char* device = DeviceWord();
  const cudaStream_t stream = NonBlockingStream();
  std::vector<char> pageable(1024, 3);
  for (const bool by_kind : {true, false}) {
    WriteWord(stream, device, 1, kLong);
    MUST(cudaMemcpyAsync(device, pageable.data(), pageable.size(),
                         by_kind ? cudaMemcpyHostToDevice : cudaMemcpyDefault, stream));
    FreeBehindKernel(device);
  }
  MUST(cudaMemcpyAsync(pageable.data(), device, 8, cudaMemcpyDeviceToHost, stream));
  Check("pageable", HostWord(pageable.data()), 0x0303030303030303);
  FreeBehindKernel(device);
}

// With page-locked memory about, that nobody uses.
void DeviceCopies() {
  char* device = DeviceWord();
  PageLocked();
  const cudaStream_t stream = NonBlockingStream();
  WriteWord(stream, device, 1, kLong);
  MUST(cudaMemcpyAsync(device + 64, device, 8, cudaMemcpyDeviceToDevice, stream));
  MUST(cudaMemcpyAsync(device + 72, device, 8, cudaMemcpyDefault, stream));
  MUST(cudaMemsetAsync(device, 1, 8, stream));
  FreeBehindKernel(device);
}

// Real frees that do not wait for this work: of nothing, and of another context's memory.
void FreesThatDoNotWait() {
  WriteWord(NonBlockingStream(), DeviceWord(), 1, kLong);
  FreeUnrelated();
  MUST(cudaFree(nullptr));
  MUST_DRIVER(cuMemFree(0));
  NoteRunning();
  CUcontext primary = nullptr;
  MUST_DRIVER(cuCtxGetCurrent(&primary));
  CUcontext context = nullptr;
  MUST_DRIVER(CreateContext(&context));
  char* oversized = Allocate((size_t{1} << 30) + 1);
  MUST(cudaFree(oversized));
  MUST_DRIVER(cuCtxSetCurrent(primary));
  NoteRunning();
  MUST(cudaDeviceSynchronize());
  MUST_DRIVER(cuCtxDestroy(context));
}

// A graph that is instantiated is uploaded where that is asked for. Else nothing is submitted, and
// the stream for it may be anything.
void GraphNotUploaded() {
  char* device = DeviceWord();
  CUgraph graph = nullptr;
  MUST_DRIVER(cuGraphCreate(&graph, 0));
  CUDA_GRAPH_INSTANTIATE_PARAMS parameters = {};
  parameters.hUploadStream = reinterpret_cast<CUstream>(0xdeadbeef0);
  CUcontext primary = nullptr;
  MUST_DRIVER(cuCtxGetCurrent(&primary));
  const auto instantiate = [&] {
    WriteWord(NonBlockingStream(), device, 1, kLong);
    FreeUnrelated();
    const uint64_t asked = simCallCount("cuStreamGetCtx");
    const uint64_t ordered = simCallCount("cuCtxWaitEvent");
    CUgraphExec executable = nullptr;
    MUST_DRIVER(cuGraphInstantiateWithParams(&executable, graph, &parameters));
    Check("questions about the stream", simCallCount("cuStreamGetCtx") - asked, 0);
    Check("waits on it", simCallCount("cuCtxWaitEvent") - ordered, 0);
    NoteRunning();
    MUST(cudaDeviceSynchronize());
  };
  instantiate();
  CUcontext second = nullptr;
  MUST_DRIVER(CreateContext(&second));
  Settle();
  MUST_DRIVER(cuCtxSetCurrent(primary));
  instantiate();
}

// A launch may begin before earlier work of its stream has ended where its attribute is not 0.
void LaunchThatMayNotOvertake() {
  const cudaStream_t stream = NonBlockingStream();
  CUlaunchAttribute attribute = {};
  attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  attribute.value.programmaticStreamSerializationAllowed = 0;
  CUlaunchConfig config = {};
  config.gridDimX = config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = config.blockDimY = config.blockDimZ = 1;
  config.hStream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  SimWork work = {};
  work.duration_ns = kShort;
  const SimWork* pointer = &work;
  void* arguments[] = {&pointer};
  WriteWord(stream, DeviceWord(), 1, kLong);
  FreeUnrelated();
  const uint64_t ordered = simCallCount("cuCtxWaitEvent");
  MUST_DRIVER(cuLaunchKernelEx(&config, simFunction(), arguments, nullptr));
  Check("waits on its own stream", simCallCount("cuCtxWaitEvent") - ordered, 0);
  NoteRunning();
  MUST(cudaDeviceSynchronize());
}

using Synchronise = std::function<void(cudaStream_t, cudaEvent_t)>;

// `synchronise` with visible work of every kind on the stream; the event is behind that.
void Synchronised(cudaStream_t stream, const Synchronise& synchronise) {
  char* device = DeviceWord();
  char* host = PageLocked();
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  for (int round = 0; round < 3; ++round) {
    MUST(cudaMemcpyAsync(host, device, 8, cudaMemcpyDeviceToHost, stream));
    MUST(cudaMemsetAsync(host + 8, 1, 8, stream));
    MUST(cudaMemcpyAsync(device + 64, host, 8, cudaMemcpyHostToDevice, stream));
    MUST(cudaLaunchHostFunc(
        stream, [](void*) {}, nullptr));
    MUST_DRIVER(cuStreamWriteValue32(stream, Address(host + 64), 1, 0));
    MUST(cudaEventRecord(event, stream));
    synchronise(stream, event);
    FreeBehindKernel(device);
  }
}

void AddSynchronised(std::vector<Scenario>* scenarios) {
  const std::pair<const char*, Synchronise> ways[] = {
      {"stream", [](cudaStream_t stream, cudaEvent_t) { MUST(cudaStreamSynchronize(stream)); }},
      {"stream-query",
       [](cudaStream_t stream, cudaEvent_t) {
         while (cudaStreamQuery(stream) != cudaSuccess) cudaGetLastError();
       }},
      {"event", [](cudaStream_t, cudaEvent_t event) { MUST(cudaEventSynchronize(event)); }},
      {"event-query",
       [](cudaStream_t, cudaEvent_t event) {
         while (cudaEventQuery(event) != cudaSuccess) cudaGetLastError();
       }},
      {"context", [](cudaStream_t, cudaEvent_t) { MUST(cudaDeviceSynchronize()); }},
      {"context-driver", [](cudaStream_t, cudaEvent_t) { MUST_DRIVER(cuCtxSynchronize()); }},
      {"stream-then-destroyed",
       [](cudaStream_t stream, cudaEvent_t) {
         cudaStream_t other = NonBlockingStream();
         MUST(cudaMemsetAsync(PageLocked(), 1, 8, other));
         MUST(cudaStreamSynchronize(other));
         MUST(cudaStreamDestroy(other));
         MUST(cudaStreamSynchronize(stream));
       }},
  };
  for (const auto& [name, synchronise] : ways) {
    scenarios->push_back(
        {Expect::kQuiet, "-", std::string("synchronised-") + name, [way = synchronise] {
           Synchronised(NonBlockingStream(), way);
           Synchronised(cudaStreamPerThread, way);
         }});
  }
  scenarios->push_back({Expect::kQuiet, "-", "synchronised-legacy", [] {
                          cudaStream_t blocking = nullptr;
                          MUST(cudaStreamCreate(&blocking));
                          Synchronised(blocking, [](cudaStream_t, cudaEvent_t) {
                            MUST(cudaStreamSynchronize(nullptr));
                          });
                        }});
  scenarios->push_back({Expect::kQuiet, "-", "synchronised-event-of-legacy", [] {
                          cudaStream_t blocking = nullptr;
                          MUST(cudaStreamCreate(&blocking));
                          Synchronised(blocking, [](cudaStream_t, cudaEvent_t event) {
                            MUST(cudaEventRecord(event, nullptr));
                            MUST(cudaEventSynchronize(event));
                          });
                        }});
  scenarios->push_back({Expect::kQuiet, "-", "synchronised-copy", [] {
                          char* device = DeviceWord();
                          Synchronised(nullptr, [=](cudaStream_t, cudaEvent_t) { WordOf(device); });
                        }});
}

// Memory that the host saw, and that is gone.
void SharedMemoryGone() {
  char* device = DeviceWord();
  void* managed = nullptr;
  MUST(cudaMallocManaged(&managed, 4096, cudaMemAttachGlobal));
  MUST(cudaFree(managed));
  FreeBehindKernel(device);
  MUST(cudaFreeHost(PageLocked(4096, cudaHostAllocMapped)));
  FreeBehindKernel(device);
  std::vector<char> memory(4096);
  MUST(cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterMapped));
  MUST(cudaHostUnregister(memory.data()));
  FreeBehindKernel(device);
}

void SharedMemoryGoneWithReset() {
  void* managed = nullptr;
  MUST(cudaMallocManaged(&managed, 4096, cudaMemAttachGlobal));
  PageLocked(4096, cudaHostAllocMapped);
  MUST(cudaDeviceReset());
  char* device = DeviceWord();
  Settle();
  FreeBehindKernel(device);
}

// What a library maps for itself counts if it is the program's, and not if it is NVIDIA's.
char* MappedBy(const char* library) {
  void* opened = dlopen(library, RTLD_NOW);
  if (opened == nullptr) program::Must(cudaErrorUnknown, dlerror());
  char* word = reinterpret_cast<char* (*)()>(dlsym(opened, "MapPageLocked"))();
  SetHostWord(word, 0);
  return word;
}

void NvidiaLibraryMaps() {
  char* word = MappedBy("libcudnn_maps.so");
  WriteWord(NonBlockingStream(), word, 17, kLong);
  FreeBehindKernel(DeviceWord());
  Check("the library's word at last", HostWord(word), 17);
}

void SeeMappedBy(const char* library) {
  char* word = MappedBy(library);
  WriteWord(NonBlockingStream(), word, 17, kLong);
  FreeUnrelated();
  See("the library's word", HostWord(word), 17);
}
void ProgramLibraryMaps() { SeeMappedBy("libprogram_maps.so"); }
void LookalikeLibraryMaps() { SeeMappedBy("libnpp_mine.so"); }

}  // namespace

std::vector<Scenario> QuietScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const char* name, void (*run)()) {
    scenarios.push_back({Expect::kQuiet, "-", name, run});
  };
  add("kernels", Kernels);
  add("pageable-copy", PageableCopy);
  add("device-copies", DeviceCopies);
  add("frees-that-do-not-wait", FreesThatDoNotWait);
  add("graph-not-uploaded", GraphNotUploaded);
  add("launch-that-may-not-overtake", LaunchThatMayNotOvertake);
  AddSynchronised(&scenarios);
  add("shared-memory-gone", SharedMemoryGone);
  add("shared-memory-gone-with-reset", SharedMemoryGoneWithReset);
  add("nvidia-library-maps", NvidiaLibraryMaps);
  scenarios.push_back(
      {Expect::kVisible, "visible_mapped", "program-library-maps", ProgramLibraryMaps});
  scenarios.push_back(
      {Expect::kVisible, "visible_mapped", "lookalike-library-maps", LookalikeLibraryMaps});
  return scenarios;
}

}  // namespace observations
