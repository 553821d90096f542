// Links no CUDA library and opens libcuda, as language bindings do: one dlsym of cuGetProcAddress,
// everything else through that. driver_opened v2|v1|symbols|later: v2, and a function of a later
// CUDA
#include <dlfcn.h>
#include <string.h>

#include "driver_calls.h"

namespace {

void* g_library = nullptr;
decltype(&::cuGetProcAddress_v2) g_get = nullptr;
CUresult (*g_get_v1)(const char*, void**, int, cuuint64_t) = nullptr;

template <typename Function>
void Find(Function* function, const char* name, int version, const char* symbol) {
  void* found = nullptr;
  CUresult result = CUDA_SUCCESS;
  if (g_get != nullptr) {
    CUdriverProcAddressQueryResult status = {};
    result = g_get(name, &found, version, 0, &status);
    printf("%s: %d, status %d\n", name, static_cast<int>(result), static_cast<int>(status));
  } else if (g_get_v1 != nullptr) {
    result = g_get_v1(name, &found, version, 0);
    printf("%s: %d\n", name, static_cast<int>(result));
  } else {
    found = dlsym(g_library, symbol);
    printf("%s: %s\n", symbol, found != nullptr ? "found" : "not found");
  }
  *function = reinterpret_cast<Function>(found);
}

}  // namespace

int main(int count, char** arguments) {
  const char* way = count > 1 ? arguments[1] : "v2";
  g_library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (g_library == nullptr) return 3;
  if (strcmp(way, "v2") == 0 || strcmp(way, "later") == 0) {
    g_get = reinterpret_cast<decltype(g_get)>(dlsym(g_library, "cuGetProcAddress_v2"));
  } else if (strcmp(way, "v1") == 0) {
    g_get_v1 = reinterpret_cast<decltype(g_get_v1)>(dlsym(g_library, "cuGetProcAddress"));
  }
  program::DriverCalls calls = {};
  Find(&calls.init, "cuInit", 2000, "cuInit");
  Find(&calls.retain, "cuDevicePrimaryCtxRetain", 7000, "cuDevicePrimaryCtxRetain");
  Find(&calls.set_current, "cuCtxSetCurrent", 4000, "cuCtxSetCurrent");
  Find(&calls.alloc, "cuMemAlloc", 3020, "cuMemAlloc_v2");
  Find(&calls.free, "cuMemFree", 3020, "cuMemFree_v2");
  Find(&calls.get_info, "cuMemGetInfo", 3020, "cuMemGetInfo_v2");
  if (strcmp(way, "later") == 0) {
    CUresult (*later)() = nullptr;
    for (int i = 0; i < 2; ++i) Find(&later, "cuOfALaterCuda", 98000, "");
    Find(&calls.init, "cuInit", 98000, "");  // known, but real
    Find(&calls.free, "cuMemFree", 98000, "");
    printf("of a later CUDA: %d\n", static_cast<int>(later()));
  }
  program::UseDriver(calls);
  return 0;
}
