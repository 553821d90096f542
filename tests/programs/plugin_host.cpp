// A program without CUDA that loads plugins with RTLD_LOCAL. plugin_host PLUGIN...
#include <dlfcn.h>
#include <stdio.h>

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

}  // namespace

int main(int count, char** arguments) {
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
