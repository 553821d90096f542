// A program without libcudart that looks for cudaMalloc all the same.
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>

int main() {
  using Malloc = int (*)(void**, size_t);
  using Free = int (*)(void*);
  const auto malloc = reinterpret_cast<Malloc>(dlsym(RTLD_DEFAULT, "cudaMalloc"));
  const auto free = reinterpret_cast<Free>(dlsym(RTLD_DEFAULT, "cudaFree"));
  printf("found: %s\n", malloc != nullptr ? "yes" : "no");
  if (malloc == nullptr || free == nullptr) return 0;
  void* pointer = nullptr;
  printf("malloc %s\n", malloc(&pointer, 16) == 0 ? "succeeded" : "failed");
  printf("free %s\n", free(nullptr) == 0 ? "succeeded" : "failed");
  return 0;
}
