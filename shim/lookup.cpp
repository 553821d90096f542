#include "shim/lookup.h"

#include <dlfcn.h>

#include <cstdint>
#include <new>

#include "core/dynamic_symbols.h"
#include "core/memory.h"
#include "shim/entry_driver.h"
#include "shim/loaded_objects.h"
#include "shim/search_order.h"

using DlsymFunction = void* (*)(void* handle, const char* name);

// What our dlsym does: it jumps to `function`, asking for the name `value`, or, where `function` is
// nullptr, answers `value`. Read by dlsym_tail.S in two registers.
struct DlsymWay {
  DlsymFunction function;
  const void* value;
};
static_assert(sizeof(DlsymWay) == 2 * sizeof(void*));

extern "C" __attribute__((visibility("hidden"))) DlsymWay cmp_way_of_dlsym(void* handle,
                                                                           const char* name,
                                                                           const void* caller);

namespace cmp {

namespace {

// ---- The real ones. Found by the first lookup of the process, in whatever thread: all of them
// find the same.

// The C library's.
DlsymFunction LibcDlsym() {
  static constinit std::atomic<DlsymFunction> g_libc_dlsym{nullptr};
  DlsymFunction libc = g_libc_dlsym.load(std::memory_order_acquire);
  if (libc != nullptr) return libc;
  // By its oldest version, which every C library still has: a lookup that fails would allocate, in
  // a process whose malloc may be what asks. With a version no neighbour's dlsym is found either.
  libc = reinterpret_cast<DlsymFunction>(dlvsym(RTLD_NEXT, "dlsym", CMP_OLDEST));
  if (libc == nullptr) __builtin_trap();  // no C library without dlsym can have loaded us
  g_libc_dlsym.store(libc, std::memory_order_release);
  return libc;
}

// The one that comes after ours in the search order: another preload's, or the C library's. What we
// do not answer is passed on to it.
DlsymFunction NextDlsym() {
  static constinit std::atomic<DlsymFunction> g_next_dlsym{nullptr};
  DlsymFunction next = g_next_dlsym.load(std::memory_order_acquire);
  if (next != nullptr) return next;
  next = reinterpret_cast<DlsymFunction>(LibcDlsym()(RTLD_NEXT, "dlsym"));
  if (next == nullptr) next = LibcDlsym();
  g_next_dlsym.store(next, std::memory_order_release);
  return next;
}

// ---- Names and callers

// Where the driver's library is; set before g_driver_calls.
constinit std::atomic<uintptr_t> g_driver_begin{0};
constinit std::atomic<uintptr_t> g_driver_end{0};

bool IsInDriver(const void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(caller);
  return address >= g_driver_begin.load(std::memory_order_relaxed) &&
         address < g_driver_end.load(std::memory_order_relaxed);
}

enum class Layer { kNone, kRuntime, kDriver };

// strcmp(a, b) == 0. A sanitizer's runtime comes here for its real strcmp before it has one.
bool IsEqual(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return *a == *b;
}

// One of the interposed names: its layer, and a name that nobody has and that looks the same in an
// error message.
struct Interposed {
  Layer layer = Layer::kNone;
  const char* unfindable = nullptr;
};

Interposed FindInterposed(const char* name) {
  if (name == nullptr || name[0] != 'c' || name[1] != 'u') return {};
#define CMP_RUNTIME_NAME(served, parameters) \
  if (IsEqual(name, #served)) return {Layer::kRuntime, #served " "};
#define CMP_DRIVER_NAME(served, parameters) \
  if (IsEqual(name, #served)) return {Layer::kDriver, #served " "};
  CMP_RUNTIME_INTERPOSED(CMP_RUNTIME_NAME)
  CMP_DRIVER_INTERPOSED(CMP_DRIVER_NAME)
#undef CMP_RUNTIME_NAME
#undef CMP_DRIVER_NAME
  return {};
}

}  // namespace

void* FindSymbol(void* library, const char* name) { return LibcDlsym()(library, name); }

const DriverCalls* RealDriverSlow() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  void* memory = MapPages(sizeof(DriverCalls));
  if (memory == nullptr) return nullptr;
  auto* found = new (memory) DriverCalls;
#define CMP_FIND(name, parameters) \
  found->name = reinterpret_cast<decltype(found->name)>(FindSymbol(library, #name));
  CMP_DRIVER_INTERPOSED(CMP_FIND)
#undef CMP_FIND
  if (found->cuMemAlloc_v2 == nullptr || found->cuMemFree_v2 == nullptr) return nullptr;
  const LoadedObject object = ObjectAround(reinterpret_cast<const void*>(found->cuMemAlloc_v2));
  g_driver_begin.store(object.begin, std::memory_order_relaxed);
  g_driver_end.store(object.end, std::memory_order_relaxed);
  const DriverCalls* expected = nullptr;
  g_driver_calls.compare_exchange_strong(expected, found, std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  return expected != nullptr ? expected : found;
}

void* Replacement(void* function) {
  const DriverCalls* real = RealDriver();
  if (real == nullptr || function == nullptr) return function;
#define CMP_REPLACE(name, parameters)                    \
  if (function == reinterpret_cast<void*>(real->name)) { \
    return reinterpret_cast<void*>(&Driver_##name);      \
  }
  CMP_DRIVER_INTERPOSED(CMP_REPLACE)
#undef CMP_REPLACE
  return function;
}

}  // namespace cmp

DlsymWay cmp_way_of_dlsym(void* handle, const char* name, const void* caller) {
  const DlsymWay pass_on = {cmp::NextDlsym(), name};
  // "The dlsym after mine", asked by a neighbour that wraps dlsym itself: passed on it could come
  // back to the one who asks.
  if (handle == RTLD_NEXT && name != nullptr && cmp::IsEqual(name, "dlsym")) {
    return {cmp::LibcDlsym(), name};
  }
  const cmp::Interposed interposed = cmp::FindInterposed(name);
  if (interposed.layer == cmp::Layer::kNone) return pass_on;
  if (cmp::OnlyOursIsFound(handle, name, caller)) {
    // The answer, its error included, is the C library's, to the caller's own question.
    return {cmp::LibcDlsym(), interposed.unfindable};
  }
  // RTLD_DEFAULT and RTLD_NEXT go by the search order, in which our exports have their place.
  if (handle == RTLD_DEFAULT || handle == RTLD_NEXT) return pass_on;
  if (interposed.layer != cmp::Layer::kDriver || cmp::RealDriver() == nullptr) return pass_on;
  // libcuda looks up functions of its own by name: those stay its own.
  if (cmp::IsInDriver(caller)) return pass_on;
  void* real = cmp::FindSymbol(handle, name);
  void* ours = cmp::Replacement(real);
  if (ours == real) return pass_on;
  return {nullptr, ours};
}
