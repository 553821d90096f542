#include "shim/service/verified.h"

#include <stdio.h>

#include "shim/loaded/loaded_objects.h"
#include "shim/lookup/seen_lookups.h"
#include "shim/state/aside.h"
#include "shim/state/runtime_pool.h"

namespace cmp {

namespace {

[[gnu::format(printf, 1, 0)]] void Say(const char* format, const LoadedObject& who,
                                       const LoadedObject& whom = {}) {
  char reason[400];
  snprintf(reason, sizeof(reason), format, who.name(), whom.name());
  StepAside(AsideIs::kWrong, reason);
}

// The library that wraps one of the runtime's functions; no object: there is none. A runtime has
// all of them, and looks the driver up; who wraps them may have launches, too, or all.
LoadedObject FindWrapper(const RuntimeCalls& real) {
  const LoadedObject runtime =
      ObjectAround(reinterpret_cast<const void*>(real.cudaRuntimeGetVersion));
  if (Wraps(runtime)) return runtime;
  LoadedObject other;
  const auto look = [&](const void* function) {
    if (function == nullptr || other.exists() || runtime.Contains(function)) return;
    other = ObjectAround(function);
  };
#define CMP_LOOK(name, parameters) look(reinterpret_cast<const void*>(real.name));
  CMP_RUNTIME_INTERPOSED(CMP_LOOK)
#undef CMP_LOOK
  // Which is the runtime? In doubt that which says its version.
  const bool swapped = other.exists() && IsSeen(other) && !IsSeen(runtime);
  return swapped ? runtime : other;
}

bool IsSeenOrSay(const RuntimeCalls& real) {
  if (const LoadedObject wrapper = FindWrapper(real); wrapper.exists()) {
    Say("%.200s wraps cudaMalloc behind libcmp_preload.so; name it first in LD_PRELOAD", wrapper);
    return false;
  }
  const LoadedObject library = ObjectAround(reinterpret_cast<const void*>(real.cudaMalloc));
  if (IsSeen(library)) return true;
  if (LookupsReachUs()) {
    Say("%.200s came to the driver past libcmp_preload.so: what it submits is not seen", library);
  } else {
    Say("%.150s hides from libcmp_preload.so what %.150s submits; name it after that in LD_PRELOAD",
        TakesBefore("dlsym"), library);
  }
  return false;
}

}  // namespace

void Verify(const RuntimeCalls& real) {
  if (IsAside()) return;
  if (!IsVerified(real)) {
    if (!IsSeenOrSay(real)) return;
    std::atomic_ref(real.seen).store(true, std::memory_order_relaxed);
  }
  if (g_runtime_pool.Get() != nullptr || g_runtime_pool.forbidden()) return;
  if (!real.served || HasOldRuntime()) return g_runtime_pool.Forbid();
  if (LoadedDriver() != nullptr) g_runtime_pool.Allow();
}

void VerifyLookups() {
  static constinit std::atomic<bool> g_asked{false};
  if (g_asked.exchange(true, std::memory_order_relaxed) || LookupsReachUs()) return;
  Say("%.150s hides from libcmp_preload.so what programs look up in the driver; name it after that "
      "in LD_PRELOAD",
      TakesBefore("dlsym"));
}

}  // namespace cmp
