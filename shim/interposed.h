// The one table of what the shim interposes. Exports, the table of real calls and the tests come
// from it.
//
// Runtime entry points: name, parameters. The "_ptsz" names are what a program built with
// --default-stream per-thread calls. Signatures are spelled here, because older headers lack some.
#ifndef CMP_SHIM_INTERPOSED_H_
#define CMP_SHIM_INTERPOSED_H_

#include <driver_types.h>

#include <cstddef>

#define CMP_RUNTIME_INTERPOSED(X)                                                   \
  X(cudaMalloc, (void** pointer, size_t bytes))                                     \
  X(cudaFree, (void* pointer))                                                      \
  X(cudaFreeAsync, (void* pointer, cudaStream_t stream))                            \
  X(cudaFreeAsync_ptsz, (void* pointer, cudaStream_t stream))                       \
  X(cudaDeviceReset, (void))                                                        \
  X(cudaIpcGetMemHandle, (cudaIpcMemHandle_t * handle, void* pointer))              \
  X(cudaStreamBeginCapture, (cudaStream_t stream, cudaStreamCaptureMode mode))      \
  X(cudaStreamBeginCapture_ptsz, (cudaStream_t stream, cudaStreamCaptureMode mode)) \
  X(cudaStreamBeginCaptureToGraph,                                                  \
    (cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t* dependencies,   \
     const void* edges, size_t count, cudaStreamCaptureMode mode))                  \
  X(cudaStreamBeginCaptureToGraph_ptsz,                                             \
    (cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t* dependencies,   \
     const void* edges, size_t count, cudaStreamCaptureMode mode))                  \
  X(cudaStreamEndCapture, (cudaStream_t stream, cudaGraph_t * graph))               \
  X(cudaStreamEndCapture_ptsz, (cudaStream_t stream, cudaGraph_t * graph))          \
  X(cudaStreamDestroy, (cudaStream_t stream))

// Called by the shim, not interposed.
#define CMP_RUNTIME_CALLED(X)                                                       \
  X(cudaGetDevice, (int* device))                                                   \
  X(cudaSetDevice, (int device))                                                    \
  X(cudaGetLastError, (void))                                                       \
  X(cudaPeekAtLastError, (void))                                                    \
  X(cudaRuntimeGetVersion, (int* version))                                          \
  X(cudaStreamIsCapturing, (cudaStream_t stream, cudaStreamCaptureStatus * status)) \
  X(cudaStreamIsCapturing_ptsz, (cudaStream_t stream, cudaStreamCaptureStatus * status))

#define CMP_EXPORT extern "C" __attribute__((visibility("default")))

#endif  // CMP_SHIM_INTERPOSED_H_
