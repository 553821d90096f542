// The interposed entry points of the driver that end contexts, and that begin and end captures.
#include "shim/captures.h"
#include "shim/entry_driver.h"
#include "shim/service.h"

namespace cmp {

namespace {

constexpr CUresult kNoDriver = CUDA_ERROR_NOT_INITIALIZED;

// ---- Contexts

template <typename Condition>
void DropContexts(Condition condition) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr) return;
  pool->ForEachContext([&](ContextPool& context) {
    if (!condition(context.identity())) return;
    pool->DropContext(context);
    g_captures.EndedIn(context.identity().handle);
  });
}

// Around a real call that ends contexts. Before: no block of a dying context is handed out. After:
// nor one that another thread allocated in between.
template <typename Condition, typename Call>
CUresult EndContexts(Condition condition, Call call) {
  DropContexts(condition);
  const CUresult status = call();
  DropContexts(condition);
  return status;
}

auto PrimaryOf(CUdevice device) {
  return [device](const ContextIdentity& identity) {
    return identity.primary && identity.device == device;
  };
}

auto Is(CUcontext context) {
  return [context](const ContextIdentity& identity) { return identity.handle == context; };
}

// From now on every call is real. Threads may remember caches: closing the contexts makes them
// forget; frees of blocks in use are then real ones.
void StepAsideForGreenContexts() {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (g_green_contexts.exchange(true, std::memory_order_acq_rel) || pool == nullptr) return;
  pool->ForEachContext([&](ContextPool& context) { pool->CloseContext(context); });
}

// One reference of a primary context was given up: it may have been the last.
CUresult AfterPrimaryRelease(CUresult status, CUdevice device) {
  const Driver* driver = LoadedDriver();
  unsigned flags = 0;
  int active = 1;
  if (status == CUDA_SUCCESS && driver != nullptr &&
      driver->primary_state(device, &flags, &active) == CUDA_SUCCESS && active == 0) {
    DropContexts(PrimaryOf(device));
  }
  return status;
}

// ---- Captures

template <typename Begin>
CUresult BeginCapture(CUstream stream, Begin begin) {
  g_captures.BeforeBegin();
  const CUresult status = begin();
  const Driver* driver = LoadedDriver();
  const ContextHandle context = driver == nullptr ? nullptr : CurrentContext(*driver);
  g_captures.AfterBegin(stream, context, status == CUDA_SUCCESS);
  return status;
}

// An end of a capture, in whichever way it ended: the stream is asked.
CUresult AfterEndCapture(CUresult status, CUstream stream) {
  const Driver* driver = LoadedDriver();
  CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
  if (driver != nullptr && driver->stream_is_capturing(stream, &capture) == CUDA_SUCCESS &&
      capture != CU_STREAM_CAPTURE_STATUS_NONE) {
    return status;
  }
  g_captures.Ended(stream);
  return status;
}

// Destroying a stream ends its capture (measured, every mode).
CUresult AfterDestroy(CUresult status, CUstream stream) {
  if (status == CUDA_SUCCESS && g_captures.UnderWay()) g_captures.Ended(stream);
  return status;
}

// The handle 0 in the per-thread variants means the thread's own default stream.
CUstream PerThread(CUstream stream) { return stream == nullptr ? CU_STREAM_PER_THREAD : stream; }

}  // namespace

}  // namespace cmp

using cmp::kNoDriver;

#define CMP_REAL(name)                              \
  const cmp::DriverCalls* real = cmp::RealDriver(); \
  if (real == nullptr || real->name == nullptr) return kNoDriver

CUresult Driver_cuCtxFromGreenCtx(CUcontext* context, void* green) {
  CMP_REAL(cuCtxFromGreenCtx);
  cmp::StepAsideForGreenContexts();
  return real->cuCtxFromGreenCtx(context, green);
}

CUresult Driver_cuCtxDestroy(CUcontext context) {
  CMP_REAL(cuCtxDestroy);
  return cmp::EndContexts(cmp::Is(context), [&] { return real->cuCtxDestroy(context); });
}

CUresult Driver_cuCtxDestroy_v2(CUcontext context) {
  CMP_REAL(cuCtxDestroy_v2);
  return cmp::EndContexts(cmp::Is(context), [&] { return real->cuCtxDestroy_v2(context); });
}

CUresult Driver_cuDevicePrimaryCtxRelease(CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxRelease);
  return cmp::AfterPrimaryRelease(real->cuDevicePrimaryCtxRelease(device), device);
}

CUresult Driver_cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxRelease_v2);
  return cmp::AfterPrimaryRelease(real->cuDevicePrimaryCtxRelease_v2(device), device);
}

CUresult Driver_cuDevicePrimaryCtxReset(CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxReset);
  return cmp::EndContexts(cmp::PrimaryOf(device),
                          [&] { return real->cuDevicePrimaryCtxReset(device); });
}

CUresult Driver_cuDevicePrimaryCtxReset_v2(CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxReset_v2);
  return cmp::EndContexts(cmp::PrimaryOf(device),
                          [&] { return real->cuDevicePrimaryCtxReset_v2(device); });
}

CUresult Driver_cuStreamBeginCapture(CUstream stream) {
  CMP_REAL(cuStreamBeginCapture);
  return cmp::BeginCapture(stream, [&] { return real->cuStreamBeginCapture(stream); });
}

CUresult Driver_cuStreamBeginCapture_ptsz(CUstream stream) {
  CMP_REAL(cuStreamBeginCapture_ptsz);
  return cmp::BeginCapture(cmp::PerThread(stream),
                           [&] { return real->cuStreamBeginCapture_ptsz(stream); });
}

CUresult Driver_cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  CMP_REAL(cuStreamBeginCapture_v2);
  return cmp::BeginCapture(stream, [&] { return real->cuStreamBeginCapture_v2(stream, mode); });
}

CUresult Driver_cuStreamBeginCapture_v2_ptsz(CUstream stream, CUstreamCaptureMode mode) {
  CMP_REAL(cuStreamBeginCapture_v2_ptsz);
  return cmp::BeginCapture(cmp::PerThread(stream),
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
  return cmp::BeginCapture(cmp::PerThread(stream), [&] {
    return real->cuStreamBeginCaptureToGraph_ptsz(stream, graph, dependencies, edges, count, mode);
  });
}

CUresult Driver_cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  CMP_REAL(cuStreamEndCapture);
  return cmp::AfterEndCapture(real->cuStreamEndCapture(stream, graph), stream);
}

CUresult Driver_cuStreamEndCapture_ptsz(CUstream stream, CUgraph* graph) {
  CMP_REAL(cuStreamEndCapture_ptsz);
  return cmp::AfterEndCapture(real->cuStreamEndCapture_ptsz(stream, graph), cmp::PerThread(stream));
}

CUresult Driver_cuStreamDestroy(CUstream stream) {
  CMP_REAL(cuStreamDestroy);
  return cmp::AfterDestroy(real->cuStreamDestroy(stream), stream);
}

CUresult Driver_cuStreamDestroy_v2(CUstream stream) {
  CMP_REAL(cuStreamDestroy_v2);
  return cmp::AfterDestroy(real->cuStreamDestroy_v2(stream), stream);
}
