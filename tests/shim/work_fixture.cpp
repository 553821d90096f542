#include "shim/service/kept_pools.h"

namespace cmp {

// Of lookup.cpp, which is left out here: there is no other preload.
bool FreesAreUnseen() { return true; }

// Of kept_pools.cpp, likewise: there are no stream-ordered pools.
size_t ReleaseKeptSlow(int) { return 0; }
bool AgeKept() { return false; }

}  // namespace cmp
