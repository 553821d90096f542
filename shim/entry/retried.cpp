// The interposed entry points of the driver that may run out of memory, or tell of a crash, and do
// nothing else that the shim must know of: the real calls, whose status is looked at (real_call.h),
// and which are tried again where idle blocks make room (rescue.h).
#include "shim/lookup/entry_points.h"

#define CMP_DEFINE_RETRIED(name, need, parameters, arguments) \
  CUresult Driver_##name parameters {                         \
    CMP_REAL(name);                                           \
    return real->name arguments;                              \
  }
CMP_RETRIED(CMP_DEFINE_RETRIED)
