// What a plugin finds by the search order, in which its own dependencies come last. Part of every
// plugin; alone it is one that knows nothing of CUDA.
#include <dlfcn.h>

extern "C" __attribute__((visibility("default"))) const char* plugin_finds(const char* name) {
  const void* by_default = dlsym(RTLD_DEFAULT, name);
  const void* next = dlsym(RTLD_NEXT, name);
  if (by_default == nullptr) return next == nullptr ? "nothing" : "the next alone";
  return next == nullptr ? "the first alone" : "both";
}
