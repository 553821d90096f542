// cmp::DeviceBuffer: device memory that goes when its owner goes.
#include "core/device_buffer.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <utility>
#include <vector>

// A buffer is returned by value: it moves.
cmp::DeviceBuffer<float> OnDevice(const std::vector<float>& host) {
  cmp::DeviceBuffer<float> buffer(host.size());
  cudaMemcpy(buffer.data(), host.data(), buffer.size_bytes(), cudaMemcpyHostToDevice);
  return buffer;
}

int main() {
  const std::vector<float> numbers = {1.5f, 2.5f, 3.5f};
  cmp::DeviceBuffer<float> buffer = OnDevice(numbers);
  const cmp::DeviceBuffer<float> owner = std::move(buffer);

  std::vector<float> back(owner.size());
  const cudaError_t status =
      cudaMemcpy(back.data(), owner.data(), owner.size_bytes(), cudaMemcpyDeviceToHost);
  const bool right = status == cudaSuccess && back == numbers && buffer.empty();
  std::printf("%zu numbers came back %s\n", back.size(), right ? "unchanged" : "changed");
  return right ? 0 : 1;
}
