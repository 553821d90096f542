#include "shim/service/kept_pools.h"

namespace cmp {

// Of lookup.cpp, which is left out here: there is no other preload.
bool FreesAreUnseen() { return true; }

// Of kept_pools.cpp, likewise: there are no stream-ordered pools.
Devices DevicesWithKept() { return 0; }
size_t ReleaseKept(int) { return 0; }
bool AgeKept() { return false; }

}  // namespace cmp
