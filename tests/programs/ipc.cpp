// IPC exports: the handle names the right allocation, and an exported block never comes back.
#include <set>
#include <vector>

#include "program.h"

using program::Allocate;
using program::Say;

namespace {

// What the handle of `pointer` really names, relative to the block.
void Describe(char* block, size_t offset) {
  cudaIpcMemHandle_t handle = {};
  Say("export", cudaIpcGetMemHandle(&handle, block + offset));
  CUipcMemHandle driver_handle;
  static_assert(sizeof(driver_handle) == sizeof(handle));
  memcpy(&driver_handle, &handle, sizeof(handle));
  CUdeviceptr base = 0;
  size_t bytes = 0;
  int pid = 0;
  if (!simDescribeIpcHandle(&driver_handle, &base, &bytes, &pid)) {
    printf("  not a handle\n");
    return;
  }
  printf("  names %s\n",
         base == reinterpret_cast<CUdeviceptr>(block) ? "the block" : "something else");
}

void Exports(size_t requested) {
  program::Warm(requested, 8);
  for (const size_t offset : {size_t{0}, size_t{100}}) {
    char* block = Allocate(requested);
    Describe(block, offset);
    const uint64_t live = simLiveAllocations(0);
    Say("free", cudaFree(block));
    printf("  really freed: %s\n", simLiveAllocations(0) == live - 1 ? "yes" : "no");
    Say("double free", cudaFree(block));
    cudaGetLastError();
    Say("export of a freed block", [&] {
      cudaIpcMemHandle_t handle = {};
      return cudaIpcGetMemHandle(&handle, block);
    }());
    cudaGetLastError();
  }
  // Twice, and one that is in use elsewhere.
  char* block = Allocate(requested);
  Describe(block, 0);
  Describe(block, requested - 1);
  const uint64_t live = simLiveAllocations(0);
  Say("free", cudaFree(block));
  printf("  really freed: %s\n", simLiveAllocations(0) == live - 1 ? "yes" : "no");
}

}  // namespace

int main() {
  for (const size_t bytes : {size_t{256}, size_t{5000}, size_t{1} << 20, size_t{5} << 20}) {
    Exports(bytes);
  }
  cudaIpcMemHandle_t handle = {};
  Say("export of NULL", cudaIpcGetMemHandle(&handle, nullptr));
  Say("export of a wild pointer", cudaIpcGetMemHandle(&handle, reinterpret_cast<void*>(0x123000)));
  Say("export without a handle", cudaIpcGetMemHandle(nullptr, Allocate(256)));
  program::SayHazards();
  return 0;
}
