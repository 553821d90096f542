// How the simulated runtime reaches the driver, and what it keeps per thread.
//
// As libcudart 12 and 13 do: dlopen("libcuda.so.1"), one dlsym of cuGetProcAddress_v2, everything
// else through that with a version and, for functions with a default stream, once for each meaning
// of the stream 0. Nothing else of the driver is touched, so an interposer sees every call.
#ifndef CMP_TESTS_SIM_RUNTIME_DRIVER_H_
#define CMP_TESTS_SIM_RUNTIME_DRIVER_H_

#include <cuda.h>

// The header leaves the visibility of its functions to the compiler's flags: exported from the
// shared library, hidden in the static one.
#ifndef CMP_SIM_STATIC_RUNTIME
#pragma GCC visibility push(default)
#endif
#include <cuda_runtime_api.h>
#ifndef CMP_SIM_STATIC_RUNTIME
#pragma GCC visibility pop
#endif

#include "runtime_hooks.h"

#if CUDA_VERSION < 13000
extern "C" CUresult cuCtxSynchronize_v2(CUcontext context);
#endif

namespace cmp::sim {

// The functions of the driver for one meaning of the stream 0. A function that the driver lacks is
// null.
struct DriverFunctions {
#define CMP_SIM_DRIVER(name, version, symbol) decltype(&::symbol) name = nullptr;
#define CMP_SIM_DRIVER_STREAM(name, version, symbol) CMP_SIM_DRIVER(name, version, symbol)
#define CMP_SIM_DRIVER_NEWER(symbol, name, version) CMP_SIM_DRIVER(symbol, version, symbol)
#include "runtime_functions.inc"
#undef CMP_SIM_DRIVER
#undef CMP_SIM_DRIVER_NEWER
#undef CMP_SIM_DRIVER_STREAM
};

struct Driver {
  cudaError_t state = cudaErrorInsufficientDriver;  // cudaSuccess: the functions may be called
  DriverFunctions legacy;
  DriverFunctions per_thread;
  const RuntimeHooks* hooks = nullptr;  // null with a driver that is not the simulator's
  // cuGetProcAddress, for cudaGetDriverEntryPoint
  decltype(&::cuGetProcAddress_v2) get_address = nullptr;
};

// Loaded and initialised at the first call.
const Driver& TheDriver();

// Makes the primary context of the thread's device current when the thread has no context, or when
// its context is a primary one that was reset. `context`, if asked for, is the current one then.
cudaError_t EnsureContext(const Driver& driver, CUcontext* context = nullptr);
cudaError_t SetDevice(const Driver& driver, int device);
// Its primary context, made if need be.
cudaError_t ContextOf(const Driver& driver, int device, CUcontext* context);
int ThreadDevice();
// cudaDeviceReset: the next call that needs the context makes it anew.
void ForgetPrimary(int device);

// Sets the thread's last error unless `error` is cudaSuccess; returns it.
cudaError_t Note(cudaError_t error);
cudaError_t LastError(bool clear);

inline cudaError_t FromDriver(CUresult result) { return static_cast<cudaError_t>(result); }

enum class Needs { kDriver, kContext };

// Runs `body(driver)` as one runtime call.
template <typename Body>
cudaError_t Call(const char* name, Needs needs, Body&& body) {
  const Driver& driver = TheDriver();
  if (driver.hooks != nullptr) {
    if (const int error = driver.hooks->begin_call(name); error != 0) {
      return Note(static_cast<cudaError_t>(error));
    }
  }
  if (driver.state != cudaSuccess) return Note(driver.state);
  if (needs == Needs::kContext) {
    const cudaError_t result = EnsureContext(driver);
    if (result != cudaSuccess) return Note(result);
  }
  return Note(body(driver));
}

// The usual case: a context is needed, and the driver's result is the runtime's.
template <typename Body>
cudaError_t CallDriver(const char* name, Body&& body) {
  return Call(name, Needs::kContext,
              [&](const Driver& driver) { return FromDriver(body(driver)); });
}

inline CUdeviceptr DeviceAddress(const void* pointer) {
  return reinterpret_cast<CUdeviceptr>(pointer);
}

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_RUNTIME_DRIVER_H_
