#include "shim/loaded/search_order.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "core/base/dynamic_symbols.h"
#include "shim/loaded/loaded_objects.h"

namespace cmp {

namespace {

// The head of the list of loaded objects, and what dlopen(nullptr) gives: a handle by which dlsym
// goes through everything that is global.
link_map* MainProgram() {
  void* handle = dlopen(nullptr, RTLD_LAZY);
  if (handle != nullptr) dlclose(handle);  // it stays loaded all the same
  return static_cast<link_map*>(handle);
}

// Whether the library or what it depends on has `name`.
bool IsFoundFrom(const char* path, const char* name) {
  void* library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return false;
  const bool found = FindSymbol(library, name) != nullptr;
  dlclose(library);
  return found;
}

// For RTLD_NEXT, where nothing after us has `name`.
bool NextIsOurs(const LoadedObject& asking, const LoadedObject& ours, const char* name) {
  if (asking.place >= ours.place) return false;
  // Other preloads between the two. They were there at the start and stay: the list up to us does
  // not change.
  const link_map* map = MainProgram();
  for (int place = 0; map != nullptr && place < ours.place; ++place, map = map->l_next) {
    const bool has_file = strchr(map->l_name, '/') != nullptr;  // unlike the kernel's vDSO
    if (place > asking.place && has_file && IsFoundFrom(map->l_name, name)) return false;
  }
  return true;
}

// For RTLD_DEFAULT and the main program's handle, where nothing after us has `name`.
bool FirstIsOurs(const LoadedObject& ours, const char* name) {
  return ours.Contains(FindSymbol(MainProgram(), name));
}

// RTLD_DEFAULT goes on in what the asking library was loaded with. The libraries that were loaded
// together with it cannot be listed, but for its own dependencies: in doubt, that is where the
// process has a CUDA library of that layer, the name counts as found.
bool IsFoundLocally(const LoadedObject& asking, const char* name) {
  if (asking.path[0] == '\0') return false;  // the main program: all that it has is global
  const char* library = strncmp(name, "cuda", 4) == 0 ? "libcudart" : "libcuda.so";
  return ObjectsNamed(library).count != 0 || IsFoundFrom(asking.path, name);
}

}  // namespace

bool OnlyOursIsFound(void* handle, const char* name, const void* caller) {
  const bool by_default = handle == RTLD_DEFAULT;
  if (!by_default && handle != RTLD_NEXT && handle != MainProgram()) return false;
  if (FindSymbol(RTLD_NEXT, name) != nullptr) return false;  // after us
  const LoadedObject ours = ObjectAround(reinterpret_cast<const void*>(&OnlyOursIsFound));
  const LoadedObject asking = ObjectAround(caller);
  if (handle == RTLD_NEXT) return NextIsOurs(asking, ours, name);
  return FirstIsOurs(ours, name) && !(by_default && IsFoundLocally(asking, name));
}

}  // namespace cmp
