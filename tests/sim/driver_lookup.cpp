// How a program finds driver functions: cuGetProcAddress by name and version, cuGetExportTable.
#include <dlfcn.h>

#include <cstring>

#include "driver_entry.h"
#include "runtime_hooks.h"

namespace cmp::sim {
namespace {

struct Function {
  const char* name;  // without ABI suffixes
  int version;       // of CUDA that introduced this ABI
  void* address;
  int per_thread_version;
  void* per_thread;  // null: the function has no default stream
};

#define CMP_SIM_FUNCTION(name, version, symbol) \
  {#name, version, reinterpret_cast<void*>(&symbol), 0, nullptr},
#define CMP_SIM_STREAM_FUNCTION(name, version, symbol, per_thread_version, per_thread) \
  {#name, version, reinterpret_cast<void*>(&symbol), per_thread_version,               \
   reinterpret_cast<void*>(&per_thread)},

// No header has it: of a CUDA that is yet to come.
CUresult OfALaterCuda() { return CUDA_SUCCESS; }

const Function kFunctions[] = {
#include "driver_functions.inc"
    {"cuOfALaterCuda", 98000, reinterpret_cast<void*>(&OfALaterCuda), 0, nullptr},
};

#undef CMP_SIM_FUNCTION
#undef CMP_SIM_STREAM_FUNCTION

bool IsMissing(const Function& function) {
  if (function.version > TheSettings().driver_version) return true;
  return !TheSettings().context_events && (std::strcmp(function.name, "cuCtxRecordEvent") == 0 ||
                                           std::strcmp(function.name, "cuCtxWaitEvent") == 0);
}

// The newest ABI that the caller's version knows.
CUdriverProcAddressQueryResult FindFunction(const char* name, int version, cuuint64_t flags,
                                            void** address) {
  *address = nullptr;
  const Function* best = nullptr;
  bool known = false;
  for (const Function& function : kFunctions) {
    if (std::strcmp(function.name, name) != 0 || IsMissing(function)) continue;
    known = true;
    if (function.version <= version && (best == nullptr || function.version > best->version)) {
      best = &function;
    }
  }
  if (best == nullptr) {
    return known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                 : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  }
  const bool per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0 &&
                          best->per_thread != nullptr && best->per_thread_version <= version;
  *address = per_thread ? best->per_thread : best->address;
  return CU_GET_PROC_ADDRESS_SUCCESS;
}

bool AreValid(const char* name, void** address, int version, cuuint64_t flags) {
  constexpr cuuint64_t kBoth =
      CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  return name != nullptr && address != nullptr && version <= TheSettings().driver_version &&
         flags <= kBoth && flags != kBoth;
}

int BeginRuntimeCall(const char* name) {
  return InForkedChild() ? 0 : BeginCall(FindCallSite(name));
}

const RuntimeHooks kRuntimeHooks = {BeginRuntimeCall};

}  // namespace

void CheckOwnLookup() {
  static std::once_flag once;
  std::call_once(once, [] {
    void* self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (self == nullptr) return;
    void* found = dlsym(self, "cuMemAlloc_v2");
    if (found != reinterpret_cast<void*>(&cuMemAlloc_v2)) {
      Simulation& sim = TheSimulation();
      const std::lock_guard<std::mutex> guard(sim.lock);
      sim.misuse.Add("the driver's own dlsym of cuMemAlloc_v2 was answered with another function");
    }
    dlclose(self);
  });
}

}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuGetProcAddress(const char* name, void** address, int version, cuuint64_t flags) {
  return Enter("cuGetProcAddress", Needs::kNothing, [&](Simulation&, Lock&) -> CUresult {
    if (!AreValid(name, address, version, flags)) return CUDA_ERROR_INVALID_VALUE;
    void* found = nullptr;
    if (FindFunction(name, version, flags, &found) != CU_GET_PROC_ADDRESS_SUCCESS) {
      return CUDA_ERROR_NOT_FOUND;  // and leaves the pointer alone
    }
    *address = found;
    return CUDA_SUCCESS;
  });
}

CUresult cuGetProcAddress_v2(const char* name, void** address, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult* status) {
  return Enter("cuGetProcAddress_v2", Needs::kNothing, [&](Simulation&, Lock&) -> CUresult {
    if (!AreValid(name, address, version, flags)) return CUDA_ERROR_INVALID_VALUE;
    const CUdriverProcAddressQueryResult found = FindFunction(name, version, flags, address);
    if (status != nullptr) *status = found;
    return CUDA_SUCCESS;  // also with a null pointer
  });
}

CUresult cuGetExportTable(const void** table, const CUuuid* id) {
  return Enter("cuGetExportTable", Needs::kNothing, [&](Simulation&, Lock&) -> CUresult {
    if (table == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (std::memcmp(id, &kRuntimeHooksId, sizeof *id) != 0) return CUDA_ERROR_NOT_FOUND;
    *table = &kRuntimeHooks;
    return CUDA_SUCCESS;
  });
}

}  // extern "C"
