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

// The library that has one of the runtime's functions and is no runtime; no object: there is none.
LoadedObject FindWrapper(const RuntimeCalls& real) {
  LoadedObject runtime;  // usually all of them are in one
  LoadedObject wrapper;
  const auto look = [&](const void* function) {
    if (function == nullptr || wrapper.exists() || runtime.Contains(function)) return;
    const LoadedObject one = ObjectAround(function);
    (Defines(one, "cudaLaunchKernel") ? runtime : wrapper) = one;
  };
#define CMP_LOOK(name, parameters) look(reinterpret_cast<const void*>(real.name));
  CMP_RUNTIME_INTERPOSED(CMP_LOOK)
#undef CMP_LOOK
  return wrapper;
}

bool IsSeenOrSay(const RuntimeCalls& real, bool looked_up) {
  if (const LoadedObject wrapper = FindWrapper(real); wrapper.exists()) {
    Say("%.200s wraps cudaMalloc behind libcmp_preload.so; name it first in LD_PRELOAD", wrapper);
    return false;
  }
  const LoadedObject library = ObjectAround(reinterpret_cast<const void*>(real.cudaMalloc));
  if (looked_up || IsSeen(library)) return true;
  if (LookupsReachUs()) {
    Say("%.200s came to the driver past libcmp_preload.so: what it submits is not seen", library);
  } else {
    Say("%.150s hides from libcmp_preload.so what %.150s submits; name it after that in LD_PRELOAD",
        TakesBefore("dlsym"), library);
  }
  return false;
}

}  // namespace

void Verify(const RuntimeCalls& real, bool looked_up) {
  if (IsAside()) return;
  if (!IsVerified(real)) {
    if (!IsSeenOrSay(real, looked_up)) return;
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
