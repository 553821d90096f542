// The interposed entry points of the driver that begin and end captures, and that destroy streams,
// and with them their captures.
#include "shim/state/captures.h"

#include "shim/lookup/entry_points.h"
#include "shim/service/service.h"
#include "shim/work/work_of_stream.h"

namespace cmp {

namespace {

template <typename Begin>
CUresult BeginCapture(CUstream stream, Begin begin) {
  const Uncancelled uncancelled;
  BeforeCapture();
  const CUresult status = begin();
  const Driver* driver = LoadedDriver();
  const bool exiting = g_exiting.load(std::memory_order_acquire);
  CUcontext context = nullptr;
  if (driver != nullptr && !exiting &&
      (IsDefaultStream(stream) || driver->stream_context(stream, &context) != CUDA_SUCCESS)) {
    context = static_cast<CUcontext>(CurrentContext(*driver));
  }
  g_captures.AfterBegin(stream, context, status == CUDA_SUCCESS);
  return status;
}

// An end of a capture, in whichever way it ended: the stream is asked.
CUresult AfterEndCapture(CUresult status, CUstream stream) {
  const Driver* driver = LoadedDriver();
  CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
  if (driver != nullptr && !g_exiting.load(std::memory_order_acquire) &&
      driver->stream_is_capturing(stream, &capture) == CUDA_SUCCESS &&
      capture != CU_STREAM_CAPTURE_STATUS_NONE) {
    return status;
  }
  g_captures.Ended(stream);
  return status;
}

// Destroying a stream ends its capture (measured, every mode). Its handle may mean another stream
// as soon as the real call has begun. The driver finds out about a crash, and succeeds (measured).
template <typename Destroy>
CUresult DestroyStream(CUstream stream, Destroy destroy) {
  StreamEnds(stream);
  const Captures::Ending ending(g_captures);
  const CUresult status = destroy();
  if (status == CUDA_SUCCESS && g_captures.UnderWay()) g_captures.Ended(stream);
  if (status == CUDA_SUCCESS) LookForCrash();
  return status;
}

// The handle 0 in the per-thread variants means the thread's own default stream.
CUstream OwnStream(CUstream stream) { return stream == nullptr ? CU_STREAM_PER_THREAD : stream; }

}  // namespace

}  // namespace cmp

CUresult Driver_cuStreamBeginCapture(CUstream stream) {
  CMP_REAL(cuStreamBeginCapture);
  return cmp::BeginCapture(stream, [&] { return real->cuStreamBeginCapture(stream); });
}

CUresult Driver_cuStreamBeginCapture_ptsz(CUstream stream) {
  CMP_REAL(cuStreamBeginCapture_ptsz);
  return cmp::BeginCapture(cmp::OwnStream(stream),
                           [&] { return real->cuStreamBeginCapture_ptsz(stream); });
}

CUresult Driver_cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  CMP_REAL(cuStreamBeginCapture_v2);
  return cmp::BeginCapture(stream, [&] { return real->cuStreamBeginCapture_v2(stream, mode); });
}

CUresult Driver_cuStreamBeginCapture_v2_ptsz(CUstream stream, CUstreamCaptureMode mode) {
  CMP_REAL(cuStreamBeginCapture_v2_ptsz);
  return cmp::BeginCapture(cmp::OwnStream(stream),
                           [&] { return real->cuStreamBeginCapture_v2_ptsz(stream, mode); });
}

CUresult Driver_cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph,
                                            const CUgraphNode* dependencies, const void* edges,
                                            size_t count, CUstreamCaptureMode mode) {
  CMP_REAL(cuStreamBeginCaptureToGraph);
  return cmp::BeginCapture(stream, [&] {
    return real->cuStreamBeginCaptureToGraph(stream, graph, dependencies, edges, count, mode);
  });
}

CUresult Driver_cuStreamBeginCaptureToGraph_ptsz(CUstream stream, CUgraph graph,
                                                 const CUgraphNode* dependencies, const void* edges,
                                                 size_t count, CUstreamCaptureMode mode) {
  CMP_REAL(cuStreamBeginCaptureToGraph_ptsz);
  return cmp::BeginCapture(cmp::OwnStream(stream), [&] {
    return real->cuStreamBeginCaptureToGraph_ptsz(stream, graph, dependencies, edges, count, mode);
  });
}

CUresult Driver_cuStreamBeginRecaptureToGraph(CUstream stream, CUstreamCaptureMode mode,
                                              CUgraph graph, void* callback, void* data) {
  CMP_REAL(cuStreamBeginRecaptureToGraph);
  return cmp::BeginCapture(stream, [&] {
    return real->cuStreamBeginRecaptureToGraph(stream, mode, graph, callback, data);
  });
}

CUresult Driver_cuStreamBeginRecaptureToGraph_ptsz(CUstream stream, CUstreamCaptureMode mode,
                                                   CUgraph graph, void* callback, void* data) {
  CMP_REAL(cuStreamBeginRecaptureToGraph_ptsz);
  return cmp::BeginCapture(cmp::OwnStream(stream), [&] {
    return real->cuStreamBeginRecaptureToGraph_ptsz(stream, mode, graph, callback, data);
  });
}

CUresult Driver_cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  CMP_REAL(cuStreamEndCapture);
  return cmp::AfterEndCapture(real->cuStreamEndCapture(stream, graph), stream);
}

CUresult Driver_cuStreamEndCapture_ptsz(CUstream stream, CUgraph* graph) {
  CMP_REAL(cuStreamEndCapture_ptsz);
  return cmp::AfterEndCapture(real->cuStreamEndCapture_ptsz(stream, graph), cmp::OwnStream(stream));
}

CUresult Driver_cuStreamDestroy(CUstream stream) {
  CMP_REAL(cuStreamDestroy);
  return cmp::DestroyStream(stream, [&] { return real->cuStreamDestroy(stream); });
}

CUresult Driver_cuStreamDestroy_v2(CUstream stream) {
  CMP_REAL(cuStreamDestroy_v2);
  return cmp::DestroyStream(stream, [&] { return real->cuStreamDestroy_v2(stream); });
}
