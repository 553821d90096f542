// What the shim interposes. Exports, the answers to dlsym and cuGetProcAddress, the tables of real
// calls and the tests come from it. X(name, parameters): the ELF symbol and the signature.
//
// The driver's part, CMP_DRIVER_INTERPOSED(X), is generated from the table of what every function
// of the driver does (scripts/driver_table/effects.py). Its rows say besides what the function can
// be short of: X(name, need, parameters).
#ifndef CMP_SHIM_LOOKUP_INTERPOSED_H_
#define CMP_SHIM_LOOKUP_INTERPOSED_H_

#include <cuda.h>
#include <driver_types.h>

#include <cstddef>

#include "shim/lookup/driver_functions.inc"

// ---- The runtime: served here already, for speed. Whatever else a runtime does reaches the driver
// through the entry points below.
#define CMP_RUNTIME_INTERPOSED(X)                                                  \
  X(cudaMalloc, (void** pointer, size_t bytes))                                    \
  X(cudaFree, (void* pointer))                                                     \
  X(cudaMallocPitch, (void** pointer, size_t* pitch, size_t width, size_t height)) \
  X(cudaMalloc3D, (cudaPitchedPtr * pitched, cudaExtent extent))                   \
  X(cudaMallocHost, (void** pointer, size_t bytes))                                \
  X(cudaHostAlloc, (void** pointer, size_t bytes, unsigned flags))                 \
  X(cudaFreeHost, (void* pointer))

// Called by the shim, not interposed.
#define CMP_RUNTIME_CALLED(X)     \
  X(cudaGetDevice, (int* device)) \
  X(cudaSetDevice, (int device))  \
  X(cudaGetLastError, (void))     \
  X(cudaPeekAtLastError, (void))  \
  X(cudaRuntimeGetVersion, (int* version))

#define CMP_EXPORT extern "C" __attribute__((visibility("default")))

#endif  // CMP_SHIM_LOOKUP_INTERPOSED_H_
