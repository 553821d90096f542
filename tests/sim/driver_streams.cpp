// Driver entry points about streams, but for work (driver_launch) and capture (driver_capture).
#include "driver_entry.h"
#include "memory_pools.h"

namespace cmp::sim {
namespace {

CUresult Create(Simulation& sim, CUstream* handle, unsigned flags, int priority) {
  if (handle == nullptr || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  Context* context = nullptr;
  CUresult result = RequireContext(sim, &context);
  if (result == CUDA_SUCCESS) {
    LetFreesPass(sim, *context);
    result = RequireContext(sim, &context);
  }
  if (result == CUDA_SUCCESS) *handle = CreateStream(sim, *context, flags, priority)->handle;
  return result;
}

CUresult Destroy(Simulation& sim, CUstream handle) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, kLegacy, &stream);
  if (stream != nullptr) {
    FindOut(sim, *stream->context);  // and says so from the next call on
    RemoveStream(sim, *stream);
  }
  return result;
}

// The stream for a call that only asks; `then(stream)` answers. Its type is the entry point's own,
// as Enter needs it.
template <typename Then>
CUresult Ask(const char* name, CUstream handle, DefaultStream null_means, Then then,
             Needs needs = Needs::kInitialisation) {
  return Enter(name, needs, [&](Simulation& sim, Lock& lock) -> CUresult {
    Stream* stream = nullptr;
    const CUresult result = RequireStream(sim, handle, null_means, &stream);
    return result == CUDA_SUCCESS ? then(sim, lock, *stream) : result;
  });
}

CUresult QueryStream(Simulation& sim, Lock&, Stream& stream) {
  const CUresult capturing = CheckStreamCall(sim, stream);
  if (capturing != CUDA_SUCCESS) return capturing;
  const CUresult failed = FindOut(sim, *stream.context);
  if (failed != CUDA_SUCCESS) return failed;
  for (const ItemPtr& item : TailsToWaitFor(stream)) {
    if (item != nullptr && item->state != ItemState::kDone) return CUDA_ERROR_NOT_READY;
  }
  return CUDA_SUCCESS;
}

// Asking for some properties of a capturing stream kills the capture (measured: the flags and the
// id, whoever asks and in whichever mode; not the priority, the context or the capture's state).
template <typename Then>
CUresult AskUncaptured(const char* name, CUstream handle, DefaultStream null_means, Then then) {
  return Ask(name, handle, null_means, [&](auto&, auto&, Stream& stream) {
    if (stream.capture != nullptr) return Invalidate(*stream.capture);
    then(stream);
    return CUDA_SUCCESS;
  });
}

CUresult SynchronizeStream(Simulation& sim, Lock& lock, Stream& stream) {
  const CUresult capturing = CheckStreamCall(sim, stream);
  if (capturing != CUDA_SUCCESS) return capturing;
  return PoolsSynchronised(sim, WaitFor(sim, lock, stream.context->handle, TailsToWaitFor(stream)));
}

CUresult WaitEvent(Simulation& sim, Stream& stream, CUevent handle) {
  const Event* event = sim.events.Find(handle);
  if (event == nullptr) {
    sim.misuse.Add("an event handle that is not a live event's was used");
    return CUDA_ERROR_INVALID_HANDLE;
  }
  if (event->capture != nullptr) return JoinCapture(stream, *event);
  if (stream.capture != nullptr) {
    if (event->marker() == nullptr) return CUDA_SUCCESS;
    Invalidate(*stream.capture);
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  if (event->marker() == nullptr) return CUDA_SUCCESS;
  Work work;
  work.what = "wait for an event";
  if (event->marker()->state == ItemState::kDone) {
    return SubmitAtOnce(sim, stream, std::move(work), nullptr, event->marker());
  }
  return SubmitWork(sim, stream, std::move(work), nullptr, event->marker());
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuStreamCreate(CUstream* handle, unsigned int flags) {
  return Enter("cuStreamCreate",
               [&](Simulation& sim, Lock&) { return Create(sim, handle, flags, 0); });
}

CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned int flags, int priority) {
  return Enter("cuStreamCreateWithPriority",
               [&](Simulation& sim, Lock&) { return Create(sim, handle, flags, priority); });
}

CUresult cuStreamDestroy(CUstream handle) {
  return Enter("cuStreamDestroy", [&](Simulation& sim, Lock&) { return Destroy(sim, handle); });
}

CUresult cuStreamDestroy_v2(CUstream handle) {
  return Enter("cuStreamDestroy_v2", [&](Simulation& sim, Lock&) { return Destroy(sim, handle); });
}

CUresult cuStreamQuery(CUstream stream) {
  return Ask(
      "cuStreamQuery", stream, kLegacy,
      [](auto& sim, auto& lock, Stream& found) { return QueryStream(sim, lock, found); },
      Needs::kOnlyInitialisation);
}

CUresult cuStreamQuery_ptsz(CUstream stream) {
  return Ask(
      "cuStreamQuery_ptsz", stream, kPerThread,
      [](auto& sim, auto& lock, Stream& found) { return QueryStream(sim, lock, found); },
      Needs::kOnlyInitialisation);
}

CUresult cuStreamSynchronize(CUstream stream) {
  return Ask(
      "cuStreamSynchronize", stream, kLegacy,
      [](auto& sim, auto& lock, Stream& found) { return SynchronizeStream(sim, lock, found); },
      Needs::kOnlyInitialisation);
}

CUresult cuStreamSynchronize_ptsz(CUstream stream) {
  return Ask(
      "cuStreamSynchronize_ptsz", stream, kPerThread,
      [](auto& sim, auto& lock, Stream& found) { return SynchronizeStream(sim, lock, found); },
      Needs::kOnlyInitialisation);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int) {
  return Ask("cuStreamWaitEvent", stream, kLegacy,
             [=](auto& sim, auto&, Stream& found) { return WaitEvent(sim, found, event); });
}

CUresult cuStreamWaitEvent_ptsz(CUstream stream, CUevent event, unsigned int) {
  return Ask("cuStreamWaitEvent_ptsz", stream, kPerThread,
             [=](auto& sim, auto&, Stream& found) { return WaitEvent(sim, found, event); });
}

CUresult cuStreamGetPriority(CUstream stream, int* priority) {
  return Ask("cuStreamGetPriority", stream, kLegacy, [=](auto&, auto&, Stream& found) {
    if (priority != nullptr) *priority = found.priority;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamGetPriority_ptsz(CUstream stream, int* priority) {
  return Ask("cuStreamGetPriority_ptsz", stream, kPerThread, [=](auto&, auto&, Stream& found) {
    if (priority != nullptr) *priority = found.priority;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamGetFlags(CUstream stream, unsigned int* flags) {
  return AskUncaptured("cuStreamGetFlags", stream, kLegacy, [=](const Stream& found) {
    if (flags != nullptr) *flags = found.flags;
  });
}

CUresult cuStreamGetFlags_ptsz(CUstream stream, unsigned int* flags) {
  return AskUncaptured("cuStreamGetFlags_ptsz", stream, kPerThread, [=](const Stream& found) {
    if (flags != nullptr) *flags = found.flags;
  });
}

CUresult cuStreamGetId(CUstream stream, unsigned long long* id) {
  return AskUncaptured("cuStreamGetId", stream, kLegacy, [=](const Stream& found) {
    if (id != nullptr) *id = found.id;
  });
}

CUresult cuStreamGetId_ptsz(CUstream stream, unsigned long long* id) {
  return AskUncaptured("cuStreamGetId_ptsz", stream, kPerThread, [=](const Stream& found) {
    if (id != nullptr) *id = found.id;
  });
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext* context) {
  return Ask("cuStreamGetCtx", stream, kLegacy, [=](auto&, auto&, Stream& found) {
    if (context != nullptr) *context = found.context->handle;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamGetCtx_ptsz(CUstream stream, CUcontext* context) {
  return Ask("cuStreamGetCtx_ptsz", stream, kPerThread, [=](auto&, auto&, Stream& found) {
    if (context != nullptr) *context = found.context->handle;
    return CUDA_SUCCESS;
  });
}

}  // extern "C"
