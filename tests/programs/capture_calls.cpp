// One call while a stream captures: its result, and whether the capture lives. Every call in every
// mode, by the capturing thread and by another one; of a capture on a non-blocking stream, with
// work from before a free still pending, and on a blocking one, with nothing pending.
#include <cuda.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "program.h"

using program::Allocate;

namespace {

constexpr size_t kWarm = 5000;      // there are ready blocks, where there is a pool
constexpr size_t kLarge = 5 << 20;  // there are none
constexpr size_t kWidth = 500;      // a thread that asks here has had memory of that pitch
constexpr size_t kWarmRows = 10;
// There are no ready blocks of these, each of a tier of its own: times this, which doubles with
// every mode, since a real allocation that succeeds may make more.
size_t g_times = 1;
constexpr size_t kCold = 40000;
constexpr size_t kColdRows = 90;
constexpr size_t kColdRowsOfTwice = 56;
constexpr size_t kColdRowsOfDriver = 64;
constexpr size_t kHostBytes = 4096;

// What the calls use, made anew for each row.
struct Things {
  cudaStream_t capturing = nullptr;
  cudaStream_t other = nullptr;
  cudaStream_t busy = nullptr;  // with work from before a free
  cudaEvent_t recorded = nullptr;
  cudaEvent_t never_recorded = nullptr;
  cudaEvent_t behind_busy = nullptr;
  char* live = nullptr;
  char* live_large = nullptr;
  char* freed = nullptr;  // idle, where there is a pool
  char* host = nullptr;
  char* managed = nullptr;
  char* made = nullptr;  // by the call
  char* own = nullptr;   // of the host's, for registrations
};

struct Call {
  const char* name;
  std::function<int(Things&)> call;
  std::function<void(Things&)> undo = [](Things&) {};  // if it succeeded
};

void** Made(Things& t) { return reinterpret_cast<void**>(&t.made); }
CUdeviceptr Address(char* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }
void FreeMade(Things& t) { MUST(cudaFree(t.made)); }
// By a real free, as during every capture: it is not ready the next time.
void ReallyFreeMade(Things& t) {
  const cudaStream_t stream = program::NonBlockingStream();
  cudaGraph_t graph = nullptr;
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  MUST(cudaFree(t.made));
  MUST(cudaStreamEndCapture(stream, &graph));
  MUST(cudaGraphDestroy(graph));
  MUST(cudaStreamDestroy(stream));
}
void FreeMadeHost(Things& t) { MUST(cudaFreeHost(t.made)); }
int Pitched(Things& t, size_t width, size_t rows) {
  size_t pitch = 0;
  return cudaMallocPitch(Made(t), &pitch, width, rows);
}
void NoLive(Things& t) { t.live = nullptr; }

int Kernel(cudaStream_t stream, char* block) {
  const SimRange range = {block, 64};
  SimWork work = {};
  work.duration_ns = 1000;
  work.writes = &range;
  work.write_count = 1;
  return program::Launch(stream, work);
}

const Call kCalls[] = {
    {"cudaMalloc, ready", [](Things& t) { return cudaMalloc(Made(t), kWarm); }, &FreeMade},
    {"cudaMalloc, not ready", [](Things& t) { return cudaMalloc(Made(t), g_times * kCold); },
     &ReallyFreeMade},
    {"cudaMalloc, large", [](Things& t) { return cudaMalloc(Made(t), kLarge); }, &ReallyFreeMade},
    {"cudaMalloc, too large", [](Things& t) { return cudaMalloc(Made(t), size_t{1} << 44); }},
    {"cudaMalloc, nothing", [](Things& t) { return cudaMalloc(Made(t), 0); }},
    {"cudaMalloc, nowhere", [](Things&) { return cudaMalloc(nullptr, kWarm); }},
    {"cuMemAlloc, ready",
     [](Things& t) { return cuMemAlloc(reinterpret_cast<CUdeviceptr*>(&t.made), kWarm); },
     &FreeMade},
    {"cudaMallocPitch, ready", [](Things& t) { return Pitched(t, kWidth, kWarmRows); }, &FreeMade},
    {"cudaMallocPitch, not ready",
     [](Things& t) { return Pitched(t, kWidth, g_times * kColdRows); }, &ReallyFreeMade},
    {"cudaMallocPitch, another width",
     [](Things& t) { return Pitched(t, 2 * kWidth, g_times * kColdRowsOfTwice); }, &ReallyFreeMade},
    {"cudaMalloc3D, not ready",
     [](Things& t) {
       cudaPitchedPtr pitched = {};
       const int status = cudaMalloc3D(&pitched, {kWidth, g_times * kColdRows, 1});
       t.made = static_cast<char*>(pitched.ptr);
       return status;
     },
     &ReallyFreeMade},
    {"cuMemAllocPitch, not ready",
     [](Things& t) {
       size_t pitch = 0;
       return static_cast<int>(cuMemAllocPitch(reinterpret_cast<CUdeviceptr*>(&t.made), &pitch,
                                               kWidth, g_times * kColdRowsOfDriver, 4));
     },
     &ReallyFreeMade},
    {"cudaMallocAsync", [](Things& t) { return cudaMallocAsync(Made(t), kWarm, t.other); },
     &FreeMade},
    {"cudaMallocManaged",
     [](Things& t) { return cudaMallocManaged(Made(t), kWarm, cudaMemAttachGlobal); }, &FreeMade},
    {"cudaMallocHost", [](Things& t) { return cudaMallocHost(Made(t), kHostBytes); },
     &FreeMadeHost},
    {"cudaHostRegister",
     [](Things& t) { return cudaHostRegister(t.own, kHostBytes, cudaHostRegisterDefault); },
     [](Things& t) { MUST(cudaHostUnregister(t.own)); }},
    {"cudaFree", [](Things& t) { return cudaFree(t.live); }, &NoLive},
    {"cudaFree, large", [](Things& t) { return cudaFree(t.live_large); },
     [](Things& t) { t.live_large = nullptr; }},
    {"cudaFree twice", [](Things& t) { return cudaFree(t.freed); }},
    {"cudaFree, inside", [](Things& t) { return cudaFree(t.live + 256); }},
    {"cudaFree, nothing", [](Things&) { return cudaFree(nullptr); }},
    {"cudaFree, managed", [](Things& t) { return cudaFree(t.managed); },
     [](Things& t) { t.managed = nullptr; }},
    {"cuMemFree", [](Things& t) { return cuMemFree(Address(t.live)); }, &NoLive},
    {"cudaFreeAsync", [](Things& t) { return cudaFreeAsync(t.live, t.other); }, &NoLive},
    {"cudaFreeHost", [](Things& t) { return cudaFreeHost(t.host); },
     [](Things& t) { t.host = nullptr; }},
    {"cudaMemGetInfo",
     [](Things&) {
       size_t free = 0;
       size_t total = 0;
       return cudaMemGetInfo(&free, &total);
     }},
    {"cudaPointerGetAttributes",
     [](Things& t) {
       cudaPointerAttributes attributes;
       return cudaPointerGetAttributes(&attributes, t.live);
     }},
    {"cudaPointerGetAttributes, freed",
     [](Things& t) {
       cudaPointerAttributes attributes;
       const int status = cudaPointerGetAttributes(&attributes, t.freed);
       return status == 0 ? static_cast<int>(attributes.type) : -status;
     }},
    {"cuPointerGetAttribute",
     [](Things& t) {
       unsigned type = 0;
       return cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, Address(t.live));
     }},
    {"cuPointerGetAttribute, freed",
     [](Things& t) {
       unsigned type = 0;
       return cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, Address(t.freed));
     }},
    {"cuPointerSetAttribute",
     [](Things& t) {
       unsigned on = 1;
       return cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, Address(t.live));
     }},
    {"cuMemGetAddressRange",
     [](Things& t) {
       CUdeviceptr base = 0;
       size_t bytes = 0;
       return cuMemGetAddressRange(&base, &bytes, Address(t.live) + 100);
     }},
    {"cudaIpcGetMemHandle",
     [](Things& t) {
       cudaIpcMemHandle_t handle;
       return cudaIpcGetMemHandle(&handle, t.live);
     }},
    {"cudaHostGetDevicePointer",
     [](Things& t) { return cudaHostGetDevicePointer(Made(t), t.host, 0); }},
    {"cudaDeviceSynchronize", [](Things&) { return cudaDeviceSynchronize(); }},
    {"cudaStreamSynchronize", [](Things& t) { return cudaStreamSynchronize(t.other); }},
    {"cudaStreamSynchronize, busy", [](Things& t) { return cudaStreamSynchronize(t.busy); }},
    {"cudaStreamSynchronize, legacy", [](Things&) { return cudaStreamSynchronize(nullptr); }},
    {"cudaStreamSynchronize, capturing",
     [](Things& t) { return cudaStreamSynchronize(t.capturing); }},
    {"cudaStreamQuery", [](Things& t) { return cudaStreamQuery(t.other); }},
    {"cudaStreamQuery, busy", [](Things& t) { return cudaStreamQuery(t.busy); }},
    {"cudaStreamQuery, legacy", [](Things&) { return cudaStreamQuery(nullptr); }},
    {"cudaStreamQuery, capturing", [](Things& t) { return cudaStreamQuery(t.capturing); }},
    {"cudaEventQuery", [](Things& t) { return cudaEventQuery(t.recorded); }},
    {"cudaEventQuery, busy", [](Things& t) { return cudaEventQuery(t.behind_busy); }},
    {"cudaEventSynchronize", [](Things& t) { return cudaEventSynchronize(t.recorded); }},
    {"cudaEventSynchronize, busy", [](Things& t) { return cudaEventSynchronize(t.behind_busy); }},
    {"cudaEventElapsedTime, busy",
     [](Things& t) {
       float ms = 0;
       return cudaEventElapsedTime(&ms, t.recorded, t.behind_busy);
     }},
    {"cudaEventRecord", [](Things& t) { return cudaEventRecord(t.never_recorded, t.other); }},
    {"cudaStreamWaitEvent",
     [](Things& t) { return cudaStreamWaitEvent(t.other, t.behind_busy, 0); }},
    {"cudaStreamWaitEvent, capturing",
     [](Things& t) { return cudaStreamWaitEvent(t.capturing, t.behind_busy, 0); }},
    {"kernel", [](Things& t) { return Kernel(t.other, t.live); }},
    {"kernel, legacy", [](Things& t) { return Kernel(nullptr, t.live); }},
    {"kernel, capturing", [](Things& t) { return Kernel(t.capturing, t.live); }},
    {"cudaMemcpy", [](Things& t) { return cudaMemcpy(t.host, t.live, 64, cudaMemcpyDefault); }},
    {"cudaMemcpyAsync",
     [](Things& t) { return cudaMemcpyAsync(t.host, t.live, 64, cudaMemcpyDefault, t.other); }},
    {"cudaMemset", [](Things& t) { return cudaMemset(t.live, 0, 64); }},
    {"cudaStreamCreate",
     [](Things& t) { return cudaStreamCreate(reinterpret_cast<cudaStream_t*>(Made(t))); },
     [](Things& t) { MUST(cudaStreamDestroy(reinterpret_cast<cudaStream_t>(t.made))); }},
    {"cudaStreamDestroy", [](Things& t) { return cudaStreamDestroy(t.other); },
     [](Things& t) { t.other = nullptr; }},
    {"cudaEventDestroy", [](Things& t) { return cudaEventDestroy(t.behind_busy); },
     [](Things& t) { t.behind_busy = nullptr; }},
    {"cuModuleLoadData",
     [](Things& t) {
       return cuModuleLoadData(reinterpret_cast<CUmodule*>(Made(t)), "global x 64");
     },
     [](Things& t) { MUST(cudaError_t(cuModuleUnload(reinterpret_cast<CUmodule>(t.made)))); }},
};

const struct {
  const char* name;
  cudaStreamCaptureMode mode;
} kModes[] = {{"global", cudaStreamCaptureModeGlobal},
              {"thread-local", cudaStreamCaptureModeThreadLocal},
              {"relaxed", cudaStreamCaptureModeRelaxed}};

const struct {
  const char* name;
  bool another;
  cudaStreamCaptureMode exchanged;
} kCallers[] = {{"own", false, cudaStreamCaptureModeGlobal},
                {"own, relaxed", false, cudaStreamCaptureModeRelaxed},
                {"another", true, cudaStreamCaptureModeGlobal},
                {"another, thread-local", true, cudaStreamCaptureModeThreadLocal},
                {"another, relaxed", true, cudaStreamCaptureModeRelaxed}};

template <typename Function>
void InThread(Function function) {
  std::thread([&] {
    MUST(cudaSetDevice(0));
    function();
  }).join();
}

Things Make(bool blocking) {
  alignas(4096) static char own[kHostBytes];
  Things t;
  MUST(cudaStreamCreateWithFlags(&t.capturing,
                                 blocking ? cudaStreamDefault : cudaStreamNonBlocking));
  t.other = program::NonBlockingStream();
  t.busy = program::NonBlockingStream();
  for (cudaEvent_t* event : {&t.recorded, &t.never_recorded, &t.behind_busy}) {
    MUST(cudaEventCreate(event));
  }
  MUST(cudaMallocHost(reinterpret_cast<void**>(&t.host), kHostBytes));
  t.live = Allocate(20000);
  t.live_large = Allocate(7 << 20);
  t.freed = Allocate(30000);
  t.own = own;
  MUST(cudaEventRecord(t.recorded, t.other));
  // A free that has to wait would be a real one: drivers before 12.5, once there was a capture.
  MUST(cudaDeviceSynchronize());
  InThread([] { program::Warm(kWarm, 2); });  // they go to where all threads find them
  MUST(cudaDeviceSynchronize());
  // Work that a free has not waited for, where it need not.
  if (!blocking) program::LaunchWrite(t.busy, t.live, 64, 1, 1'000'000);
  MUST(cudaEventRecord(t.behind_busy, t.busy));
  MUST(cudaFree(t.freed));
  if (blocking) MUST(cudaDeviceSynchronize());
  return t;
}

void End(Things& t) {
  MUST(cudaDeviceSynchronize());
  for (char* block : {t.live, t.live_large, t.managed}) MUST(cudaFree(block));
  MUST(cudaFreeHost(t.host));
  for (const cudaEvent_t event : {t.recorded, t.never_recorded, t.behind_busy}) {
    if (event != nullptr) MUST(cudaEventDestroy(event));
  }
  for (const cudaStream_t stream : {t.capturing, t.other, t.busy}) {
    if (stream != nullptr) MUST(cudaStreamDestroy(stream));
  }
}

void Row(const std::string& where, bool blocking, cudaStreamCaptureMode mode, bool another,
         cudaStreamCaptureMode exchanged, const Call& call) {
  Things t = Make(blocking);
  // Managed memory makes every free wait: only where it is asked for.
  if (strstr(call.name, ", managed") != nullptr) {
    MUST(cudaMallocManaged(reinterpret_cast<void**>(&t.managed), kWarm, cudaMemAttachGlobal));
  }
  // A thread that has had memory of that pitch knows it.
  const auto prepare = [&] {
    if (Pitched(t, kWidth, kWarmRows) == 0) MUST(cudaFree(t.made));
    t.made = nullptr;
  };
  int result = 0;
  int last_error = 0;
  const auto call_it = [&] {
    cudaStreamCaptureMode before = exchanged;
    MUST(cudaThreadExchangeStreamCaptureMode(&before));
    result = call.call(t);
    MUST(cudaThreadExchangeStreamCaptureMode(&before));
    last_error = cudaGetLastError();
  };
  if (another) {
    std::atomic<int> step{0};
    std::thread thread([&] {
      MUST(cudaSetDevice(0));
      prepare();
      for (step = 1; step != 2;) std::this_thread::yield();
      call_it();
    });
    while (step != 1) std::this_thread::yield();
    MUST(cudaStreamBeginCapture(t.capturing, mode));
    step = 2;
    thread.join();
  } else {
    prepare();
    MUST(cudaStreamBeginCapture(t.capturing, mode));
    call_it();
  }
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(t.capturing, &graph);
  cudaGetLastError();
  if (graph != nullptr) MUST(cudaGraphDestroy(graph));
  printf("%s, %s: %d, last error %d, end %d\n", where.c_str(), call.name, result, last_error,
         static_cast<int>(ended));
  if (result == 0) call.undo(t);
  End(t);
}

}  // namespace

int main() {
  MUST(cudaFree(nullptr));
  for (const bool blocking : {false, true}) {
    for (const auto& [mode_name, mode] : kModes) {
      g_times *= 2;
      for (const auto& [caller, another, exchanged] : kCallers) {
        const std::string where =
            std::string(blocking ? "blocking, " : "") + mode_name + ", " + caller;
        for (const Call& call : kCalls) Row(where, blocking, mode, another, exchanged, call);
      }
    }
  }
  program::SayHazards();
  return 0;
}
