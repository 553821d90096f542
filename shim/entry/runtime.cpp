// The interposed entry points of the CUDA runtime. A hit reads from here through AllocHit in
// shim/service/service.h, Pool::AllocSmallHit in core/pool/pool.h and ThreadCache::AllocHit in
// core/lists/thread_cache.h. Whatever else a runtime does, the driver's entry points see.
#include <stdint.h>

#include "core/driver/driver_api.h"
#include "shim/entry/process.h"
#include "shim/lookup/interposed.h"
#include "shim/record/held_up.h"
#include "shim/service/runtime_api.h"
#include "shim/service/service.h"
#include "shim/service/verified.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"
#include "shim/state/runtime_pool.h"
#include "shim/work/owed.h"

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
  CudaIsInitialised(*driver);
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
  if (ServedCaller(caller) != caller || IsAside()) return nullptr;
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
cudaError_t ObserveMalloc(Pool& pool, void** pointer, size_t bytes, const void* caller) {
  const RuntimeApi api(LoadedDriver(), caller);
  const Allocation made = AllocObserved(pool, bytes, api);
  *pointer = reinterpret_cast<void*>(made.address);
  if (const Driver* driver = LoadedDriver()) CudaIsInitialised(*driver);
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
  g_runtime_version.store(real->version, std::memory_order_relaxed);
  Pool* pool = StartedPool();
  const bool odd = pointer == nullptr || bytes == 0;  // the real call knows what to say
  const bool pooled = g_pool.load(std::memory_order_acquire) != nullptr;
  // One before version 12 is served where it calls the driver, and so is the first call of all.
  const bool known = real->served && IsVerified(*real);
  if (pool == nullptr || odd || (pooled && !known)) {
    const cudaError_t status = real->cudaMalloc(pointer, bytes);
    if (pooled && status == cudaSuccess) Verify(*real);
    return status;
  }
  if (pool->options().mode == Mode::kObserve && real->served) {
    return ObserveMalloc(*pool, pointer, bytes, caller);
  }
  if (!pooled) return real->cudaMalloc(pointer, bytes);
  return MallocServed(*pool, *real, pointer, bytes, caller);
}

// What is too large for a shelf of its tier may be a hit all the same: Pool::AllocLargeHit in
// core/pool/pool_large.cpp, and LargeShelf::Take in core/lists/large_shelf.h.
[[gnu::noinline]] cudaError_t MallocNoSmallHit(void** pointer, size_t bytes, const void* caller) {
  if (pointer != nullptr) {
    Pool* pool = g_runtime_pool.Get();
    if (const DeviceAddress hit = AllocLargeHit(pool, bytes, KnownDriver())) {
      *pointer = reinterpret_cast<void*>(hit);
      return cudaSuccess;
    }
  }
  return MallocSlow(pointer, bytes, caller);
}

// ---- Pitched memory. The runtime asks the driver for it, and is served there. What it was given
// for a width the first time is given here from then on.

// A block for `rows` rows of `width` bytes, where their pitch is known; nullptr: the real call.
void* MallocPitched(size_t width, size_t rows, const void* caller, size_t* pitch) {
  Pool* pool = PoolFor(caller);
  // During a capture a call that is refused ends what refused it: a second one would succeed. There
  // the runtime makes the only one, and is served at the driver's entry point.
  if (pool == nullptr || g_captures.UnderWay()) return nullptr;
  const Driver& driver = *LoadedDriver();
  *pitch = g_context_pitches.Find(CurrentContext(driver), width, PitchesOfContexts::kOfRuntime);
  size_t bytes = 0;
  if (__builtin_mul_overflow(*pitch, rows, &bytes) || bytes == 0) return nullptr;
  // By the driver's calls: what fails leaves no error in the runtime, which is asked afterwards.
  const Allocation made = AllocInContext(*pool, driver, bytes, DriverApi(driver));
  return made.status == kSuccess ? reinterpret_cast<void*>(made.address) : nullptr;
}

// The real call gave that pitch. `epoch`: of before that call.
void NotePitch(const RuntimeCalls& real, size_t width, size_t pitch, uint64_t epoch,
               const void* caller) {
  const Driver* driver = LoadedDriver();
  if (driver == nullptr || g_pool.load(std::memory_order_acquire) == nullptr) return;
  Verify(real);
  if (!real.served || IsAside()) return;
  ServedCaller(caller) = caller;
  g_context_pitches.Add(CurrentContext(*driver), width, PitchesOfContexts::kOfRuntime, pitch,
                        epoch);
}

[[gnu::noinline]] cudaError_t MallocPitchSlow(void** pointer, size_t* pitch, size_t width,
                                              size_t height, const void* caller) {
  const bool odd = pointer == nullptr || pitch == nullptr || width == 0 || height == 0;
  size_t known = 0;
  if (void* block = odd ? nullptr : MallocPitched(width, height, caller, &known)) {
    *pointer = block;
    *pitch = known;
    return cudaSuccess;
  }
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr || real->cudaMallocPitch == nullptr) return kNoRuntime;
  const uint64_t epoch = PitchesOfContexts::Now();
  const cudaError_t status = real->cudaMallocPitch(pointer, pitch, width, height);
  if (!odd && status == cudaSuccess) NotePitch(*real, width, *pitch, epoch, caller);
  return status;
}

// rows: height times depth, 0 where that is too much.
[[gnu::noinline]] cudaError_t Malloc3DSlow(cudaPitchedPtr* pitched, const cudaExtent& extent,
                                           size_t rows, const void* caller) {
  const bool odd = pitched == nullptr || extent.width == 0 || rows == 0;
  size_t known = 0;
  if (void* block = odd ? nullptr : MallocPitched(extent.width, rows, caller, &known)) {
    *pitched = {block, known, extent.width, extent.height};
    return cudaSuccess;
  }
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr || real->cudaMalloc3D == nullptr) return kNoRuntime;
  const uint64_t epoch = PitchesOfContexts::Now();
  const cudaError_t status = real->cudaMalloc3D(pitched, extent);
  if (!odd && status == cudaSuccess) {
    NotePitch(*real, extent.width, pitched->pitch, epoch, caller);
  }
  return status;
}

[[gnu::noinline]] cudaError_t FreeSlow(Pool& pool, Block* block, DeviceAddress address, bool live,
                                       const void* caller) {
  if (live && FreeHitElsewhere(pool, block)) return cudaSuccess;
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
  const InsideAllocation observing;
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
    // In this order: who finds the pool finds the driver, which was there before.
    cmp::Pool* pool = cmp::g_runtime_pool.Get();
    if (const cmp::DeviceAddress address = cmp::AllocHit(pool, bytes, cmp::KnownDriver()))
        [[likely]] {
      *pointer = reinterpret_cast<void*>(address);
      return cudaSuccess;
    }
  }
  return cmp::MallocNoSmallHit(pointer, bytes, CMP_CALLER);
}

CMP_EXPORT cudaError_t cudaMallocPitch(void** pointer, size_t* pitch, size_t width, size_t height) {
  if (pointer != nullptr && pitch != nullptr) [[likely]] {
    if (const cmp::DeviceAddress address = cmp::AllocPitchedHit(
            cmp::g_runtime_pool.Get(), width, height, cmp::PitchesOfContexts::kOfRuntime, pitch))
        [[likely]] {
      *pointer = reinterpret_cast<void*>(address);
      return cudaSuccess;
    }
  }
  return cmp::MallocPitchSlow(pointer, pitch, width, height, CMP_CALLER);
}

CMP_EXPORT cudaError_t cudaMalloc3D(cudaPitchedPtr* pitched, cudaExtent extent) {
  size_t rows = 0;
  if (__builtin_mul_overflow(extent.height, extent.depth, &rows)) rows = 0;
  if (pitched != nullptr) [[likely]] {
    size_t pitch = 0;
    if (const cmp::DeviceAddress address =
            cmp::AllocPitchedHit(cmp::g_runtime_pool.Get(), extent.width, rows,
                                 cmp::PitchesOfContexts::kOfRuntime, &pitch)) [[likely]] {
      *pitched = {reinterpret_cast<void*>(address), pitch, extent.width, extent.height};
      return cudaSuccess;
    }
  }
  return cmp::Malloc3DSlow(pitched, extent, rows, CMP_CALLER);
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
