#include "shim/loaded/loaded_objects.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include <initializer_list>

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
  if (!IsAround(*info, search->address)) return 0;
  search->found = ObjectOf(*info);
  search->found.place = place;
  return 1;
}

// What an object's dynamic section says of the symbols that it refers to.
struct References {
  const ElfW(Sym) * symbols = nullptr;
  const char* names = nullptr;
  struct Table {
    const ElfW(Rela) * first = nullptr;
    size_t bytes = 0;
  } data, calls;
};

References ReferencesOf(const dl_phdr_info& info) {
  References found;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    if (info.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    // The loader has made addresses of the offsets, but where the section is read-only.
    auto* entry = reinterpret_cast<const ElfW(Dyn)*>(info.dlpi_addr + info.dlpi_phdr[i].p_vaddr);
    for (; entry->d_tag != DT_NULL; ++entry) {
      const uintptr_t value = entry->d_un.d_ptr;
      const uintptr_t address = value < info.dlpi_addr ? info.dlpi_addr + value : value;
      switch (entry->d_tag) {
        case DT_SYMTAB:
          found.symbols = reinterpret_cast<const ElfW(Sym)*>(address);
          break;
        case DT_STRTAB:
          found.names = reinterpret_cast<const char*>(address);
          break;
        case DT_RELA:
          found.data.first = reinterpret_cast<const ElfW(Rela)*>(address);
          break;
        case DT_RELASZ:
          found.data.bytes = entry->d_un.d_val;
          break;
        case DT_JMPREL:
          found.calls.first = reinterpret_cast<const ElfW(Rela)*>(address);
          break;
        case DT_PLTRELSZ:
          found.calls.bytes = entry->d_un.d_val;
          break;
        default:
          break;
      }
    }
  }
  return found;
}

// dlsym, dlopen, cuLaunchKernel; not cublasCreate.
bool AsksDriver(const char* name) {
  return strcmp(name, "dlsym") == 0 || strcmp(name, "dlvsym") == 0 || strcmp(name, "dlopen") == 0 ||
         (name[0] == 'c' && name[1] == 'u' && name[2] >= 'A' && name[2] <= 'Z');
}

struct NameSearch {
  const char* beginning = nullptr;
  NamedObjects found = {};
};

// Does its file name begin so?
bool IsNamed(const dl_phdr_info& info, const char* beginning) {
  if (info.dlpi_name == nullptr) return false;
  const char* slash = strrchr(info.dlpi_name, '/');
  const char* name = slash == nullptr ? info.dlpi_name : slash + 1;
  return strncmp(name, beginning, strlen(beginning)) == 0;
}

int CountNamed(dl_phdr_info* info, size_t, void* data) {
  auto* search = static_cast<NameSearch*>(data);
  if (!IsNamed(*info, search->beginning)) return 0;
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

LoadedObject ObjectOf(const dl_phdr_info& info) {
  const Extent extent = ExtentOf(info);
  LoadedObject object;
  object.begin = extent.begin;
  object.end = extent.end;
  if (info.dlpi_name != nullptr) strncpy(object.path, info.dlpi_name, sizeof(object.path) - 1);
  return object;
}

bool MayAskDriver(const dl_phdr_info& info) {
  // The driver finds itself. CUPTI loads the other one so, which computes on the host.
  if (IsNamed(info, "libcuda.so") || IsNamed(info, "libnvperf_host.so")) return false;
  const References references = ReferencesOf(info);
  if (references.symbols == nullptr || references.names == nullptr) return false;
  for (const References::Table& table : {references.data, references.calls}) {
    const ElfW(Rela)* end = table.first + table.bytes / sizeof(ElfW(Rela));
    for (const ElfW(Rela)* at = table.first; at != end; ++at) {
      const ElfW(Sym)& symbol = references.symbols[ELF64_R_SYM(at->r_info)];
      if (symbol.st_shndx == SHN_UNDEF && AsksDriver(references.names + symbol.st_name))
        return true;
    }
  }
  return false;
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
  dl_iterate_phdr(&CountNamed, &search);
  return search.found;
}

}  // namespace cmp
