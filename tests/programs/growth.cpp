// Things that come and go by the million: what is left of them, and whether they get dearer.
//
// An operation makes one thing, uses it and ends it. After a tenth of all, and at the end, the
// program looks at what it has: memory, objects of the driver's, and what some operations cost in
// virtual time; valgrind counts their instructions, from look_begins to look_ends.
#include <cuda.h>
#include <pthread.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "create_context.h"
#include "program.h"

using program::Allocate;

namespace {

void MustDriver(CUresult result, const char* what) {
  program::Must(static_cast<cudaError_t>(result), what);
}
#define MUST_DRIVER(call) MustDriver(call, #call)

constexpr size_t kBytes = 5000;
constexpr size_t kHostBytes = 4096;

char* g_page_locked = nullptr;
std::atomic<uint64_t> g_called{0};
void Called(void*) { ++g_called; }

cudaError_t Kernel(cudaStream_t stream, char* block, uint64_t duration_ns = 2000) {
  const SimRange range = {block, 64};
  SimWork work = {};
  work.duration_ns = duration_ns;
  work.writes = &range;
  work.write_count = 1;
  return program::Launch(stream, work);
}

// Work of all kinds that the host could see the end of, and a free behind it.
void Use(cudaStream_t stream, uint64_t i) {
  char* block = Allocate(i % 7 == 0 ? size_t{3} << 20 : kBytes + i % 3 * 4096);
  MUST(Kernel(stream, block));
  if (i % 2 == 0) {
    MUST(cudaMemcpyAsync(g_page_locked, block, 64, cudaMemcpyDeviceToHost, stream));
  }
  if (i % 5 == 0) MUST(cudaLaunchHostFunc(stream, &Called, nullptr));
  MUST(cudaFree(block));
}

// ---- What comes and goes

constexpr size_t kKept = 40;  // more streams than the shim tells apart

void Streams(uint64_t i) {
  static cudaStream_t kept[kKept] = {};
  cudaStream_t& old = kept[i % kKept];
  if (old == nullptr) old = program::NonBlockingStream();
  cudaStream_t stream = nullptr;
  switch (i % 4) {
    case 0:
      MUST(cudaStreamCreate(&stream));
      break;
    case 1:
      MUST(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, -1));
      break;
    default:
      stream = program::NonBlockingStream();
  }
  Use(stream, i);
  if (i % 3 == 0) Use(old, i);
  if (i % 11 == 0) Use(i % 2 == 0 ? cudaStreamPerThread : cudaStreamLegacy, i);
  if (i % 4 == 3) MUST(cudaStreamSynchronize(stream));
  MUST(cudaStreamDestroy(stream));  // of most, work is pending
  if (i % 64 == 0) MUST(cudaDeviceSynchronize());
}

void Events(uint64_t i) {
  static cudaStream_t streams[3] = {program::NonBlockingStream(), program::NonBlockingStream(),
                                    nullptr};
  static cudaEvent_t kept[kKept] = {};
  cudaEvent_t& old = kept[i % kKept];
  if (old == nullptr) MUST(cudaEventCreate(&old));
  const cudaStream_t stream = streams[i % 3];
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreateWithFlags(&event, i % 2 == 0 ? cudaEventDisableTiming : cudaEventDefault));
  Use(stream, i);
  MUST(cudaEventRecord(event, stream));
  MUST(cudaEventRecord(old, stream));
  MUST(cudaStreamWaitEvent(streams[(i + 1) % 3], event, 0));
  if (const cudaError_t asked = cudaEventQuery(event); asked != cudaErrorNotReady) MUST(asked);
  cudaGetLastError();
  if (i % 4 == 0) MUST(cudaEventSynchronize(i % 8 == 0 ? event : old));
  MUST(cudaEventDestroy(event));
  if (i % 64 == 0) MUST(cudaDeviceSynchronize());
}

// Only what the thread itself does is counted.
void Threads(uint64_t i) {
  const auto run = [i] {
    Use(i % 2 == 0 ? cudaStreamPerThread : cudaStreamLegacy, i);
    if (i % 16 == 1) {
      MUST(cudaStreamBeginCapture(cudaStreamPerThread, cudaStreamCaptureModeRelaxed));
      MUST(Kernel(cudaStreamPerThread, g_page_locked));
      cudaGraph_t graph = nullptr;
      MUST(cudaStreamEndCapture(cudaStreamPerThread, &graph));
      MUST(cudaGraphDestroy(graph));
    }
    if (i % 8 == 3) pthread_exit(nullptr);
  };
  std::thread first(run);
  if (i % 4 == 0) std::thread(run).join();
  first.join();
  if (i % 64 == 0) MUST(cudaDeviceSynchronize());
}

void PageLocked(uint64_t i) {
  static const cudaStream_t stream = program::NonBlockingStream();
  alignas(4096) static char own[16][kHostBytes];
  char* block = Allocate(kBytes);
  void* made = nullptr;
  switch (i % 5) {
    case 0:
      MUST(cudaHostAlloc(&made, kHostBytes, cudaHostAllocMapped));
      break;
    case 1:
      made = own[i % 16];
      MUST(cudaHostRegister(made, kHostBytes, cudaHostRegisterDefault));
      break;
    case 2:
      made = own[i % 16];
      MUST(cudaHostRegister(made, kHostBytes, cudaHostRegisterMapped));
      break;
    case 3:
      MUST(cudaMallocManaged(&made, kHostBytes, cudaMemAttachGlobal));
      break;
    default:
      MUST(cudaMallocHost(&made, kHostBytes));
  }
  MUST(cudaMemcpyAsync(block, made, 64, cudaMemcpyDefault, stream));
  MUST(cudaFree(block));
  switch (i % 5) {
    case 1:
    case 2:
      MUST(cudaHostUnregister(made));
      break;
    case 3:
      MUST(cudaFree(made));
      break;
    default:
      MUST(cudaFreeHost(made));
  }
}

void Captures(uint64_t i) {
  static const cudaStream_t kept = program::NonBlockingStream();
  const cudaStream_t stream = i % 2 == 0 ? program::NonBlockingStream() : kept;
  constexpr cudaStreamCaptureMode kModes[] = {
      cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed};
  Use(stream, i);
  MUST(cudaStreamBeginCapture(stream, kModes[i % 3]));
  MUST(Kernel(stream, g_page_locked));
  cudaGraph_t graph = nullptr;
  if (i % 3 == 2) MUST(cudaFree(Allocate(kBytes)));  // real calls
  if (i % 10 == 4) {                                 // invalidated
    if (cudaDeviceSynchronize() == cudaSuccess) MUST(cudaErrorUnknown);
    cudaGetLastError();
  }
  if (i % 10 != 8) {  // there the stream's end ends it
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    if (i % 10 != 4) MUST(ended);
    cudaGetLastError();
  }
  if (graph != nullptr) {
    cudaGraphExec_t executable = nullptr;
    MUST(cudaGraphInstantiate(&executable, graph, 0));
    MUST(cudaGraphLaunch(executable, stream));
    MUST(cudaFree(Allocate(kBytes)));
    MUST(cudaGraphExecDestroy(executable));
    MUST(cudaGraphDestroy(graph));
  }
  if (stream != kept) MUST(cudaStreamDestroy(stream));
}

void Modules(uint64_t i) {
  static const cudaStream_t stream = program::NonBlockingStream();
  Use(stream, i);
  if (i % 2 == 0) {
    CUmodule module = nullptr;
    MUST_DRIVER(cuModuleLoadData(&module, "global x 64"));
    CUdeviceptr variable = 0;
    size_t bytes = 0;
    MUST_DRIVER(cuModuleGetGlobal(&variable, &bytes, module, "x"));
    MUST_DRIVER(cuModuleUnload(module));
  } else {
    CUlibrary library = nullptr;
    MUST_DRIVER(
        cuLibraryLoadData(&library, "global x 64", nullptr, nullptr, 0, nullptr, nullptr, 0));
    MUST_DRIVER(cuLibraryUnload(library));
  }
}

// A context beside the primary one, or the primary one itself.
void Contexts(uint64_t i) {
  if (i % 16 == 15) {
    MUST(cudaDeviceReset());
    MUST(cudaMallocHost(reinterpret_cast<void**>(&g_page_locked), kHostBytes));
    return;
  }
  CUcontext context = nullptr;
  Use(cudaStreamLegacy, i);
  MUST_DRIVER(CreateContext(&context));
  const cudaStream_t stream = program::NonBlockingStream();
  Use(stream, i);
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreate(&event));
  MUST(cudaEventRecord(event, stream));
  if (i % 4 == 1) MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  MUST_DRIVER(cuCtxDestroy(context));  // with what is left in it
}

// What takes blocks out of the pool, and frees that are none.
void Odd(uint64_t i) {
  static const cudaStream_t stream = program::NonBlockingStream();
  char* block = Allocate(kBytes + i % 16 * 4096);
  switch (i % 6) {
    case 0: {
      cudaIpcMemHandle_t handle;
      MUST(cudaIpcGetMemHandle(&handle, block));
      break;
    }
    case 1: {
      int on = 1;
      MUST_DRIVER(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
                                        reinterpret_cast<CUdeviceptr>(block)));
      break;
    }
    case 2:
      MUST(Kernel(stream, block));
      MUST(cudaFreeAsync(block, stream));
      block = nullptr;
      break;
    case 3: {
      void* of_stream = nullptr;
      MUST(cudaMallocAsync(&of_stream, kBytes, stream));
      MUST(Kernel(stream, static_cast<char*>(of_stream)));
      MUST(cudaFree(of_stream));
      break;
    }
    case 4: {
      size_t pitch = 0;
      void* pitched = nullptr;
      MUST(cudaMallocPitch(&pitched, &pitch, 100, 100));
      MUST(cudaFree(pitched));
      if (cudaFree(block + 1) == cudaSuccess) MUST(cudaErrorUnknown);
      cudaGetLastError();
      break;
    }
    default: {
      void* impossible = nullptr;
      if (cudaMalloc(&impossible, size_t{1} << 44) == cudaSuccess) MUST(cudaErrorUnknown);
      cudaGetLastError();
    }
  }
  MUST(cudaFree(block));
  if (i % 64 == 0) MUST(cudaStreamSynchronize(stream));
}

const struct {
  const char* name;
  void (*once)(uint64_t i);
} kKinds[] = {{"streams", &Streams},   {"events", &Events},
              {"threads", &Threads},   {"page-locked", &PageLocked},
              {"captures", &Captures}, {"modules", &Modules},
              {"contexts", &Contexts}, {"odd", &Odd}};

// ---- What there is

constexpr uint64_t kLookedAt = 240;  // a multiple of every period above

struct Look {
  size_t bytes;
  int64_t events;
  int64_t streams;
  uint64_t virtual_ns;
};

int64_t Living(const char* make, const char* end, const char* end_v2) {
  return static_cast<int64_t>(simCallCount(make)) -
         static_cast<int64_t>(simCallCount(end) + simCallCount(end_v2));
}

}  // namespace

#define PLACE(name) \
  extern "C" __attribute__((noinline, visibility("default"))) void name() { asm volatile(""); }
PLACE(look_begins)
PLACE(look_ends)

namespace {

Look LookAround(void (*once)(uint64_t)) {
  MUST(cudaDeviceSynchronize());
  Look look = {};
  look.events = Living("cuEventCreate", "cuEventDestroy", "cuEventDestroy_v2");
  look.streams = Living("cuStreamCreate", "cuStreamDestroy", "cuStreamDestroy_v2") +
                 static_cast<int64_t>(simCallCount("cuStreamCreateWithPriority"));
  look.bytes = program::AnonymousBytes();
  const uint64_t begin = simNow();
  look_begins();
  for (uint64_t i = 0; i < kLookedAt; ++i) once(i);
  look_ends();
  look.virtual_ns = simNow() - begin;
  return look;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t count = argc > 2 ? strtoull(argv[2], nullptr, 0) : 10000;
  for (const auto& [name, once] : kKinds) {
    if (argc < 2 || strcmp(argv[1], name) != 0) continue;
    MUST(cudaMallocHost(reinterpret_cast<void**>(&g_page_locked), kHostBytes));
    for (uint64_t i = 0; i < count / 10; ++i) once(i);
    const Look first = LookAround(once);
    for (uint64_t i = 0; i < count - count / 10; ++i) once(i);
    const Look last = LookAround(once);
    printf("%s: hazards %llu, misuse %llu\n", name,
           static_cast<unsigned long long>(simHazardCount()),
           static_cast<unsigned long long>(simMisuseCount()));
    printf("# grew by: %lld\n",
           static_cast<long long>(last.bytes) - static_cast<long long>(first.bytes));
    printf("# events: %lld, %lld\n", static_cast<long long>(first.events),
           static_cast<long long>(last.events));
    printf("# streams: %lld, %lld\n", static_cast<long long>(first.streams),
           static_cast<long long>(last.streams));
    printf("# virtual time: %llu, %llu\n", static_cast<unsigned long long>(first.virtual_ns),
           static_cast<unsigned long long>(last.virtual_ns));
    return 0;
  }
  printf("usage: growth KIND [COUNT]\n");
  return 1;
}
