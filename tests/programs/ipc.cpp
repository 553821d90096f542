// IPC exports: the handle names the right allocation in its size, and an exported block never comes
// back.
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
  printf("  names %s, %zu bytes\n",
         base == reinterpret_cast<CUdeviceptr>(block) ? "the block" : "something else", bytes);
}

// `warm`: what the pool has.
void Exports(size_t requested, size_t warm) {
  program::Warm(warm, 8);
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

// A driver whose handles are laid out in another way: nothing in them is changed.
void OtherLayouts(size_t requested) {
  static cudaIpcMemHandle_t handle;
  static cudaIpcMemHandle_t drivers;
  static size_t place;
  program::Warm(requested, 1);
  char* block = Allocate(requested);
  for (const size_t other : {16, 17, 24, 27, 28, 30}) {
    place = other;
    simOnCall(
        "cuIpcGetMemHandle", SIM_AFTER_CALL,
        [](void*) {
          handle.reserved[place] = static_cast<char>(handle.reserved[place] + 1);
          drivers = handle;
        },
        nullptr);
    Say("export", cudaIpcGetMemHandle(&handle, block));
    printf("  with another byte %zu: %s\n", place,
           memcmp(&handle, &drivers, sizeof handle) == 0 ? "left alone" : "changed");
  }
  simOnCall("cuIpcGetMemHandle", SIM_AFTER_CALL, nullptr, nullptr);
  Describe(block, 0);
  MUST(cudaFree(block));
}

}  // namespace

int main() {
  for (const size_t bytes : {size_t{256}, size_t{5000}, size_t{1} << 20, size_t{5} << 20}) {
    Exports(bytes, bytes);
  }
  Exports(size_t{16} << 20, size_t{18} << 20);
  for (const size_t bytes : {size_t{5000}, size_t{5000001}}) OtherLayouts(bytes);
  cudaIpcMemHandle_t handle = {};
  Say("export of NULL", cudaIpcGetMemHandle(&handle, nullptr));
  Say("export of a wild pointer", cudaIpcGetMemHandle(&handle, reinterpret_cast<void*>(0x123000)));
  Say("export without a handle", cudaIpcGetMemHandle(nullptr, Allocate(256)));
  program::SayHazards();
  return 0;
}
