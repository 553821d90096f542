#include "shim/lookup/runtime_calls.h"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstdint>
#include <new>

#include "core/base/dynamic_symbols.h"
#include "core/base/memory.h"
#include "shim/loaded/loaded_objects.h"
#include "shim/lookup/seen_lookups.h"

namespace cmp {

namespace {

// ---- Tables of real calls, one per libcudart in use

constexpr int kMaxTables = 16;
constinit std::atomic<const RuntimeCalls*> g_tables[kMaxTables] = {};

// Keeps the library that `function` is in, for good: a table of its functions will be remembered.
void Pin(const void* function) {
  const LoadedObject object = ObjectAround(function);
  if (object.path[0] != '\0') dlopen(object.path, RTLD_LAZY | RTLD_NOLOAD);
}

// Finds every function by `find(name)`; nullptr without cudaMalloc and cudaFree. An older libcudart
// may lack some of the others: programs of its time cannot call them.
template <typename Find>
const RuntimeCalls* MakeTable(Find find) {
  RuntimeCalls calls;
#define CMP_FIND(name, parameters) calls.name = reinterpret_cast<decltype(calls.name)>(find(#name));
  CMP_RUNTIME_INTERPOSED(CMP_FIND)
  CMP_RUNTIME_CALLED(CMP_FIND)
#undef CMP_FIND
  if (calls.cudaMalloc == nullptr || calls.cudaFree == nullptr) return nullptr;
  for (const auto& table : g_tables) {
    const RuntimeCalls* known = table.load(std::memory_order_acquire);
    if (known != nullptr && known->cudaMalloc == calls.cudaMalloc) return known;
  }
  Pin(reinterpret_cast<const void*>(calls.cudaMalloc));
  // Asks the library for its own number: no driver call.
  if (calls.cudaRuntimeGetVersion != nullptr) calls.cudaRuntimeGetVersion(&calls.version);
  calls.served = calls.version >= 12000 && calls.cudaGetDevice != nullptr &&
                 calls.cudaSetDevice != nullptr && calls.cudaGetLastError != nullptr &&
                 calls.cudaPeekAtLastError != nullptr;
  void* memory = MapPages(sizeof(RuntimeCalls));
  if (memory == nullptr) return nullptr;
  const auto* made = new (memory) RuntimeCalls(calls);
  for (auto& table : g_tables) {
    const RuntimeCalls* expected = nullptr;
    if (table.compare_exchange_strong(expected, made, std::memory_order_acq_rel)) break;
    if (expected->cudaMalloc == made->cudaMalloc) return expected;
  }
  return made;
}

const RuntimeCalls* NextTable() {
  return MakeTable([](const char* name) { return FindSymbol(RTLD_NEXT, name); });
}

// The libcudart that the object at `path` depends on.
const RuntimeCalls* TableOfObject(const char* path) {
  void* object = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  if (object == nullptr) return nullptr;
  const RuntimeCalls* calls =
      MakeTable([object](const char* name) { return FindSymbol(object, name); });
  dlclose(object);
  return calls;
}

// ---- What was found, by caller

// Found by a linear search; only calls that reach a real function come here. An entry is valid
// while no library has been unloaded since: another may lie at the same addresses now.
struct Known {
  std::atomic<bool> claimed{false};
  std::atomic<unsigned long long> unloads{0};
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<const RuntimeCalls*> calls{nullptr};
};
constexpr int kMaxKnown = 64;
constinit Known g_known[kMaxKnown];

// How many libraries the process has unloaded so far.
unsigned long long Unloads() {
  unsigned long long unloads = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        *static_cast<unsigned long long*>(data) = info->dlpi_subs;
        return 1;
      },
      &unloads);
  return unloads;
}

const RuntimeCalls* FindKnown(uintptr_t caller, unsigned long long unloads) {
  for (const Known& known : g_known) {
    // acquire: the other fields were written before.
    const RuntimeCalls* calls = known.calls.load(std::memory_order_acquire);
    if (calls == nullptr) continue;
    if (caller >= known.begin.load(std::memory_order_relaxed) &&
        caller < known.end.load(std::memory_order_relaxed) &&
        known.unloads.load(std::memory_order_relaxed) == unloads) {
      return calls;
    }
  }
  return nullptr;
}

void Remember(const LoadedObject& object, unsigned long long unloads, const RuntimeCalls* calls) {
  for (Known& known : g_known) {
    const bool used = known.calls.load(std::memory_order_acquire) != nullptr;
    if (used && known.unloads.load(std::memory_order_relaxed) == unloads) continue;
    if (known.claimed.exchange(true, std::memory_order_acquire)) continue;
    known.calls.store(nullptr, std::memory_order_release);  // nobody finds it half written
    known.begin.store(object.begin, std::memory_order_relaxed);
    known.end.store(object.end, std::memory_order_relaxed);
    known.unloads.store(unloads, std::memory_order_relaxed);
    known.calls.store(calls, std::memory_order_release);
    known.claimed.store(false, std::memory_order_release);
    return;
  }
}

}  // namespace

const RuntimeCalls* RuntimeOf(const void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(caller);
  const unsigned long long unloads = Unloads();
  if (const RuntimeCalls* calls = FindKnown(address, unloads)) return calls;
  const LoadedObject object = ObjectAround(caller);
  const NamedObjects runtimes = ObjectsNamed("libcudart.so");
  const RuntimeCalls* calls = nullptr;
  // Of what wraps the runtime before us its own would be itself.
  const bool has_own = object.path[0] != '\0' && !Wraps(object);
  if (has_own && runtimes.count > 1) calls = TableOfObject(object.path);
  if (calls == nullptr) calls = NextTable();
  if (calls == nullptr && has_own) calls = TableOfObject(object.path);
  if (calls != nullptr) {
    if (object.end != 0) Remember(object, unloads, calls);
    return calls;
  }
  // The caller depends on none: it found our function by name, or a tail call hides who called. One
  // that is in use is the best guess, and is not remembered.
  calls = g_tables[0].load(std::memory_order_acquire);
  return calls == nullptr && runtimes.count != 0 ? TableOfObject(runtimes.first) : calls;
}

bool DriverIsLoaded() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return false;
  dlclose(library);
  return true;
}

}  // namespace cmp
