// thrust with the pool as a library: vectors by their allocator, temporaries of algorithms by the
// execution policy.
//
//   nvcc -std=c++20 thrust_pool.cu -I/opt/cmp/include/cmp -L/opt/cmp/lib -lcmp
#include <thrust/device_vector.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/system/cuda/execution_policy.h>

#include <cstdio>

#include "core/cuda_memory_pool.h"
#include "core/device_allocator.h"

template <typename T>
using PoolVector = thrust::device_vector<T, cmp::DeviceAllocator<T, thrust::device_ptr<T>>>;

int main() {
  cmp::DeviceAllocator<char> temporaries;
  for (int round = 0; round < 100; ++round) {
    PoolVector<int> numbers(100000);
    thrust::sequence(numbers.begin(), numbers.end(), 99999, -1);
    thrust::sort(thrust::cuda::par(temporaries), numbers.begin(), numbers.end());
    if (numbers[0] != 0 || numbers[99999] != 99999) return 1;
  }
  const CudaMemoryPoolStatistics statistics = CudaMemoryPool::Instance().Statistics();
  std::printf("%llu allocations, %llu real calls\n",
              static_cast<unsigned long long>(statistics.requests),
              static_cast<unsigned long long>(statistics.real_malloc_calls));
  return statistics.requests >= 200 && statistics.real_malloc_calls < 20 ? 0 : 1;
}
