#include "runtime_driver.h"

#include <dlfcn.h>

#include <array>
#include <atomic>
#include <mutex>

namespace cmp::sim {
namespace {

constexpr int kMaxDevices = 64;

using GetProcAddress = decltype(&::cuGetProcAddress_v2);

// As the real runtime asks: often without a status.
void Fetch(GetProcAddress get, const char* name, int version, cuuint64_t flags, void** address) {
  if (get(name, address, version, flags, nullptr) != CUDA_SUCCESS) *address = nullptr;
}

void FetchAll(GetProcAddress get, cuuint64_t stream_flags, DriverFunctions* functions) {
#define CMP_SIM_DRIVER(name, version, symbol)             \
  Fetch(get, #name, version, CU_GET_PROC_ADDRESS_DEFAULT, \
        reinterpret_cast<void**>(&functions->name));
#define CMP_SIM_DRIVER_STREAM(name, version, symbol) \
  Fetch(get, #name, version, stream_flags, reinterpret_cast<void**>(&functions->name));
#define CMP_SIM_DRIVER_NEWER(symbol, name, version)       \
  Fetch(get, #name, version, CU_GET_PROC_ADDRESS_DEFAULT, \
        reinterpret_cast<void**>(&functions->symbol));
#include "runtime_functions.inc"
#undef CMP_SIM_DRIVER
#undef CMP_SIM_DRIVER_NEWER
#undef CMP_SIM_DRIVER_STREAM
}

void Load(Driver* driver) {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY);
  if (library == nullptr) return;
  const auto first = reinterpret_cast<GetProcAddress>(dlsym(library, "cuGetProcAddress_v2"));
  if (first == nullptr) return;
  // The real one asks for this function once more through itself.
  void* again = nullptr;
  Fetch(first, "cuGetProcAddress", 12000, CU_GET_PROC_ADDRESS_DEFAULT, &again);
  driver->get_address = again == nullptr ? first : reinterpret_cast<GetProcAddress>(again);
  FetchAll(driver->get_address, CU_GET_PROC_ADDRESS_DEFAULT, &driver->legacy);
  FetchAll(driver->get_address, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, &driver->per_thread);
  if (driver->legacy.cuInit == nullptr || driver->legacy.cuGetExportTable == nullptr) return;
  const void* table = nullptr;
  if (driver->legacy.cuGetExportTable(&table, &kRuntimeHooksId) == CUDA_SUCCESS) {
    driver->hooks = static_cast<const RuntimeHooks*>(table);
  }
  driver->state = FromDriver(driver->legacy.cuInit(0));
}

// Plain data: calls may come from destructors of thread-local objects.
struct ThreadState {
  int device;
  cudaError_t last_error;
};
thread_local ThreadState t_state{0, cudaSuccess};

struct Primary {
  std::atomic<bool> retained{false};
  std::atomic<CUcontext> handle{nullptr};
};

// No destructor ends them: calls may come from any.
constinit std::mutex g_primaries_lock;
constinit std::array<Primary, kMaxDevices> g_primaries;

CUresult RetainPrimary(const Driver& driver, int device, CUcontext* context) {
  Primary& primary = g_primaries[static_cast<size_t>(device)];
  if (primary.retained.load()) {
    *context = primary.handle.load();
    return CUDA_SUCCESS;
  }
  const std::lock_guard<std::mutex> guard(g_primaries_lock);
  const CUresult result = driver.legacy.cuDevicePrimaryCtxRetain(context, device);
  if (result != CUDA_SUCCESS) return result;
  primary.handle.store(*context);
  primary.retained.store(true);
  return CUDA_SUCCESS;
}

}  // namespace

const Driver& TheDriver() {
  static const Driver* driver = [] {
    auto* loaded = new Driver;
    Load(loaded);
    return loaded;
  }();
  return *driver;
}

cudaError_t EnsureContext(const Driver& driver, CUcontext* context) {
  CUcontext own = nullptr;
  CUcontext& current = context == nullptr ? own : *context;
  CUresult result = driver.legacy.cuCtxGetCurrent(&current);
  if (result != CUDA_SUCCESS) return FromDriver(result);
  if (current == nullptr) {
    result = RetainPrimary(driver, t_state.device, &current);
    if (result == CUDA_SUCCESS) result = driver.legacy.cuCtxSetCurrent(current);
    return FromDriver(result);
  }
  for (size_t device = 0; device < kMaxDevices; ++device) {
    Primary& primary = g_primaries[device];
    const CUcontext handle = primary.handle.load();
    if (handle == nullptr) continue;
    if (handle == current && !primary.retained.load()) {
      return FromDriver(RetainPrimary(driver, static_cast<int>(device), &current));
    }
  }
  return cudaSuccess;
}

cudaError_t ContextOf(const Driver& driver, int device, CUcontext* context) {
  int count = 0;
  const CUresult result = driver.legacy.cuDeviceGetCount(&count);
  if (result != CUDA_SUCCESS) return FromDriver(result);
  if (device < 0 || device >= count || device >= kMaxDevices) return cudaErrorInvalidDevice;
  return FromDriver(RetainPrimary(driver, device, context));
}

cudaError_t SetDevice(const Driver& driver, int device) {
  CUcontext context = nullptr;
  cudaError_t result = ContextOf(driver, device, &context);
  if (result == cudaSuccess) result = FromDriver(driver.legacy.cuCtxSetCurrent(context));
  if (result == cudaSuccess) t_state.device = device;
  return result;
}

int ThreadDevice() { return t_state.device; }

void ForgetPrimary(int device) { g_primaries[static_cast<size_t>(device)].retained.store(false); }

cudaError_t Note(cudaError_t error) {
  // "Not ready" is an answer and leaves the last error alone, as measured.
  if (error != cudaSuccess && error != cudaErrorNotReady) t_state.last_error = error;
  return error;
}

cudaError_t LastError(bool clear) {
  const cudaError_t error = t_state.last_error;
  if (clear) t_state.last_error = cudaSuccess;
  return error;
}

}  // namespace cmp::sim
