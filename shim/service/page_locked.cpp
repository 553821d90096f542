#include "shim/service/page_locked.h"

#include "shim/loaded/nvidia_libraries.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"

namespace cmp {

namespace {

int AllocateReally(ContextPool& context, unsigned flags, size_t bytes, uintptr_t* address) {
  const Driver* driver = LoadedDriver();
  const bool by_alloc_host = (flags & PageLockedPool::kByAllocHost) != 0;
  if (driver == nullptr || driver->free_host == nullptr ||
      (by_alloc_host ? driver->alloc_host == nullptr : driver->host_alloc == nullptr)) {
    return kOutOfMemory;  // the caller's real call says what there is to say
  }
  void* pointer = nullptr;
  const uint64_t begin = NowNs();
  const CUresult status = by_alloc_host ? driver->alloc_host(&pointer, bytes)
                                        : driver->host_alloc(&pointer, bytes, flags);
  CountPageLockedAlloc(begin);
  *address = reinterpret_cast<uintptr_t>(pointer);
  if (status == CUDA_SUCCESS) {
    g_visible_memory.Add({*address, *address + bytes, context.identity().id, Visible::kCopies});
  }
  return status;
}

int ReleaseReally(uintptr_t address) {
  const EndOfRange end(address);
  const uint64_t begin = NowNs();
  const CUresult status = end.Done(LoadedDriver()->free_host(reinterpret_cast<void*>(address)));
  CountPageLockedFree(begin);
  return status;
}

ProcessCounters* Counters() {
  Pool* pool = g_started.load(std::memory_order_acquire);
  return pool == nullptr ? nullptr : &pool->statistics().process();
}

}  // namespace

constinit const PageLockedCalls kPageLockedCalls = {&AllocateReally, &ReleaseReally};

void CountPageLockedAlloc(uint64_t begin_ns) {
  if (ProcessCounters* counters = Counters()) {
    counters->host_real_malloc_calls.AddShared(1);
    counters->host_real_malloc_ns.AddShared(NowNs() - begin_ns);
  }
}

void CountPageLockedFree(uint64_t begin_ns) {
  if (ProcessCounters* counters = Counters()) {
    counters->host_real_free_calls.AddShared(1);
    counters->host_real_free_ns.AddShared(NowNs() - begin_ns);
  }
}

Allocation AllocPageLocked(Pool& pool, size_t bytes, unsigned flags, const void* caller) {
  PageLockedPool* page_locked = pool.page_locked();
  if (page_locked == nullptr || flags > PageLockedPool::kMostFlags) return Allocation{};
  // What NVIDIA's libraries have for themselves is not the program's.
  if (page_locked->bypassed() || IsNvidiaLibrary(caller)) return Allocation{};
  const HeldContext context = ServingContext(pool, *LoadedDriver());
  // As in AllocInContext.
  if (!context || (g_captures.UnderWay() && g_captures.OfThisThread())) return Allocation{};
  const Allocation made = page_locked->Alloc(*context, flags, bytes);
  if (made.served == Served::kRefill) page_locked->TellStatistics(pool.statistics().process());
  if (made.pooled() && (flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0) {
    g_visible_memory.SetWhat(made.address, Visible::kMapped);
  }
  return made;
}

CUresult FreePageLocked(PageLockedPool& pool, Block* block, DeviceAddress address, BlockState taken,
                        TraceOutcome* outcome) {
  Pool& of_process = *g_started.load(std::memory_order_acquire);
  if (taken == BlockState::kLive) {
    const PageLockedHeap& heap = PageLockedPool::HeapOf(*block);
    const Settlement settled = SettleFree(of_process, *LoadedDriver(), heap.context());
    if (settled.pooled()) {
      // What the program asked for meanwhile ends with its free.
      if (g_visible_memory.HasMapped() && RuleIsOn(Rule::kPageLockedNewRange)) {
        g_visible_memory.SetWhat(address, Visible::kCopies);
      }
      *outcome = settled.waited() ? TraceOutcome::waited : TraceOutcome::pooled;
      const int status = pool.Retire(block, pool.StampFor(heap, settled.stamp));
      of_process.ageing().InPageLockedFree();
      return static_cast<CUresult>(status);
    }
  }
  if (taken == BlockState::kLive || taken == BlockState::kUnpooled) {
    *outcome = TraceOutcome::real_free;
    return static_cast<CUresult>(pool.FreeReal(block));
  }
  if (!pool.StillHas(block, address)) {
    *outcome = TraceOutcome::foreign_free;
    return static_cast<CUresult>(pool.Release(address));
  }
  // Freed before: as of device memory.
  of_process.statistics().process().double_frees.AddShared(1);
  *outcome = TraceOutcome::double_free;
  return static_cast<CUresult>(pool.Release(address + 1));
}

}  // namespace cmp
