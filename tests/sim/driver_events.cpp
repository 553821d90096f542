// Driver entry points about events, those of streams and those of whole contexts.
#include <unistd.h>

#include <cstring>

#include "driver_entry.h"
#include "events.h"
#include "memory_pools.h"

namespace cmp::sim {
namespace {

CUresult RequireEvent(Simulation& sim, CUevent handle, Event** event) {
  *event = sim.events.Find(handle);
  if (*event != nullptr) return CUDA_SUCCESS;
  sim.misuse.Add("an event handle that is not a live event's was used");
  return CUDA_ERROR_INVALID_HANDLE;
}

CUresult CreateEvent(Simulation& sim, CUevent* handle, unsigned flags) {
  constexpr unsigned kShareable = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
  if (handle == nullptr || (flags & kShareable) == CU_EVENT_INTERPROCESS) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Context* context = nullptr;
  const CUresult result = RequireContext(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  *handle = sim.events.Add(std::make_unique<Event>());
  Event* event = sim.events.Find(*handle);
  event->handle = *handle;
  event->context = context;
  event->flags = flags;
  event->id = ++sim.last_id;
  return CUDA_SUCCESS;
}

// What an IPC handle holds. It is good in this process alone.
struct SharedEvent {
  char magic[8];
  int pid;
  uint64_t id;
};
constexpr char kEventMagic[8] = {'c', 'm', 'p', 's', 'i', 'm', 'e', 0};

CUresult Share(Simulation& sim, CUipcEventHandle* shared, CUevent handle) {
  if (shared == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Event* event = nullptr;
  const CUresult unknown = RequireEvent(sim, handle, &event);
  if (unknown != CUDA_SUCCESS) return unknown;
  if ((event->flags & CU_EVENT_INTERPROCESS) == 0) return CUDA_ERROR_INVALID_HANDLE;
  SharedEvent description{};
  std::memcpy(description.magic, kEventMagic, sizeof kEventMagic);
  description.pid = getpid();
  description.id = event->id;
  std::memset(shared, 0, sizeof *shared);
  std::memcpy(shared, &description, sizeof description);
  return CUDA_SUCCESS;
}

CUresult Open(Simulation& sim, CUevent* handle, const CUipcEventHandle& shared) {
  SharedEvent description;
  std::memcpy(&description, &shared, sizeof description);
  if (std::memcmp(description.magic, kEventMagic, sizeof kEventMagic) != 0)
    return CUDA_ERROR_INVALID_VALUE;
  if (description.pid != getpid()) return CUDA_ERROR_NOT_SUPPORTED;
  for (const auto& [known, event] : sim.events.all()) {
    if (event->id != description.id) continue;
    const std::shared_ptr<ItemPtr> recorded = event->recorded;
    const CUresult result = CreateEvent(sim, handle, event->flags);
    if (result == CUDA_SUCCESS) sim.events.Find(*handle)->recorded = recorded;
    return result;
  }
  return CUDA_ERROR_INVALID_VALUE;  // it was destroyed
}

// An event that may be asked now: not part of a capture, and asking is not forbidden by one.
CUresult RequireAskable(Simulation& sim, CUevent handle, Event** event) {
  const CUresult unknown = RequireEvent(sim, handle, event);
  if (unknown != CUDA_SUCCESS) return unknown;
  if (const auto& capture = (*event)->capture; capture != nullptr) {
    if (capture->streams.empty()) return CUDA_ERROR_INVALID_VALUE;  // the capture is over
    capture->invalidated = true;
    return CUDA_ERROR_CAPTURED_EVENT;
  }
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  return FindOut(sim, *(*event)->context);
}

CUresult Elapsed(Simulation& sim, float* milliseconds, CUevent start, CUevent end) {
  if (milliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Event* first = nullptr;
  Event* second = nullptr;
  CUresult result = RequireEvent(sim, start, &first);
  if (result == CUDA_SUCCESS) result = RequireEvent(sim, end, &second);
  if (result == CUDA_SUCCESS) result = first->context->sticky;
  if (result != CUDA_SUCCESS) return result;
  if (first->marker() == nullptr || second->marker() == nullptr ||
      ((first->flags | second->flags) & CU_EVENT_DISABLE_TIMING) != 0) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  if (first->marker()->state != ItemState::kDone || second->marker()->state != ItemState::kDone) {
    return CUDA_ERROR_NOT_READY;
  }
  *milliseconds = static_cast<float>(static_cast<double>(second->marker()->finished_at) -
                                     static_cast<double>(first->marker()->finished_at)) /
                  1e6F;
  return CUDA_SUCCESS;
}

CUresult DestroyEvent(Simulation& sim, CUevent handle) {
  Event* event = nullptr;
  const CUresult unknown = RequireEvent(sim, handle, &event);
  if (unknown != CUDA_SUCCESS) return unknown;
  const CUresult result = event->context->sticky;  // destroyed all the same
  sim.events.Remove(handle);
  return result;
}

}  // namespace

CUresult RecordEvent(Simulation& sim, CUevent handle, CUstream stream_handle,
                     DefaultStream null_means, unsigned flags) {
  Event* event = nullptr;
  const CUresult unknown = RequireEvent(sim, handle, &event);
  if (unknown != CUDA_SUCCESS) return unknown;
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, stream_handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (stream->context != event->context) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture != nullptr) {
    if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    // The graph's to record; here no graph does, so the event stays as it is.
    if ((flags & CU_EVENT_RECORD_EXTERNAL) != 0) return CUDA_SUCCESS;
    event->capture = stream->capture;
    event->nodes = stream->capture_tail;
    return CUDA_SUCCESS;
  }
  Work work;
  work.what = "event record";
  ItemPtr marker;
  const CUresult submitted = SubmitWork(sim, *stream, std::move(work), &marker);
  if (submitted != CUDA_SUCCESS) return submitted;
  event->marker() = marker;
  event->capture = nullptr;
  event->nodes.clear();
  return CUDA_SUCCESS;
}

CUresult CheckLaunchEvent(Simulation& sim, CUevent handle, int flags) {
  Event* event = nullptr;
  const CUresult unknown = RequireEvent(sim, handle, &event);
  if (unknown != CUDA_SUCCESS) return unknown;
  const bool fits =
      (event->flags & (CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS)) == CU_EVENT_DISABLE_TIMING;
  if ((flags & CU_EVENT_RECORD_EXTERNAL) != 0) return CUDA_ERROR_ILLEGAL_STATE;
  return fits ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuEventCreate(CUevent* handle, unsigned int flags) {
  return Enter("cuEventCreate",
               [&](Simulation& sim, Lock&) { return CreateEvent(sim, handle, flags); });
}

CUresult cuEventDestroy(CUevent event) {
  return Enter("cuEventDestroy", [&](Simulation& sim, Lock&) { return DestroyEvent(sim, event); });
}

CUresult cuEventDestroy_v2(CUevent event) {
  return Enter("cuEventDestroy_v2",
               [&](Simulation& sim, Lock&) { return DestroyEvent(sim, event); });
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  return Enter("cuEventRecord",
               [&](Simulation& sim, Lock&) { return RecordEvent(sim, event, stream, kLegacy); });
}

CUresult cuEventRecord_ptsz(CUevent event, CUstream stream) {
  return Enter("cuEventRecord_ptsz",
               [&](Simulation& sim, Lock&) { return RecordEvent(sim, event, stream, kPerThread); });
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags) {
  return Enter("cuEventRecordWithFlags", [&](Simulation& sim, Lock&) {
    return RecordEvent(sim, event, stream, kLegacy, flags);
  });
}

CUresult cuEventRecordWithFlags_ptsz(CUevent event, CUstream stream, unsigned int flags) {
  return Enter("cuEventRecordWithFlags_ptsz", [&](Simulation& sim, Lock&) {
    return RecordEvent(sim, event, stream, kPerThread, flags);
  });
}

CUresult cuEventQuery(CUevent handle) {
  return Enter("cuEventQuery", Needs::kOnlyInitialisation, [&](Simulation& sim, Lock&) -> CUresult {
    Event* event = nullptr;
    const CUresult result = RequireAskable(sim, handle, &event);
    if (result != CUDA_SUCCESS) return result;
    const bool done = event->marker() == nullptr || event->marker()->state == ItemState::kDone;
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  });
}

CUresult cuEventSynchronize(CUevent handle) {
  return Enter("cuEventSynchronize", [&](Simulation& sim, Lock& lock) -> CUresult {
    Event* event = nullptr;
    const CUresult result = RequireAskable(sim, handle, &event);
    if (result != CUDA_SUCCESS) return result;
    return PoolsSynchronised(sim, WaitFor(sim, lock, event->context->handle, {event->marker()}));
  });
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return Enter("cuEventElapsedTime",
               [&](Simulation& sim, Lock&) { return Elapsed(sim, milliseconds, start, end); });
}

#if CUDA_VERSION >= 12080
CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return Enter("cuEventElapsedTime_v2",
               [&](Simulation& sim, Lock&) { return Elapsed(sim, milliseconds, start, end); });
}
#endif

CUresult cuIpcGetEventHandle(CUipcEventHandle* shared, CUevent event) {
  return Enter("cuIpcGetEventHandle",
               [&](Simulation& sim, Lock&) { return Share(sim, shared, event); });
}

CUresult cuIpcOpenEventHandle(CUevent* event, CUipcEventHandle shared) {
  return Enter("cuIpcOpenEventHandle",
               [&](Simulation& sim, Lock&) { return Open(sim, event, shared); });
}

// Passed when all work submitted to the context before is done, on whatever stream. It is on no
// stream itself, so nothing comes after it.
CUresult cuCtxRecordEvent(CUcontext context_handle, CUevent handle) {
  return Enter("cuCtxRecordEvent", [&](Simulation& sim, Lock&) -> CUresult {
    if (!TheSettings().context_events) return CUDA_ERROR_NOT_SUPPORTED;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, context_handle, &context);
    if (result != CUDA_SUCCESS) return result;
    const CUresult capturing = CheckContextCall(sim, *context);
    if (capturing != CUDA_SUCCESS) return capturing;
    Event* event = nullptr;
    const CUresult unknown = RequireEvent(sim, handle, &event);
    if (unknown != CUDA_SUCCESS) return unknown;
    if (event->context != context) return CUDA_ERROR_INVALID_HANDLE;
    LetFreesPass(sim, *context);
    if (sim.contexts.Find(context_handle != nullptr ? context_handle : CurrentHandle()) !=
            context ||
        sim.events.Find(handle) != event) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    std::vector<ItemPtr> needs = AllTails(sim, *context);
    needs.push_back(context->floor);
    Work work;
    work.what = "context event record";
    event->marker() = sim.scheduler.Submit(*context, std::move(work), std::move(needs));
    event->capture = nullptr;
    event->nodes.clear();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxWaitEvent(CUcontext context_handle, CUevent handle) {
  return Enter("cuCtxWaitEvent", [&](Simulation& sim, Lock&) -> CUresult {
    if (!TheSettings().context_events) return CUDA_ERROR_NOT_SUPPORTED;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, context_handle, &context);
    if (result != CUDA_SUCCESS) return result;
    const CUresult capturing = CheckContextCall(sim, *context);
    if (capturing != CUDA_SUCCESS) return capturing;
    Event* event = nullptr;
    const CUresult unknown = RequireEvent(sim, handle, &event);
    if (unknown != CUDA_SUCCESS) return unknown;
    if (event->marker() == nullptr) return CUDA_SUCCESS;
    Work work;
    work.what = "context wait";
    context->floor =
        sim.scheduler.Submit(*context, std::move(work), {context->floor, event->marker()});
    return CUDA_SUCCESS;
  });
}

}  // extern "C"
