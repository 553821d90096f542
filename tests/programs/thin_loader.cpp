// The other half of thin_loader.py: finds the functions to jump to.
#include <dlfcn.h>
#include <string.h>

extern "C" {
extern void* thin_loader_functions[];
extern const char thin_loader_names[];
}

namespace {

__attribute__((constructor)) void Fill() {
  void* inner = dlopen("libcuda_inner.so.1", RTLD_NOW | RTLD_LOCAL);
  if (inner == nullptr) return;
  void** function = thin_loader_functions;
  for (const char* name = thin_loader_names; *name != '\0'; name += strlen(name) + 1) {
    *function++ = dlsym(inner, name);
  }
}

}  // namespace
