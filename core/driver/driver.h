// The driver calls that the pool itself makes, found at run time in libcuda.so.1: the pool links no
// CUDA library.
//
// Invariant: a loaded table never changes and its library is never unloaded.
#ifndef CMP_CORE_DRIVER_DRIVER_H_
#define CMP_CORE_DRIVER_DRIVER_H_

#include <cuda.h>

#include "core/base/own_line.h"
#include "core/base/types.h"
#include "core/driver/context_identity.h"

namespace cmp {

// name in this struct, symbol in libcuda, needed: without a needed one the pool stays off.
// Signatures are spelled here because older headers lack the newer functions.
#define CMP_DRIVER_CALLS(X)                                                                      \
  X(init, "cuInit", true, (unsigned flags))                                                      \
  X(get_current, "cuCtxGetCurrent", true, (CUcontext * context))                                 \
  X(set_current, "cuCtxSetCurrent", true, (CUcontext context))                                   \
  X(push_current, "cuCtxPushCurrent_v2", true, (CUcontext context))                              \
  X(pop_current, "cuCtxPopCurrent_v2", true, (CUcontext * context))                              \
  X(context_device, "cuCtxGetDevice", true, (CUdevice * device))                                 \
  X(version, "cuDriverGetVersion", false, (int* version))                                        \
  X(device_count, "cuDeviceGetCount", false, (int* count))                                       \
  X(device_name, "cuDeviceGetName", false, (char* name, int length, CUdevice device))            \
  X(device_attribute, "cuDeviceGetAttribute", false,                                             \
    (int* value, CUdevice_attribute attribute, CUdevice device))                                 \
  X(device_memory, "cuDeviceTotalMem_v2", false, (size_t * bytes, CUdevice device))              \
  X(context_flags, "cuCtxGetFlags", false, (unsigned* flags))                                    \
  X(get_limit, "cuCtxGetLimit", false, (size_t * bytes, CUlimit limit))                          \
  X(context_id, "cuCtxGetId", false, (CUcontext context, unsigned long long* id))                \
  X(synchronize, "cuCtxSynchronize", true, (void))                                               \
  X(record_context, "cuCtxRecordEvent", false, (CUcontext context, CUevent event))               \
  X(wait_event, "cuCtxWaitEvent", false, (CUcontext context, CUevent event))                     \
  X(primary_state, "cuDevicePrimaryCtxGetState", true,                                           \
    (CUdevice device, unsigned* flags, int* active))                                             \
  X(primary_retain, "cuDevicePrimaryCtxRetain", true, (CUcontext * context, CUdevice device))    \
  X(primary_release, "cuDevicePrimaryCtxRelease_v2", true, (CUdevice device))                    \
  X(event_create, "cuEventCreate", true, (CUevent * event, unsigned flags))                      \
  X(event_query, "cuEventQuery", true, (CUevent event))                                          \
  X(event_synchronize, "cuEventSynchronize", true, (CUevent event))                              \
  X(stream_is_capturing, "cuStreamIsCapturing", true,                                            \
    (CUstream stream, CUstreamCaptureStatus * status))                                           \
  X(exchange_capture_mode, "cuThreadExchangeStreamCaptureMode", true,                            \
    (CUstreamCaptureMode * mode))                                                                \
  X(mem_alloc, "cuMemAlloc_v2", true, (CUdeviceptr * address, size_t bytes))                     \
  X(mem_free, "cuMemFree_v2", true, (CUdeviceptr address))                                       \
  X(mem_free_async, "cuMemFreeAsync", false, (CUdeviceptr address, CUstream stream))             \
  X(host_alloc, "cuMemHostAlloc", false, (void** pointer, size_t bytes, unsigned flags))         \
  X(alloc_host, "cuMemAllocHost_v2", false, (void** pointer, size_t bytes))                      \
  X(free_host, "cuMemFreeHost", false, (void* pointer))                                          \
  X(host_register, "cuMemHostRegister_v2", false, (void* pointer, size_t bytes, unsigned flags)) \
  X(wait_value, "cuStreamWaitValue32_v2", false,                                                 \
    (CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned flags))                    \
  X(write_value, "cuStreamWriteValue32_v2", false,                                               \
    (CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned flags))                    \
  X(mem_get_info, "cuMemGetInfo_v2", true, (size_t * free, size_t * total))                      \
  X(default_pool, "cuDeviceGetDefaultMemPool", false, (CUmemoryPool * pool, CUdevice device))    \
  X(current_pool, "cuDeviceGetMemPool", false, (CUmemoryPool * pool, CUdevice device))           \
  X(trim_pool, "cuMemPoolTrimTo", false, (CUmemoryPool pool, size_t least))                      \
  X(stream_create, "cuStreamCreate", true, (CUstream * stream, unsigned flags))                  \
  X(stream_context, "cuStreamGetCtx", true, (CUstream stream, CUcontext * context))              \
  X(stream_flags, "cuStreamGetFlags", false, (CUstream stream, unsigned* flags))                 \
  X(stream_synchronize, "cuStreamSynchronize", true, (CUstream stream))                          \
  X(memset_async, "cuMemsetD8Async", true,                                                       \
    (CUdeviceptr address, unsigned char value, size_t bytes, CUstream stream))

struct Driver {
#define CMP_DECLARE(name, symbol, needed, parameters) CUresult(*name) parameters = nullptr;
  CMP_DRIVER_CALLS(CMP_DECLARE)
#undef CMP_DECLARE
};

// Published once and complete (release, acquire). No lock: it could be held across a fork.
inline constinit OwnLine<const Driver*> g_driver{nullptr};

// Where the driver library comes from.
enum class DriverSource {
  kLoaded,  // only if the process has loaded it: a program without CUDA stays without it
  kLoad,    // load it
};

// The driver's calls, or nullptr: no libcuda.so.1 (yet), or one that lacks a needed function.
// Loads nothing but the library and makes no CUDA call. Thread-safe.
const Driver* LoadDriverSlow(DriverSource source);
inline const Driver* LoadDriver(DriverSource source) {
  const Driver* driver = g_driver.load(std::memory_order_acquire);
  return driver != nullptr ? driver : LoadDriverSlow(source);
}
// The same for who knows that it is loaded.
inline const Driver* KnownDriver() { return g_driver.load(std::memory_order_acquire); }
// libcuda.so.1 once the process has it.
inline const Driver* LoadedDriver() { return LoadDriver(DriverSource::kLoaded); }

// Is it a function of libcuda.so.1 itself, not another library's?
bool IsInDriversLibrary(const void* function);
// Was the code of a function replaced, as by tools that patch a library in place? So far as that
// begins with a jump, as it usually does.
bool IsPatched(const void* function);

// The current context's handle, nullptr if there is none or it cannot be told.
inline ContextHandle CurrentContext(const Driver& driver) {
  CUcontext context = nullptr;
  return driver.get_current(&context) == CUDA_SUCCESS ? context : nullptr;
}

// The same for who compares it with handles alone: what fails leaves nullptr.
inline ContextHandle CurrentOrNone(const Driver& driver) {
  CUcontext context = nullptr;
  driver.get_current(&context);
  return context;
}

// The id of a context that is current, which CUDA never gives out twice; the handle itself with
// drivers before 12.0. 0: the context is not alive (its primary was reset).
uint64_t ContextId(const Driver& driver, ContextHandle handle);

// Identifies the current context. False: there is none, or it is not alive.
bool IdentifyCurrent(const Driver& driver, ContextIdentity* identity);

// While it lives, calls of this thread that CUDA forbids during some captures neither fail nor
// invalidate the capture. Measured: cuMemAlloc, cuMemFree, cuEventQuery, cuEventSynchronize are
// harmless within it in every mode; cuCtxRecordEvent and cuCtxSynchronize are not.
class [[nodiscard]] RelaxedCaptureMode {
 public:
  explicit RelaxedCaptureMode(const Driver& driver) : driver_(driver) {
    driver_.exchange_capture_mode(&mode_);
  }
  ~RelaxedCaptureMode() { driver_.exchange_capture_mode(&mode_); }
  RelaxedCaptureMode(const RelaxedCaptureMode&) = delete;
  RelaxedCaptureMode& operator=(const RelaxedCaptureMode&) = delete;

 private:
  const Driver& driver_;
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

}  // namespace cmp

#endif  // CMP_CORE_DRIVER_DRIVER_H_
