// Allocates pitched memory and nothing else, as image libraries do (OpenCV's GpuMat). Results on
// stdout; on stderr what a pair of allocation and free takes, and plain ones of both APIs at the
// end.
//
//   pitched [PAIRS]
#include <cuda.h>

#include "program.h"

namespace {

using namespace cmp::gpu;

constexpr size_t kWidth = 4000;
constexpr size_t kHeight = 200;

void* ByRuntime() {
  void* pointer = nullptr;
  size_t pitch = 0;
  CHECK(cudaMallocPitch(&pointer, &pitch, kWidth, kHeight));
  return pointer;
}

void* In3D() {
  cudaPitchedPtr pitched = {};
  CHECK(cudaMalloc3D(&pitched, {kWidth, kHeight / 10, 10}));
  return pitched.ptr;
}

void* ByDriver() {
  CUdeviceptr pointer = 0;
  size_t pitch = 0;
  CHECK(static_cast<cudaError_t>(cuMemAllocPitch(&pointer, &pitch, kWidth, kHeight, 16)));
  return reinterpret_cast<void*>(pointer);
}

void* Plain() { return Allocate<char>(4096 * kHeight); }

void* PlainByDriver() {
  CUdeviceptr pointer = 0;
  CHECK(static_cast<cudaError_t>(cuMemAlloc(&pointer, 4096 * kHeight)));
  return reinterpret_cast<void*>(pointer);
}

void FreeByRuntime(void* pointer) { CHECK(cudaFree(pointer)); }

void FreeByDriver(void* pointer) {
  CHECK(static_cast<cudaError_t>(cuMemFree(reinterpret_cast<CUdeviceptr>(pointer))));
}

void Time(const char* what, int pairs, void* (*allocate)(), void (*free)(void*) = &FreeByRuntime) {
  for (int i = 0; i < 100; ++i) free(allocate());
  std::vector<double> times;
  for (int turn = 0; turn < 5; ++turn) {
    const auto begin = Clock::now();
    for (int i = 0; i < pairs; ++i) free(allocate());
    times.push_back(SecondsSince(begin) / pairs * 1e9);
  }
  std::fprintf(stderr, "%s %.1f ns a pair\n", what, Median(times));
}

void SayMemory(size_t width, size_t height) {
  void* pointer = nullptr;
  size_t pitch = 0;
  std::printf("%zu x %zu: %d, ", width, height,
              int{cudaMallocPitch(&pointer, &pitch, width, height)});
  CUdeviceptr base = 0;
  size_t bytes = 0;
  const int status = cuMemGetAddressRange(&base, &bytes, reinterpret_cast<CUdeviceptr>(pointer));
  std::printf("pitch %zu, range %d, %zu bytes\n", pitch, status, bytes);
  CHECK(cudaMemset2D(pointer, pitch, 7, width, height));
  char last = 0;
  CHECK(cudaMemcpy(&last, static_cast<char*>(pointer) + (height - 1) * pitch + width - 1, 1,
                   cudaMemcpyDeviceToHost));
  std::printf("  last byte %d, free %d\n", last, int{cudaFree(pointer)});
}

}  // namespace

int main(int argc, char** argv) {
  StartCudaOrSkip();
  const int pairs = argc > 1 ? std::atoi(argv[1]) : 20000;
  for (int round = 0; round < 3; ++round) {
    for (const size_t width : {size_t{1}, size_t{512}, size_t{513}, kWidth, 3 * kMiB}) {
      for (const size_t height : {size_t{1}, size_t{100}}) SayMemory(width, height);
    }
  }
  void* none = nullptr;
  size_t pitch = 0;
  std::printf("too much: %d, ", int{cudaMallocPitch(&none, &pitch, size_t{1} << 40, 1 << 20)});
  std::printf("last error %d\n", int{cudaGetLastError()});
  Time("cudaMallocPitch", pairs, &ByRuntime);
  Time("cudaMalloc3D", pairs, &In3D);
  Time("cuMemAllocPitch", pairs, &ByDriver);
  Time("cudaMalloc", pairs, &Plain);
  Time("cuMemAlloc", pairs, &PlainByDriver, &FreeByDriver);
  return 0;
}
