// The shim as the pool's host (core/driver/host.h): what the pool is told of captures and
// submissions, and what it tells of fences and contexts.
#ifndef CMP_SHIM_SERVICE_POOL_HOST_H_
#define CMP_SHIM_SERVICE_POOL_HOST_H_

#include "core/driver/host.h"

namespace cmp {

extern const PoolHost kShimHost;

// In a forked child: nothing of the parent's work.
void ForgetWork();

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_POOL_HOST_H_
