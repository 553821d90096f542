// A plugin that links a CUDA runtime of its own. Built several times, against different runtimes.
#include <cuda_runtime_api.h>
#include <stdio.h>

extern "C" __attribute__((visibility("default"))) int plugin_work() {
  int failed = 0;
  for (int i = 0; i < 50; ++i) {
    void* pointer = nullptr;
    if (cudaMalloc(&pointer, 4096) != cudaSuccess) ++failed;
    if (cudaFree(pointer) != cudaSuccess) ++failed;
  }
  return failed;
}

// Leaves an error in this plugin's own runtime.
extern "C" __attribute__((visibility("default"))) int plugin_wrong_free() {
  return cudaFree(reinterpret_cast<void*>(0x123000));
}
extern "C" __attribute__((visibility("default"))) int plugin_impossible() {
  void* pointer = nullptr;
  return cudaMalloc(&pointer, size_t{1} << 46);
}
extern "C" __attribute__((visibility("default"))) int plugin_last_error() {
  return cudaGetLastError();
}
extern "C" __attribute__((visibility("default"))) void* plugin_malloc(size_t bytes) {
  void* pointer = nullptr;
  return cudaMalloc(&pointer, bytes) == cudaSuccess ? pointer : nullptr;
}
extern "C" __attribute__((visibility("default"))) int plugin_free(void* pointer) {
  return cudaFree(pointer);
}
