// The interposed entry points of the driver that wait on the host for work: what they waited for is
// finished, and a free after them owes nothing.
#include "shim/entry_driver.h"
#include "shim/lookup.h"
#include "shim/work.h"

#define CMP_REAL(name)                              \
  const cmp::DriverCalls* real = cmp::RealDriver(); \
  if (real == nullptr || real->name == nullptr) return CUDA_ERROR_NOT_INITIALIZED

CUresult Driver_cuCtxSynchronize() {
  CMP_REAL(cuCtxSynchronize);
  cmp::HostWait wait(cmp::kSeveralStreams);
  return wait.Done(real->cuCtxSynchronize());
}

CUresult Driver_cuStreamSynchronize(CUstream stream) {
  CMP_REAL(cuStreamSynchronize);
  cmp::HostWait wait(cmp::Explicit(stream));
  return wait.Done(real->cuStreamSynchronize(stream));
}

CUresult Driver_cuStreamSynchronize_ptsz(CUstream stream) {
  CMP_REAL(cuStreamSynchronize_ptsz);
  cmp::HostWait wait(cmp::PerThread(stream));
  return wait.Done(real->cuStreamSynchronize_ptsz(stream));
}
