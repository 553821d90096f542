#include "shim/loaded_objects.h"

#include <link.h>
#include <string.h>

namespace cmp {

namespace {

struct Search {
  const void* address = nullptr;
  int place = 0;
  LoadedObject found = {};
};

int IsAround(dl_phdr_info* info, size_t, void* data) {
  auto* search = static_cast<Search*>(data);
  const int place = search->place++;
  uintptr_t begin = ~uintptr_t{0};
  uintptr_t end = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t from = info->dlpi_addr + segment.p_vaddr;
    if (from < begin) begin = from;
    if (from + segment.p_memsz > end) end = from + segment.p_memsz;
  }
  const auto address = reinterpret_cast<uintptr_t>(search->address);
  if (address < begin || address >= end) return 0;
  LoadedObject& found = search->found;
  found.begin = begin;
  found.end = end;
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

LoadedObject ObjectAround(const void* address) {
  Search search{address};
  dl_iterate_phdr(&IsAround, &search);
  return search.found;
}

NamedObjects ObjectsNamed(const char* beginning) {
  NameSearch search{beginning};
  dl_iterate_phdr(&IsNamed, &search);
  return search.found;
}

}  // namespace cmp
