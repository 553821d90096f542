// Asks the runtime and the driver about pointers, in use and freed, and about free memory. It knows
// nothing of the pool: on the same machine its output must be the same without and with the
// preload.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <set>
#include <vector>

namespace {

constexpr size_t kMiB = size_t{1} << 20;

template <typename Function>
Function* Driver(const char* name) {
  static void* library = dlopen("libcuda.so.1", RTLD_LAZY);
  return reinterpret_cast<Function*>(dlsym(library, name));
}

void Ask(const char* what, void* pointer, const void* base) {
  const auto address = reinterpret_cast<CUdeviceptr>(pointer);
  CUdeviceptr start = 0;
  size_t bytes = 0;
  const int range = Driver<CUresult(CUdeviceptr*, size_t*, CUdeviceptr)>("cuMemGetAddressRange_v2")(
      &start, &bytes, address);
  size_t range_size = 0;
  const int attribute = Driver<CUresult(void*, CUpointer_attribute, CUdeviceptr)>(
      "cuPointerGetAttribute")(&range_size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address);
  cudaPointerAttributes attributes = {};
  const int runtime = cudaPointerGetAttributes(&attributes, pointer);
  cudaGetLastError();
  std::printf("%-28s range %d base %s size %zu | attribute %d %zu | runtime %d type %d\n", what,
              range, start == reinterpret_cast<CUdeviceptr>(base) ? "right" : "other", bytes,
              attribute, range_size, runtime, static_cast<int>(attributes.type));
}

void Questions(size_t bytes) {
  std::printf("== %zu bytes\n", bytes);
  std::set<unsigned long long> ids;
  for (int round = 0; round < 3; ++round) {
    void* p = nullptr;
    if (cudaMalloc(&p, bytes) != cudaSuccess) std::exit(1);
    auto* const end = static_cast<char*>(p);
    Ask("base", p, p);
    Ask("last byte", end + bytes - 1, p);
    unsigned long long id = 0;
    Driver<CUresult(void*, CUpointer_attribute, CUdeviceptr)>("cuPointerGetAttribute")(
        &id, CU_POINTER_ATTRIBUTE_BUFFER_ID, reinterpret_cast<CUdeviceptr>(p));
    ids.insert(id);
    cudaFree(p);
    Ask("freed", p, p);
  }
  std::printf("buffer ids of three allocations: %zu different\n", ids.size());
}

}  // namespace

int main() {
  if (cudaFree(nullptr) != cudaSuccess) {
    std::fprintf(stderr, "questions: no CUDA device\n");
    return 77;
  }
  for (const size_t bytes :
       {size_t{1}, size_t{1000}, size_t{70000}, kMiB, 2 * kMiB + 1, size_t{5000001}, 100 * kMiB}) {
    Questions(bytes);
  }
  // What is freed is free again; small blocks as far as their chunks of 2 MiB are wholly idle.
  size_t before = 0;
  size_t after = 0;
  size_t total = 0;
  for (const size_t bytes : {size_t{2000}, size_t{70000}, size_t{700000}}) {
    cudaMemGetInfo(&before, &total);
    std::vector<void*> small(64 * kMiB / bytes);
    for (void*& block : small) cudaMalloc(&block, bytes);
    for (size_t i = 0; i + 1 < small.size(); ++i) cudaFree(small[i]);
    cudaMemGetInfo(&after, &total);
    std::printf(
        "all but one of 64 MiB in blocks of %zu are freed: at least 58 MiB are free again: %s\n",
        bytes, after + 6 * kMiB >= before ? "yes" : "no");
    cudaFree(small.back());
  }
  cudaMemGetInfo(&before, &total);
  std::vector<void*> blocks(20);
  for (void*& block : blocks) cudaMalloc(&block, 30 * kMiB);
  size_t between = 0;
  cudaMemGetInfo(&between, &total);
  for (void* block : blocks) cudaFree(block);
  cudaMemGetInfo(&after, &total);
  std::printf("20 blocks of 30 MiB: %zu MiB taken, %zu MiB given back\n", (before - between) / kMiB,
              (after - between) / kMiB);
  // The pitch is the driver's.
  for (const size_t width : {size_t{1}, size_t{511}, size_t{513}, size_t{5000}, size_t{100000}}) {
    for (const size_t height : {size_t{1}, size_t{7}, size_t{300}}) {
      void* p = nullptr;
      size_t pitch = 0;
      const int status = cudaMallocPitch(&p, &pitch, width, height);
      std::printf("pitch of %zu x %zu: %d %zu\n", width, height, status, pitch);
      cudaFree(p);
    }
  }
  return 0;
}
