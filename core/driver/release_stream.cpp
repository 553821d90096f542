#include "core/driver/release_stream.h"

#include "core/driver/driver.h"

namespace cmp {

namespace {
// The driver has the function and the device has no stream-ordered memory.
constinit std::atomic<bool> g_refused{false};
}  // namespace

void* ReleaseStream::Get(const Driver& driver, ContextHandle context) {
  void* stream = stream_.load(std::memory_order_acquire);
  if (stream != nullptr) return stream;
  if (driver.push_current(static_cast<CUcontext>(context)) != CUDA_SUCCESS) return nullptr;
  CUstream made = nullptr;
  const CUresult status = driver.stream_create(&made, CU_STREAM_NON_BLOCKING);
  CUcontext popped = nullptr;
  driver.pop_current(&popped);
  if (status != CUDA_SUCCESS) return nullptr;
  // Of two threads at once one has made a stream in vain; it costs little and ends with the
  // context.
  return stream_.compare_exchange_strong(stream, made, std::memory_order_acq_rel) ? made : stream;
}

bool ReleaseStream::IsThere(const Driver& driver) {
  return driver.mem_free_async != nullptr && !g_refused.load(std::memory_order_relaxed);
}

int ReleaseStream::Free(const Driver& driver, ContextHandle context, DeviceAddress address) {
  if (!IsThere(driver)) return kUnavailable;
  const RelaxedCaptureMode relaxed(driver);
  auto* stream = static_cast<CUstream>(Get(driver, context));
  if (stream == nullptr) return kUnavailable;
  const CUresult status = driver.mem_free_async(address, stream);
  if (IsBrokenContextStatus(status)) return status;
  if (status != CUDA_SUCCESS) {
    if (status == CUDA_ERROR_NOT_SUPPORTED) g_refused.store(true, std::memory_order_relaxed);
    return kUnavailable;  // cuMemFree says what is wrong
  }
  // Once it was accepted the memory is the driver's, whatever this answers: freed again before the
  // stream comes to it, it would hang the next synchronisation (measured, H200, driver 580.159.04).
  SetWarm();
  const CUresult synchronised = driver.stream_synchronize(stream);
  return IsBrokenContextStatus(synchronised) ? synchronised : kSuccess;
}

}  // namespace cmp
