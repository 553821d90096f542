#include "core/context_wait.h"

namespace cmp {

namespace {
CUcontext HandleOf(ThreadCache& cache) {
  return static_cast<CUcontext>(cache.owner()->identity().handle);
}
}  // namespace

int ContextWait::Record() {
  if (driver_.record_context == nullptr || g_refused.load(std::memory_order_relaxed)) {
    return kSuccess;
  }
  if (cache_.wait_event == nullptr) {
    // An event belongs to the context that is current when it is made.
    if (const CUresult pushed = driver_.push_current(HandleOf(cache_)); pushed != CUDA_SUCCESS) {
      return pushed;
    }
    CUevent event = nullptr;
    const CUresult made = driver_.event_create(&event, CU_EVENT_DISABLE_TIMING);
    CUcontext popped = nullptr;
    driver_.pop_current(&popped);
    if (made != CUDA_SUCCESS) return made;
    cache_.wait_event = event;
  }
  const CUresult status =
      driver_.record_context(HandleOf(cache_), static_cast<CUevent>(cache_.wait_event));
  if (status == CUDA_ERROR_NOT_SUPPORTED) {
    g_refused.store(true, std::memory_order_relaxed);
    return kSuccess;
  }
  recorded_ = status == CUDA_SUCCESS;
  return status;
}

int ContextWait::WaitForEvent() {
  const RelaxedCaptureMode relaxed(driver_);
  return driver_.event_synchronize(static_cast<CUevent>(cache_.wait_event));
}

int ContextWait::WaitForAll() {
  const CUcontext context = HandleOf(cache_);
  if (CurrentContext(driver_) == context) return driver_.synchronize();
  if (const CUresult pushed = driver_.push_current(context); pushed != CUDA_SUCCESS) return pushed;
  const CUresult waited = driver_.synchronize();
  CUcontext popped = nullptr;
  driver_.pop_current(&popped);
  return waited;
}

}  // namespace cmp
