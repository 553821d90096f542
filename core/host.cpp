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
    false,
    [](ContextPool&) {},
    [](ContextPool&) {},
};

}  // namespace cmp
