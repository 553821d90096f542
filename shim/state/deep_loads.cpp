#include "shim/state/deep_loads.h"

#include <dlfcn.h>
#include <stdio.h>

#include <algorithm>
#include <new>

#include "core/base/dynamic_symbols.h"
#include "core/base/lock.h"
#include "core/base/thread_exit.h"
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

void LoaderIsBack();
constinit ThreadExitHook g_loader_ends([] {
  if (t_loads_deep) LoaderIsBack();
});

// The rest is under this lock.
constinit Mutex g_deep_lock;
constinit uint64_t g_passed_over[kMostObjects] = {};  // objects that need no look
constinit size_t g_passed_over_count = 0;
// The loader's count of objects at the last look.
constinit unsigned long long g_looked_at = 0;
// What asks the driver, and came so.
constinit LoadedObject g_blind;

// An address alone may be another's by now.
uint64_t IdentityOf(const dl_phdr_info& info) {
  uint64_t identity = info.dlpi_addr;
  for (const char* at = info.dlpi_name; at != nullptr && *at != '\0'; ++at) {
    identity = (identity ^ static_cast<unsigned char>(*at)) * 0x100000001B3;
  }
  return identity;
}

bool IsPassedOver(uint64_t identity) {
  return std::find(g_passed_over, g_passed_over + g_passed_over_count, identity) !=
         g_passed_over + g_passed_over_count;
}

void PassOver(uint64_t identity) {
  if (g_passed_over_count < kMostObjects) g_passed_over[g_passed_over_count++] = identity;
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

// All that is loaded now.
void PassOverAll() {
  g_looked_at = LoadedSoFar();  // first: what comes meanwhile is to be looked at
  g_passed_over_count = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void*) {
        PassOver(IdentityOf(*info));
        return 0;
      },
      nullptr);
}

// At what has come since then: the first of those that ask the driver for anything.
void LookForBlind() {
  if (g_blind.exists()) return;
  g_looked_at = LoadedSoFar();  // first, as in PassOverAll
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void*) {
        const uint64_t identity = IdentityOf(*info);
        if (IsPassedOver(identity)) return 0;
        if (!MayAskDriver(*info)) return PassOver(identity), 0;
        g_blind = ObjectOf(*info);
        return 1;
      },
      nullptr);
}

// If what it loaded asks the driver, hits stay barred: the next free steps aside.
void LoaderIsBack() {
  {
    const Held held(g_deep_lock);
    LookForBlind();
    if (g_blind.exists()) return;
  }
  t_loads_deep = false;
  g_deep_loaders.fetch_sub(1, std::memory_order_relaxed);
  UnbarHits();
}

}  // namespace

void LookForDeepLoadsSlow() {
  if (IsAside()) return;
  if (t_loads_deep) LoaderIsBack();
  LoadedObject blind;
  {
    const Held held(g_deep_lock);
    if (g_deep_loaders.load(std::memory_order_relaxed) != 0 && LoadedSoFar() != g_looked_at) {
      LookForBlind();
    }
    blind = g_blind;
  }
  if (!blind.exists()) return;
  char reason[400];
  snprintf(reason, sizeof(reason),
           "%.300s came with RTLD_DEEPBIND, past libcmp_preload.so: what it submits is not seen",
           blind.name());
  StepAside(AsideIs::kWrong, reason);
}

void DeepLoaderLooksUpSlow() {
  {
    // Not yet, where a library's memory functions look something up while it is being loaded.
    const Held held(g_deep_lock);
    if (LoadedSoFar() == g_looked_at) return;
  }
  LoaderIsBack();
}

void ForgetDeepLoads() {
  new (&g_deep_lock) Mutex;
  g_deep_loaders.store(t_loads_deep ? 1 : 0, std::memory_order_relaxed);
  if (t_loads_deep) BarHits();
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
  // Whatever it loads now: what came before is known apart from it.
  if (cmp::t_loads_deep) cmp::LoaderIsBack();
  const bool deep = file != nullptr && (mode & RTLD_DEEPBIND) != 0 && (mode & RTLD_NOLOAD) == 0;
  if (!deep || cmp::t_loads_deep || cmp::IsAside()) return next;
  (void)cmp::g_loader_ends.Arm();  // without it, its next call tells
  const cmp::Held held(cmp::g_deep_lock);
  // seq_cst, in BarHits: who remembers a cache afterwards finds that hits are barred.
  if (cmp::g_deep_loaders.fetch_add(1, std::memory_order_relaxed) == 0) cmp::PassOverAll();
  cmp::t_loads_deep = true;
  cmp::BarHits();
  return next;
}
