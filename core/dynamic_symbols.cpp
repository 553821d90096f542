// The definition for whoever interposes nothing. The shim defines its own, and the linker then
// leaves this member of the archive out.
#include "core/dynamic_symbols.h"

#include <dlfcn.h>

namespace cmp {

void* FindSymbol(void* library, const char* name) { return dlsym(library, name); }

}  // namespace cmp
