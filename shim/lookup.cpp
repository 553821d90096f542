#include "shim/lookup.h"

#include <dlfcn.h>
#include <stdio.h>

#include <cstdint>
#include <new>

#include "core/dynamic_symbols.h"
#include "core/memory.h"
#include "shim/aside.h"
#include "shim/dlsym.h"
#include "shim/interposed_functions.h"
#include "shim/loaded_objects.h"
#include "shim/seen_lookups.h"

namespace cmp {

namespace {

// Where the driver's library is; set before g_driver_calls.
constinit std::atomic<uintptr_t> g_driver_begin{0};
constinit std::atomic<uintptr_t> g_driver_end{0};

struct Tables {
  DriverCalls symbols;  // the driver's own
  DriverCalls calls;    // what real calls lead to
};
constinit std::atomic<Tables*> g_tables{nullptr};

// What stands behind us in place of the driver's own function: a preload may take it by symbol, or
// answer for it in a dlsym of its own.
void* BehindUs(void* library, const char* name, void* own) {
  void* next = FindSymbol(RTLD_NEXT, name);
  if (next == nullptr || IsInDriver(next)) next = NextDlsym()(library, name);
  return next == nullptr || IsInDriver(next) ? own : next;
}

// The interposed function that `function` is, by its address.
const InterposedFunction* FindByAddress(Tables& tables, const void* function) {
  for (const InterposedFunction& one : InterposedFunctions()) {
    if (function == one.RealIn(tables.symbols).address() ||
        function == one.RealIn(tables.calls).address()) {
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

void* FindDriverFunction(void* library, const char* name) {
  if (RealDriver() == nullptr) return nullptr;
  if (const InterposedFunction* function = FindInterposedFunction(name)) {
    return function->RealIn(g_tables.load(std::memory_order_acquire)->calls) == nullptr
               ? nullptr
               : function->through;
  }
  void* own = FindSymbol(library, name);
  return own == nullptr ? nullptr : BehindUs(library, name, own);
}

const DriverCalls* RealDriverSlow() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  void* alloc = FindSymbol(library, "cuMemAlloc_v2");
  void* memory = alloc == nullptr ? nullptr : MapPages(sizeof(Tables));
  if (memory == nullptr) return nullptr;
  const LoadedObject object = ObjectAround(alloc);
  g_driver_begin.store(object.begin, std::memory_order_relaxed);
  g_driver_end.store(object.end, std::memory_order_relaxed);
  auto* made = new (memory) Tables;
  for (const InterposedFunction& function : InterposedFunctions()) {
    void* own = FindSymbol(library, function.symbol);
    if (own == nullptr) continue;
    function.RealIn(made->symbols).Set(own);
    function.RealIn(made->calls).Set(BehindUs(library, function.symbol, own));
  }
  Tables* expected = nullptr;
  g_tables.compare_exchange_strong(expected, made, std::memory_order_acq_rel,
                                   std::memory_order_acquire);
  const Tables* tables = expected != nullptr ? expected : made;
  g_driver_calls.store(&tables->calls, std::memory_order_release);
  return &tables->calls;
}

void* OursFor(const void* function) {
  Tables* tables = g_tables.load(std::memory_order_acquire);
  if (tables == nullptr || function == nullptr) return nullptr;
  const InterposedFunction* found = FindByAddress(*tables, function);
  return found == nullptr ? nullptr : found->ours;
}

void* Answer(const char* symbol, int version, cuuint64_t flags, void* function,
             const void* caller) {
  Tables* tables = g_tables.load(std::memory_order_acquire);
  if (tables == nullptr || function == nullptr || symbol == nullptr) return function;
  const InterposedFunction* found = FindByAddress(*tables, function);
  if (found == nullptr) {
    // Not by its address. A function of a later ABI version looks the same: what it does is not
    // known, and whoever asks for it will use it.
    if (MayBeUnknown(symbol, version)) {
      StepAsideForUnknown(symbol, version);
      return function;
    }
    found = FindByName(symbol, version, flags);
    if (found == nullptr || found->RealIn(tables->symbols) == nullptr) return function;
    found->RealIn(tables->calls).Set(function);
  }
  NoteAnswer(found->ours, caller);
  return found->ours;
}

}  // namespace cmp
