// The interposed entry points of the driver that end what pending work may still use. The program
// may take cudaFree for the wait that makes that safe: where the real call does not wait by itself,
// what frees did not wait for is waited for first. (Measured on an H200, driver 580: arrays and
// modules are waited for; objects, libraries and mappings are not.)
//
// And of those that find out about a crash, and say nothing of it (measured).
#include "shim/lookup/entry_points.h"
#include "shim/lookup/lookup.h"
#include "shim/work/owed.h"

CUresult Driver_cuModuleUnload(CUmodule module) {
  CMP_REAL(cuModuleUnload);
  const CUresult status = real->cuModuleUnload(module);
  if (status == CUDA_SUCCESS) cmp::LookForCrash();
  return status;
}

CUresult Driver_cuGraphExecDestroy(CUgraphExec exec) {
  CMP_REAL(cuGraphExecDestroy);
  const CUresult status = real->cuGraphExecDestroy(exec);
  if (status == CUDA_SUCCESS) cmp::LookForCrash();
  return status;
}

// `arguments` are those of the entry point, in parentheses.
#define CMP_PAY_AND_CALL(name, arguments) \
  CMP_REAL(name);                         \
  cmp::PayBeforeDestruction();            \
  return real->name arguments

CUresult Driver_cuTexObjectDestroy(unsigned long long object) {
  CMP_PAY_AND_CALL(cuTexObjectDestroy, (object));
}

CUresult Driver_cuSurfObjectDestroy(unsigned long long object) {
  CMP_PAY_AND_CALL(cuSurfObjectDestroy, (object));
}

CUresult Driver_cuLibraryUnload(void* library) { CMP_PAY_AND_CALL(cuLibraryUnload, (library)); }

CUresult Driver_cuMemUnmap(CUdeviceptr pointer, size_t bytes) {
  CMP_PAY_AND_CALL(cuMemUnmap, (pointer, bytes));
}

CUresult Driver_cuMemRelease(unsigned long long handle) {
  CMP_PAY_AND_CALL(cuMemRelease, (handle));
}

CUresult Driver_cuMemAddressFree(CUdeviceptr pointer, size_t bytes) {
  CMP_PAY_AND_CALL(cuMemAddressFree, (pointer, bytes));
}

CUresult Driver_cuMulticastUnbind(unsigned long long object, CUdevice device, size_t offset,
                                  size_t bytes) {
  CMP_PAY_AND_CALL(cuMulticastUnbind, (object, device, offset, bytes));
}

CUresult Driver_cuLogicalEndpointUnbind(unsigned endpoint, CUdevice device, cuuint64_t offset,
                                        cuuint64_t bytes) {
  CMP_PAY_AND_CALL(cuLogicalEndpointUnbind, (endpoint, device, offset, bytes));
}

CUresult Driver_cuLogicalEndpointDestroy(unsigned endpoint) {
  CMP_PAY_AND_CALL(cuLogicalEndpointDestroy, (endpoint));
}

CUresult Driver_cuIpcCloseMemHandle(CUdeviceptr pointer) {
  CMP_PAY_AND_CALL(cuIpcCloseMemHandle, (pointer));
}

CUresult Driver_cuDestroyExternalMemory(void* memory) {
  CMP_PAY_AND_CALL(cuDestroyExternalMemory, (memory));
}

CUresult Driver_cuDestroyExternalSemaphore(void* semaphore) {
  CMP_PAY_AND_CALL(cuDestroyExternalSemaphore, (semaphore));
}

CUresult Driver_cuGraphicsUnregisterResource(void* resource) {
  CMP_PAY_AND_CALL(cuGraphicsUnregisterResource, (resource));
}

CUresult Driver_cuGLUnregisterBufferObject(unsigned buffer) {
  CMP_PAY_AND_CALL(cuGLUnregisterBufferObject, (buffer));
}

CUresult Driver_cuEGLStreamConsumerDisconnect(void* connection) {
  CMP_PAY_AND_CALL(cuEGLStreamConsumerDisconnect, (connection));
}

CUresult Driver_cuEGLStreamProducerDisconnect(void* connection) {
  CMP_PAY_AND_CALL(cuEGLStreamProducerDisconnect, (connection));
}

CUresult Driver_cuCtxDisablePeerAccess(CUcontext peer) {
  CMP_PAY_AND_CALL(cuCtxDisablePeerAccess, (peer));
}
