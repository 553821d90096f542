// A program without CUDA that asks by the search order. lookups [global|local LIBRARY]... NAME...
// A library is opened first; one that has plugin_finds is asked too.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

namespace {

using Finds = const char* (*)(const char* name);

void Say(const char* how, void* handle, const char* name) {
  dlerror();
  const void* found = dlsym(handle, name);
  const char* error = dlerror();
  // Blanks at the end of a message cannot be seen.
  int length = error == nullptr ? 0 : static_cast<int>(strlen(error));
  while (length > 0 && error[length - 1] == ' ') --length;
  printf("%s by %s: %s%.*s\n", name, how, found != nullptr ? "found" : "not found, ", length,
         error);
}

// What is found must work.
void Use(const char* name) {
  using Malloc = int (*)(void**, size_t);
  using Free = int (*)(void*);
  if (strcmp(name, "cudaMalloc") != 0) return;
  const auto malloc = reinterpret_cast<Malloc>(dlsym(RTLD_DEFAULT, "cudaMalloc"));
  const auto free = reinterpret_cast<Free>(dlsym(RTLD_DEFAULT, "cudaFree"));
  if (malloc == nullptr || free == nullptr) return;
  int failed = 0;
  for (int i = 0; i < 50; ++i) {
    void* pointer = nullptr;
    if (malloc(&pointer, 4096) != 0) ++failed;
    if (free(pointer) != 0) ++failed;
  }
  printf("used, failed %d\n", failed);
}

}  // namespace

int main(int count, char** arguments) {
  Finds plugins[8] = {};
  int plugin_count = 0;
  for (int i = 1; i < count; ++i) {
    const bool global = strcmp(arguments[i], "global") == 0;
    if (global || strcmp(arguments[i], "local") == 0) {
      const int flags = RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL);
      void* library = i + 1 < count ? dlopen(arguments[++i], flags) : nullptr;
      if (library == nullptr) return 3;
      const auto finds = reinterpret_cast<Finds>(dlsym(library, "plugin_finds"));
      if (finds != nullptr && plugin_count < 8) plugins[plugin_count++] = finds;
      continue;
    }
    const char* name = arguments[i];
    void* program = dlopen(nullptr, RTLD_NOW);
    Say("default", RTLD_DEFAULT, name);
    Say("next", RTLD_NEXT, name);
    Say("the program's handle", program, name);
    for (int plugin = 0; plugin < plugin_count; ++plugin) {
      printf("%s by plugin %d: %s\n", name, plugin, plugins[plugin](name));
    }
    Use(name);
    dlclose(program);
  }
  return 0;
}
