// A program without CUDA that loads plugins. plugin_host PLUGIN... keeps them all, plugin_host
// close-local|close-global PLUGIN... has one at a time.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <vector>

namespace {

struct Plugin {
  void* handle;
  template <typename Function>
  Function Find(const char* name) const {
    return reinterpret_cast<Function>(dlsym(handle, name));
  }
  int Call(const char* name) const { return Find<int (*)()>(name)(); }
};

bool Loaded(const char* name) {
  void* handle = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
  if (handle != nullptr) dlclose(handle);
  return handle != nullptr;
}

// Each plugin is closed before the next is opened, which often gets its address; the last round
// keeps the addresses occupied, so that the plugins come to others.
int OneAtATime(int count, char** names, int flags) {
  if (dlopen("libcuda.so.1", RTLD_NOW) == nullptr) return 3;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < count; ++i) {
      const Plugin plugin = {dlopen(names[i], RTLD_NOW | flags)};
      if (plugin.handle == nullptr) {
        printf("%s\n", dlerror());
        return 3;
      }
      printf("plugin %d: failed %d\n", i, plugin.Call("plugin_work"));
      printf("  wrong free %d\n", plugin.Call("plugin_wrong_free"));
      printf("  last error %d\n", plugin.Call("plugin_last_error"));
      void* block = plugin.Find<void* (*)(size_t)>("plugin_malloc")(5000000);
      printf("  free %d\n", plugin.Find<int (*)(void*)>("plugin_free")(block));
      Dl_info place = {};
      dladdr(plugin.Find<void*>("plugin_work"), &place);
      printf("  close %d\n", dlclose(plugin.handle));
      printf("  loaded: %s\n", Loaded(names[i]) ? "yes" : "no");
      if (round == 1) {
        mmap(place.dli_fbase, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
             -1, 0);
      }
      fflush(stdout);
    }
  }
  printf("# libcudart loaded: %s\n", Loaded("libcudart.so.13") ? "yes" : "no");
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 2 && strcmp(arguments[1], "close-local") == 0) {
    return OneAtATime(count - 2, arguments + 2, RTLD_LOCAL);
  }
  if (count > 2 && strcmp(arguments[1], "close-global") == 0) {
    return OneAtATime(count - 2, arguments + 2, RTLD_GLOBAL);
  }
  std::vector<Plugin> plugins;
  for (int i = 1; i < count; ++i) {
    plugins.push_back({dlopen(arguments[i], RTLD_NOW | RTLD_LOCAL)});
    if (plugins.back().handle == nullptr) {
      printf("%s\n", dlerror());
      return 3;
    }
  }
  for (size_t i = 0; i < plugins.size(); ++i) {
    printf("plugin %zu: failed %d, last error %d\n", i, plugins[i].Call("plugin_work"),
           plugins[i].Call("plugin_last_error"));
  }
  // Each runtime has an error state of its own.
  for (size_t wrong = 0; wrong < plugins.size(); ++wrong) {
    for (const char* call : {"plugin_wrong_free", "plugin_impossible"}) {
      printf("%s of %zu: %d\n", call, wrong, plugins[wrong].Call(call));
      for (size_t i = 0; i < plugins.size(); ++i) {
        printf("  last error of %zu: %d\n", i, plugins[i].Call("plugin_last_error"));
      }
    }
  }
  // One's memory is freed by the other.
  for (const Plugin& from : plugins) {
    for (const Plugin& to : plugins) {
      for (const size_t bytes : {size_t{4096}, size_t{3} << 20}) {
        void* pointer = from.Find<void* (*)(size_t)>("plugin_malloc")(bytes);
        const auto free = to.Find<int (*)(void*)>("plugin_free");
        const int first = free(pointer);
        const int second = free(pointer);
        printf("free %d, again %d, last error %d\n", first, second, to.Call("plugin_last_error"));
      }
    }
  }
  return 0;
}
