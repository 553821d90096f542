// The definitions for whoever interposes nothing. The shim defines its own, and the linker then
// leaves this member of the archive out.
#include "core/base/dynamic_symbols.h"

#include <dlfcn.h>

namespace cmp {

void* FindSymbol(void* library, const char* name) { return dlsym(library, name); }

void* FindDriverFunction(void* library, const char* name) { return FindSymbol(library, name); }

}  // namespace cmp
