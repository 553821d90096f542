// The pool under RMM's containers: cmp::RmmResource as the current device's resource, and under an
// adaptor of RMM's.
#include "core/rmm_resource.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <numeric>
#include <rmm/device_uvector.hpp>
#include <rmm/mr/per_device_resource.hpp>
#include <rmm/mr/statistics_resource_adaptor.hpp>
#include <vector>

// A vector that goes to the device and back, in the current device's resource.
bool ComesBack(std::vector<int> numbers, cudaStream_t stream) {
  rmm::device_uvector<int> there(numbers.size(), stream);
  const std::size_t bytes = numbers.size() * sizeof(int);
  std::vector<int> back(numbers.size());
  cudaMemcpyAsync(there.data(), numbers.data(), bytes, cudaMemcpyHostToDevice, stream);
  cudaMemcpyAsync(back.data(), there.data(), bytes, cudaMemcpyDeviceToHost, stream);
  return cudaStreamSynchronize(stream) == cudaSuccess && back == numbers;
}

int main() {
  cudaStream_t stream = nullptr;
  if (cudaStreamCreate(&stream) != cudaSuccess) return 77;  // no GPU
  cmp::RmmResource resource;
  rmm::mr::set_current_device_resource(resource);
  std::vector<int> numbers(100000);
  std::iota(numbers.begin(), numbers.end(), 1);
  for (int round = 0; round < 100; ++round) {
    if (!ComesBack(numbers, stream)) return 1;
  }

  rmm::mr::statistics_resource_adaptor counted(resource);
  const rmm::device_uvector<double> doubles(1000, stream, counted);
  if (counted.get_bytes_counter().value != 8000) return 1;

  const CudaMemoryPoolStatistics statistics = CudaMemoryPool::Instance().Statistics();
  std::printf("%llu allocations, %llu real calls\n",
              static_cast<unsigned long long>(statistics.requests),
              static_cast<unsigned long long>(statistics.real_malloc_calls));
  return statistics.requests == 101 && statistics.real_malloc_calls < 10 ? 0 : 1;
}
