#include "core/driver/host.h"

#include "core/driver/driver.h"

namespace cmp {

constinit const PoolHost kBlindHost = {
    &LoadedDriver,
    [] { return true; },
    [] {},
    [] { return true; },
    [] {},
    [](ContextPool&, uint64_t, FencePurpose) {},
    [](ContextPool&) {},
    [] {
      const Driver* driver = LoadedDriver();
      if (driver == nullptr) return false;
      const void* free = reinterpret_cast<void*>(driver->mem_free);
      // Asks the dynamic linker: once. Relaxed: every thread would find the same.
      static constinit std::atomic<int> g_own{-1};
      int own = g_own.load(std::memory_order_relaxed);
      if (own < 0) {
        own = IsInDriversLibrary(free) ? 1 : 0;
        g_own.store(own, std::memory_order_relaxed);
      }
      return own != 0 && !IsPatched(free);
    },
    [] { return size_t{0}; },
    [] { return uint64_t{0}; },
    [](int) { return size_t{0}; },
    [] { return false; },
    false,
    false,
    [](ContextPool&) {},
    [](ContextPool&) {},
};

}  // namespace cmp
