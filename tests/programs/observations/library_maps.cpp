// A library that maps page-locked memory for itself, as cuDNN does. Built under two names.
#include <cuda.h>

extern "C" __attribute__((visibility("default"))) char* MapPageLocked() {
  void* memory = nullptr;
  CUdeviceptr address = 0;
  if (cuMemHostAlloc(&memory, 4096, CU_MEMHOSTALLOC_DEVICEMAP) != CUDA_SUCCESS) return nullptr;
  if (cuMemHostGetDevicePointer_v2(&address, memory, 0) != CUDA_SUCCESS) return nullptr;
  return reinterpret_cast<char*>(address);
}
