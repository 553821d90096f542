// A program that links no CUDA library and has weak references to what it would use of one. What is
// there is called.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

#pragma weak cudaMalloc
#pragma weak cudaFree
#pragma weak cudaGetDevice
#pragma weak cuGetProcAddress_v2
#pragma weak cuMemAlloc_v2
#pragma weak cuMemFree_v2
#pragma weak cuMemGetInfo_v2
#pragma weak cuCtxDestroy_v2
#pragma weak cuIpcGetMemHandle

namespace {

template <typename Function, typename... Arguments>
void Call(const char* name, Function* function, Arguments... arguments) {
  // The compiler takes a declared function's address to be set.
  Function* volatile found = function;
  if (found == nullptr) {
    printf("%s: not there\n", name);
  } else {
    printf("%s: %d\n", name, static_cast<int>(found(arguments...)));
  }
}

}  // namespace

int main() {
  void* pointer = nullptr;
  CUdeviceptr address = 0;
  size_t free = 0;
  size_t total = 0;
  CUipcMemHandle handle = {};
  Call("cudaGetDevice", &cudaGetDevice, static_cast<int*>(nullptr));
  Call("cudaMalloc", static_cast<cudaError_t (*)(void**, size_t)>(&cudaMalloc), &pointer,
       size_t{4096});
  Call("cudaFree", &cudaFree, pointer);
  Call("cuMemAlloc", &cuMemAlloc_v2, &address, size_t{4096});
  Call("cuMemFree", &cuMemFree_v2, address);
  Call("cuMemGetInfo", &cuMemGetInfo_v2, &free, &total);
  Call("cuGetProcAddress", &cuGetProcAddress_v2, "cuMemAlloc", &pointer, 12000, cuuint64_t{0},
       static_cast<CUdriverProcAddressQueryResult*>(nullptr));
  Call("cuCtxDestroy", &cuCtxDestroy_v2, CUcontext{});
  Call("cuIpcGetMemHandle", &cuIpcGetMemHandle, &handle, address);
  return 0;
}
