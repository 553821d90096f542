// The interposed calls that allocate and free page-locked memory of the host. A hit is served here
// for either layer; the runtime's other calls go on to the real one, which comes to the driver's
// entry points, so that its errors are its own.
#include "shim/service/page_locked.h"

#include <stdlib.h>

#include "shim/entry/process.h"
#include "shim/loaded/nvidia_libraries.h"
#include "shim/lookup/entry_points.h"
#include "shim/lookup/runtime_calls.h"
#include "shim/record/trace.h"
#include "shim/shake/shake.h"
#include "shim/state/runtime_pool.h"

namespace cmp {

namespace {

// With which flags the runtime asks the driver, for each of its own calls and flags: learned from
// its first call, and only where all agree.
constexpr unsigned kNotLearned = 0x100;
constexpr unsigned kDiffer = 0x101;
constexpr unsigned kByMallocHost = kHostAllocFlags + 1;  // beside the flags of cudaHostAlloc
constinit std::atomic<unsigned> g_driver_flags[kByMallocHost + 1] = {
    kNotLearned, kNotLearned, kNotLearned, kNotLearned, kNotLearned,
    kNotLearned, kNotLearned, kNotLearned, kNotLearned};
// Those of this thread's last call of the driver.
thread_local constinit unsigned t_driver_flags = kNotLearned;

void* RuntimeHit(size_t bytes, unsigned which) {
  if (which > kByMallocHost || g_runtime_pool.forbidden()) return nullptr;
  return AllocPageLockedHit(bytes, g_driver_flags[which].load(std::memory_order_relaxed));
}

// The real call of the runtime, by `call`.
template <typename Call>
cudaError_t RuntimeAlloc(const RuntimeCalls& real, unsigned which, Call call) {
  t_driver_flags = kNotLearned;
  const cudaError_t status = call();
  const unsigned flags = t_driver_flags;
  if (status != cudaSuccess || !real.served || flags == kNotLearned || which > kByMallocHost) {
    return status;
  }
  unsigned known = kNotLearned;
  if (!g_driver_flags[which].compare_exchange_strong(known, flags, std::memory_order_relaxed) &&
      known != flags) {
    g_driver_flags[which].store(kDiffer, std::memory_order_relaxed);
  }
  return status;
}

bool IsSet(const char* variable) {
  const char* value = secure_getenv(variable);
  return value != nullptr && *value != '\0';
}

// The pool, where page-locked memory may be served. It is not started for that alone where nobody
// asked for it, or for what it would count.
Pool* PoolForPageLocked(bool odd) {
  Pool* pool = g_started.load(std::memory_order_acquire);
  if (pool == nullptr && !IsSet("CMP_HOST") && !IsSet("CMP_STATS") && !IsSet("CMP_TRACE")) {
    return nullptr;
  }
  if (pool == nullptr) pool = StartedPool();
  return pool == nullptr || pool->page_locked() == nullptr ? nullptr : PoolForAlloc(odd);
}

// Page-locked memory that is not the pool's. Kernels use it if it was made for them (a flag of both
// calls), or once its device pointer was asked for.
void NotePageLocked(const void* pointer, size_t bytes, unsigned flags, const void* caller) {
  const bool mapped = (flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0;
  AddRange(mapped ? Visible::kMapped : Visible::kCopies, reinterpret_cast<uintptr_t>(pointer),
           bytes, caller);
}

template <typename Call>
[[gnu::noinline]] CUresult HostAllocSlow(void** pointer, size_t bytes, unsigned flags,
                                         const void* caller, Call call) {
  const bool odd = pointer == nullptr || bytes == 0;
  Pool* pool = PoolForPageLocked(odd);
  const uint64_t begin = NowNs();  // not before the trace's
  Allocation made;
  if (pool != nullptr) made = AllocPageLocked(*pool, bytes, flags, caller);
  if (made.status != kSuccess || made.address != 0) {
    *pointer = reinterpret_cast<void*>(made.address);
  } else {
    const uint64_t begin_real = NowNs();
    made.status = call();
    CountPageLockedAlloc(begin_real);
    if (made.status == kSuccess) {
      NotePageLocked(*pointer, bytes, flags, caller);
      made.address = reinterpret_cast<uintptr_t>(*pointer);
    }
  }
  if (IsTraced() && !odd && t_inside_real == 0) {
    TraceAlloc(LoadedDriver(), nullptr, bytes, made, begin, Traced::kPageLocked);
  }
  return static_cast<CUresult>(made.status);
}

// The free of a block, recorded.
CUresult FreeHostTraced(PageLockedPool& pool, Block* block, DeviceAddress address) {
  const uint64_t begin = NowNs();
  const BlockState taken = block->TakeFromProgramAt(address);
  const bool ours = taken == BlockState::kLive || taken == BlockState::kUnpooled;
  const ContextIdentity of =
      ours ? PageLockedPool::HeapOf(*block).context().identity() : ContextIdentity{};
  const size_t bytes = ours ? block->requested : 0;
  TraceOutcome outcome{};
  const CUresult status = FreePageLocked(pool, block, address, taken, &outcome);
  TraceFree(of, bytes, address, outcome, status, begin, Traced::kPageLocked);
  return status;
}

// A pointer that is not ours: the real call. And every pointer, where calls are traced.
[[gnu::noinline]] CUresult FreeHostForeign(void* pointer) {
  CMP_REAL(cuMemFreeHost);
  const auto address = reinterpret_cast<DeviceAddress>(pointer);
  const bool traced = IsTraced() && t_inside_real == 0 && pointer != nullptr;
  PageLockedPool* pool = traced ? g_page_locked.load(std::memory_order_acquire) : nullptr;
  if (Block* block = pool == nullptr ? nullptr : pool->Find(address)) {
    return FreeHostTraced(*pool, block, address);
  }
  ShakeWait(kSeveralStreams);
  const EndOfRange end(address);
  const uint64_t begin = NowNs();
  const CUresult status = end.Done(real->cuMemFreeHost(pointer));
  if (pointer != nullptr) CountPageLockedFree(begin);
  if (traced) {
    TraceFree({}, 0, address, TraceOutcome::foreign_free, status, begin, Traced::kPageLocked);
  }
  return status;
}

constexpr cudaError_t kNoPageLockedRuntime = cudaErrorSharedObjectSymbolNotFound;

[[gnu::noinline]] cudaError_t MallocHostReal(void** pointer, size_t bytes, const void* caller) {
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr || real->cudaMallocHost == nullptr) return kNoPageLockedRuntime;
  return RuntimeAlloc(*real, kByMallocHost, [&] { return real->cudaMallocHost(pointer, bytes); });
}

[[gnu::noinline]] cudaError_t RuntimeHostAllocReal(void** pointer, size_t bytes, unsigned flags,
                                                   const void* caller) {
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr || real->cudaHostAlloc == nullptr) return kNoPageLockedRuntime;
  const unsigned which = flags <= kHostAllocFlags ? flags : kByMallocHost + 1;
  return RuntimeAlloc(*real, which, [&] { return real->cudaHostAlloc(pointer, bytes, flags); });
}

[[gnu::noinline]] cudaError_t RuntimeFreeHostReal(void* pointer, const void* caller) {
  const RuntimeCalls* real = RuntimeOf(caller);
  if (real == nullptr || real->cudaFreeHost == nullptr) return kNoPageLockedRuntime;
  return real->cudaFreeHost(pointer);
}

}  // namespace

}  // namespace cmp

// ---- The driver's

CUresult Driver_cuMemHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  const unsigned known = flags <= cmp::kHostAllocFlags ? flags : ~0U;
  cmp::t_driver_flags = known;
  if (pointer != nullptr) [[likely]] {
    if (void* hit = cmp::AllocPageLockedHit(bytes, known)) {
      *pointer = hit;
      return CUDA_SUCCESS;
    }
  }
  CMP_REAL(cuMemHostAlloc);
  return cmp::HostAllocSlow(pointer, bytes, known, CMP_CALLER,
                            [&] { return real->cuMemHostAlloc(pointer, bytes, flags); });
}

CUresult Driver_cuMemAllocHost_v2(void** pointer, size_t bytes) {
  constexpr unsigned kFlags = cmp::PageLockedPool::kByAllocHost;
  cmp::t_driver_flags = kFlags;
  if (pointer != nullptr) [[likely]] {
    if (void* hit = cmp::AllocPageLockedHit(bytes, kFlags)) {
      *pointer = hit;
      return CUDA_SUCCESS;
    }
  }
  CMP_REAL(cuMemAllocHost_v2);
  return cmp::HostAllocSlow(pointer, bytes, kFlags, CMP_CALLER,
                            [&] { return real->cuMemAllocHost_v2(pointer, bytes); });
}

CUresult Driver_cuMemFreeHost(void* pointer) {
  const auto address = reinterpret_cast<cmp::DeviceAddress>(pointer);
  cmp::PageLockedPool* pool = cmp::g_hit_page_locked.load(std::memory_order_acquire);
  cmp::Block* block = pool == nullptr || cmp::t_inside_real != 0 ? nullptr : pool->Find(address);
  if (block == nullptr) return cmp::FreeHostForeign(pointer);
  const cmp::BlockState taken = block->TakeFromProgramAt(address);
  if (taken == cmp::BlockState::kLive && cmp::FreePageLockedHit(*pool, block)) [[likely]]
    return CUDA_SUCCESS;
  cmp::TraceOutcome outcome{};
  return cmp::FreePageLocked(*pool, block, address, taken, &outcome);
}

// ---- The runtime's

CMP_EXPORT cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  if (pointer != nullptr) [[likely]] {
    if (void* hit = cmp::RuntimeHit(bytes, cmp::kByMallocHost)) {
      *pointer = hit;
      return cudaSuccess;
    }
  }
  return cmp::MallocHostReal(pointer, bytes, CMP_CALLER);
}

CMP_EXPORT cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  if (pointer != nullptr && flags <= cmp::kHostAllocFlags) [[likely]] {
    if (void* hit = cmp::RuntimeHit(bytes, flags)) {
      *pointer = hit;
      return cudaSuccess;
    }
  }
  return cmp::RuntimeHostAllocReal(pointer, bytes, flags, CMP_CALLER);
}

CMP_EXPORT cudaError_t cudaFreeHost(void* pointer) {
  const auto address = reinterpret_cast<cmp::DeviceAddress>(pointer);
  cmp::PageLockedPool* pool = cmp::g_hit_page_locked.load(std::memory_order_acquire);
  cmp::Block* block =
      pool == nullptr || cmp::g_runtime_pool.forbidden() ? nullptr : pool->Find(address);
  if (block != nullptr && cmp::t_inside_real == 0) {
    const cmp::BlockState taken = block->TakeFromProgramAt(address);
    if (taken == cmp::BlockState::kLive) {
      if (cmp::FreePageLockedHit(*pool, block)) [[likely]]
        return cudaSuccess;
      // The real call comes to the driver's entry point with it.
      block->GiveBack(cmp::BlockState::kLive);
    } else if (taken == cmp::BlockState::kUnpooled) {
      block->GiveBack(cmp::BlockState::kUnpooled);
    }
  }
  return cmp::RuntimeFreeHostReal(pointer, CMP_CALLER);
}
