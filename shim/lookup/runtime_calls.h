// The real runtime functions behind an interposed call: those of the next library in the process's
// search order (which may be another preloaded library), or, where the caller's own libcudart is
// not that one, the caller's own.
//
// Invariant: a table never changes once published (but for `seen`), and the library behind it is
// never unloaded.
#ifndef CMP_SHIM_LOOKUP_RUNTIME_CALLS_H_
#define CMP_SHIM_LOOKUP_RUNTIME_CALLS_H_

#include "shim/lookup/interposed.h"

namespace cmp {

struct RuntimeCalls {
#define CMP_DECLARE(name, parameters) cudaError_t(*name) parameters = nullptr;
  CMP_RUNTIME_INTERPOSED(CMP_DECLARE)
  CMP_RUNTIME_CALLED(CMP_DECLARE)
#undef CMP_DECLARE
  int version = 0;  // as cudaRuntimeGetVersion, 13000 for 13.0
  // The pool serves callers of this runtime: version 12 and later, where cudaSetDevice makes the
  // context current, so that the current context tells which device an allocation is for.
  bool served = false;
  // Was it found that the shim sees what it submits? Atomic where it is used.
  mutable bool seen = false;
};

// The real calls for code at `caller` (a return address); nullptr when there is no libcudart that
// it could have meant. Makes no CUDA call that initialises anything. Thread-safe.
const RuntimeCalls* RuntimeOf(const void* caller);

// True if libcuda.so.1 is loaded.
bool DriverIsLoaded();

}  // namespace cmp

#endif  // CMP_SHIM_LOOKUP_RUNTIME_CALLS_H_
