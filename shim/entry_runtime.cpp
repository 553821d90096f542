// The interposed entry points of the CUDA runtime. A hit reads from here to core/pool.h to
// core/thread_cache.h; everything else in this file is for what a hit is not.
#include <stdint.h>

#include "core/fill.h"
#include "core/pool_instance.h"
#include "shim/captures.h"
#include "shim/free_sync.h"
#include "shim/interposed.h"
#include "shim/process.h"
#include "shim/runtime_api.h"

namespace cmp {

namespace {

// libcuda.so.1 once the process has it; the first cudaMalloc that is served finds it.
const Driver* LoadedDriver() { return LoadDriver(DriverSource::kLoaded); }

// The answer where a call reached the shim but no libcudart can be found behind it.
constexpr cudaError_t kNoRuntime = cudaErrorSharedObjectSymbolNotFound;

// ---- cudaMalloc

// The hit path: a block from this thread's cache, or nullptr.
inline void* MallocHit(size_t bytes) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr) [[unlikely]]
    return nullptr;
  const Driver* driver = LoadedDriver();
  if (driver == nullptr || g_captures.UnderWay()) [[unlikely]]
    return nullptr;
  const Block* block = pool->AllocHit(CurrentContext(*driver), bytes);
  return block == nullptr ? nullptr : reinterpret_cast<void*>(block->address);
}

// CMP_MODE=observe: the real call, counted and timed.
cudaError_t ObserveMalloc(Pool& pool, const RuntimeCalls& real, void** pointer, size_t bytes) {
  const uint64_t begin = NowNs();
  const cudaError_t status = real.cudaMalloc(pointer, bytes);
  const uint64_t end = NowNs();
  ProcessCounters& process = pool.statistics().process();
  process.real_malloc_ns.AddShared(end - begin);
  process.real_malloc_calls.AddShared(1);
  if (status != cudaSuccess) {
    process.failed_allocations.AddShared(1);
  } else if (bytes != 0 && bytes < size_t{1} << 47) {
    TierCounters& counters = pool.statistics().shared_slot()[pool.tiers().TierOf(bytes)];
    counters.real.AddShared(1);
    counters.requested_bytes.AddShared(bytes);
    counters.block_bytes.AddShared(bytes);
  }
  if (const Driver* driver = LoadedDriver()) CudaIsInitialised(*driver, real.version);
  return status;
}

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

cudaError_t MallocServed(Pool& pool, const RuntimeCalls& real, void** pointer, size_t bytes,
                         const void* caller) {
  const Driver* driver = DriverWithContext(real);
  if (driver == nullptr) return real.cudaMalloc(pointer, bytes);
  const RuntimeApi api(pool, *driver, caller);
  ContextPool* context = pool.CurrentContextPool(*driver);
  // A thread that captures makes the real call, whose error or success is the program's to see;
  // other threads may have idle blocks meanwhile.
  const bool capturing = g_captures.UnderWay() && g_captures.OfThisThread();
  if (capturing) pool.statistics().process().capture_real_calls.AddShared(1);
  const Allocation made = context == nullptr || capturing ? pool.AllocReal(bytes, api)
                                                          : pool.Alloc(*context, bytes, api);
  *pointer = reinterpret_cast<void*>(made.address);
  if (made.status != kSuccess) return static_cast<cudaError_t>(made.status);
  if (context != nullptr) FillNewBlock(pool, *driver, *context, made.address, bytes);
  return cudaSuccess;
}

[[gnu::noinline]] cudaError_t MallocSlow(void** pointer, size_t bytes, const void* caller) {
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr) return kNoRuntime;
  Pool* pool = StartedPool();
  if (pool == nullptr || pool->options().mode == Mode::kOff) {
    return real->cudaMalloc(pointer, bytes);
  }
  if (pool->options().mode == Mode::kObserve) return ObserveMalloc(*pool, *real, pointer, bytes);
  const bool odd = pointer == nullptr || bytes == 0;  // the real call knows what to say
  if (odd || !real->served || g_exiting.load(std::memory_order_acquire)) {
    return real->cudaMalloc(pointer, bytes);
  }
  return MallocServed(*pool, *real, pointer, bytes, caller);
}

// ---- cudaFree

// A block of ours, whoever allocated it.
cudaError_t FreeBlock(Pool& pool, const Driver& driver, Block* block, const void* caller) {
  const RuntimeApi api(pool, driver, caller);
  const BlockState taken = pool.Take(block);
  if (taken == BlockState::kLive) [[likely]] {
    if (SettleFree(pool, driver, block) == Settlement::kReady) [[likely]] {
      pool.Retire(block, api);
      return cudaSuccess;
    }
    return static_cast<cudaError_t>(pool.FreeReal(block, api));
  }
  if (taken == BlockState::kUnpooled) {
    return static_cast<cudaError_t>(pool.FreeReal(block, api));
  }
  // Freed before. The real call says what it says of a pointer that is no allocation, and sets the
  // thread's last error; one byte further so that it cannot touch the idle block.
  pool.statistics().process().double_frees.AddShared(1);
  if (api.real() == nullptr) return cudaErrorInvalidValue;
  return api.real()->cudaFree(reinterpret_cast<void*>(block->address + 1));
}

[[gnu::noinline]] cudaError_t FreeForeign(void* pointer, const void* caller) {
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr) return kNoRuntime;
  Pool* pool = g_started.load(std::memory_order_acquire);
  if (pool == nullptr || pointer == nullptr || pool->options().mode == Mode::kOff) {
    return real->cudaFree(pointer);
  }
  const uint64_t begin = NowNs();
  const cudaError_t status = real->cudaFree(pointer);
  ProcessCounters& process = pool->statistics().process();
  process.real_free_ns.AddShared(NowNs() - begin);
  process.real_free_calls.AddShared(1);
  if (g_pool.load(std::memory_order_relaxed) != nullptr) process.foreign_frees.AddShared(1);
  return status;
}

// ---- Calls that end, export or reset what the pool knows

// Another free call takes `pointer`: if it is a block of ours it is forgotten first.
void ForgetBlock(void* pointer) {
  if (Pool* pool = g_pool.load(std::memory_order_acquire)) {
    pool->Release(reinterpret_cast<DeviceAddress>(pointer));
  }
}

// The allocation behind `pointer` (its base, or an address inside) must be really freed when it is
// freed: somebody outside the process may use it for as long.
void UnpoolBlock(const void* pointer) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  if (pool == nullptr || driver == nullptr || pointer == nullptr) return;
  CUdeviceptr base = 0;
  size_t bytes = 0;
  if (driver->mem_address_range(&base, &bytes, reinterpret_cast<CUdeviceptr>(pointer)) ==
      CUDA_SUCCESS) {
    pool->Unpool(base);
  }
}

void DropPrimaryContexts(Pool& pool, int device) {
  pool.ForEachContext([&](ContextPool& context) {
    if (context.identity().primary && context.identity().device == device) {
      pool.DropContext(context);
    }
  });
}

// ---- Captures

template <typename Begin>
cudaError_t BeginCapture(cudaStream_t stream, Begin begin) {
  g_captures.BeforeBegin();
  const cudaError_t status = begin();
  g_captures.AfterBegin(stream, status == cudaSuccess);
  return status;
}

// An end of a capture, in whichever way it ended: the stream is asked.
void AfterEndCapture(cudaStream_t stream, cudaStream_t as_given,
                     cudaError_t (*is_capturing)(cudaStream_t, cudaStreamCaptureStatus*)) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (is_capturing != nullptr && is_capturing(as_given, &status) == cudaSuccess &&
      status != cudaStreamCaptureStatusNone) {
    return;
  }
  g_captures.Ended(stream);
}

// The handle 0 in the per-thread variants means the thread's own default stream.
cudaStream_t PerThread(cudaStream_t stream) {
  return stream == nullptr ? cudaStreamPerThread : stream;
}

}  // namespace

}  // namespace cmp

using cmp::g_pool;

#define CMP_CALLER __builtin_extract_return_addr(__builtin_return_address(0))
// The real function for an entry point that has nothing of its own to answer.
#define CMP_REAL_OR_RETURN(name)                              \
  const cmp::RuntimeCalls* real = cmp::RuntimeOf(CMP_CALLER); \
  if (real == nullptr || real->name == nullptr) return cmp::kNoRuntime

CMP_EXPORT cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  if (pointer != nullptr) [[likely]] {
    if (void* hit = cmp::MallocHit(bytes)) [[likely]] {
      *pointer = hit;
      return cudaSuccess;
    }
  }
  return cmp::MallocSlow(pointer, bytes, CMP_CALLER);
}

CMP_EXPORT cudaError_t cudaFree(void* pointer) {
  if (cmp::Pool* pool = g_pool.load(std::memory_order_acquire)) [[likely]] {
    if (cmp::Block* block = pool->Find(reinterpret_cast<cmp::DeviceAddress>(pointer))) [[likely]] {
      // Where there is a block there is a driver.
      return cmp::FreeBlock(*pool, *cmp::LoadedDriver(), block, CMP_CALLER);
    }
  }
  return cmp::FreeForeign(pointer, CMP_CALLER);
}

CMP_EXPORT cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  CMP_REAL_OR_RETURN(cudaFreeAsync);
  cmp::ForgetBlock(pointer);
  return real->cudaFreeAsync(pointer, stream);
}

CMP_EXPORT cudaError_t cudaFreeAsync_ptsz(void* pointer, cudaStream_t stream) {
  CMP_REAL_OR_RETURN(cudaFreeAsync_ptsz);
  cmp::ForgetBlock(pointer);
  return real->cudaFreeAsync_ptsz(pointer, stream);
}

CMP_EXPORT cudaError_t cudaDeviceReset() {
  CMP_REAL_OR_RETURN(cudaDeviceReset);
  cmp::Pool* pool = g_pool.load(std::memory_order_acquire);
  int device = 0;
  if (pool == nullptr || real->cudaGetDevice == nullptr ||
      real->cudaGetDevice(&device) != cudaSuccess) {
    return real->cudaDeviceReset();
  }
  // Before: no block of the dying context is handed out. After: nor one that another thread
  // allocated in between.
  cmp::DropPrimaryContexts(*pool, device);
  const cudaError_t status = real->cudaDeviceReset();
  cmp::DropPrimaryContexts(*pool, device);
  return status;
}

CMP_EXPORT cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* pointer) {
  CMP_REAL_OR_RETURN(cudaIpcGetMemHandle);
  cmp::UnpoolBlock(pointer);
  return real->cudaIpcGetMemHandle(handle, pointer);
}

CMP_EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  CMP_REAL_OR_RETURN(cudaStreamBeginCapture);
  return cmp::BeginCapture(stream, [&] { return real->cudaStreamBeginCapture(stream, mode); });
}

CMP_EXPORT cudaError_t cudaStreamBeginCapture_ptsz(cudaStream_t stream,
                                                   cudaStreamCaptureMode mode) {
  CMP_REAL_OR_RETURN(cudaStreamBeginCapture_ptsz);
  return cmp::BeginCapture(cmp::PerThread(stream),
                           [&] { return real->cudaStreamBeginCapture_ptsz(stream, mode); });
}

CMP_EXPORT cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                                     const cudaGraphNode_t* dependencies,
                                                     const void* edges, size_t count,
                                                     cudaStreamCaptureMode mode) {
  CMP_REAL_OR_RETURN(cudaStreamBeginCaptureToGraph);
  return cmp::BeginCapture(stream, [&] {
    return real->cudaStreamBeginCaptureToGraph(stream, graph, dependencies, edges, count, mode);
  });
}

CMP_EXPORT cudaError_t cudaStreamBeginCaptureToGraph_ptsz(cudaStream_t stream, cudaGraph_t graph,
                                                          const cudaGraphNode_t* dependencies,
                                                          const void* edges, size_t count,
                                                          cudaStreamCaptureMode mode) {
  CMP_REAL_OR_RETURN(cudaStreamBeginCaptureToGraph_ptsz);
  return cmp::BeginCapture(cmp::PerThread(stream), [&] {
    return real->cudaStreamBeginCaptureToGraph_ptsz(stream, graph, dependencies, edges, count,
                                                    mode);
  });
}

CMP_EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  CMP_REAL_OR_RETURN(cudaStreamEndCapture);
  const cudaError_t status = real->cudaStreamEndCapture(stream, graph);
  cmp::AfterEndCapture(stream, stream, real->cudaStreamIsCapturing);
  return status;
}

CMP_EXPORT cudaError_t cudaStreamEndCapture_ptsz(cudaStream_t stream, cudaGraph_t* graph) {
  CMP_REAL_OR_RETURN(cudaStreamEndCapture_ptsz);
  const cudaError_t status = real->cudaStreamEndCapture_ptsz(stream, graph);
  cmp::AfterEndCapture(cmp::PerThread(stream), stream, real->cudaStreamIsCapturing_ptsz);
  return status;
}

CMP_EXPORT cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  CMP_REAL_OR_RETURN(cudaStreamDestroy);
  const cudaError_t status = real->cudaStreamDestroy(stream);
  // Destroying a stream ends its capture (measured, every mode).
  if (status == cudaSuccess && cmp::g_captures.UnderWay()) cmp::g_captures.Ended(stream);
  return status;
}
