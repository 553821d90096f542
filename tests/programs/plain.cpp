// A program that knows CUDA's runtime and nothing else: plain [PAIRS] allocates and frees.
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char** arguments) {
  const int pairs = count > 1 ? atoi(arguments[1]) : 100;
  int failed = 0;
  for (int i = 0; i < pairs; ++i) {
    void* pointer = nullptr;
    if (cudaMalloc(&pointer, 4096) != cudaSuccess) ++failed;
    if (cudaFree(pointer) != cudaSuccess) ++failed;
  }
  const int last = cudaGetLastError();
  printf("failed %d, last error %d\n", failed, last);
  return 0;
}
