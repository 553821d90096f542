// Memory of the device that was set last, from a runtime whose cudaSetDevice makes nothing current.
// With an argument: beside a plugin that has a newer runtime, and is used first.
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>

#include <initializer_list>

extern "C" {
int cudaMalloc(void** pointer, size_t bytes);
int cudaMallocPitch(void** pointer, size_t* pitch, size_t width, size_t height);
int cudaFree(void* pointer);
int cudaSetDevice(int device);
int cudaDeviceSynchronize();
}

namespace {

void SayWhere(const char* what, int status, void* const& pointer) {
  int device = -1;
  const int asked = cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                          reinterpret_cast<CUdeviceptr>(pointer));
  if (asked != 0) printf("asked: %d\n", asked);
  printf("%s: %d, memory of device %d\n", what, status, device);
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1) {
    void* plugin = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (plugin == nullptr) return 3;
    printf("plugin: failed %d\n", reinterpret_cast<int (*)()>(dlsym(plugin, "plugin_work"))());
  }
  for (int round = 0; round < 3; ++round) {
    for (const int device : {1, 0}) {
      cudaSetDevice(device);
      cudaDeviceSynchronize();
      cudaSetDevice(1 - device);
      void* pointers[3] = {};
      size_t pitch = 0;
      SayWhere("small", cudaMalloc(&pointers[0], 4096), pointers[0]);
      cudaSetDevice(device);
      SayWhere("large", cudaMalloc(&pointers[1], 4 << 20), pointers[1]);
      cudaSetDevice(1 - device);
      SayWhere("pitched", cudaMallocPitch(&pointers[2], &pitch, 1000, 10), pointers[2]);
      cudaDeviceSynchronize();
      for (void* pointer : pointers) printf("free %d\n", cudaFree(pointer));
    }
  }
  return 0;
}
