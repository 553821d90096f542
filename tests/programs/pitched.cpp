// Allocates pitched memory and nothing else: pitched 2D|3D|driver [mixed]. Its first call is one.
#include <cuda.h>

#include <vector>

#include "program.h"

namespace {

struct Memory {
  void* pointer = nullptr;
  size_t pitch = 0;
};

char g_way = '2';

int Alloc(Memory* memory, size_t width, size_t height) {
  if (g_way == '2') return cudaMallocPitch(&memory->pointer, &memory->pitch, width, height);
  if (g_way == 'd') {
    return cuMemAllocPitch(reinterpret_cast<CUdeviceptr*>(&memory->pointer), &memory->pitch, width,
                           height, 8);
  }
  cudaPitchedPtr pitched = {};
  const int status = cudaMalloc3D(&pitched, {width, 1, height});
  printf("  xsize %zu, ysize %zu\n", pitched.xsize, pitched.ysize);
  *memory = {pitched.ptr, pitched.pitch};
  return status;
}

int Free(void* pointer) {
  return g_way == 'd' ? int{cuMemFree(reinterpret_cast<CUdeviceptr>(pointer))}
                      : int{cudaFree(pointer)};
}

void SaySize(void* pointer) {
  CUdeviceptr base = 0;
  size_t bytes = 0;
  const int status = cuMemGetAddressRange(&base, &bytes, reinterpret_cast<CUdeviceptr>(pointer));
  printf("  range %d, %zu bytes\n", status, bytes);
}

void Round(size_t width, size_t height) {
  Memory memory[3];
  for (Memory& one : memory) {
    const int status = Alloc(&one, width, height);
    printf("%zu x %zu: %d, pitch %zu\n", width, height, status, one.pitch);
    SaySize(one.pointer);
  }
  for (const Memory& one : memory) {
    printf("  free %d", Free(one.pointer));
    printf(", again %d\n", Free(one.pointer));
  }
  cudaGetLastError();
}

void Odd() {
  Memory memory{reinterpret_cast<void*>(7), 7};
  for (const size_t width : {size_t{0}, size_t{100}, size_t{1} << 40}) {
    for (const size_t height : {size_t{0}, size_t{1} << 40}) {
      const int status = Alloc(&memory, width, height);
      printf("%zu x %zu: %d, ", width, height, status);
      printf("last error %d\n", int{cudaGetLastError()});
    }
  }
}

// A width that the runtime was given is none that the driver's call has; and while a thread
// captures its calls are refused, and end the capture.
void Special() {
  Memory memory;
  MUST(cudaMallocPitch(&memory.pointer, &memory.pitch, 3000, 10));
  MUST(cudaFree(memory.pointer));
  MUST(cudaMallocPitch(&memory.pointer, &memory.pitch, 3000, 10));
  MUST(cudaFree(memory.pointer));
  CUdeviceptr address = 0;
  printf("element 0: %d\n", int{cuMemAllocPitch(&address, &memory.pitch, 3000, 10, 0)});
  const cudaStream_t stream = program::NonBlockingStream();
  for (const cudaStreamCaptureMode mode :
       {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
        cudaStreamCaptureModeRelaxed}) {
    cudaGraph_t graph = nullptr;
    MUST(cudaStreamBeginCapture(stream, mode));
    const int status = Alloc(&memory, 5000, 64);
    printf("while capturing, mode %d: %d, ", int{mode}, status);
    printf("last error %d, ", int{cudaGetLastError()});
    printf("end %d\n", int{cudaStreamEndCapture(stream, &graph)});
    cudaGetLastError();
    if (status == 0) printf("  free %d\n", Free(memory.pointer));
  }
}

}  // namespace

int main(int count, char** arguments) {
  g_way = count > 1 ? arguments[1][0] : '2';
  if (g_way == 'd') {
    CUcontext context = nullptr;
    if (cuInit(0) != 0 || cuDevicePrimaryCtxRetain(&context, 0) != 0) return 3;
    if (cuCtxSetCurrent(context) != 0) return 3;
  }
  for (int round = 0; round < 2; ++round) {
    for (const size_t width : {size_t{100}, size_t{513}, size_t{5000}, size_t{1} << 20}) {
      for (const size_t height : {size_t{1}, size_t{3}, size_t{64}}) Round(width, height);
    }
    Odd();
  }
  const uint64_t before = program::RealAllocations() + simCallCount("cuMemAllocPitch_v2");
  for (int i = 0; i < 100; ++i) {
    Memory memory;
    MUST(static_cast<cudaError_t>(Alloc(&memory, 5000, 64)));
    MUST(static_cast<cudaError_t>(Free(memory.pointer)));
  }
  printf("# real allocations of 100: %llu\n",
         static_cast<unsigned long long>(program::RealAllocations() +
                                         simCallCount("cuMemAllocPitch_v2") - before));
  Special();
  program::SayHazards();
  return 0;
}
