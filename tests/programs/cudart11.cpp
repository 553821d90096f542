// A CUDA runtime from before version 12, as far as wrong_device needs one: cudaSetDevice only
// remembers, and the next call that needs a context makes the device's primary one current (CUDA
// 12.0 release notes).
#include <cuda.h>
#include <dlfcn.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

thread_local int t_device = 0;
thread_local int t_bound = -1;

template <typename Function>
Function Driver(const char* name, int version) {
  static void* library = dlopen("libcuda.so.1", RTLD_NOW);
  static const auto find = reinterpret_cast<CUresult (*)(const char*, void**, int, cuuint64_t)>(
      dlsym(library, "cuGetProcAddress"));
  void* function = nullptr;
  find(name, &function, version, 0);
  return reinterpret_cast<Function>(function);
}

int Bind() {
  // A runtime looks everything up at its first call.
  static const auto launch = Driver<decltype(&cuLaunchKernel)>("cuLaunchKernel", 4000);
  if (launch == nullptr) return 500;
  if (t_bound == t_device) return 0;
  CUcontext context = nullptr;
  Driver<decltype(&cuInit)>("cuInit", 2000)(0);
  if (const int status = Driver<decltype(&cuDevicePrimaryCtxRetain)>("cuDevicePrimaryCtxRetain",
                                                                     7000)(&context, t_device)) {
    return status;
  }
  t_bound = t_device;
  return Driver<decltype(&cuCtxSetCurrent)>("cuCtxSetCurrent", 4000)(context);
}

}  // namespace

EXPORT int cudaMalloc(void** pointer, size_t bytes) {
  if (const int status = Bind()) return status;
  return Driver<CUresult (*)(void**, size_t)>("cuMemAlloc", 3020)(pointer, bytes);
}

EXPORT int cudaFree(void* pointer) {
  if (const int status = Bind()) return status;
  return Driver<CUresult (*)(void*)>("cuMemFree", 3020)(pointer);
}

EXPORT int cudaMallocPitch(void** pointer, size_t* pitch, size_t width, size_t height) {
  if (const int status = Bind()) return status;
  return Driver<CUresult (*)(void**, size_t*, size_t, size_t, unsigned)>("cuMemAllocPitch", 3020)(
      pointer, pitch, width, height, 4);
}

EXPORT int cudaDeviceSynchronize() {
  if (const int status = Bind()) return status;
  return Driver<CUresult (*)()>("cuCtxSynchronize", 2000)();
}

EXPORT int cudaSetDevice(int device) {
  t_device = device;
  return 0;
}
EXPORT int cudaGetDevice(int* device) {
  *device = t_device;
  return 0;
}
EXPORT int cudaGetLastError() { return 0; }
EXPORT int cudaPeekAtLastError() { return 0; }
EXPORT int cudaLaunchKernel() { return 801; }
EXPORT int cudaRuntimeGetVersion(int* version) {
  *version = 11080;
  return 0;
}
