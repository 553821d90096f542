#include "shim/seen_lookups.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>

#include "core/dynamic_symbols.h"
#include "shim/entry_driver.h"
#include "shim/loaded_objects.h"
#include "shim/runtime_pool.h"

namespace cmp {

namespace {

// Each from one place in its library's code, asked twice (with and without the thread's own default
// stream). A place that finds no room makes its library count as unseen.
constexpr size_t kMost = 256;
constinit std::atomic<const void*> g_callers[kMost] = {};

bool IsOurs(const void* function) { return ObjectAround(&g_callers).Contains(function); }

// What a program finds for the name. (RTLD_DEFAULT, asked from here, would begin with ourselves.)
void* FirstInOrder(const char* name) {
  void* program = dlopen(nullptr, RTLD_LAZY);
  if (program == nullptr) return nullptr;
  void* found = FindSymbol(program, name);
  dlclose(program);
  return found;
}

// Does it ask for others, as wrappers of lookups do?
bool PassesLookupsOn(const LoadedObject& object) {
  return Defines(object, "dlsym") || Defines(object, "cuGetProcAddress_v2");
}

// A libcudart from before version 12, by its file name: libcudart.so.11.0,
// libcudart-d0da41ae.so.11.0. In doubt it is one.
bool IsOldRuntime(const char* path) {
  const char* slash = strrchr(path, '/');
  const char* file = slash == nullptr ? path : slash + 1;
  if (strncmp(file, "libcudart", 9) != 0) return false;
  const char* version = strstr(file, ".so.");
  return version == nullptr || atoi(version + 4) < 12;
}

}  // namespace

void NoteAnswer(const void* ours, const void* caller) {
  if (ours != reinterpret_cast<void*>(&Driver_cuLaunchKernel) &&
      ours != reinterpret_cast<void*>(&Driver_cuLaunchKernel_ptsz)) {
    return;
  }
  for (std::atomic<const void*>& place : g_callers) {
    const void* known = place.load(std::memory_order_acquire);
    if (known == caller) return;
    if (known != nullptr) continue;
    if (place.compare_exchange_strong(known, caller, std::memory_order_acq_rel)) break;
    if (known == caller) return;
  }
  if (IsOldRuntime(ObjectAround(caller).path)) g_runtime_pool.Forbid();
}

void NoteLookupInOrder(const char* name, const void* caller) {
  if (strcmp(name, "cuLaunchKernel") != 0 && strcmp(name, "cuLaunchKernel_ptsz") != 0) return;
  const LoadedObject ours = ObjectAround(&g_callers);
  if (ObjectAround(caller).place < ours.place || IsOurs(FirstInOrder(name))) {
    NoteAnswer(reinterpret_cast<void*>(&Driver_cuLaunchKernel), caller);
  }
}

bool HasOldRuntime() { return AnyObject(&IsOldRuntime); }

bool IsSeen(const LoadedObject& library) {
  bool passed_on = false;
  for (const std::atomic<const void*>& place : g_callers) {
    const void* caller = place.load(std::memory_order_acquire);
    if (caller == nullptr) break;
    if (library.Contains(caller)) return true;
    passed_on |= PassesLookupsOn(ObjectAround(caller));
  }
  return passed_on && Defines(library, "cudaLaunchKernel");
}

LoadedObject TakesBefore(const char* name) {
  const void* first = FirstInOrder(name);
  return first == nullptr || IsOurs(first) ? LoadedObject{} : ObjectAround(first);
}

}  // namespace cmp
