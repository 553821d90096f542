#include "shim/lookup/interposed_functions.h"

#include <stddef.h>
#include <string.h>

#include <algorithm>

#include "shim/lookup/driver_versions.inc"
#include "shim/lookup/entry_points.h"

namespace cmp {

namespace {

template <auto kMember>
struct Through;
template <typename... Parameters, Need kNeed,
          RealCall<CUresult (*)(Parameters...), kNeed> DriverCalls::*kMember>
struct Through<kMember> {
  static CUresult Call(Parameters... arguments) {
    const DriverCalls* real = RealDriver();
    return real == nullptr ? kNoDriver : (real->*kMember).Once(arguments...);
  }
};

// A preload that wraps a function of the driver's is called in its place, and calls what it was
// given as the real one: that may be ours again. The second time it is the driver's own, and what
// is allocated inside is not the pool's.
template <auto kMember>
struct Guarded;
template <typename... Parameters, Need kNeed,
          RealCall<CUresult (*)(Parameters...), kNeed> DriverCalls::*kMember>
struct Guarded<kMember> {
  static CUresult Call(Parameters... arguments) {
    const DriverTables& tables = *g_driver_tables.load(std::memory_order_acquire);
    if (t_inside_wrapper != 0) return (tables.symbols.*kMember)(arguments...);
    const InsideReal inside;
    ++t_inside_wrapper;
    const CUresult status = (tables.wrappers.*kMember)(arguments...);
    --t_inside_wrapper;
    return status;
  }
};

const InterposedFunction kFunctions[] = {
#define CMP_ROW(name, need, parameters)                         \
  {#name, reinterpret_cast<void*>(&Driver_##name),              \
   reinterpret_cast<void*>(&Through<&DriverCalls::name>::Call), \
   reinterpret_cast<void*>(&Guarded<&DriverCalls::name>::Call), offsetof(DriverCalls, name)},
    CMP_DRIVER_INTERPOSED(CMP_ROW)
#undef CMP_ROW
};

struct VersionedSymbol {
  const char* name;
  int since;
  bool per_thread;
  const char* symbol;
};

// By name, then by version.
constexpr VersionedSymbol kVersions[] = {
#define CMP_ROW(name, since, per_thread, symbol) {name, since, per_thread != 0, #symbol},
    CMP_DRIVER_VERSIONS(CMP_ROW)
#undef CMP_ROW
};

std::span<const VersionedSymbol> VersionsOf(const char* name) {
  const auto [first, last] = std::equal_range(
      std::begin(kVersions), std::end(kVersions), VersionedSymbol{name, 0, false, nullptr},
      [](const VersionedSymbol& a, const VersionedSymbol& b) {
        return strcmp(a.name, b.name) < 0;
      });
  return {first, last};
}

// Is `symbol` the per-thread variant of `plain`?
bool IsVariantOf(const char* symbol, const char* plain) {
  const size_t length = strlen(plain);
  return strncmp(symbol, plain, length) == 0 && strncmp(symbol + length, "_pt", 3) == 0;
}

}  // namespace

std::span<const InterposedFunction> InterposedFunctions() { return kFunctions; }

const InterposedFunction* FindInterposedFunction(const char* symbol) {
  for (const InterposedFunction& function : kFunctions) {
    if (strcmp(function.symbol, symbol) == 0) return &function;
  }
  return nullptr;
}

const InterposedFunction* FindByName(const char* name, int version, cuuint64_t flags) {
  const std::span<const VersionedSymbol> versions = VersionsOf(name);
  const VersionedSymbol* plain = nullptr;
  for (const VersionedSymbol& one : versions) {
    if (!one.per_thread && one.since <= version) plain = &one;  // the last is the newest
  }
  if (plain == nullptr) return nullptr;
  const char* symbol = plain->symbol;
  const bool per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
  for (const VersionedSymbol& one : versions) {
    if (per_thread && one.per_thread && one.since <= version &&
        IsVariantOf(one.symbol, plain->symbol)) {
      symbol = one.symbol;
    }
  }
  return FindInterposedFunction(symbol);
}

bool MayBeUnknown(const char* name, int version) {
  return version > kNewestDriverVersion && !VersionsOf(name).empty();
}

bool IsOnlyWatched(const char* name) {
  return std::any_of(std::begin(kWatchedDriverNames), std::end(kWatchedDriverNames),
                     [&](const char* watched) { return strcmp(watched, name) == 0; });
}

bool IsOfLaterCuda(const char* name, int version) {
  return version > kNewestDriverVersion &&
         !std::binary_search(std::begin(kKnownDriverNames), std::end(kKnownDriverNames), name,
                             [](const char* a, const char* b) { return strcmp(a, b) < 0; });
}

}  // namespace cmp
