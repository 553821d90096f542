// The one table of what the shim interposes. Exports, the answers to dlsym and cuGetProcAddress,
// the tables of real calls and the tests come from it.
//
// X(name, parameters): the ELF symbol and the signature, spelled here because older headers lack
// some. A name ending in _ptsz is the variant for --default-stream per-thread.
#ifndef CMP_SHIM_INTERPOSED_H_
#define CMP_SHIM_INTERPOSED_H_

#include <cuda.h>
#include <driver_types.h>

#include <cstddef>

#include "shim/submissions.inc"

// ---- The runtime: served here already, for speed. Whatever else a runtime does reaches the driver
// through the entry points below.
#define CMP_RUNTIME_INTERPOSED(X)               \
  X(cudaMalloc, (void** pointer, size_t bytes)) \
  X(cudaFree, (void* pointer))

// Called by the shim, not interposed.
#define CMP_RUNTIME_CALLED(X)     \
  X(cudaGetDevice, (int* device)) \
  X(cudaSetDevice, (int device))  \
  X(cudaGetLastError, (void))     \
  X(cudaPeekAtLastError, (void))  \
  X(cudaRuntimeGetVersion, (int* version))

// ---- The driver. Every ABI version that a program can be given and that touches what the pool
// keeps true; the 32-bit ones (cuMemAlloc and others before 3.2) are not.
#define CMP_DRIVER_INTERPOSED(X)                                                                   \
  /* lookups */                                                                                    \
  X(cuGetProcAddress, (const char* symbol, void** function, int version, cuuint64_t flags))        \
  X(cuGetProcAddress_v2,                                                                           \
    (const char* symbol, void** function, int version, cuuint64_t flags, void* status))            \
  /* allocations */                                                                                \
  X(cuMemAlloc_v2, (CUdeviceptr * pointer, size_t bytes))                                          \
  X(cuMemAllocPitch_v2,                                                                            \
    (CUdeviceptr * pointer, size_t * pitch, size_t width, size_t height, unsigned element))        \
  X(cuMemFree_v2, (CUdeviceptr pointer))                                                           \
  X(cuMemFreeAsync, (CUdeviceptr pointer, CUstream stream))                                        \
  X(cuMemFreeAsync_ptsz, (CUdeviceptr pointer, CUstream stream))                                   \
  /* allocations that the pool does not serve, but makes room for */                               \
  X(cuMemAllocManaged, (CUdeviceptr * pointer, size_t bytes, unsigned flags))                      \
  X(cuMemAllocAsync, (CUdeviceptr * pointer, size_t bytes, CUstream stream))                       \
  X(cuMemAllocAsync_ptsz, (CUdeviceptr * pointer, size_t bytes, CUstream stream))                  \
  X(cuMemAllocFromPoolAsync,                                                                       \
    (CUdeviceptr * pointer, size_t bytes, CUmemoryPool pool, CUstream stream))                     \
  X(cuMemAllocFromPoolAsync_ptsz,                                                                  \
    (CUdeviceptr * pointer, size_t bytes, CUmemoryPool pool, CUstream stream))                     \
  X(cuMemCreate, (void* handle, size_t bytes, const void* properties, unsigned long long flags))   \
  X(cuArrayCreate_v2, (void* array, const void* descriptor))                                       \
  X(cuArray3DCreate_v2, (void* array, const void* descriptor))                                     \
  X(cuMipmappedArrayCreate, (void* array, const void* descriptor, unsigned levels))                \
  /* questions about memory */                                                                     \
  X(cuMemGetInfo_v2, (size_t * free, size_t * total))                                              \
  X(cuMemGetAddressRange_v2, (CUdeviceptr * base, size_t * bytes, CUdeviceptr pointer))            \
  X(cuPointerGetAttribute, (void* data, CUpointer_attribute attribute, CUdeviceptr pointer))       \
  X(cuPointerGetAttributes,                                                                        \
    (unsigned count, CUpointer_attribute* attributes, void** data, CUdeviceptr pointer))           \
  X(cuPointerSetAttribute,                                                                         \
    (const void* value, CUpointer_attribute attribute, CUdeviceptr pointer))                       \
  /* exports */                                                                                    \
  X(cuIpcGetMemHandle, (CUipcMemHandle * handle, CUdeviceptr pointer))                             \
  X(cuMemGetHandleForAddressRange,                                                                 \
    (void* handle, CUdeviceptr pointer, size_t bytes, int type, unsigned long long flags))         \
  X(cuIpcGetEventHandle, (CUipcEventHandle * handle, CUevent event))                               \
  X(cuMemExportToShareableHandle,                                                                  \
    (void* shareable, unsigned long long handle, int type, unsigned long long flags))              \
  X(cuMemPoolExportToShareableHandle,                                                              \
    (void* shareable, CUmemoryPool pool, int type, unsigned long long flags))                      \
  X(cuMemPoolExportPointer, (void* shared, CUdeviceptr pointer))                                   \
  /* imports */                                                                                    \
  X(cuIpcOpenMemHandle, (CUdeviceptr * pointer, CUipcMemHandle handle, unsigned flags))            \
  X(cuIpcOpenMemHandle_v2, (CUdeviceptr * pointer, CUipcMemHandle handle, unsigned flags))         \
  X(cuIpcOpenEventHandle, (CUevent * event, CUipcEventHandle handle))                              \
  X(cuMemImportFromShareableHandle, (void* handle, void* shareable, int type))                     \
  X(cuMemPoolImportFromShareableHandle,                                                            \
    (void* pool, void* shareable, int type, unsigned long long flags))                             \
  X(cuMemPoolImportPointer, (CUdeviceptr * pointer, CUmemoryPool pool, void* shared))              \
  X(cuImportExternalMemory, (void* memory, const void* descriptor))                                \
  X(cuImportExternalSemaphore, (void* semaphore, const void* descriptor))                          \
  X(cuGraphicsGLRegisterBuffer, (void* resource, unsigned buffer, unsigned flags))                 \
  X(cuGraphicsGLRegisterImage, (void* resource, unsigned image, unsigned target, unsigned flags))  \
  X(cuGLRegisterBufferObject, (unsigned buffer))                                                   \
  X(cuGraphicsEGLRegisterImage, (void* resource, void* image, unsigned flags))                     \
  X(cuGraphicsVDPAURegisterVideoSurface, (void* resource, unsigned surface, unsigned flags))       \
  X(cuGraphicsVDPAURegisterOutputSurface, (void* resource, unsigned surface, unsigned flags))      \
  X(cuEGLStreamConsumerConnect, (void* connection, void* stream))                                  \
  X(cuEGLStreamConsumerConnectWithFlags, (void* connection, void* stream, unsigned flags))         \
  X(cuEGLStreamProducerConnect, (void* connection, void* stream, int width, int height))           \
  /* memory that the host and the device share */                                                  \
  X(cuMemHostAlloc, (void** pointer, size_t bytes, unsigned flags))                                \
  X(cuMemAllocHost_v2, (void** pointer, size_t bytes))                                             \
  X(cuMemFreeHost, (void* pointer))                                                                \
  X(cuMemHostRegister, (void* pointer, size_t bytes, unsigned flags))                              \
  X(cuMemHostRegister_v2, (void* pointer, size_t bytes, unsigned flags))                           \
  X(cuMemHostUnregister, (void* pointer))                                                          \
  X(cuMemHostGetDevicePointer_v2, (CUdeviceptr * address, void* pointer, unsigned flags))          \
  X(cuModuleGetGlobal_v2,                                                                          \
    (CUdeviceptr * address, size_t * bytes, CUmodule module, const char* name))                    \
  X(cuLibraryGetGlobal, (CUdeviceptr * address, size_t * bytes, void* library, const char* name))  \
  X(cuLibraryGetManaged, (CUdeviceptr * address, size_t * bytes, void* library, const char* name)) \
  X(cuMemPoolCreate, (void* pool, const void* properties))                                         \
  X(cuMemGetDefaultMemPool, (void* pool, const void* location, int type))                          \
  X(cuMemGetMemPool, (void* pool, const void* location, int type))                                 \
  X(cuMemPoolSetAccess, (CUmemoryPool pool, const void* accesses, size_t count))                   \
  /* ends of what work may still use */                                                            \
  X(cuTexObjectDestroy, (unsigned long long object))                                               \
  X(cuSurfObjectDestroy, (unsigned long long object))                                              \
  X(cuLibraryUnload, (void* library))                                                              \
  X(cuMemUnmap, (CUdeviceptr pointer, size_t bytes))                                               \
  X(cuMemSetAccess, (CUdeviceptr pointer, size_t bytes, const void* accesses, size_t count))       \
  X(cuMemRelease, (unsigned long long handle))                                                     \
  X(cuMemAddressFree, (CUdeviceptr pointer, size_t bytes))                                         \
  X(cuMulticastUnbind, (unsigned long long object, CUdevice device, size_t offset, size_t bytes))  \
  X(cuMemPoolDestroy, (CUmemoryPool pool))                                                         \
  X(cuIpcCloseMemHandle, (CUdeviceptr pointer))                                                    \
  X(cuDestroyExternalMemory, (void* memory))                                                       \
  X(cuDestroyExternalSemaphore, (void* semaphore))                                                 \
  X(cuGraphicsUnregisterResource, (void* resource))                                                \
  X(cuCtxDisablePeerAccess, (CUcontext peer))                                                      \
  /* contexts: births, partial ones, and ends */                                                   \
  X(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                              \
  X(cuCtxCreate, (CUcontext * context, unsigned flags, CUdevice device))                           \
  X(cuCtxCreate_v2, (CUcontext * context, unsigned flags, CUdevice device))                        \
  X(cuCtxCreate_v3,                                                                                \
    (CUcontext * context, void* affinities, int count, unsigned flags, CUdevice device))           \
  X(cuCtxCreate_v4, (CUcontext * context, void* parameters, unsigned flags, CUdevice device))      \
  X(cuCtxFromGreenCtx, (CUcontext * context, void* green))                                         \
  X(cuGreenCtxDestroy, (void* green))                                                              \
  X(cuCtxDetach, (CUcontext context))                                                              \
  X(cuCtxDestroy, (CUcontext context))                                                             \
  X(cuCtxDestroy_v2, (CUcontext context))                                                          \
  X(cuDevicePrimaryCtxRelease, (CUdevice device))                                                  \
  X(cuDevicePrimaryCtxRelease_v2, (CUdevice device))                                               \
  X(cuDevicePrimaryCtxReset, (CUdevice device))                                                    \
  X(cuDevicePrimaryCtxReset_v2, (CUdevice device))                                                 \
  /* waits on the host */                                                                          \
  X(cuCtxSynchronize, (void))                                                                      \
  X(cuCtxSynchronize_v2, (CUcontext context))                                                      \
  X(cuStreamSynchronize, (CUstream stream))                                                        \
  X(cuStreamSynchronize_ptsz, (CUstream stream))                                                   \
  X(cuEventSynchronize, (CUevent event))                                                           \
  /* questions about work, and events that end */                                                  \
  X(cuStreamQuery, (CUstream stream))                                                              \
  X(cuStreamQuery_ptsz, (CUstream stream))                                                         \
  X(cuEventQuery, (CUevent event))                                                                 \
  X(cuEventElapsedTime, (float* milliseconds, CUevent begin, CUevent end))                         \
  X(cuEventElapsedTime_v2, (float* milliseconds, CUevent begin, CUevent end))                      \
  X(cuEventDestroy, (CUevent event))                                                               \
  X(cuEventDestroy_v2, (CUevent event))                                                            \
  /* captures */                                                                                   \
  X(cuStreamBeginCapture, (CUstream stream))                                                       \
  X(cuStreamBeginCapture_ptsz, (CUstream stream))                                                  \
  X(cuStreamBeginCapture_v2, (CUstream stream, CUstreamCaptureMode mode))                          \
  X(cuStreamBeginCapture_v2_ptsz, (CUstream stream, CUstreamCaptureMode mode))                     \
  X(cuStreamBeginCaptureToGraph, (CUstream stream, CUgraph graph, const CUgraphNode* dependencies, \
                                  const void* edges, size_t count, CUstreamCaptureMode mode))      \
  X(cuStreamBeginCaptureToGraph_ptsz,                                                              \
    (CUstream stream, CUgraph graph, const CUgraphNode* dependencies, const void* edges,           \
     size_t count, CUstreamCaptureMode mode))                                                      \
  X(cuStreamEndCapture, (CUstream stream, CUgraph * graph))                                        \
  X(cuStreamEndCapture_ptsz, (CUstream stream, CUgraph * graph))                                   \
  X(cuStreamDestroy, (CUstream stream))                                                            \
  X(cuStreamDestroy_v2, (CUstream stream))                                                         \
  /* submissions */                                                                                \
  CMP_SUBMISSION_SYMBOLS(X)

#define CMP_EXPORT extern "C" __attribute__((visibility("default")))

#endif  // CMP_SHIM_INTERPOSED_H_
