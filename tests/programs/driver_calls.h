// What a program of the driver's API alone does, with functions found in whatever way.
#ifndef CMP_TESTS_PROGRAMS_DRIVER_CALLS_H_
#define CMP_TESTS_PROGRAMS_DRIVER_CALLS_H_

#include <cuda.h>
#include <stdio.h>

namespace program {

// The newest ABI of each.
struct DriverCalls {
  decltype(&::cuInit) init;
  decltype(&::cuDevicePrimaryCtxRetain) retain;
  decltype(&::cuCtxSetCurrent) set_current;
  CUresult (*alloc)(CUdeviceptr* pointer, size_t bytes);
  CUresult (*free)(CUdeviceptr pointer);
  CUresult (*get_info)(size_t* free, size_t* total);
};

inline void UseDriver(const DriverCalls& calls) {
  CUcontext context = nullptr;
  printf("init %d", static_cast<int>(calls.init(0)));
  printf(", retain %d", static_cast<int>(calls.retain(&context, 0)));
  printf(", current %d\n", static_cast<int>(calls.set_current(context)));
  int failed = 0;
  CUdeviceptr pointer = 0;
  for (int i = 0; i < 100; ++i) {
    if (calls.alloc(&pointer, 4096) != CUDA_SUCCESS) ++failed;
    if (calls.free(pointer) != CUDA_SUCCESS) ++failed;
  }
  printf("failed %d\n", failed);
  printf("free again %d\n", static_cast<int>(calls.free(pointer)));
  printf("nothing %d, too much %d\n", static_cast<int>(calls.alloc(&pointer, 0)),
         static_cast<int>(calls.alloc(&pointer, size_t{1} << 46)));
  size_t free = 0;
  size_t total = 0;
  printf("info %d, ", static_cast<int>(calls.get_info(&free, &total)));
  printf("total %zu\n", total);
}

}  // namespace program

#endif  // CMP_TESTS_PROGRAMS_DRIVER_CALLS_H_
