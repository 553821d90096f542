// Looking up a function in a loaded library.
#ifndef CMP_CORE_DYNAMIC_SYMBOLS_H_
#define CMP_CORE_DYNAMIC_SYMBOLS_H_

namespace cmp {

// dlsym, past whatever interposes it: the shim, which exports a dlsym of its own, defines it anew
// (shim/lookup.cpp).
void* FindSymbol(void* library, const char* name);

}  // namespace cmp

#endif  // CMP_CORE_DYNAMIC_SYMBOLS_H_
