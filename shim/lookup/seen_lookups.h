// Who looked the driver's launches up through the shim. What a library submits is seen if, and only
// if, it was given our functions in place of the driver's.
//
// A runtime looks all of them up at its first call, the same way: to have seen one is to have seen
// them all. (Measured: libcudart 12 and 13, shared and static; 11 and older.)
#ifndef CMP_SHIM_LOOKUP_SEEN_LOOKUPS_H_
#define CMP_SHIM_LOOKUP_SEEN_LOOKUPS_H_

#include "shim/loaded/loaded_objects.h"

namespace cmp {

// How many lookups of this thread came to the shim: by our dlsym, and by our cuGetProcAddress.
struct Lookups {
  unsigned by_dlsym = 0;
  unsigned by_name = 0;
};
inline thread_local constinit Lookups t_lookups;

// A lookup from `caller` (a return address) was answered with `ours`.
void NoteAnswer(const void* ours, const void* caller);
// One for `name`, one of ours, goes by the search order (RTLD_DEFAULT, RTLD_NEXT).
void NoteLookupInOrder(const char* name, const void* caller);

// A lookup of `name`, one of the runtime's functions that are ours, where RTLD_DEFAULT is not
// meant.
void NoteLookupOfRuntime(const char* name, const void* caller);

// Does the shim see what a library submits: did it look launches up through the shim, or, if it is
// a runtime, did another one that passes lookups on?
bool IsSeen(const LoadedObject& library);

// Does the library wrap the runtime? It asked for one of its functions that it has itself, or has
// not all of them.
bool Wraps(const LoadedObject& library);

// Do lookups in the driver come to the shim, as programs make them? REQUIRES: libcuda.so.1 is
// loaded
bool LookupsReachUs();

// The library that takes `name`, one of ours, before us in the search order; no object if it is
// ours.
LoadedObject TakesBefore(const char* name);

// Is a libcudart from before version 12 in the process? Its cudaSetDevice does nothing before its
// next call, so the current context does not tell for which device an allocation is.
bool HasOldRuntime();

}  // namespace cmp

#endif  // CMP_SHIM_LOOKUP_SEEN_LOOKUPS_H_
