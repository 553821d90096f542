// The program and the libraries that are loaded in this process.
#ifndef CMP_SHIM_LOADED_LOADED_OBJECTS_H_
#define CMP_SHIM_LOADED_LOADED_OBJECTS_H_

#include <link.h>

#include <cstdint>

namespace cmp {

struct LoadedObject {
  uintptr_t begin = 0;
  uintptr_t end = 0;     // 0: no object is there (generated code)
  int place = 0;         // in the order of loading; the main program is 0
  char path[1024] = {};  // empty: the main program, or no object
  bool exists() const { return end != 0; }
  const char* name() const { return path[0] == '\0' ? "the program itself" : path; }
  bool Contains(const void* address) const {
    return reinterpret_cast<uintptr_t>(address) >= begin &&
           reinterpret_cast<uintptr_t>(address) < end;
  }
};

// Is the address in the object that dl_iterate_phdr shows?
bool IsAround(const dl_phdr_info& info, const void* address);

// The object that dl_iterate_phdr shows.
LoadedObject ObjectOf(const dl_phdr_info& info);

// Does it import functions of the driver's, or what looks functions up or loads libraries?
bool MayAskDriver(const dl_phdr_info& info);

// The object that `address` is in.
LoadedObject ObjectAround(const void* address);

// Is the address in this library?
bool IsOurs(const void* address);

// Does the object itself define the function?
bool Defines(const LoadedObject& object, const char* name);

struct NamedObjects {
  int count = 0;
  char first[1024] = {};  // path
};

// The libraries whose file name begins with `beginning`.
NamedObjects ObjectsNamed(const char* beginning);

// Calls is(path) for every object until it is true; then true.
bool AnyObject(bool (*is)(const char* path));

}  // namespace cmp

#endif  // CMP_SHIM_LOADED_LOADED_OBJECTS_H_
