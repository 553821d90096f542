// What a submission costs the host: kernels that do nothing, sets and copies of a few bytes, in
// threads with a stream each. Prints one JSON line per case; tests/gpu/compare_launches.py runs it
// without and with the preload, which sees every submission, and prints ratios.
//
//   launches [MILLISECONDS_PER_CASE]
#include <cuda.h>
#include <dlfcn.h>

#include <barrier>

#include "../demo/kernels.h"
#include "../demo/kernels_ptx.h"
#include "../sim/sim.h"
#include "program.h"

namespace {

using cmp::demo::Kernels;
using namespace cmp::gpu;

// The empty kernel as cudaLaunchKernel takes it; nullptr where the runtime is too old for kernels
// that come from no nvcc.
const void* RuntimeKernel(const Kernels& kernels) {
  if (kernels.simulated()) {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    const auto function = reinterpret_cast<decltype(&simFunction)>(dlsym(driver, "simFunction"));
    return reinterpret_cast<const void*>(function());
  }
#if CUDART_VERSION >= 12080
  const auto load =
      reinterpret_cast<decltype(&cudaLibraryLoadData)>(dlsym(RTLD_DEFAULT, "cudaLibraryLoadData"));
  const auto get = reinterpret_cast<decltype(&cudaLibraryGetKernel)>(
      dlsym(RTLD_DEFAULT, "cudaLibraryGetKernel"));
  if (load == nullptr || get == nullptr) return nullptr;
  cudaLibrary_t library = nullptr;
  cudaKernel_t kernel = nullptr;
  CHECK(load(&library, cmp::demo::kPtx, nullptr, nullptr, 0, nullptr, nullptr, 0));
  CHECK(get(&kernel, library, "empty"));
  const auto* function = reinterpret_cast<const void*>(kernel);
  const bool good =
      cudaLaunchKernel(function, dim3(1), dim3(1), nullptr, 0, nullptr) == cudaSuccess;
  cudaGetLastError();
  return good ? function : nullptr;
#else
  return nullptr;
#endif
}

void Nothing(void*) {}

// Nanoseconds a call: the median over short batches, each into an empty queue.
template <typename Submit>
double Measure(cudaStream_t stream, double milliseconds, const Submit& submit) {
  constexpr int kBatch = 100;
  std::vector<double> batches;
  const auto end = Clock::now() + std::chrono::duration<double, std::milli>(milliseconds);
  do {
    const auto begin = Clock::now();
    for (int i = 0; i < kBatch; ++i) submit(stream);
    batches.push_back(SecondsSince(begin) * 1e9 / kBatch);
    CHECK(cudaStreamSynchronize(stream));
  } while (Clock::now() < end);
  return Median(std::move(batches));
}

template <typename Submit>
void Case(const char* what, int threads, double milliseconds, const Submit& submit) {
  std::vector<double> results(static_cast<size_t>(threads));
  std::barrier start(threads);
  std::vector<std::thread> workers;
  for (double& result : results) {
    workers.emplace_back([&] {
      const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
      Measure(stream, milliseconds / 10, submit);
      start.arrive_and_wait();
      result = Measure(stream, milliseconds, submit);
      CHECK(cudaStreamDestroy(stream));
    });
  }
  for (std::thread& worker : workers) worker.join();
  double sum = 0;
  for (const double result : results) sum += result;
  std::printf("{\"what\": \"%s\", \"threads\": %d, \"ns\": %.1f}\n", what, threads, sum / threads);
}

}  // namespace

int main(int argc, char** argv) {
  const double milliseconds = argc > 1 ? std::atof(argv[1]) : 200;
  StartCudaOrSkip();
  const Kernels kernels;
  const void* kernel = RuntimeKernel(kernels);
  char* const block = AllocateZeros<char>(4096);
  void* host = nullptr;
  CHECK(cudaMallocHost(&host, 4096));
  SimWork work = {};  // what the simulated kernel takes; the real one takes nothing
  work.duration_ns = 1000;
  work.effect = &Nothing;
  const SimWork* parameter = &work;
  void* parameters[] = {static_cast<void*>(&parameter)};
  for (const int threads : {1, 4}) {
    if (kernel != nullptr) {
      Case("cudaLaunchKernel", threads, milliseconds, [&](cudaStream_t stream) {
        CHECK(cudaLaunchKernel(kernel, dim3(1), dim3(1), parameters, 0, stream));
      });
    }
    Case("cuLaunchKernel", threads, milliseconds,
         [&](cudaStream_t stream) { kernels.Empty(stream); });
    Case("cudaMemsetAsync", threads, milliseconds,
         [&](cudaStream_t stream) { CHECK(cudaMemsetAsync(block, 0, 256, stream)); });
    Case("cudaMemcpyAsync on the device", threads, milliseconds, [&](cudaStream_t stream) {
      CHECK(cudaMemcpyAsync(block + 1024, block, 256, cudaMemcpyDeviceToDevice, stream));
    });
    Case("cudaMemcpyAsync to page-locked memory", threads, milliseconds, [&](cudaStream_t stream) {
      CHECK(cudaMemcpyAsync(host, block, 256, cudaMemcpyDeviceToHost, stream));
    });
  }
  CHECK(cudaFree(block));
  CHECK(cudaFreeHost(host));
  return 0;
}
