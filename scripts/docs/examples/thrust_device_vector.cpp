// A thrust::device_vector whose memory comes from the pool. thrust knows device memory by the type
// of its pointers, so the allocator's second parameter is thrust::device_ptr.
#include <thrust/device_vector.h>
#include <thrust/host_vector.h>
#include <thrust/reduce.h>
#include <thrust/sequence.h>

#include <cstdio>

#include "core/cuda_memory_pool.h"
#include "core/device_allocator.h"

template <typename T>
using PoolVector = thrust::device_vector<T, cmp::DeviceAllocator<T, thrust::device_ptr<T>>>;

int main() {
  const CudaMemoryPool& pool = CudaMemoryPool::Instance();
  for (int step = 0; step < 10; ++step) {
    PoolVector<int> numbers(1000);
    thrust::sequence(numbers.begin(), numbers.end(), 1);
    if (thrust::reduce(numbers.begin(), numbers.end()) != 500500) return 1;
    numbers.resize(2000, 1);
    PoolVector<int> copy = numbers;
    const thrust::host_vector<int> host = copy;
    if (host[999] != 1000 || host[1999] != 1) return 1;
  }
  const CudaMemoryPoolStatistics statistics = pool.Statistics();
  std::printf("%llu vectors' memory, %llu real calls\n",
              static_cast<unsigned long long>(statistics.requests),
              static_cast<unsigned long long>(statistics.real_malloc_calls));
  return statistics.requests >= 30 && statistics.live_blocks == 0 &&
                 statistics.real_malloc_calls < statistics.requests
             ? 0
             : 1;
}
