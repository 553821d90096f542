#include "core/library/pool_face.h"

namespace cmp {

namespace {

CudaMemoryPoolStatistics FromTotals(const TierTotals& totals) {
  CudaMemoryPoolStatistics s = {};
  s.requests = totals.requests();
  s.thread_cache_hits = totals.thread_cache_hits;
  s.global_pool_hits = totals.global_pool_hits;
  s.refills = totals.refills;
  s.oversized = totals.real;
  s.frees = totals.frees;
  s.real_frees = totals.real_frees;
  s.blocks_made = totals.blocks_made;
  s.blocks_released = totals.blocks_released;
  s.live_blocks = totals.live_blocks();
  s.live_requested_bytes = totals.requested_bytes - totals.requested_freed_bytes;
  s.live_block_bytes = totals.block_bytes - totals.block_freed_bytes;
  return s;
}

}  // namespace

CudaMemoryPoolStatistics StatisticsOf(Pool& pool) {
  CudaMemoryPoolStatistics s = FromTotals(pool.statistics().Totals());
  const ProcessCounters& process = pool.statistics().process();
  s.real_malloc_calls = process.real_malloc_calls.Get();
  s.real_free_calls = process.real_free_calls.Get();
  const uint64_t called = s.requests + s.frees + s.real_frees;
  const uint64_t really = s.real_malloc_calls + s.real_free_calls - process.foreign_frees.Get();
  s.real_calls_avoided = called > really ? called - really : 0;
  s.failed_allocations = process.failed_allocations.Get();
  s.reserved_bytes = process.reserved_bytes.Get();
  s.reserved_peak_bytes = process.reserved_peak_bytes.Get();
  s.live_peak_bytes = process.live_peak_bytes.Get();
  pool.ForEachContext([&](ContextPool& context) {
    const ContextPool::Idle idle = context.CountIdle();
    s.ready_bytes += idle.ready;
    s.retired_bytes += idle.retired;
  });
  return s;
}

CudaMemoryPoolStatistics StatisticsOf(Pool& pool, unsigned tier) {
  return FromTotals(pool.statistics().TotalsOfTier(tier));
}

DeviceStatistics StatisticsOfDevice(Pool& pool, int device) {
  DeviceStatistics s;
  pool.ForEachContext([&](ContextPool& context) {
    if (context.device() != device) return;
    const ContextPool::Idle idle = context.CountIdle();
    const size_t reserved = context.accounts().reserved();
    const size_t not_live = idle.ready + idle.retired;
    ++s.contexts;
    s.live += reserved > not_live ? reserved - not_live : 0;  // they may just be changing
    s.ready += idle.ready;
    s.retired += idle.retired;
    s.reserved += reserved;
    s.live_peak += context.accounts().peak();
    s.bound += context.accounts().bound();
  });
  return s;
}

int DeviceEnd(Pool& pool) {
  int end = 0;
  pool.ForEachContext([&](ContextPool& context) {
    if (context.device() >= end) end = context.device() + 1;
  });
  return end;
}

}  // namespace cmp
