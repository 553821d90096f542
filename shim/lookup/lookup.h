// How programs find the driver's functions, and what they find instead.
//
// libcudart, shared or static, the math libraries and driver-API programs all end up with function
// pointers of libcuda: by symbol, by dlsym, or by cuGetProcAddress. Symbols are taken by our
// exports. In the other two ways the real lookup comes first; then the pointer that it gave is
// replaced if it is one that we serve. So ABI versions, per-thread-stream variants, status and
// errors stay the driver's. (Measured: the pointers that cuGetProcAddress gives are those of the
// ELF symbols. Where they are not, the name, the version and the flags tell which symbol is meant:
// a driver behind a thin loader, as on WSL, and another preload that answers with its own.)
//
// Other preloads may wrap the driver's functions, to count or to limit. One that stands behind the
// shim would be called by the program: so it is what our real calls call.
#ifndef CMP_SHIM_LOOKUP_LOOKUP_H_
#define CMP_SHIM_LOOKUP_LOOKUP_H_

#include <atomic>

#include "core/base/own_line.h"
#include "shim/calls/real_call.h"
#include "shim/lookup/interposed.h"

namespace cmp {

// The functions behind the interposed ones: the driver's own, or those of a preload behind ours
// that wraps them; nullptr where the driver is too old.
struct DriverCalls {
#define CMP_DECLARE(name, need, parameters) RealCall<CUresult(*) parameters, Need::need> name;
  CMP_DRIVER_INTERPOSED(CMP_DECLARE)
#undef CMP_DECLARE
};

struct DriverTables {
  DriverCalls symbols;   // the driver's own
  DriverCalls wrappers;  // those of another preload, where there is one
  DriverCalls calls;     // what real calls lead to: the driver's, or, guarded, the wrapper's
};

// Published once and complete (release, acquire): `calls` of the tables, and all of them.
inline constinit OwnLine<const DriverCalls*> g_driver_calls{nullptr};
inline constinit std::atomic<DriverTables*> g_driver_tables{nullptr};

// Not 0 while this thread is in another preload's wrapper that a real call of ours leads to.
inline thread_local constinit int t_inside_wrapper = 0;

// The real driver's functions; nullptr when libcuda.so.1 is not loaded. Loads nothing and makes no
// call of the driver. Thread-safe.
const DriverCalls* RealDriverSlow();
inline const DriverCalls* RealDriver() {
  const DriverCalls* calls = g_driver_calls.load(std::memory_order_acquire);
  return calls != nullptr ? calls : RealDriverSlow();
}

// Ours in place of `function`, which the real cuGetProcAddress gave `caller` (a return address) for
// these arguments; `function` itself where it is none that we serve.
void* Answer(const char* symbol, int version, cuuint64_t flags, void* function, const void* caller);

// Ours for a function of the driver's, by its address; nullptr: it is none that we serve.
void* OursFor(const void* function);

// Does nobody but the driver learn of a cuMemFree: no wrapper of another preload, no patch?
bool FreesAreUnseen();

// Is the address in the driver's library?
bool IsInDriver(const void* address);

}  // namespace cmp

#endif  // CMP_SHIM_LOOKUP_LOOKUP_H_
