#include "core/host.h"

#include "core/driver.h"

namespace cmp {

constinit const PoolHost kBlindHost = {
    [] { return LoadDriver(DriverSource::kLoaded); },
    [] { return true; },
    [] {},
    [] { return true; },
    [] {},
    [](ContextPool&, uint64_t, FencePurpose) {},
    [](ContextPool&) {},
    [] {
      const Driver* driver = LoadDriver(DriverSource::kLoaded);
      return driver != nullptr && IsDriversOwn(reinterpret_cast<void*>(driver->mem_free));
    },
    false,
    [](ContextPool&) {},
    [](ContextPool&) {},
};

}  // namespace cmp
