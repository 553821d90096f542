// The interposed entry points of the driver by which the host learns that work is done: what they
// waited for is finished, and a free after them owes nothing for it. And those that would say "not
// yet" only because a free did not wait: then it is waited for, and they are asked again.
#include "core/base/rules.h"
#include "shim/lookup/entry_points.h"
#include "shim/lookup/lookup.h"
#include "shim/service/service.h"
#include "shim/shake/shake.h"
#include "shim/work/host_wait.h"
#include "shim/work/owed.h"

namespace cmp {

namespace {

// An event that is waited for, or asked about: what it stood for before and after.
class WaitForEvent {
 public:
  explicit WaitForEvent(CUevent event) : event_(event), point_(g_events.Find(event)) {}
  // The call returned; success: the event has happened.
  CUresult Done(CUresult status) const {
    if (status != CUDA_SUCCESS || point_.work == nullptr) return status;
    const RecordedPoint now = g_events.Find(event_);
    const bool same = now.work == point_.work && now.stream == point_.stream &&
                      now.submission == point_.submission;
    if (same) point_.work->Reached(point_);
    return status;
  }

 private:
  CUevent event_;
  RecordedPoint point_;
};

// The answer of query(), as it would be had no free skipped its wait.
template <typename Query>
CUresult Ask(Query query) {
  const CUresult status = query();
  if (status != CUDA_ERROR_NOT_READY || !RuleIsOn(Rule::kPayBeforeQueries)) return status;
  return PayBeforeAnswer() ? query() : status;
}

}  // namespace

}  // namespace cmp

// ---- Waits

CUresult Driver_cuCtxSynchronize() {
  CMP_REAL(cuCtxSynchronize);
  cmp::HostWait wait(cmp::kSeveralStreams);
  return wait.Done(real->cuCtxSynchronize());
}

CUresult Driver_cuCtxSynchronize_v2(CUcontext context) {
  CMP_REAL(cuCtxSynchronize_v2);
  cmp::HostWait wait(static_cast<cmp::ContextHandle>(context));
  return wait.Done(real->cuCtxSynchronize_v2(context));
}

CUresult Driver_cuStreamSynchronize(CUstream stream) {
  CMP_REAL(cuStreamSynchronize);
  cmp::HostWait wait(cmp::Explicit(stream));
  return wait.Done(real->cuStreamSynchronize(stream));
}

CUresult Driver_cuStreamSynchronize_ptsz(CUstream stream) {
  CMP_REAL(cuStreamSynchronize_ptsz);
  cmp::HostWait wait(cmp::PerThread(stream));
  return wait.Done(real->cuStreamSynchronize_ptsz(stream));
}

CUresult Driver_cuEventSynchronize(CUevent event) {
  CMP_REAL(cuEventSynchronize);
  cmp::ShakeWait(cmp::kSeveralStreams);
  const cmp::WaitForEvent wait(event);
  return wait.Done(real->cuEventSynchronize(event));
}

// ---- Questions

CUresult Driver_cuStreamQuery(CUstream stream) {
  CMP_REAL(cuStreamQuery);
  cmp::HostWait wait(cmp::Explicit(stream));
  return wait.Done(cmp::Ask([&] { return real->cuStreamQuery(stream); }));
}

CUresult Driver_cuStreamQuery_ptsz(CUstream stream) {
  CMP_REAL(cuStreamQuery_ptsz);
  cmp::HostWait wait(cmp::PerThread(stream));
  return wait.Done(cmp::Ask([&] { return real->cuStreamQuery_ptsz(stream); }));
}

CUresult Driver_cuEventQuery(CUevent event) {
  CMP_REAL(cuEventQuery);
  const cmp::WaitForEvent wait(event);
  return wait.Done(cmp::Ask([&] { return real->cuEventQuery(event); }));
}

CUresult Driver_cuEventElapsedTime(float* milliseconds, CUevent begin, CUevent end) {
  CMP_REAL(cuEventElapsedTime);
  return cmp::Ask([&] { return real->cuEventElapsedTime(milliseconds, begin, end); });
}

CUresult Driver_cuEventElapsedTime_v2(float* milliseconds, CUevent begin, CUevent end) {
  CMP_REAL(cuEventElapsedTime_v2);
  return cmp::Ask([&] { return real->cuEventElapsedTime_v2(milliseconds, begin, end); });
}

// ---- Ends of events: the handle may mean another one as soon as the real call has begun

CUresult Driver_cuEventDestroy(CUevent event) {
  CMP_REAL(cuEventDestroy);
  cmp::g_events.Forget(event);
  return real->cuEventDestroy(event);
}

CUresult Driver_cuEventDestroy_v2(CUevent event) {
  CMP_REAL(cuEventDestroy_v2);
  cmp::g_events.Forget(event);
  return real->cuEventDestroy_v2(event);
}
