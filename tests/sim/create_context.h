// cuCtxCreate as every version of the headers has it: those of CUDA 13 gave it a parameter more.
#ifndef CMP_TESTS_SIM_CREATE_CONTEXT_H_
#define CMP_TESTS_SIM_CREATE_CONTEXT_H_

#include <cuda.h>

// The context that is made is current from then on.
inline CUresult CreateContext(CUcontext* context, CUdevice device = 0) {
#if CUDA_VERSION >= 13000
  return cuCtxCreate(context, nullptr, 0, device);
#else
  return cuCtxCreate(context, 0, device);
#endif
}

#endif  // CMP_TESTS_SIM_CREATE_CONTEXT_H_
