// Prints how a driver and a runtime answer where the simulator had to decide something.
//
// The same program runs on the simulated libraries and on a real GPU; the two outputs are compared
// line by line (README.md, "How it was checked"). A stream is made busy by a host function, so no
// kernel is needed.
#include "probe.h"

#include <initializer_list>

#include "create_context.h"

namespace cmp::sim {
namespace {

void ProbeWaiting() {
  CUstream blocking = nullptr;
  CUstream free_running = nullptr;
  cuStreamCreate(&blocking, CU_STREAM_DEFAULT);
  cuStreamCreate(&free_running, CU_STREAM_NON_BLOCKING);
  CUdeviceptr p = 0;
  static char host[64];
  void* locked = nullptr;
  cuMemHostAlloc(&locked, 4096, 0);
  SayWaits("cuMemAlloc", free_running, [&] { return cuMemAlloc(&p, 4096); });
  SayWaits("cuMemFree", free_running, [&] { return cuMemFree(p); });
  SayWaits("cuMemFree wild", free_running, [&] { return cuMemFree(12345); });
  cuMemAlloc(&p, 4096);
  SayWaits("cuMemFree host pointer", free_running,
           [&] { return cuMemFree(reinterpret_cast<CUdeviceptr>(locked)); });
  SayWaits("cuMemFreeHost device pointer", free_running,
           [&] { return cuMemFreeHost(reinterpret_cast<void*>(p)); });
  void* more = nullptr;
  SayWaits("cuMemHostAlloc", free_running, [&] { return cuMemHostAlloc(&more, 4096, 0); });
  SayWaits("cuMemFreeHost", free_running, [&] { return cuMemFreeHost(more); });
  CUdeviceptr managed = 0;
  SayWaits("cuMemAllocManaged", free_running,
           [&] { return cuMemAllocManaged(&managed, 4096, CU_MEM_ATTACH_GLOBAL); });
  SayWaits("cuMemFree managed", free_running, [&] { return cuMemFree(managed); });
  SayWaits("cuMemHostRegister", free_running,
           [&] { return cuMemHostRegister(host, sizeof host, 0); });
  SayWaits("cuMemHostUnregister", free_running, [&] { return cuMemHostUnregister(host); });
  SayWaits("cuStreamSynchronize legacy, blocking busy", blocking,
           [&] { return cuStreamSynchronize(nullptr); });
  SayWaits("cuStreamQuery legacy, blocking busy", blocking, [&] { return cuStreamQuery(nullptr); });
  SayWaits("cuStreamSynchronize legacy, non-blocking busy", free_running,
           [&] { return cuStreamSynchronize(nullptr); });
  SayWaits("cuStreamQuery blocking, legacy busy", nullptr, [&] { return cuStreamQuery(blocking); });
  SayWaits("cuStreamSynchronize blocking, legacy busy", nullptr,
           [&] { return cuStreamSynchronize(blocking); });
  SayWaits("cuStreamSynchronize per-thread, blocking busy", blocking,
           [&] { return cuStreamSynchronize(CU_STREAM_PER_THREAD); });
  SayWaits("cuMemcpyHtoD, non-blocking busy", free_running,
           [&] { return cuMemcpyHtoD(p, host, sizeof host); });
  SayWaits("cuMemcpyHtoD, blocking busy", blocking,
           [&] { return cuMemcpyHtoD(p, host, sizeof host); });
  SayWaits("cuMemcpyHtoD locked, blocking busy", blocking,
           [&] { return cuMemcpyHtoD(p, locked, 64); });
  SayWaits("cuMemcpyDtoH, blocking busy", blocking,
           [&] { return cuMemcpyDtoH(host, p, sizeof host); });
  SayWaits("cuMemcpyDtoD, blocking busy", blocking, [&] { return cuMemcpyDtoD(p, p + 64, 64); });
  SayWaits("cuMemsetD8, blocking busy", blocking, [&] { return cuMemsetD8(p, 0, 64); });
  SayWaits("cuMemsetD8 locked, blocking busy", blocking,
           [&] { return cuMemsetD8(reinterpret_cast<CUdeviceptr>(locked), 0, 64); });
  SayWaits("cuMemcpyHtoDAsync pageable, same stream", free_running,
           [&] { return cuMemcpyHtoDAsync(p, host, sizeof host, free_running); });
  SayWaits("cuMemcpyDtoHAsync pageable, same stream", free_running,
           [&] { return cuMemcpyDtoHAsync(host, p, sizeof host, free_running); });
  SayWaits("cuMemcpyDtoHAsync locked, same stream", free_running,
           [&] { return cuMemcpyDtoHAsync(locked, p, 64, free_running); });
  SayWaits("cuMemcpyAsync host to host, same stream", free_running, [&] {
    return cuMemcpyAsync(reinterpret_cast<CUdeviceptr>(locked),
                         reinterpret_cast<CUdeviceptr>(locked) + 64, 64, free_running);
  });
  SayWaits("cuStreamDestroy", free_running, [&] { return cuStreamDestroy(free_running); });
  cuStreamCreate(&free_running, CU_STREAM_NON_BLOCKING);
  CUevent event = nullptr;
  cuEventCreate(&event, 0);
  SayWaits("cuEventDestroy", free_running, [&] {
    cuEventRecord(event, free_running);
    return cuEventDestroy(event);
  });
  cuEventCreate(&event, 0);
  SayWaits("cuStreamQuery idle stream behind cuCtxWaitEvent", free_running, [&] {
    cuEventRecord(event, free_running);
    cuCtxWaitEvent(g_context, event);
    return cuStreamQuery(blocking);
  });
  SayWaits("cuStreamSynchronize idle stream behind cuCtxWaitEvent", free_running, [&] {
    cuEventRecord(event, free_running);
    cuCtxWaitEvent(g_context, event);
    return cuStreamSynchronize(blocking);
  });
  SayWaits("cuEventQuery of a context event", free_running, [&] {
    const CUresult recorded = cuCtxRecordEvent(g_context, event);
    return recorded != CUDA_SUCCESS ? recorded : cuEventQuery(event);
  });
  SayWaits("cuIpcGetMemHandle", free_running, [&] {
    CUipcMemHandle handle;
    return cuIpcGetMemHandle(&handle, p);
  });
  SayWaits("cuMemFreeAsync on an idle stream", free_running,
           [&] { return cuMemFreeAsync(p, blocking); });
  cuMemFreeHost(locked);
}

void ProbeContexts() {
  CUcontext other = nullptr;
  CreateContext(&other);
  CUstream there = nullptr;
  cuStreamCreate(&there, CU_STREAM_NON_BLOCKING);
  cuCtxSetCurrent(g_context);
  CUdeviceptr p = 0;
  cuMemAlloc(&p, 4096);
  SayWaits("cuMemFree of this context's block, other context busy", there,
           [&] { return cuMemFree(p); });
  cuCtxSetCurrent(other);
  cuCtxSynchronize();
  cuMemAlloc(&p, 4096);
  cuCtxSetCurrent(g_context);
  SayWaits("cuMemFree of the other context's block, that one busy", there,
           [&] { return cuMemFree(p); });
  cuCtxSetCurrent(other);
  cuCtxSynchronize();
  cuMemAlloc(&p, 4096);
  cuCtxSetCurrent(g_context);
  SayWaits("cuMemFree of the other context's block, current one busy", nullptr,
           [&] { return cuMemFree(p); });
  CUevent event = nullptr;
  cuEventCreate(&event, 0);
  Say("event recorded in another context's stream", cuEventRecord(event, there));
  Say("query of a stream of another context", cuStreamQuery(there));
  unsigned long long first = 0;
  unsigned long long second = 0;
  cuCtxGetId(other, &first);
  SayWaits("cuCtxDestroy, busy", there, [&] { return cuCtxDestroy(other); });
  CUcontext again = nullptr;
  CreateContext(&again);
  cuCtxGetId(again, &second);
  Say("context handle reused", again == other);
  Say("context id reused", first == second);
  cuCtxDestroy(again);
  cuCtxSetCurrent(nullptr);
  Say("cuMemAlloc without a context", cuMemAlloc(&p, 512));
  Say("cuMemFree NULL without a context", cuMemFree(0));
  Say("cuMemFree wild without a context", cuMemFree(12345));
  cuCtxSetCurrent(g_context);
  cuMemAlloc(&p, 512);
  cuCtxSetCurrent(nullptr);
  Say("cuMemFree without a context", cuMemFree(p));
  cuCtxSetCurrent(g_context);
  CUstream a = nullptr;
  CUstream b = nullptr;
  cuStreamCreate(&a, 0);
  cuStreamDestroy(a);
  cuStreamCreate(&b, 0);
  Say("stream handle reused", a == b);
}

void ProbeMemory() {
  size_t total = 0;
  size_t before = 0;
  size_t after = 0;
  CUdeviceptr small = 0;
  cuMemAlloc(&small, 512);
  for (const size_t bytes :
       {size_t{1} << 19, (size_t{1} << 20) - 512, size_t{1} << 20, (size_t{1} << 20) + 512,
        size_t{3} << 19, size_t{1} << 21, (size_t{1} << 21) + 1}) {
    CUdeviceptr blocks[4] = {};
    cuMemGetInfo(&before, &total);
    for (CUdeviceptr& block : blocks) cuMemAlloc(&block, bytes);
    cuMemGetInfo(&after, &total);
    CUdeviceptr base = 0;
    size_t size = 0;
    cuMemGetAddressRange(&base, &size, blocks[1] + 7);
    Say("four blocks of " + std::to_string(bytes),
        std::to_string((before - after) >> 20) + " MiB, aligned " +
            (blocks[1] % (size_t{2} << 20) == 0 ? "2 MiB"
             : blocks[1] % 512 == 0             ? "512"
                                                : "less") +
            ", range " + std::to_string(size) + (base == blocks[1] ? " own base" : " other base"));
    for (const CUdeviceptr block : blocks) cuMemFree(block);
  }
  CUdeviceptr base = 0;
  size_t size = 0;
  static char host[64];
  void* locked = nullptr;
  cuMemHostAlloc(&locked, 1000, 0);
  Say("address range of a wild pointer", cuMemGetAddressRange(&base, &size, 12345));
  Say("address range of page-locked memory",
      cuMemGetAddressRange(&base, &size, reinterpret_cast<CUdeviceptr>(locked)));
  unsigned value = 0;
  Say("memory type of a wild pointer",
      cuPointerGetAttribute(&value, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                            reinterpret_cast<CUdeviceptr>(host)));
  cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, small);
  Say("range size of 512 bytes", std::to_string(size));
  CUipcMemHandle handle;
  Say("IPC handle of a wild pointer", cuIpcGetMemHandle(&handle, 12345));
  CUdeviceptr managed = 0;
  cuMemAllocManaged(&managed, 4096, CU_MEM_ATTACH_GLOBAL);
  Say("IPC handle of managed memory", cuIpcGetMemHandle(&handle, managed));
  Say("IPC handle opened where it was made", [&] {
    cuIpcGetMemHandle(&handle, small);
    CUdeviceptr opened = 0;
    return cuIpcOpenMemHandle(&opened, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
  }());
  CUdeviceptr p = 77;
  Say("cuMemAlloc of nothing", cuMemAlloc(&p, 0));
  Say("cuMemAlloc of too much", cuMemAlloc(&p, size_t{1} << 60));
  Say("pointer left alone", p == 77);
  Say("cuMemAlloc to NULL", cuMemAlloc(nullptr, 512));
  Say("cuMemHostAlloc of nothing", cuMemHostAlloc(&locked, 0, 0));
  Say("cuMemAllocManaged of nothing", cuMemAllocManaged(&p, 0, CU_MEM_ATTACH_GLOBAL));
  Say("cuMemAllocAsync of nothing", cuMemAllocAsync(&p, 0, nullptr));
  Say("cuMemFreeAsync NULL", cuMemFreeAsync(0, nullptr));
  Say("cuMemFreeAsync wild", cuMemFreeAsync(12345, nullptr));
  size_t pitch = 0;
  Say("cuMemAllocPitch 100x3", [&] { return cuMemAllocPitch(&p, &pitch, 100, 3, 4); }());
  cuMemGetAddressRange(&base, &size, p);
  Say("pitch and size", std::to_string(pitch) + " " + std::to_string(size));
}

cudaError_t RuntimeLookup(const char* name, void** address,
                          cudaDriverEntryPointQueryResult* status) {
#if CUDART_VERSION >= 12050
  return cudaGetDriverEntryPointByVersion(name, address, 12000, cudaEnableDefault, status);
#else
  return cudaGetDriverEntryPoint(name, address, cudaEnableDefault, status);
#endif
}

void ProbeLookup() {
  const auto look = [](const char* name, int version, cuuint64_t flags = 0) {
    void* address = reinterpret_cast<void*>(1);
    int status = 99;  // no value of the enumeration: what is left untouched shows
    const CUresult result = cuGetProcAddress(
        name, &address, version, flags, reinterpret_cast<CUdriverProcAddressQueryResult*>(&status));
    Say(std::string("lookup ") + name + " " + std::to_string(version) + " " + std::to_string(flags),
        std::string(Name(result)) + " status " + std::to_string(status) +
            (address == nullptr                      ? " null"
             : address == reinterpret_cast<void*>(1) ? " untouched"
                                                     : " found"));
    return address;
  };
  look("cuNoSuchFunction", 12000);
  look("cuMemAllocAsync", 10000);
  look("cuMemAllocAsync", 11020, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
  look("cuMemAlloc", 99000);
  look("cuMemAlloc", 12000, 7);
  look("cuMemAlloc_v2", 12000);
  look("cuStreamQuery_ptsz", 12000);
  look("", 12000);
  Say("cuMemAlloc 2000 is another function", look("cuMemAlloc", 2000) != look("cuMemAlloc", 3020));
  Say("reset 7000 is another function",
      look("cuDevicePrimaryCtxReset", 7000) != look("cuDevicePrimaryCtxReset", 11000));
  Say("cuMemAlloc 3020 is the symbol cuMemAlloc_v2",
      look("cuMemAlloc", 3020) == dlsym(RTLD_DEFAULT, "cuMemAlloc_v2"));
  Say("per-thread name is the symbol _ptsz",
      look("cuStreamQuery", 12000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) ==
          dlsym(RTLD_DEFAULT, "cuStreamQuery_ptsz"));
  using First = CUresult (*)(const char*, void**, int, cuuint64_t);
  const auto first = reinterpret_cast<First>(dlsym(RTLD_DEFAULT, "cuGetProcAddress"));
  void* address = reinterpret_cast<void*>(1);
  Say("v1 lookup of nothing", first("cuNoSuchFunction", &address, 12000, 0));
  Say("v1 nulls the pointer", address == nullptr);
  cudaDriverEntryPointQueryResult status{};
  Say("runtime lookup of nothing", RuntimeLookup("cuNoSuchFunction", &address, &status));
  Say("runtime lookup of nothing, status", std::to_string(status));
  Say("runtime lookup of nothing, no status", RuntimeLookup("cuNoSuchFunction", &address, nullptr));
}

void ProbeRuntime() {
  void* p = nullptr;
  CUstream stream = nullptr;
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  cudaGetLastError();
  Busy(stream);
  Say("cudaStreamQuery busy", cudaStreamQuery(stream));
  Say("last error after not ready", cudaGetLastError());
  cudaDeviceSynchronize();
  Say("cudaMalloc of too much", cudaMalloc(&p, size_t{1} << 60));
  Say("peek", cudaPeekAtLastError());
  Say("a success keeps it", [&] {
    cudaMalloc(&p, 512);
    return cudaPeekAtLastError();
  }());
  Say("get", cudaGetLastError());
  Say("get again", cudaGetLastError());
  Say("cudaFree", cudaFree(p));
  Say("cudaFree twice", cudaFree(p));
  Say("its last error", cudaGetLastError());
  Say("cudaMalloc of nothing", cudaMalloc(&p, 0));
  Say("cudaMallocHost of nothing", cudaMallocHost(&p, 0));
  Say("cudaMallocManaged of nothing", cudaMallocManaged(&p, 0, cudaMemAttachGlobal));
  Say("cudaMallocAsync of nothing", cudaMallocAsync(&p, 0, nullptr));
  Say("cudaFreeAsync NULL", cudaFreeAsync(nullptr, nullptr));
  Say("cudaFreeHost NULL", cudaFreeHost(nullptr));
  size_t pitch = 0;
  Say("cudaMallocPitch of nothing", cudaMallocPitch(&p, &pitch, 0, 3));
  Say("cudaHostAlloc to NULL", cudaHostAlloc(nullptr, 512, 0));
  cudaMallocHost(&p, 512);
  Say("cudaFree of page-locked memory", cudaFree(p));
  Say("cudaFreeHost of it", cudaFreeHost(p));
  Say("cudaSetDevice 99", cudaSetDevice(99));
  static char host[64];
  cudaPointerAttributes attributes{};
  Say("attributes of a wild pointer", cudaPointerGetAttributes(&attributes, host));
  Say("its type, device", std::to_string(attributes.type) + " " +
                              std::to_string(attributes.device) +
                              (attributes.hostPointer == host ? " host pointer" : "") +
                              (attributes.devicePointer == nullptr ? " no device pointer" : ""));
  cudaGetLastError();

  cudaMalloc(&p, 512);
  CUcontext current = nullptr;
  unsigned long long first = 0;
  unsigned long long second = 0;
  cuCtxGetId(g_context, &first);
  Busy(stream);
  Say("cudaDeviceReset, busy", cudaDeviceReset());
  Say("waited", g_done.load());
  cuCtxGetCurrent(&current);
  Say("current context after the reset", std::string(current == g_context ? "the same"
                                                     : current == nullptr ? "none"
                                                                          : "another"));
  unsigned flags = 0;
  int active = 0;
  cuDevicePrimaryCtxGetState(0, &flags, &active);
  Say("primary context active", active != 0);
  CUdeviceptr pointer = 0;
  Say("cuMemAlloc after the reset", cuMemAlloc(&pointer, 512));
  Say("cuCtxGetId after the reset", cuCtxGetId(g_context, &second));
  Say("cudaFree of a block from before", cudaFree(p));
  cudaGetLastError();
  Say("cudaMalloc after the reset", cudaMalloc(&p, 512));
  cuCtxGetCurrent(&current);
  Say("same handle", current == g_context);
  cuCtxGetId(current, &second);
  Say("same id", first == second);
}

void ProbeTrap() {
  void* p = nullptr;
  void* locked = nullptr;
  cudaMalloc(&p, 512);
  cudaMallocHost(&locked, 512);
  CUevent event = nullptr;
  cuEventCreate(&event, 0);
  cuEventRecord(event, nullptr);
  CUstream stream = nullptr;
  cuStreamCreate(&stream, 0);
  cudaGetLastError();
  Trap();
  Say("trap: cudaFree", cudaFree(p));
  Say("trap: last error", cudaGetLastError());
  Say("trap: last error again", cudaGetLastError());
  Say("trap: cudaFree NULL", cudaFree(nullptr));
  Say("trap: cudaFree wild", cudaFree(reinterpret_cast<void*>(12345)));
  Say("trap: cudaMalloc", cudaMalloc(&p, 512));
  Say("trap: cudaMalloc of nothing", cudaMalloc(&p, 0));
  Say("trap: cudaFreeHost", cudaFreeHost(locked));
  Say("trap: cuEventQuery of an event before it", cuEventQuery(event));
  Say("trap: cuEventDestroy", cuEventDestroy(event));
  Say("trap: cuStreamDestroy", cuStreamDestroy(stream));
  size_t a = 0;
  size_t b = 0;
  Say("trap: cuMemGetInfo", cuMemGetInfo(&a, &b));
  unsigned long long id = 0;
  Say("trap: cuCtxGetId", cuCtxGetId(nullptr, &id));
  CUdevice device = 0;
  Say("trap: cuCtxGetDevice", cuCtxGetDevice(&device));
  Say("trap: cudaDeviceReset", cudaDeviceReset());
  Say("trap: cudaMalloc after the reset", cudaMalloc(&p, 512));
}

void ProbeHostFunction() {
  struct Asked {
    CUstream stream;
    CUstream idle;
    CUevent event;
  } asked{};
  cuStreamCreate(&asked.stream, CU_STREAM_NON_BLOCKING);
  cuStreamCreate(&asked.idle, CU_STREAM_NON_BLOCKING);
  cuEventCreate(&asked.event, 0);
  cuEventRecord(asked.event, asked.idle);
  cuCtxSynchronize();
  alarm(20);
  cuLaunchHostFunc(
      asked.stream,
      [](void* data) {
        CUdeviceptr p = 0;
        size_t a = 0;
        size_t b = 0;
        CUcontext context = nullptr;
        Say("in a host function cuStreamQuery", cuStreamQuery(static_cast<Asked*>(data)->stream));
        Say("in a host function cuEventQuery", cuEventQuery(static_cast<Asked*>(data)->event));
        CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
        Say("in a host function cuThreadExchangeStreamCaptureMode",
            cuThreadExchangeStreamCaptureMode(&mode));
        cuThreadExchangeStreamCaptureMode(&mode);
        Say("in a host function cuMemFree NULL", cuMemFree(0));
        Say("in a host function cuStreamSynchronize",
            cuStreamSynchronize(static_cast<Asked*>(data)->idle));
        Say("in a host function cuStreamIsCapturing", [&] {
          CUstreamCaptureStatus status{};
          return cuStreamIsCapturing(static_cast<Asked*>(data)->idle, &status);
        }());
        Say("in a host function cuCtxGetCurrent", cuCtxGetCurrent(&context));
        Say("in a host function cuMemGetInfo", cuMemGetInfo(&a, &b));
        Say("in a host function cuMemAlloc", cuMemAlloc(&p, 512));
        Say("in a host function cudaMalloc", cudaMalloc(reinterpret_cast<void**>(&p), 512));
      },
      &asked);
  cuStreamSynchronize(asked.stream);
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

int main(int count, char** arguments) {
  g_submit = reinterpret_cast<decltype(&simSubmit)>(dlsym(RTLD_DEFAULT, "simSubmit"));
  g_simulated = g_submit != nullptr;
  const std::string part = count > 1 ? arguments[1] : "";
  if (part == "crashes") {
    ProbeCrashes(arguments[0]);
    return 0;
  }
  cudaFree(nullptr);
  cuCtxGetCurrent(&g_context);
  // In processes of their own: nobody knows what a real driver does with the rest.
  if (part == "host-function") {
    ProbeHostFunction();
    return 0;
  }
  if (part == "crash" && count > 2) {
    ProbeCrash(arguments[2]);
    return 0;
  }
  if (part == "pointers") {
    ProbePointers();
    return 0;
  }
  if (part == "rules") {
    ProbeRules();
    return 0;
  }
  ProbeMemory();
  ProbeLookup();
  ProbeWaiting();
  ProbeContexts();
  ProbeCaptureEnds();
  ProbeCaptureCalls();
  ProbeRuntime();
  ProbeTrap();
  return 0;
}
