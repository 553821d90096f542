// Our definitions of the driver's entry points. In C++ they are named Driver_<symbol>, since cuda.h
// declares the symbols themselves; the linker sees the symbol.
#ifndef CMP_SHIM_LOOKUP_ENTRY_POINTS_H_
#define CMP_SHIM_LOOKUP_ENTRY_POINTS_H_

#include "shim/lookup/interposed.h"
#include "shim/lookup/lookup.h"

extern "C" {
#define CMP_DECLARE(name, need, parameters) \
  __attribute__((visibility("default"))) CUresult Driver_##name parameters __asm__(#name);
CMP_DRIVER_INTERPOSED(CMP_DECLARE)
#undef CMP_DECLARE
}

namespace cmp {
// What an entry point answers when there is no real driver to ask.
inline constexpr CUresult kNoDriver = CUDA_ERROR_NOT_INITIALIZED;
}  // namespace cmp

// Begins an entry point that needs the real function of that name: real-> has it.
#define CMP_REAL(name)                              \
  const cmp::DriverCalls* real = cmp::RealDriver(); \
  if (real == nullptr || real->name == nullptr) return cmp::kNoDriver

// Who called the entry point.
#define CMP_CALLER __builtin_extract_return_addr(__builtin_return_address(0))

#endif  // CMP_SHIM_LOOKUP_ENTRY_POINTS_H_
