// The interposed functions of the driver as one table, and which of them a lookup by name means.
#ifndef CMP_SHIM_LOOKUP_INTERPOSED_FUNCTIONS_H_
#define CMP_SHIM_LOOKUP_INTERPOSED_FUNCTIONS_H_

#include <cuda.h>

#include <span>

#include "shim/lookup/lookup.h"

namespace cmp {

struct InterposedFunction {
  const char* symbol;
  void* ours;
  void* through;  // makes the real call for the pool itself; of the function's own type
  void* guarded;  // the same where that leads to another preload
  size_t place;   // of its RealFunction in DriverCalls

  RealFunction& RealIn(DriverCalls& calls) const {
    return *reinterpret_cast<RealFunction*>(reinterpret_cast<char*>(&calls) + place);
  }
};

std::span<const InterposedFunction> InterposedFunctions();
// The one of that symbol, nullptr if it is not interposed.
const InterposedFunction* FindInterposedFunction(const char* symbol);

// What cuGetProcAddress is asked for by a name (without version and per-thread suffix), a version
// of CUDA and flags; nullptr: not interposed.
const InterposedFunction* FindByName(const char* name, int version, cuuint64_t flags);

// Is a function of that name interposed, and the version newer than all that are known, so that it
// may mean a function that is not?
bool MayBeUnknown(const char* name, int version);
// Is a function of that name interposed for nothing but its status, so that such a one may be left
// real?
bool IsOnlyWatched(const char* name);
// Is the version newer than all that are known, and so is the name: nobody has said what it does?
bool IsOfLaterCuda(const char* name, int version);

}  // namespace cmp

#endif  // CMP_SHIM_LOOKUP_INTERPOSED_FUNCTIONS_H_
