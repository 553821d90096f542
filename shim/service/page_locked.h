// Serving page-locked memory of the host (CMP_HOST), whichever layer a call came through. What the
// visible-memory rules know of a block begins anew each time that it is handed out: while it is
// idle its range stays, as page-locked and no more.
#ifndef CMP_SHIM_SERVICE_PAGE_LOCKED_H_
#define CMP_SHIM_SERVICE_PAGE_LOCKED_H_

#include <cuda.h>

#include "core/driver/driver.h"
#include "core/pool/pool_instance.h"
#include "shim/lookup/lookup.h"
#include "shim/record/trace_format.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/free_sync.h"

namespace cmp {

// The flags of cuMemHostAlloc that are known; others are the driver's affair.
inline constexpr unsigned kHostAllocFlags =
    CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
static_assert(kHostAllocFlags + 1 == PageLockedPool::kByAllocHost);

// The hit path: a block of this thread's for `flags` (PageLockedPool), or nullptr, which says
// nothing. Not of memory that kernels use, too: that has to be noted.
inline void* AllocPageLockedHit(size_t bytes, unsigned flags) {
  PageLockedPool* pool = g_hit_page_locked.load(std::memory_order_acquire);
  if (pool == nullptr || t_inside_real != 0 || flags > PageLockedPool::kMostFlags ||
      (flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0) {
    return nullptr;
  }
  return reinterpret_cast<void*>(pool->AllocHit(CurrentOrNone(*KnownDriver()), flags, bytes));
}
// The rest, by the pool for the current context. An address of 0 with kSuccess: the caller makes
// the real call.
Allocation AllocPageLocked(Pool& pool, size_t bytes, unsigned flags, const void* caller);

// The hit path of a free of `block`, which is taken from the program: its context's work is done.
inline bool FreePageLockedHit(PageLockedPool& pool, Block* block) {
  const PageLockedHeap& heap = PageLockedPool::HeapOf(*block);
  return IsSettled(heap.context()) && !g_visible_memory.HasMapped() && pool.RetireHit(block, heap);
}
// The rest: as FreeBlock. `*outcome`: what a trace says of it.
CUresult FreePageLocked(PageLockedPool& pool, Block* block, DeviceAddress address, BlockState taken,
                        TraceOutcome* outcome);

// A real call for page-locked memory that is not the pool's, counted.
void CountPageLockedAlloc(uint64_t begin_ns);
void CountPageLockedFree(uint64_t begin_ns);

// What the pool calls.
extern const PageLockedCalls kPageLockedCalls;

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_PAGE_LOCKED_H_
