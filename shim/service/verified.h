// The pool serves only where it was verified that the shim sees what is submitted. Where it does
// not, it steps aside, and names whoever stands in its way.
#ifndef CMP_SHIM_SERVICE_VERIFIED_H_
#define CMP_SHIM_SERVICE_VERIFIED_H_

#include <atomic>

#include "shim/lookup/runtime_calls.h"

namespace cmp {

// Was the runtime found to be seen?
inline bool IsVerified(const RuntimeCalls& real) {
  return std::atomic_ref(real.seen).load(std::memory_order_relaxed);
}

// After a successful real call of the runtime, at whose first it looks the driver's functions up:
// are they ours?
void Verify(const RuntimeCalls& real);

// Do lookups in the driver come to the shim? Asked once, before the first block is served.
void VerifyLookups();

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_VERIFIED_H_
