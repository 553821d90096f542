// RMM as it is by default: every vector a cudaMalloc and a cudaFree of the static runtime inside
// it. Knows nothing of the pool. document_programs.py builds it where RMM is.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <rmm/device_uvector.hpp>
#include <vector>

int main() {
  cudaStream_t stream = nullptr;
  if (cudaStreamCreate(&stream) != cudaSuccess) return 77;
  unsigned long long sum = 0;
  for (int i = 0; i < 300; ++i) {
    std::vector<int> numbers(10000 + 37 * i, i);
    rmm::device_uvector<int> there(numbers.size(), stream);
    const size_t bytes = numbers.size() * sizeof(int);
    cudaMemcpyAsync(there.data(), numbers.data(), bytes, cudaMemcpyHostToDevice, stream);
    rmm::device_uvector<int> copy(there, stream);
    cudaMemcpyAsync(numbers.data(), copy.data(), bytes, cudaMemcpyDeviceToHost, stream);
    if (cudaStreamSynchronize(stream) != cudaSuccess) return 1;
    sum = sum * 31 + static_cast<unsigned long long>(numbers.back());
  }
  std::printf("%016llx\n", sum);
  return 0;
}
