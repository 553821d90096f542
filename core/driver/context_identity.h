// Which context of CUDA's.
#ifndef CMP_CORE_DRIVER_CONTEXT_IDENTITY_H_
#define CMP_CORE_DRIVER_CONTEXT_IDENTITY_H_

#include <cstddef>
#include <cstdint>

#include "core/base/types.h"

namespace cmp {

// The handle may be reused by CUDA for a later context, the id never is.
struct ContextIdentity {
  ContextHandle handle = nullptr;
  uint64_t id = 0;
  int device = 0;
  bool primary = false;  // the device's primary context
  // The device's kernels may use all memory of the host (CUDA programming guide, "Unified memory").
  bool reaches_host_memory = false;
  size_t device_bytes = 0;  // of the device's memory; 0: not known
};

}  // namespace cmp

#endif  // CMP_CORE_DRIVER_CONTEXT_IDENTITY_H_
