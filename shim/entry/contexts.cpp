// The interposed entry points of the driver that make and end contexts.
#include "shim/lookup/entry_points.h"
#include "shim/service/kept_pools.h"
#include "shim/service/service.h"
#include "shim/shake/shake.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"
#include "shim/work/made_contexts.h"
#include "shim/work/owed.h"
#include "shim/work/work_of_stream.h"

namespace cmp {

namespace {

// A green context is part of a device's multiprocessors under a context handle of its own, whose
// work belongs to the primary context. What a wait for one of the two covers is not established.
constexpr char kGreenContext[] = "the program has made a context of a green context";

CUresult ContextMade(CUresult status, const CUcontext* context, CUdevice primary_of) {
  if (status == CUDA_SUCCESS && context != nullptr) ContextIsThere(*context, primary_of);
  return status;
}

// Around a real call that ends contexts if it succeeds. Before: their pools are shut, so that no
// block of a dying context is handed out, and calls of our own that are on their way are waited
// for. After: dropped, or opened again if the call ended nothing.
template <typename Condition, typename Call>
CUresult EndContexts(Condition condition, Call call) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr) return call();
  ContextPool* ending[Contexts::kMost];
  size_t count = 0;
  pool->ForEachContext([&](ContextPool& context) {
    if (count == Contexts::kMost || !condition(context.identity())) return;
    context.BeginEnding();
    ending[count++] = &context;
  });
  ForgetStreams();
  const HitsBarred barred;  // a pool that was opened since is not shut
  // Before the driver gives its handle to another one; after the call, what was noted meanwhile.
  ForgetWhatIsKnownOfContexts();
  ShakeContextEnds();
  const CUresult status = call();
  for (size_t i = 0; i < count; ++i) {
    if (status == CUDA_SUCCESS) {
      pool->DropContext(*ending[i]);
    } else if (IsBrokenContextStatus(status)) {
      pool->CloseContext(*ending[i]);
    }
    ending[i]->CancelEnding();
  }
  ForgetWhatIsKnownOfContexts();
  return status;
}

// Around one that gives up a reference, perhaps the last, of contexts that are in use otherwise.
// Their pools stay open, but release nothing meanwhile: once a context has ended, the driver may
// give its addresses to another one. Nor is anything served from what threads remember: a thread
// that retains the primary context again has another one, of the same handle. After: those that
// have ended are dropped.
template <typename Condition, typename Call, typename HasEnded>
CUresult EndReferences(Condition condition, Call call, HasEnded has_ended) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr) return call();
  ContextPool* ending[Contexts::kMost];
  size_t count = 0;
  pool->ForEachContext([&](ContextPool& context) {
    if (count == Contexts::kMost || !condition(context.identity())) return;
    context.BeginReferenceEnding();
    ending[count++] = &context;
  });
  ShakeContextEnds();
  const HitsBarred barred;
  ForgetWhatIsKnownOfContexts();
  const CUresult status = call();
  for (size_t i = 0; i < count; ++i) {
    ContextPool& context = *ending[i];
    if (status == CUDA_SUCCESS && has_ended(context.identity())) {
      g_captures.EndedIn(context.identity().handle);
      ForgetStreams();
      pool->DropContext(context);
    }
    context.CancelReferenceEnding();
  }
  ForgetWhatIsKnownOfContexts();
  return status;
}

// The handle of a device's primary context, nullptr if it is not active. Asked before it ends.
CUcontext PrimaryHandle(CUdevice device) {
  const Driver* driver = LoadedDriver();
  unsigned flags = 0;
  int active = 0;
  CUcontext primary = nullptr;
  if (driver == nullptr || g_exiting.load(std::memory_order_acquire) ||
      driver->primary_state(device, &flags, &active) != CUDA_SUCCESS || active == 0 ||
      driver->primary_retain(&primary, device) != CUDA_SUCCESS) {
    return nullptr;
  }
  driver->primary_release(device);
  return primary;
}

// The program may take cudaFree for the wait that tells of a crash. Where frees skipped that, the
// next call that waits tells; one that ends the contexts is the last that can. Not for one that
// leaves a reference: another thread's work may wait for what this one does next. Success: nothing
// is to be told.
template <typename Condition>
CUresult CrashBehindFrees(Condition condition) {
  int told = kSuccess;
  if (Pool* pool = g_pool.load(std::memory_order_acquire)) {
    pool->ForEachContext([&](ContextPool& context) {
      if (told == kSuccess && condition(context.identity())) told = PayBeforeContextEnds(context);
    });
  }
  return static_cast<CUresult>(told);
}

auto PrimaryOf(CUdevice device) {
  return [device](const ContextIdentity& identity) {
    return identity.primary && identity.device == device;
  };
}

template <typename Call>
CUresult EndContext(CUcontext context, Call call) {
  const Captures::Ending ending(g_captures);
  ContextEnding context_ending(context);
  const auto is_it = [context](const ContextIdentity& identity) {
    return identity.handle == context;
  };
  const CUresult told = CrashBehindFrees(is_it);
  const CUresult status = EndContexts(is_it, call);
  if (status == CUDA_SUCCESS) {
    g_captures.EndedIn(context);
    context_ending.Ended();
    CurrentPoolsChange();  // of who has its handle next
  }
  return status == CUDA_SUCCESS ? told : status;
}

// cuCtxDetach gives one reference up; the last one ends the context, and then its id is gone.
template <typename Call>
CUresult DetachContext(CUcontext context, Call call) {
  const Driver* driver = LoadedDriver();
  const bool exiting = g_exiting.load(std::memory_order_acquire);
  const uint64_t id = driver == nullptr || exiting ? 0 : ContextId(*driver, context);
  const auto is_it = [context](const ContextIdentity& identity) {
    return identity.handle == context;
  };
  const Captures::Ending ending(g_captures);
  ContextEnding context_ending(context);
  const auto is_over = [&](const ContextIdentity&) {
    return id != 0 && ContextId(*driver, context) != id;
  };
  const CUresult told = context_ending.GivesUpLast() ? CrashBehindFrees(is_it) : CUDA_SUCCESS;
  const CUresult status = EndReferences(is_it, call, is_over);
  if (status != CUDA_SUCCESS) context_ending.GaveUpNone();
  if (status != CUDA_SUCCESS || !is_over({})) return status;
  g_captures.EndedIn(context);
  context_ending.Ended();
  return told;
}

template <typename Call>
CUresult ResetPrimary(CUdevice device, Call call) {
  CUcontext primary = PrimaryHandle(device);
  const Captures::Ending ending(g_captures);
  ContextEnding context_ending(PrimaryMade(device));
  PoolsEnding pools_ending(device);
  const CUresult told = CrashBehindFrees(PrimaryOf(device));
  const CUresult status = EndContexts(PrimaryOf(device), call);
  if (status == CUDA_SUCCESS) context_ending.Ended();
  if (status == CUDA_SUCCESS) pools_ending.Ended();
  if (status == CUDA_SUCCESS && primary != nullptr) g_captures.EndedIn(primary);
  return status == CUDA_SUCCESS ? told : status;
}

// Has a primary context ended whose references were given up? Another thread may have made the
// device's next one since, of the same handle and another id.
bool IsOverPrimary(const ContextIdentity& identity) {
  const Driver* driver = LoadedDriver();
  unsigned flags = 0;
  int active = 0;
  return driver != nullptr && !g_exiting.load(std::memory_order_acquire) &&
         driver->primary_state(identity.device, &flags, &active) == CUDA_SUCCESS &&
         (active == 0 || ContextId(*driver, identity.handle) != identity.id);
}

// One reference of a primary context is given up: it may be the last.
template <typename Call>
CUresult ReleasePrimary(CUdevice device, Call call) {
  const Captures::Ending ending(g_captures);
  ContextEnding context_ending(PrimaryMade(device));
  PoolsEnding pools_ending(device);
  const CUresult told =
      context_ending.GivesUpLast() ? CrashBehindFrees(PrimaryOf(device)) : CUDA_SUCCESS;
  const CUresult status = EndReferences(PrimaryOf(device), call, IsOverPrimary);
  if (status != CUDA_SUCCESS) context_ending.GaveUpNone();
  const Driver* driver = LoadedDriver();
  if (status != CUDA_SUCCESS || driver == nullptr || g_exiting.load(std::memory_order_acquire)) {
    return status;
  }
  unsigned flags = 0;
  int active = 0;
  if (driver->primary_state(device, &flags, &active) != CUDA_SUCCESS || active != 0) return status;
  context_ending.Ended();
  pools_ending.Ended();
  return told;
}

// Its streams end with it, and a reference to the primary context of its device.
template <typename Call>
CUresult EndGreenContext(Call call) {
  SomeStreamsEnd();
  const Captures::Ending ending(g_captures);
  const auto is_primary = [](const ContextIdentity& identity) { return identity.primary; };
  const auto is_released = [](const ContextIdentity& identity) {
    return identity.primary && PrimaryIsReleased(identity.device);
  };
  const CUresult told = CrashBehindFrees(is_released);
  const CUresult status = EndReferences(is_primary, call, IsOverPrimary);
  return status == CUDA_SUCCESS ? told : status;
}

}  // namespace

}  // namespace cmp

CUresult Driver_cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxRetain);
  return cmp::ContextMade(real->cuDevicePrimaryCtxRetain(context, device), context, device);
}

CUresult Driver_cuCtxCreate(CUcontext* context, unsigned flags, CUdevice device) {
  CMP_REAL(cuCtxCreate);
  return cmp::ContextMade(real->cuCtxCreate(context, flags, device), context, cmp::kNotPrimary);
}

CUresult Driver_cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device) {
  CMP_REAL(cuCtxCreate_v2);
  return cmp::ContextMade(real->cuCtxCreate_v2(context, flags, device), context, cmp::kNotPrimary);
}

CUresult Driver_cuCtxCreate_v3(CUcontext* context, void* affinities, int count, unsigned flags,
                               CUdevice device) {
  CMP_REAL(cuCtxCreate_v3);
  return cmp::ContextMade(real->cuCtxCreate_v3(context, affinities, count, flags, device), context,
                          cmp::kNotPrimary);
}

CUresult Driver_cuCtxCreate_v4(CUcontext* context, void* parameters, unsigned flags,
                               CUdevice device) {
  CMP_REAL(cuCtxCreate_v4);
  return cmp::ContextMade(real->cuCtxCreate_v4(context, parameters, flags, device), context,
                          cmp::kNotPrimary);
}

CUresult Driver_cuGLCtxCreate(CUcontext* context, unsigned flags, CUdevice device) {
  CMP_REAL(cuGLCtxCreate);
  return cmp::ContextMade(real->cuGLCtxCreate(context, flags, device), context, cmp::kNotPrimary);
}

CUresult Driver_cuGLCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device) {
  CMP_REAL(cuGLCtxCreate_v2);
  return cmp::ContextMade(real->cuGLCtxCreate_v2(context, flags, device), context,
                          cmp::kNotPrimary);
}

CUresult Driver_cuVDPAUCtxCreate(CUcontext* context, unsigned flags, CUdevice device,
                                 unsigned vdpau, void* lookup) {
  CMP_REAL(cuVDPAUCtxCreate);
  return cmp::ContextMade(real->cuVDPAUCtxCreate(context, flags, device, vdpau, lookup), context,
                          cmp::kNotPrimary);
}

CUresult Driver_cuVDPAUCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device,
                                    unsigned vdpau, void* lookup) {
  CMP_REAL(cuVDPAUCtxCreate_v2);
  return cmp::ContextMade(real->cuVDPAUCtxCreate_v2(context, flags, device, vdpau, lookup), context,
                          cmp::kNotPrimary);
}

CUresult Driver_cuCtxFromGreenCtx(CUcontext* context, void* green) {
  CMP_REAL(cuCtxFromGreenCtx);
  cmp::StepAside(cmp::AsideIs::kDocumented, cmp::kGreenContext);
  return real->cuCtxFromGreenCtx(context, green);
}

CUresult Driver_cuGreenCtxDestroy(void* green) {
  CMP_REAL(cuGreenCtxDestroy);
  return cmp::EndGreenContext([&] { return real->cuGreenCtxDestroy(green); });
}

CUresult Driver_cuCtxDetach(CUcontext context) {
  CMP_REAL(cuCtxDetach);
  return cmp::DetachContext(context, [&] { return real->cuCtxDetach(context); });
}

CUresult Driver_cuCtxDestroy(CUcontext context) {
  CMP_REAL(cuCtxDestroy);
  return cmp::EndContext(context, [&] { return real->cuCtxDestroy(context); });
}

CUresult Driver_cuCtxDestroy_v2(CUcontext context) {
  CMP_REAL(cuCtxDestroy_v2);
  return cmp::EndContext(context, [&] { return real->cuCtxDestroy_v2(context); });
}

CUresult Driver_cuDevicePrimaryCtxRelease(CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxRelease);
  return cmp::ReleasePrimary(device, [&] { return real->cuDevicePrimaryCtxRelease(device); });
}

CUresult Driver_cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxRelease_v2);
  return cmp::ReleasePrimary(device, [&] { return real->cuDevicePrimaryCtxRelease_v2(device); });
}

CUresult Driver_cuDevicePrimaryCtxReset(CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxReset);
  return cmp::ResetPrimary(device, [&] { return real->cuDevicePrimaryCtxReset(device); });
}

CUresult Driver_cuDevicePrimaryCtxReset_v2(CUdevice device) {
  CMP_REAL(cuDevicePrimaryCtxReset_v2);
  return cmp::ResetPrimary(device, [&] { return real->cuDevicePrimaryCtxReset_v2(device); });
}
