#include "shim/loaded/loaded_objects.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "core/base/dynamic_symbols.h"

namespace cmp {

namespace {

struct Extent {
  uintptr_t begin = ~uintptr_t{0};
  uintptr_t end = 0;
};

Extent ExtentOf(const dl_phdr_info& info) {
  Extent extent;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info.dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t from = info.dlpi_addr + segment.p_vaddr;
    if (from < extent.begin) extent.begin = from;
    if (from + segment.p_memsz > extent.end) extent.end = from + segment.p_memsz;
  }
  return extent;
}

struct Search {
  const void* address = nullptr;
  int place = 0;
  LoadedObject found = {};
};

int Found(dl_phdr_info* info, size_t, void* data) {
  auto* search = static_cast<Search*>(data);
  const int place = search->place++;
  const Extent extent = ExtentOf(*info);
  const auto address = reinterpret_cast<uintptr_t>(search->address);
  if (address < extent.begin || address >= extent.end) return 0;
  LoadedObject& found = search->found;
  found.begin = extent.begin;
  found.end = extent.end;
  found.place = place;
  if (info->dlpi_name != nullptr) strncpy(found.path, info->dlpi_name, sizeof(found.path) - 1);
  return 1;
}

struct NameSearch {
  const char* beginning = nullptr;
  NamedObjects found = {};
};

int IsNamed(dl_phdr_info* info, size_t, void* data) {
  auto* search = static_cast<NameSearch*>(data);
  if (info->dlpi_name == nullptr) return 0;
  const char* slash = strrchr(info->dlpi_name, '/');
  const char* name = slash == nullptr ? info->dlpi_name : slash + 1;
  if (strncmp(name, search->beginning, strlen(search->beginning)) != 0) return 0;
  NamedObjects& found = search->found;
  if (found.count++ == 0) strncpy(found.first, info->dlpi_name, sizeof(found.first) - 1);
  return 0;
}

}  // namespace

bool IsAround(const dl_phdr_info& info, const void* address) {
  const Extent extent = ExtentOf(info);
  const auto at = reinterpret_cast<uintptr_t>(address);
  return at >= extent.begin && at < extent.end;
}

LoadedObject ObjectAround(const void* address) {
  Search search{address};
  dl_iterate_phdr(&Found, &search);
  return search.found;
}

bool IsOurs(const void* address) {
  return ObjectAround(reinterpret_cast<const void*>(&IsOurs)).Contains(address);
}

bool Defines(const LoadedObject& object, const char* name) {
  if (object.end == 0) return false;
  void* handle = dlopen(object.path[0] == '\0' ? nullptr : object.path, RTLD_LAZY | RTLD_NOLOAD);
  if (handle == nullptr) return false;
  const bool defines = object.Contains(FindSymbol(handle, name));
  dlclose(handle);
  return defines;
}

bool AnyObject(bool (*is)(const char* path)) {
  return dl_iterate_phdr(
             [](dl_phdr_info* info, size_t, void* data) {
               const auto asked = reinterpret_cast<bool (*)(const char*)>(data);
               return info->dlpi_name != nullptr && asked(info->dlpi_name) ? 1 : 0;
             },
             reinterpret_cast<void*>(is)) != 0;
}

NamedObjects ObjectsNamed(const char* beginning) {
  NameSearch search{beginning};
  dl_iterate_phdr(&IsNamed, &search);
  return search.found;
}

}  // namespace cmp
