// The probe's questions about stream capture: each call in each mode from each thread, and the
// ends.
#include <initializer_list>

#include "create_context.h"
#include "probe.h"

namespace cmp::sim {

void ProbeCaptureCalls() {
  CUstream other = nullptr;
  CUstream other_blocking = nullptr;
  cuStreamCreate(&other, CU_STREAM_NON_BLOCKING);
  cuStreamCreate(&other_blocking, 0);
  CUevent event = nullptr;
  cuEventCreate(&event, 0);
  cuEventRecord(event, other);
  cuCtxSynchronize();
  CUdeviceptr block = 0;
  cuMemAlloc(&block, 4096);
  void* locked = nullptr;
  cuMemHostAlloc(&locked, 4096, 0);
  static char pageable[4096];
  struct Call {
    const char* name;
    std::function<CUresult()> call;
  };
  CUstream capturing = nullptr;
  std::vector<Call> calls = {
      {"cuMemAlloc",
       [&] {
         CUdeviceptr p = 0;
         const CUresult r = cuMemAlloc(&p, 512);
         return r;
       }},
      {"cuMemAlloc of nothing",
       [&] {
         CUdeviceptr p = 0;
         return cuMemAlloc(&p, 0);
       }},
      {"cuMemFree NULL", [&] { return cuMemFree(0); }},
      {"cuMemFree wild", [&] { return cuMemFree(block + 1); }},
      {"cuMemHostAlloc",
       [&] {
         void* p = nullptr;
         return cuMemHostAlloc(&p, 512, 0);
       }},
      {"cuMemAllocManaged",
       [&] {
         CUdeviceptr p = 0;
         return cuMemAllocManaged(&p, 512, CU_MEM_ATTACH_GLOBAL);
       }},
      {"cuMemHostRegister",
       [&] {
         const CUresult r = cuMemHostRegister(pageable, sizeof pageable, 0);
         return r;
       }},
      {"cuStreamCreate",
       [&] {
         CUstream s = nullptr;
         return cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
       }},
      {"cuEventCreate",
       [&] {
         CUevent e = nullptr;
         return cuEventCreate(&e, 0);
       }},
      {"cuEventQuery", [&] { return cuEventQuery(event); }},
      {"cuEventSynchronize", [&] { return cuEventSynchronize(event); }},
      {"cuEventRecord other", [&] { return cuEventRecord(event, other); }},
      {"cuStreamQuery other", [&] { return cuStreamQuery(other); }},
      {"cuStreamSynchronize other", [&] { return cuStreamSynchronize(other); }},
      {"cuStreamQuery itself", [&] { return cuStreamQuery(capturing); }},
      {"cuStreamSynchronize itself", [&] { return cuStreamSynchronize(capturing); }},
      {"cuStreamQuery legacy", [&] { return cuStreamQuery(nullptr); }},
      {"cuStreamSynchronize legacy", [&] { return cuStreamSynchronize(nullptr); }},
      {"cuStreamIsCapturing legacy",
       [&] {
         CUstreamCaptureStatus status{};
         return cuStreamIsCapturing(nullptr, &status);
       }},
      {"cuMemsetD8 legacy", [&] { return cuMemsetD8(block, 0, 16); }},
      {"cuMemcpyDtoH legacy", [&] { return cuMemcpyDtoH(pageable, block, 16); }},
      {"cuMemcpyHtoDAsync other pageable",
       [&] { return cuMemcpyHtoDAsync(block, pageable, 16, other); }},
      {"cuMemsetD8Async blocking other",
       [&] { return cuMemsetD8Async(block, 0, 16, other_blocking); }},
      {"cuMemcpyHtoDAsync itself pageable",
       [&] { return cuMemcpyHtoDAsync(block, pageable, 16, capturing); }},
      {"cuMemcpyDtoHAsync itself pageable",
       [&] { return cuMemcpyDtoHAsync(pageable, block, 16, capturing); }},
      {"cuMemcpyHtoDAsync itself locked",
       [&] { return cuMemcpyHtoDAsync(block, locked, 16, capturing); }},
      {"cuMemAllocAsync other",
       [&] {
         CUdeviceptr p = 0;
         return cuMemAllocAsync(&p, 512, other);
       }},
      {"cuMemAllocAsync of nothing other",
       [&] {
         CUdeviceptr p = 0;
         return cuMemAllocAsync(&p, 0, other);
       }},
      {"cuMemFreeAsync other",
       [&] {
         CUdeviceptr p = 0;
         CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
         cuThreadExchangeStreamCaptureMode(&mode);
         cuMemAlloc(&p, 512);
         cuThreadExchangeStreamCaptureMode(&mode);
         return cuMemFreeAsync(p, other);
       }},
      {"cuMemFreeAsync wild other", [&] { return cuMemFreeAsync(12345, other); }},
      {"cuMemFreeHost wild", [&] { return cuMemFreeHost(pageable); }},
      {"cuMemHostUnregister wild", [&] { return cuMemHostUnregister(pageable + 8); }},
      {"cuEventElapsedTime",
       [&] {
         float ms = 0;
         return cuEventElapsedTime(&ms, event, event);
       }},
      {"cuStreamAddCallback itself",
       [&] {
         return cuStreamAddCallback(
             capturing, [](CUstream, CUresult, void*) {}, nullptr, 0);
       }},
      {"cuLaunchHostFunc itself",
       [&] {
         return cuLaunchHostFunc(
             capturing, [](void*) {}, nullptr);
       }},
      {"cuStreamDestroy other",
       [&] {
         CUstream s = nullptr;
         cuStreamCreate(&s, CU_STREAM_NON_BLOCKING);
         return cuStreamDestroy(s);
       }},
      {"cuEventDestroy",
       [&] {
         CUevent e = nullptr;
         cuEventCreate(&e, 0);
         return cuEventDestroy(e);
       }},
      {"cuDevicePrimaryCtxRetain",
       [&] {
         CUcontext c = nullptr;
         const CUresult r = cuDevicePrimaryCtxRetain(&c, 0);
         cuDevicePrimaryCtxRelease(0);
         return r;
       }},
      {"cuCtxSynchronize", [&] { return cuCtxSynchronize(); }},
      {"cuCtxRecordEvent", [&] { return cuCtxRecordEvent(g_context, event); }},
      {"cuCtxWaitEvent", [&] { return cuCtxWaitEvent(g_context, event); }},
      {"cuStreamWaitEvent outside event", [&] { return cuStreamWaitEvent(capturing, event, 0); }},
      {"cuMemGetInfo",
       [&] {
         size_t a = 0;
         size_t b = 0;
         return cuMemGetInfo(&a, &b);
       }},
      {"cuIpcGetMemHandle",
       [&] {
         CUipcMemHandle handle;
         return cuIpcGetMemHandle(&handle, block);
       }},
      {"cuCtxCreate",
       [&] {
         CUcontext c = nullptr;
         const CUresult r = CreateContext(&c);
         if (r == CUDA_SUCCESS) cuCtxDestroy(c);
         return r;
       }},
  };
  for (const unsigned flags : {CU_STREAM_NON_BLOCKING, CU_STREAM_DEFAULT}) {
    for (int mode = 0; mode < 3; ++mode) {
      for (const bool same : {true, false}) {
        for (const Call& call : calls) {
          if (flags == CU_STREAM_DEFAULT && std::strstr(call.name, "legacy") == nullptr) continue;
          cuStreamCreate(&capturing, flags);
          cuStreamBeginCapture(capturing, static_cast<CUstreamCaptureMode>(mode));
          const CUresult result = same ? call.call() : OnOtherThread(call.call);
          const std::string status = StatusOf(capturing);
          CUgraph graph = nullptr;
          const CUresult end = cuStreamEndCapture(capturing, &graph);
          Say(std::string("capture ") + (flags == 0 ? "blocking " : "") +
                  (mode == 0   ? "global "
                   : mode == 1 ? "thread-local "
                               : "relaxed ") +
                  (same ? "own " : "other ") + call.name,
              std::string(Name(result)) + " -> " + status + " -> " + Name(end));
          if (graph != nullptr) cuGraphDestroy(graph);
          cuStreamDestroy(capturing);
          cuMemHostUnregister(pageable);
          cuCtxSynchronize();
          cuEventRecord(event, other);
          cuCtxSynchronize();
        }
      }
    }
  }
}

void ProbeCaptureEnds() {
  CUstream stream = nullptr;
  CUgraph graph = nullptr;
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  Say("end without begin", cuStreamEndCapture(stream, &graph));
  for (int mode = 0; mode < 3; ++mode) {
    cuStreamBeginCapture(stream, static_cast<CUstreamCaptureMode>(mode));
    const CUresult other = OnOtherThread([&] { return cuStreamEndCapture(stream, &graph); });
    const std::string status = StatusOf(stream);
    Say("end on another thread, mode " + std::to_string(mode),
        std::string(Name(other)) + " -> " + status + " -> " +
            Name(cuStreamEndCapture(stream, &graph)));
  }
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
  const CUresult twice = cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
  Say("begin twice", std::string(Name(twice)) + " -> " + StatusOf(stream));
  cuStreamEndCapture(stream, &graph);
  Say("begin on legacy", cuStreamBeginCapture(nullptr, CU_STREAM_CAPTURE_MODE_RELAXED));
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  cuStreamSynchronize(stream);
  const std::string status = StatusOf(stream);
  SayThenStatus("end with no graph pointer, " + status, stream,
                [&] { return cuStreamEndCapture(stream, nullptr); });
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  SayThenStatus("end with no graph pointer", stream,
                [&] { return cuStreamEndCapture(stream, nullptr); });
  cuStreamEndCapture(stream, &graph);

  CUstream fork = nullptr;
  CUevent event = nullptr;
  cuStreamCreate(&fork, CU_STREAM_NON_BLOCKING);
  cuEventCreate(&event, 0);
  CUdeviceptr block = 0;
  cuMemAlloc(&block, 4096);
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  cuEventRecord(event, stream);
  SayThenStatus("captured event query", stream, [&] { return cuEventQuery(event); });
  cuStreamEndCapture(stream, &graph);
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
  cuEventRecord(event, stream);
  SayThenStatus("captured event query, relaxed", stream, [&] { return cuEventQuery(event); });
  cuStreamEndCapture(stream, &graph);
  Say("captured event query afterwards", cuEventQuery(event));
  Say("captured event waited for afterwards", cuStreamWaitEvent(stream, event, 0));
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  cuEventRecord(event, stream);
  cuStreamWaitEvent(fork, event, 0);
  Say("fork", StatusOf(fork));
  cuMemsetD8Async(block, 1, 16, fork);
  SayThenStatus("end on the fork", stream, [&] { return cuStreamEndCapture(fork, &graph); });
  SayThenStatus("end unjoined", fork, [&] { return cuStreamEndCapture(stream, &graph); });
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  cuEventRecord(event, stream);
  cuStreamWaitEvent(fork, event, 0);
  Say("end with an empty fork", cuStreamEndCapture(stream, &graph));
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  cuEventRecord(event, stream);
  cuStreamWaitEvent(fork, event, 0);
  cuMemsetD8Async(block, 1, 16, fork);
  cuStreamDestroy(fork);
  Say("fork destroyed", StatusOf(stream));
  Say("end after that", cuStreamEndCapture(stream, &graph));
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  Say("destroy a capturing stream", cuStreamDestroy(stream));
  CUdeviceptr pointer = 0;
  Say("cuMemAlloc after that", cuMemAlloc(&pointer, 512));
  cuMemFree(block);
}

}  // namespace cmp::sim
