// The interposed entry points of the CUDA runtime. A hit reads from here to core/pool.h to
// core/thread_cache.h. Whatever else a runtime does, the driver's entry points see.
#include <stdint.h>

#include "shim/interposed.h"
#include "shim/owed.h"
#include "shim/process.h"
#include "shim/runtime_api.h"
#include "shim/service.h"
#include "shim/work.h"

namespace cmp {

namespace {

// The answer where a call reached the shim but no libcudart can be found behind it.
constexpr cudaError_t kNoRuntime = cudaErrorSharedObjectSymbolNotFound;

// The driver with a context current in this thread, as the runtime would make it; nullptr when
// there is none (no device, no driver).
const Driver* DriverWithContext(const RuntimeCalls& real) {
  const Driver* driver = LoadedDriver();
  if (driver == nullptr || CurrentContext(*driver) == nullptr) {
    // What the runtime does at the first call of a thread: the primary context of the thread's
    // device becomes current. Since version 12 cudaSetDevice does it too, waits for nothing and is
    // allowed during captures.
    int device = 0;
    if (real.cudaGetDevice(&device) != cudaSuccess || real.cudaSetDevice(device) != cudaSuccess) {
      return nullptr;
    }
    driver = LoadedDriver();
    if (driver == nullptr || CurrentContext(*driver) == nullptr) return nullptr;
  }
  CudaIsInitialised(*driver, real.version);
  return driver;
}

cudaError_t MallocFromPool(Pool& pool, const Driver& driver, void** pointer, size_t bytes,
                           const void* caller) {
  const RuntimeApi api(&driver, caller);
  const Allocation made = AllocInContext(pool, driver, bytes, api);
  *pointer = reinterpret_cast<void*>(made.address);
  return static_cast<cudaError_t>(made.status);
}

// Callers (return addresses) whose runtime this thread found to be served. To look that up takes
// the dynamic linker's lock, which a large allocation from the pool must not wait for. That another
// library has been loaded over the caller since, with a call at the very same place and a runtime
// before version 12, is the one case in which this is wrong.
constexpr size_t kServedCallers = 8;
thread_local constinit const void* t_served_callers[kServedCallers] = {};
const void*& ServedCaller(const void* caller) {
  return t_served_callers[(reinterpret_cast<uintptr_t>(caller) >> 2) % kServedCallers];
}

// The pool, for a caller that it has served before; nullptr where that is not enough to know.
Pool* PoolFor(const void* caller) {
  if (ServedCaller(caller) != caller) return nullptr;
  const Driver* driver = LoadedDriver();
  if (driver == nullptr || CurrentContext(*driver) == nullptr) return nullptr;
  return g_pool.load(std::memory_order_acquire);
}

cudaError_t MallocServed(Pool& pool, const RuntimeCalls& real, void** pointer, size_t bytes,
                         const void* caller) {
  const Driver* driver = DriverWithContext(real);
  if (driver == nullptr) return real.cudaMalloc(pointer, bytes);
  ServedCaller(caller) = caller;
  return MallocFromPool(pool, *driver, pointer, bytes, caller);
}

// CMP_MODE=observe: the real call, counted and timed, its memory remembered.
cudaError_t ObserveMalloc(Pool& pool, const RuntimeCalls& real, void** pointer, size_t bytes,
                          const void* caller) {
  const RuntimeApi api(LoadedDriver(), caller);
  const Allocation made = AllocObserved(pool, bytes, api);
  *pointer = reinterpret_cast<void*>(made.address);
  if (const Driver* driver = LoadedDriver()) CudaIsInitialised(*driver, real.version);
  return static_cast<cudaError_t>(made.status);
}

[[gnu::noinline]] cudaError_t MallocSlow(void** pointer, size_t bytes, const void* caller) {
  if (pointer != nullptr && bytes != 0) {
    if (Pool* pool = PoolFor(caller)) {
      return MallocFromPool(*pool, *LoadedDriver(), pointer, bytes, caller);
    }
  }
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr) return kNoRuntime;
  Pool* pool = StartedPool();
  const bool odd = pointer == nullptr || bytes == 0;  // the real call knows what to say
  if (pool == nullptr || odd || !real->served) return real->cudaMalloc(pointer, bytes);
  if (pool->options().mode == Mode::kObserve) {
    return ObserveMalloc(*pool, *real, pointer, bytes, caller);
  }
  if (g_pool.load(std::memory_order_acquire) == nullptr) return real->cudaMalloc(pointer, bytes);
  return MallocServed(*pool, *real, pointer, bytes, caller);
}

[[gnu::noinline]] cudaError_t FreeSlow(Pool& pool, Block* block, DeviceAddress address, bool live,
                                       const void* caller) {
  const Driver& driver = *LoadedDriver();  // where there is a block there is one
  const RuntimeApi api(&driver, caller);
  return static_cast<cudaError_t>(FreeBlock(pool, driver, block, address, live, api));
}

// A pointer that is not ours: the real call, untouched. And every pointer, where calls are traced.
[[gnu::noinline]] cudaError_t FreeForeign(void* pointer, const void* caller) {
  const auto address = reinterpret_cast<DeviceAddress>(pointer);
  if (Block* block = TracedBlock(address)) {
    Pool& pool = *g_started.load(std::memory_order_acquire);
    const Driver& driver = *LoadedDriver();
    const RuntimeApi api(&driver, caller);
    const BlockState taken = pool.Take(block, address);
    return static_cast<cudaError_t>(FreeTaken(pool, driver, block, address, taken, api));
  }
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr) return kNoRuntime;
  Pool* pool = g_started.load(std::memory_order_acquire);
  if (pool == nullptr || pointer == nullptr || pool->options().mode == Mode::kOff) {
    return real->cudaFree(pointer);
  }
  int observed = cudaSuccess;
  if (FreeObserved(*pool, address, RuntimeApi(LoadedDriver(), caller), &observed)) {
    return static_cast<cudaError_t>(observed);
  }
  const uint64_t begin = NowNs();
  PayBeforeDestruction();
  const InsideReal inside;
  const cudaError_t status = real->cudaFree(pointer);
  CountForeignFree(*pool, address, status, begin);
  return status;
}

}  // namespace

}  // namespace cmp

#define CMP_CALLER __builtin_extract_return_addr(__builtin_return_address(0))

CMP_EXPORT cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (pointer != nullptr) [[likely]] {
    if (const cmp::Block* block = cmp::AllocHit(bytes)) [[likely]] {
      *pointer = reinterpret_cast<void*>(block->address);
      return cudaSuccess;
    }
  }
  return cmp::MallocSlow(pointer, bytes, CMP_CALLER);
}

CMP_EXPORT cudaError_t cudaFree(void* pointer) {
  cmp::Pool* pool = cmp::g_hit_pool.load(std::memory_order_acquire);
  if (pool != nullptr) [[likely]] {
    const auto address = reinterpret_cast<cmp::DeviceAddress>(pointer);
    if (cmp::Block* block = pool->Find(address)) [[likely]] {
      bool live = false;
      if (cmp::FreeHit(*pool, block, address, &live)) [[likely]]
        return cudaSuccess;
      return cmp::FreeSlow(*pool, block, address, live, CMP_CALLER);
    }
  }
  return cmp::FreeForeign(pointer, CMP_CALLER);
}
