#include "shim/loaded/nvidia_libraries.h"

#include <link.h>
#include <string.h>

#include "shim/loaded/loaded_objects.h"

namespace cmp {

namespace {

constexpr const char* kLibraries[] = {
    "libcublas",   "libcublasLt",   "libcudnn",    "libcufft",      "libcufftw",   "libcurand",
    "libcusolver", "libcusolverMg", "libcusparse", "libcusparseLt", "libcutensor", "libcutensorMg",
    "libnvblas",   "libnppc",       "libnppial",   "libnppicc",     "libnppidei",  "libnppif",
    "libnppig",    "libnppim",      "libnppist",   "libnppisu",     "libnppitc",   "libnpps",
};
// Parts of it, each a library of its own: libcudnn_graph, libcudnn_ops, ...
constexpr char kCudnnPart[] = "libcudnn_";

// A few of the entries of an object's dynamic section.
struct DynamicSection {
  const char* strings = nullptr;
  const ElfW(Verdef) * definitions = nullptr;
  size_t count = 0;
};

// The dynamic linker adds the load address to these in most objects, not in all.
template <typename T>
const T* At(const dl_phdr_info& info, ElfW(Addr) address) {
  return reinterpret_cast<const T*>(address < info.dlpi_addr ? info.dlpi_addr + address : address);
}

DynamicSection ReadDynamicSection(const dl_phdr_info& info) {
  DynamicSection section;
  for (int i = 0; i < info.dlpi_phnum; ++i) {
    if (info.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    const auto* entry =
        reinterpret_cast<const ElfW(Dyn)*>(info.dlpi_addr + info.dlpi_phdr[i].p_vaddr);
    for (; entry->d_tag != DT_NULL; ++entry) {
      if (entry->d_tag == DT_STRTAB) section.strings = At<char>(info, entry->d_un.d_ptr);
      if (entry->d_tag == DT_VERDEF) {
        section.definitions = At<ElfW(Verdef)>(info, entry->d_un.d_ptr);
      }
      if (entry->d_tag == DT_VERDEFNUM) section.count = entry->d_un.d_val;
    }
  }
  return section;
}

// The first definition is the library's own name, whoever made it; the others are versions.
bool DefinesNvidiaVersion(const dl_phdr_info& info) {
  const DynamicSection section = ReadDynamicSection(info);
  if (section.strings == nullptr || section.definitions == nullptr) return false;
  const auto* definition = section.definitions;
  for (size_t i = 0; i < section.count; ++i) {
    const auto* at = reinterpret_cast<const char*>(definition);
    const auto* name = reinterpret_cast<const ElfW(Verdaux)*>(at + definition->vd_aux);
    const bool own_name = (definition->vd_flags & VER_FLG_BASE) != 0;
    if (!own_name && IsNvidiaVersion(section.strings + name->vda_name)) return true;
    definition = reinterpret_cast<const ElfW(Verdef)*>(at + definition->vd_next);
  }
  return false;
}

struct VersionSearch {
  const void* address;
  bool found;
};

}  // namespace

bool IsNvidiaVersion(const char* version) {
  const char* end = strstr(version, ".so.");
  if (end == nullptr) return false;
  const auto length = static_cast<size_t>(end - version);
  for (const char* library : kLibraries) {
    if (strlen(library) == length && strncmp(version, library, length) == 0) return true;
  }
  return strncmp(version, kCudnnPart, sizeof(kCudnnPart) - 1) == 0;
}

bool IsNvidiaLibrary(const void* caller) {
  const LoadedObject object = ObjectAround(caller);
  if (object.path[0] == '\0') return false;
  VersionSearch search{caller, false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto* asked = static_cast<VersionSearch*>(data);
        if (!IsAround(*info, asked->address)) return 0;
        asked->found = DefinesNvidiaVersion(*info);
        return 1;
      },
      &search);
  return search.found || (strstr(object.path, "libnccl") != nullptr &&
                          Defines(object, "ncclGetVersion") && Defines(object, "pncclGetVersion"));
}

}  // namespace cmp
