#include "shim/lookup/seen_lookups.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <span>

#include "core/base/dynamic_symbols.h"
#include "core/base/options.h"
#include "shim/lookup/dlsym.h"
#include "shim/lookup/entry_points.h"
#include "shim/state/runtime_pool.h"

namespace cmp {

namespace {

// A place in the code of each library that looked launches up. One that finds no room makes its
// library count as unseen.
constexpr size_t kMost = 1024;
constinit std::atomic<const void*> g_callers[kMost] = {};

// The same of libraries that wrap the runtime.
constinit std::atomic<const void*> g_wrappers[16] = {};

// While the shim asks as programs do, it is not a program.
thread_local constinit bool t_asks = false;

bool IsLaunch(const void* ours) {
  return ours == reinterpret_cast<void*>(&Driver_cuLaunchKernel) ||
         ours == reinterpret_cast<void*>(&Driver_cuLaunchKernel_ptsz);
}

// False: one of the places is in the object already.
bool RememberCaller(std::span<std::atomic<const void*>> places, const LoadedObject& object,
                    const void* caller) {
  for (std::atomic<const void*>& place : places) {
    const void* known = place.load(std::memory_order_acquire);
    if (known == nullptr && place.compare_exchange_strong(known, caller)) return true;
    if (object.Contains(known)) return false;
  }
  return true;
}

// Does it ask for others, as wrappers of lookups do?
bool PassesLookupsOn(const LoadedObject& object) {
  return Defines(object, "dlsym") || Defines(object, "cuGetProcAddress_v2");
}

// A libcudart from before version 12, by its file name: libcudart.so.11.0,
// libcudart-d0da41ae.so.11.0. In doubt it is one.
bool IsOldRuntime(const char* path) {
  const char* slash = strrchr(path, '/');
  const char* name = slash == nullptr ? path : slash + 1;
  if (strncmp(name, "libcudart", 9) != 0) return false;
  const char* version = strstr(name, ".so.");
  char file[PATH_MAX];  // what libcudart.so leads to
  if (version == nullptr && realpath(path, file) != nullptr) version = strstr(file, ".so.");
  return version == nullptr || NumberAt(version + 4) < 12;
}

}  // namespace

void NoteAnswer(const void* ours, const void* caller) {
  if (t_asks || !IsLaunch(ours)) return;
  const LoadedObject object = ObjectAround(caller);
  if (RememberCaller(g_callers, object, caller) && IsOldRuntime(object.path))
    g_runtime_pool.Forbid();
}

void NoteLookupOfRuntime(const char* name, const void* caller) {
  const LoadedObject object = ObjectAround(caller);
  if (Defines(object, name)) RememberCaller(g_wrappers, object, caller);
}

void NoteLookupInOrder(const char* name, const void* caller) {
  if (strcmp(name, "cuLaunchKernel") != 0 && strcmp(name, "cuLaunchKernel_ptsz") != 0) return;
  const LoadedObject ours = ObjectAround(&g_callers);
  if (ObjectAround(caller).place < ours.place || IsOurs(FirstInOrder(name))) {
    NoteAnswer(reinterpret_cast<void*>(&Driver_cuLaunchKernel), caller);
  }
}

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

bool Wraps(const LoadedObject& library) {
  const auto is_of_library = [&](const std::atomic<const void*>& place) {
    return library.Contains(place.load(std::memory_order_acquire));
  };
  return std::any_of(std::begin(g_wrappers), std::end(g_wrappers), is_of_library) ||
         (Defines(library, "cudaMalloc") && !Defines(library, "cudaRuntimeGetVersion"));
}

bool LookupsReachUs() {
  void* first = FirstInOrder("dlsym");
  if (first == nullptr || IsOurs(first)) return true;
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  if (driver == nullptr) return true;
  const auto ask = reinterpret_cast<DlsymFunction>(first);
  const Lookups before = t_lookups;
  t_asks = true;
  ask(driver, "cuLaunchKernel");
  bool reached = t_lookups.by_dlsym != before.by_dlsym;
  using Get = CUresult (*)(const char*, void**, int, cuuint64_t, void*);
  if (const auto get = reinterpret_cast<Get>(ask(driver, "cuGetProcAddress_v2"))) {
    void* launch = nullptr;
    get("cuLaunchKernel", &launch, 4000, 0, nullptr);
    reached &= t_lookups.by_name != before.by_name;
  }
  t_asks = false;
  dlclose(driver);
  return reached;
}

LoadedObject TakesBefore(const char* name) {
  const void* first = FirstInOrder(name);
  return first == nullptr || IsOurs(first) ? LoadedObject{} : ObjectAround(first);
}

bool HasOldRuntime() { return AnyObject(&IsOldRuntime); }

}  // namespace cmp
