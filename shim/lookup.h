// How programs find the driver's functions, and what they find instead.
//
// libcudart, shared or static, the math libraries and driver-API programs all end up with function
// pointers of libcuda: by symbol, by dlsym, or by cuGetProcAddress. Symbols are taken by our
// exports. In the other two ways the real lookup comes first; then the pointer that it gave is
// replaced if it is one that we serve. So ABI versions, per-thread-stream variants, status and
// errors stay the driver's. (Measured: the pointers that cuGetProcAddress gives are those of the
// ELF symbols.)
#ifndef CMP_SHIM_LOOKUP_H_
#define CMP_SHIM_LOOKUP_H_

#include <atomic>

#include "shim/interposed.h"

namespace cmp {

// The driver's own functions behind the interposed ones; nullptr where the driver is too old.
struct DriverCalls {
#define CMP_DECLARE(name, parameters) CUresult(*name) parameters = nullptr;
  CMP_DRIVER_INTERPOSED(CMP_DECLARE)
#undef CMP_DECLARE
};

// Published once and complete (release, acquire).
inline constinit std::atomic<const DriverCalls*> g_driver_calls{nullptr};

// The real driver's functions; nullptr when libcuda.so.1 is not loaded. Loads nothing. Thread-safe.
const DriverCalls* RealDriverSlow();
inline const DriverCalls* RealDriver() {
  const DriverCalls* calls = g_driver_calls.load(std::memory_order_acquire);
  return calls != nullptr ? calls : RealDriverSlow();
}

// Ours if `function` is one of the driver's that we serve, else `function`.
void* Replacement(void* function);

// Calls of the pool into the real runtime come back to the driver's entry points: while this is
// not 0 in a thread, they are real.
inline thread_local constinit int t_inside_real = 0;

class [[nodiscard]] InsideReal {
 public:
  InsideReal() { ++t_inside_real; }
  ~InsideReal() { --t_inside_real; }
  InsideReal(const InsideReal&) = delete;
  InsideReal& operator=(const InsideReal&) = delete;
};

}  // namespace cmp

#endif  // CMP_SHIM_LOOKUP_H_
