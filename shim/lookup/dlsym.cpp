#include "shim/lookup/dlsym.h"

#include <dlfcn.h>

#include <atomic>

#include "core/base/dynamic_symbols.h"
#include "shim/loaded/loaded_objects.h"
#include "shim/loaded/search_order.h"
#include "shim/lookup/lookup.h"
#include "shim/lookup/seen_lookups.h"
#include "shim/state/deep_loads.h"

// What our dlsym does: it jumps to `function`, asking for the name `value`, or, where `function` is
// nullptr, answers `value`. Read by dlsym_tail.S in two registers.
struct DlsymWay {
  cmp::DlsymFunction function;
  const void* value;
};
static_assert(sizeof(DlsymWay) == 2 * sizeof(void*));

extern "C" __attribute__((visibility("hidden"))) DlsymWay cmp_way_of_dlsym(void* handle,
                                                                           const char* name,
                                                                           const void* caller);

namespace cmp {

namespace {

// ---- The real ones. Found by the first lookup of the process, in whatever thread: all of them
// find the same.

// The C library's.
DlsymFunction LibcDlsym() {
  static constinit std::atomic<DlsymFunction> g_libc_dlsym{nullptr};
  DlsymFunction libc = g_libc_dlsym.load(std::memory_order_acquire);
  if (libc != nullptr) return libc;
  // By its oldest version, which every C library still has: a lookup that fails would allocate, in
  // a process whose malloc may be what asks. With a version no neighbour's dlsym is found either.
  libc = reinterpret_cast<DlsymFunction>(dlvsym(RTLD_NEXT, "dlsym", CMP_OLDEST));
  if (libc == nullptr) __builtin_trap();  // no C library without dlsym can have loaded us
  g_libc_dlsym.store(libc, std::memory_order_release);
  return libc;
}

// ---- Names and callers

enum class Layer { kNone, kRuntime, kDriver };

// strcmp(a, b) == 0. A sanitizer's runtime comes here for its real strcmp before it has one.
bool IsEqual(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return *a == *b;
}

// One of the interposed names: its layer, and a name that nobody has and that looks the same in an
// error message.
struct Interposed {
  Layer layer = Layer::kNone;
  const char* unfindable = nullptr;
};

Interposed FindInterposed(const char* name) {
  if (name == nullptr || name[0] != 'c' || name[1] != 'u') return {};
#define CMP_RUNTIME_NAME(served, parameters) \
  if (IsEqual(name, #served)) return {Layer::kRuntime, #served " "};
#define CMP_DRIVER_NAME(served, need, parameters) \
  if (IsEqual(name, #served)) return {Layer::kDriver, #served " "};
  CMP_RUNTIME_INTERPOSED(CMP_RUNTIME_NAME)
  CMP_DRIVER_INTERPOSED(CMP_DRIVER_NAME)
#undef CMP_RUNTIME_NAME
#undef CMP_DRIVER_NAME
  return {};
}

}  // namespace

void* FindSymbol(void* library, const char* name) { return LibcDlsym()(library, name); }

DlsymFunction NextDlsym() {
  static constinit std::atomic<DlsymFunction> g_next_dlsym{nullptr};
  DlsymFunction next = g_next_dlsym.load(std::memory_order_acquire);
  if (next != nullptr) return next;
  next = reinterpret_cast<DlsymFunction>(LibcDlsym()(RTLD_NEXT, "dlsym"));
  if (next == nullptr) next = LibcDlsym();
  g_next_dlsym.store(next, std::memory_order_release);
  return next;
}

void* FirstInOrder(const char* name) {
  // The main program's handle is the same for as long as the process lives.
  static constinit std::atomic<void*> g_program{nullptr};
  void* program = g_program.load(std::memory_order_relaxed);  // whoever asks gets the same
  if (program == nullptr) program = dlopen(nullptr, RTLD_LAZY);
  if (program == nullptr) return nullptr;
  g_program.store(program, std::memory_order_relaxed);
  return FindSymbol(program, name);
}

}  // namespace cmp

DlsymWay cmp_way_of_dlsym(void* handle, const char* name, const void* caller) {
  const DlsymWay pass_on = {cmp::NextDlsym(), name};
  cmp::DeepLoaderLooksUp();
  // "The dlsym after mine", asked by a neighbour that wraps dlsym itself: passed on it could come
  // back to the one who asks.
  if (handle == RTLD_NEXT && name != nullptr && cmp::IsEqual(name, "dlsym")) {
    return {cmp::LibcDlsym(), name};
  }
  const cmp::Interposed interposed = cmp::FindInterposed(name);
  if (interposed.layer == cmp::Layer::kNone) return pass_on;
  ++cmp::t_lookups.by_dlsym;
  if (cmp::OnlyOursIsFound(handle, name, caller)) {
    // The answer, its error included, is the C library's, to the caller's own question.
    return {cmp::LibcDlsym(), interposed.unfindable};
  }
  if (interposed.layer == cmp::Layer::kRuntime && handle != RTLD_DEFAULT) {
    cmp::NoteLookupOfRuntime(name, caller);
  }
  // RTLD_DEFAULT and RTLD_NEXT go by the search order, in which our exports have their place.
  if (handle == RTLD_DEFAULT || handle == RTLD_NEXT) {
    cmp::NoteLookupInOrder(name, caller);
    return pass_on;
  }
  if (interposed.layer != cmp::Layer::kDriver || cmp::RealDriver() == nullptr) return pass_on;
  // libcuda looks up functions of its own by name: those stay its own.
  if (cmp::IsInDriver(caller)) return pass_on;
  void* real = cmp::FindSymbol(handle, name);
  void* ours = cmp::OursFor(real);
  if (ours == nullptr) return pass_on;
  cmp::NoteAnswer(ours, caller);
  return {nullptr, ours};
}
