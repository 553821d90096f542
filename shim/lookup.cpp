#include "shim/lookup.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include <cstdint>
#include <initializer_list>
#include <new>

#include "core/dynamic_symbols.h"
#include "core/memory.h"
#include "shim/entry_driver.h"

using DlsymFunction = void* (*)(void* handle, const char* name);

// The real dlsym, for dlsym_tail.S to jump to. Found by the first lookup of the process, in
// whatever thread: all of them find the same.
extern "C" {
__attribute__((visibility("hidden"))) constinit DlsymFunction cmp_real_dlsym = nullptr;
__attribute__((visibility("hidden"))) void* cmp_answer_dlsym(void* handle, const char* name,
                                                             const void* caller);
}

namespace cmp {

namespace {

DlsymFunction RealDlsym() {
  DlsymFunction real = __atomic_load_n(&cmp_real_dlsym, __ATOMIC_ACQUIRE);
  if (real != nullptr) return real;
  // By the versions that it has had: glibc 2.34 and later, aarch64 before, x86-64 before.
  for (const char* version : {"GLIBC_2.34", "GLIBC_2.17", "GLIBC_2.2.5"}) {
    void* symbol = dlvsym(RTLD_NEXT, "dlsym", version);
    if (symbol == nullptr) continue;
    real = reinterpret_cast<DlsymFunction>(symbol);
    __atomic_store_n(&cmp_real_dlsym, real, __ATOMIC_RELEASE);
    return real;
  }
  __builtin_trap();  // no C library without dlsym can have loaded us
}

// ---- The driver's library

struct DriverObject {
  uintptr_t inside;  // an address in it
  uintptr_t begin = 0;
  uintptr_t end = 0;
};

constinit std::atomic<uintptr_t> g_driver_begin{0};
constinit std::atomic<uintptr_t> g_driver_end{0};

int FindObject(dl_phdr_info* info, size_t, void* data) {
  auto* object = static_cast<DriverObject*>(data);
  uintptr_t begin = ~uintptr_t{0};
  uintptr_t end = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const uintptr_t from = info->dlpi_addr + segment.p_vaddr;
    if (from < begin) begin = from;
    if (from + segment.p_memsz > end) end = from + segment.p_memsz;
  }
  if (object->inside < begin || object->inside >= end) return 0;
  object->begin = begin;
  object->end = end;
  return 1;
}

bool IsServedName(const char* name) {
#define CMP_COMPARE(served, parameters) \
  if (strcmp(name, #served) == 0) return true;
  CMP_DRIVER_INTERPOSED(CMP_COMPARE)
#undef CMP_COMPARE
  return false;
}

}  // namespace

void* FindSymbol(void* library, const char* name) { return RealDlsym()(library, name); }

const DriverCalls* RealDriverSlow() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  void* memory = MapPages(sizeof(DriverCalls));
  if (memory == nullptr) return nullptr;
  auto* found = new (memory) DriverCalls;
#define CMP_FIND(name, parameters) \
  found->name = reinterpret_cast<decltype(found->name)>(FindSymbol(library, #name));
  CMP_DRIVER_INTERPOSED(CMP_FIND)
#undef CMP_FIND
  if (found->cuMemAlloc_v2 == nullptr || found->cuMemFree_v2 == nullptr) return nullptr;
  DriverObject object{reinterpret_cast<uintptr_t>(found->cuMemAlloc_v2)};
  dl_iterate_phdr(&FindObject, &object);
  g_driver_begin.store(object.begin, std::memory_order_relaxed);
  g_driver_end.store(object.end, std::memory_order_relaxed);
  const DriverCalls* expected = nullptr;
  g_driver_calls.compare_exchange_strong(expected, found, std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  return expected != nullptr ? expected : found;
}

void* Replacement(void* function) {
  const DriverCalls* real = RealDriver();
  if (real == nullptr || function == nullptr) return function;
#define CMP_REPLACE(name, parameters)                    \
  if (function == reinterpret_cast<void*>(real->name)) { \
    return reinterpret_cast<void*>(&Driver_##name);      \
  }
  CMP_DRIVER_INTERPOSED(CMP_REPLACE)
#undef CMP_REPLACE
  return function;
}

}  // namespace cmp

// What dlsym answers in place of the real one, or nullptr: ask the real one.
void* cmp_answer_dlsym(void* handle, const char* name, const void* caller) {
  cmp::RealDlsym();
  // RTLD_DEFAULT and RTLD_NEXT go by the search order, in which our exports have their place.
  if (handle == RTLD_DEFAULT || handle == RTLD_NEXT || name == nullptr) return nullptr;
  if (name[0] != 'c' || name[1] != 'u' || !cmp::IsServedName(name)) return nullptr;
  if (cmp::RealDriver() == nullptr) return nullptr;
  // libcuda looks up functions of its own by name: those stay its own.
  const auto address = reinterpret_cast<uintptr_t>(caller);
  if (address >= cmp::g_driver_begin.load(std::memory_order_relaxed) &&
      address < cmp::g_driver_end.load(std::memory_order_relaxed)) {
    return nullptr;
  }
  void* real = cmp::FindSymbol(handle, name);
  void* ours = cmp::Replacement(real);
  return ours == real ? nullptr : ours;
}
