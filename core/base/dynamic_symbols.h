// Looking up a function in a loaded library. Both are defined anew by the shim (dlsym.cpp,
// lookup.cpp).
#ifndef CMP_CORE_BASE_DYNAMIC_SYMBOLS_H_
#define CMP_CORE_BASE_DYNAMIC_SYMBOLS_H_

namespace cmp {

// dlsym, past whatever interposes it, as the shim itself does.
void* FindSymbol(void* library, const char* name);

// The function of libcuda that a real call of the pool's own leads to. Under the shim it may be
// that of another preload, which wraps the driver's.
void* FindDriverFunction(void* library, const char* name);

}  // namespace cmp

#endif  // CMP_CORE_BASE_DYNAMIC_SYMBOLS_H_
