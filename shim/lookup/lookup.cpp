#include "shim/lookup/lookup.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <cstdint>
#include <new>

#include "core/base/dynamic_symbols.h"
#include "core/base/memory.h"
#include "core/driver/driver.h"
#include "shim/loaded/loaded_objects.h"
#include "shim/lookup/dlsym.h"
#include "shim/lookup/entry_points.h"
#include "shim/lookup/interposed_functions.h"
#include "shim/lookup/later_functions.h"
#include "shim/lookup/seen_lookups.h"
#include "shim/state/aside.h"

namespace cmp {

namespace {

// Where the driver's library is; set before g_driver_calls.
constinit std::atomic<uintptr_t> g_driver_begin{0};
constinit std::atomic<uintptr_t> g_driver_end{0};

// A function that is neither the driver's nor ours.
bool IsAnothers(const void* function) {
  return function != nullptr && !IsInDriver(function) && !IsOurs(function);
}

// By a name that nobody has a reason to wrap.
bool SomebodyIsLinkedToDriver() { return IsInDriver(FirstInOrder("cuDeviceGetCount")); }

// The function of another preload that stands behind us in place of the driver's own; nullptr:
// none. It may answer for it in a dlsym of its own. Or take it by symbol, which reaches those alone
// that are linked to the driver: where nobody is, it has no real one either.
void* WrapperBehind(void* library, const char* name, bool somebody_is_linked) {
  void* next = NextDlsym()(library, name);
  if (IsAnothers(next)) return next;
  // (Lookups are what runtimes find by the driver's handle.)
  const bool looks_up = strncmp(name, "cuGetProcAddress", 16) == 0;
  if (looks_up || !somebody_is_linked) return nullptr;
  next = FindSymbol(RTLD_NEXT, name);
  return IsAnothers(next) ? next : nullptr;
}

// From now on the real call leads to `wrapper`.
void CallThrough(DriverTables& tables, const InterposedFunction& function, void* wrapper) {
  function.RealIn(tables.wrappers).Set(wrapper);
  function.RealIn(tables.calls).Set(function.guarded);
}

// The interposed function that `function` is, by its address.
const InterposedFunction* FindByAddress(DriverTables& tables, const void* function) {
  for (const InterposedFunction& one : InterposedFunctions()) {
    if (function == one.RealIn(tables.symbols).address() ||
        function == one.RealIn(tables.wrappers).address()) {
      return &one;
    }
  }
  return nullptr;
}

void StepAsideForUnknown(const char* symbol, int version) {
  char reason[200];
  snprintf(reason, sizeof(reason),
           "%.64s of CUDA %d.%d was asked for, which this version of cmp does not know", symbol,
           version / 1000, version % 1000 / 10);
  StepAside(AsideIs::kWrong, reason);
}

}  // namespace

bool IsInDriver(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  return at >= g_driver_begin.load(std::memory_order_relaxed) &&
         at < g_driver_end.load(std::memory_order_relaxed);
}

bool FreesAreUnseen() {
  if (RealDriver() == nullptr) return false;
  const DriverTables& tables = *g_driver_tables.load(std::memory_order_acquire);
  const void* own = tables.symbols.cuMemFree_v2.address();
  // A library that patches what a lookup gives it patches ours.
  const void* ours = reinterpret_cast<void*>(&Driver_cuMemFree_v2);
  return tables.calls.cuMemFree_v2.address() == own && !IsPatched(own) && !IsPatched(ours);
}

void* FindDriverFunction(void* library, const char* name) {
  if (RealDriver() == nullptr) return nullptr;
  if (const InterposedFunction* function = FindInterposedFunction(name)) {
    DriverTables& tables = *g_driver_tables.load(std::memory_order_acquire);
    return function->RealIn(tables.calls) == nullptr ? nullptr : function->through;
  }
  void* own = FindSymbol(library, name);
  void* wrapper =
      own == nullptr ? nullptr : WrapperBehind(library, name, SomebodyIsLinkedToDriver());
  return wrapper != nullptr ? wrapper : own;
}

const DriverCalls* RealDriverSlow() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  void* alloc = FindSymbol(library, "cuMemAlloc_v2");
  void* memory = alloc == nullptr ? nullptr : MapPages(sizeof(DriverTables));
  if (memory == nullptr) return nullptr;
  const LoadedObject object = ObjectAround(alloc);
  g_driver_begin.store(object.begin, std::memory_order_relaxed);
  g_driver_end.store(object.end, std::memory_order_relaxed);
  const bool somebody_is_linked = SomebodyIsLinkedToDriver();
  auto* made = new (memory) DriverTables;
  for (const InterposedFunction& function : InterposedFunctions()) {
    void* own = FindSymbol(library, function.symbol);
    if (own == nullptr) continue;
    function.RealIn(made->symbols).Set(own);
    function.RealIn(made->calls).Set(own);
    if (void* wrapper = WrapperBehind(library, function.symbol, somebody_is_linked)) {
      CallThrough(*made, function, wrapper);
    }
  }
  DriverTables* expected = nullptr;
  g_driver_tables.compare_exchange_strong(expected, made, std::memory_order_acq_rel,
                                          std::memory_order_acquire);
  const DriverTables* tables = expected != nullptr ? expected : made;
  g_driver_calls.store(&tables->calls, std::memory_order_release);
  (void)LoadedDriver();  // what the pool needs of it: here rather than in the first allocation
  return &tables->calls;
}

void* OursFor(const void* function) {
  DriverTables* tables = g_driver_tables.load(std::memory_order_acquire);
  if (tables == nullptr || function == nullptr) return nullptr;
  const InterposedFunction* found = FindByAddress(*tables, function);
  return found == nullptr ? nullptr : found->ours;
}

void* Answer(const char* symbol, int version, cuuint64_t flags, void* function,
             const void* caller) {
  DriverTables* tables = g_driver_tables.load(std::memory_order_acquire);
  ++t_lookups.by_name;
  if (tables == nullptr || function == nullptr || symbol == nullptr) return function;
  const InterposedFunction* found = FindByAddress(*tables, function);
  if (found == nullptr) {
    // Not by its address. A function of a later ABI version looks the same: what it does is not
    // known, and whoever asks for it will use it.
    if (MayBeUnknown(symbol, version)) {
      if (!IsOnlyWatched(symbol)) StepAsideForUnknown(symbol, version);
      return function;
    }
    if (IsOfLaterCuda(symbol, version)) NoteLaterFunction(symbol);
    found = FindByName(symbol, version, flags);
    if (found == nullptr || found->RealIn(tables->symbols) == nullptr) return function;
    // Its real call is what the program would call. (A preload may have looked that up as programs
    // do, and answer with ours.)
    if (IsInDriver(function)) {
      found->RealIn(tables->calls).Set(function);
    } else if (IsAnothers(function)) {
      CallThrough(*tables, *found, function);
    }
  }
  NoteAnswer(found->ours, caller);
  return found->ours;
}

}  // namespace cmp
