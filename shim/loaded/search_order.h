// What the search order would say without us.
//
// Our exports stand near the front of it, also in a process without CUDA. A program that asks there
// whether it has cudaMalloc must hear no. (A weak reference cannot be told: the dynamic linker
// binds it to our export before any code of ours runs.)
#ifndef CMP_SHIM_LOADED_SEARCH_ORDER_H_
#define CMP_SHIM_LOADED_SEARCH_ORDER_H_

namespace cmp {

// Whether dlsym(handle, name), called from `caller`, finds our export of that name where it would
// find nothing without us. `name` is one of our exports.
bool OnlyOursIsFound(void* handle, const char* name, const void* caller);

}  // namespace cmp

#endif  // CMP_SHIM_LOADED_SEARCH_ORDER_H_
