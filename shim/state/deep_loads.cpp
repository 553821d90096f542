#include "shim/state/deep_loads.h"

#include <dlfcn.h>
#include <stdio.h>

#include <algorithm>
#include <new>

#include "core/base/dynamic_symbols.h"
#include "core/base/lock.h"
#include "core/contexts/hits.h"
#include "shim/loaded/loaded_objects.h"
#include "shim/state/aside.h"

using DlopenFunction = void* (*)(const char* file, int mode);

// What our dlopen jumps to. Called by dlopen_tail.S.
extern "C" __attribute__((visibility("hidden"))) DlopenFunction cmp_way_of_dlopen(const char* file,
                                                                                  int mode);

namespace cmp {

namespace {

constexpr size_t kMostObjects = 4096;  // of more, the others count as new

constinit Mutex g_deep_lock;
// Where the objects begin that need no look. Under g_deep_lock.
constinit uintptr_t g_passed_over[kMostObjects] = {};
constinit size_t g_passed_over_count = 0;
// The loader's count of objects at the last look. Under g_deep_lock.
constinit unsigned long long g_looked_at = 0;

thread_local constinit bool t_loads_deep = false;

bool IsPassedOver(uintptr_t begin) {
  return std::find(g_passed_over, g_passed_over + g_passed_over_count, begin) !=
         g_passed_over + g_passed_over_count;
}

void PassOver(uintptr_t begin) {
  if (g_passed_over_count < kMostObjects) g_passed_over[g_passed_over_count++] = begin;
}

unsigned long long LoadedSoFar() {
  unsigned long long loaded = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        *static_cast<unsigned long long*>(data) = info->dlpi_adds;
        return 1;
      },
      &loaded);
  return loaded;
}

// All that is loaded now. REQUIRES: g_deep_lock held
void PassOverAll() {
  g_looked_at = LoadedSoFar();  // first: what comes meanwhile is to be looked at
  g_passed_over_count = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void*) {
        PassOver(info->dlpi_addr);
        return 0;
      },
      nullptr);
}

// The first of those that came since then and ask the driver for anything; no object: none does.
// REQUIRES: g_deep_lock held
LoadedObject FindBlind() {
  LoadedObject blind;
  g_looked_at = LoadedSoFar();  // first, as in PassOverAll
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        if (IsPassedOver(info->dlpi_addr)) return 0;
        if (!MayAskDriver(*info)) return PassOver(info->dlpi_addr), 0;
        *static_cast<LoadedObject*>(data) = ObjectOf(*info);
        return 1;
      },
      &blind);
  return blind;
}

}  // namespace

void LookForDeepLoadsSlow() {
  if (IsAside()) return;
  LoadedObject blind;
  {
    const Held held(g_deep_lock);
    if (!t_loads_deep && LoadedSoFar() == g_looked_at) return;
    blind = FindBlind();
  }
  if (blind.exists()) {
    char reason[400];
    snprintf(reason, sizeof(reason),
             "%.300s came with RTLD_DEEPBIND, past libcmp_preload.so: what it submits is not seen",
             blind.name());
    StepAside(AsideIs::kWrong, reason);
  }
  if (t_loads_deep) {  // and is back: what it loaded has been looked at
    t_loads_deep = false;
    g_deep_loaders.fetch_sub(1, std::memory_order_relaxed);
    UnbarHits();
  }
}

void ForgetDeepLoads() {
  new (&g_deep_lock) Mutex;
  const int mine = t_loads_deep ? 1 : 0;
  for (int i = g_deep_loaders.exchange(mine, std::memory_order_relaxed); i > mine; --i) UnbarHits();
}

}  // namespace cmp

DlopenFunction cmp_way_of_dlopen(const char* file, int mode) {
  static constinit std::atomic<DlopenFunction> g_next{nullptr};
  DlopenFunction next = g_next.load(std::memory_order_acquire);
  if (next == nullptr) {
    next = reinterpret_cast<DlopenFunction>(cmp::FindSymbol(RTLD_NEXT, "dlopen"));
    if (next == nullptr) __builtin_trap();  // no C library without dlopen can have loaded us
    g_next.store(next, std::memory_order_release);
  }
  const bool deep = file != nullptr && (mode & RTLD_DEEPBIND) != 0;
  if (!deep || cmp::t_loads_deep || cmp::IsAside()) return next;
  const cmp::Held held(cmp::g_deep_lock);
  // seq_cst, in BarHits: who remembers a cache afterwards finds that hits are barred.
  if (cmp::g_deep_loaders.fetch_add(1, std::memory_order_relaxed) == 0) cmp::PassOverAll();
  cmp::t_loads_deep = true;
  cmp::BarHits();
  return next;
}
