// Page-locked memory: allocated and freed. (Where it is: page_locked_heaps.cpp; how much of it, and
// how it goes back: page_locked_release.cpp.)
#include "core/pool/page_locked_pool.h"

#include "core/driver/numa_policy.h"
#include "core/pool/page_locked_api.h"

namespace cmp {

// ---- Alloc

DeviceAddress PageLockedPool::AllocLargeHit(ThreadCache& cache, size_t bytes) {
  if (cache.IsRequested() || bytes - 1 >= bound()) return 0;
  return cache.AllocLarge(tiers_.TierOf(bytes), tiers_.RoundedBytes(bytes), bytes);
}

Allocation PageLockedPool::Alloc(ContextPool& context, unsigned flags, size_t bytes) {
  const size_t rounded = bytes < kMostTierBytes ? tiers_.RoundedBytes(bytes) : bytes;
  if (bypassed() || rounded > bound()) return Allocation{};
  const ContextHandle key = KeyOf(context.handle(), flags);
  if (reinterpret_cast<uintptr_t>(context.handle()) >> kKeyShift != 0) return Allocation{};
  PageLockedHeap* const heap = HeapFor(context, flags);
  if (heap == nullptr) return Allocation{};
  const HeldContext held(*heap);
  // Its context may have ended before it was held, and it be another one's by now.
  if (heap->context_ != &context || heap->flags_ != flags) return Allocation{};
  const bool known = t_memory.FindPageLocked(key) != nullptr;
  ThreadCache* const cache = CacheFor(*heap);
  if (cache == nullptr) return Allocation{};
  // Asked where a thread comes, and before its real allocations: not in hits.
  const auto has_policy = [&] {
    if (!HasNumaPolicy()) return false;
    bypassed_.store(true, std::memory_order_relaxed);
    ForgetWhatThreadsRemember();
    return true;
  };
  if (!known && has_policy()) return Allocation{};
  heap->HonourRequest(*cache);
  const unsigned tier = tiers_.TierOf(bytes);
  const Allocation idle = TakeIdle(*heap, *cache, bytes, rounded, tier);
  if (idle.pooled()) return idle;
  if (known && has_policy()) return Allocation{};
  const Uncancelled uncancelled;
  Allocation made = source_.Make(*heap, {bytes, rounded, tier, BlockState::kLive}, false,
                                 PageLockedApi(calls_, *heap));
  // Idle memory is released for the caller's real call, which says what the program is to see.
  if (made.status == kOutOfMemory) return Allocation{};
  if (!made.pooled()) return made;
  LearnWhatCounts(rounded);
  made.served = Served::kRefill;
  cache->Count(tier, &TierCounters::refills, bytes, made.bytes);
  statistics_.shared_slot()[tier].blocks_made.AddShared(1);
  return made;
}

Allocation PageLockedPool::TakeIdle(PageLockedHeap& heap, ThreadCache& cache, size_t bytes,
                                    size_t rounded, unsigned tier) {
  const Allocation ready = TakeReady(heap, cache, bytes, rounded, tier);
  if (ready.pooled() || !PromoteRetired(heap, cache, tier, rounded)) return ready;
  return TakeReady(heap, cache, bytes, rounded, tier);
}

Allocation PageLockedPool::TakeReady(PageLockedHeap& heap, ThreadCache& cache, size_t bytes,
                                     size_t rounded, unsigned tier) {
  const bool has_shelf = HasShelf(tier);
  const DeviceAddress address =
      has_shelf ? cache.Alloc(tier, bytes) : cache.AllocLarge(tier, rounded, bytes);
  if (address != 0) return Allocation{kSuccess, address, rounded, Served::kThreadCache};
  const size_t most = rounded + SlackFor(rounded);
  if (rounded >= kLargeGranule) {
    const Allocation shared =
        HandOut(heap, cache, heap.global().TakeLarge(rounded, most), bytes, tier);
    if (shared.pooled()) return shared;
    return HandOut(heap, cache, heap.TakeFromShelves(rounded, most), bytes, tier);
  }
  Block* block = nullptr;
  {
    // The rest only where the cache may hold it; else it goes back to where it is counted. So it
    // is not missed meanwhile, and its place given away.
    Held held(lock_);
    Batch batch = heap.global().TakeBatch(tier);
    if (batch.count == 0) return Allocation{};
    block = batch.Pop();
    const bool stocked =
        batch.count != 0 && has_shelf && cache.Stock(tier, batch, cache.most_bytes());
    if (batch.count != 0 && !stocked) heap.global().Put(batch);
  }
  return HandOut(heap, cache, block, bytes, tier);
}

Allocation PageLockedPool::HandOut(PageLockedHeap& heap, ThreadCache& cache, Block* block,
                                   size_t bytes, unsigned tier) {
  if (block == nullptr) return Allocation{};
  const DeviceAddress address = block->address;
  const size_t block_bytes = block->bytes;
  block->tier = static_cast<uint16_t>(tier);
  if (!block->GiveToProgramUnlessEnded(bytes)) return Allocation{};
  heap.Settle(cache.CountShared(tier, bytes, block_bytes));
  return Allocation{kSuccess, address, block_bytes, Served::kGlobalPool};
}

// As the pool of device memory's, of every context.
bool PageLockedPool::PromoteRetired(PageLockedHeap& heap, ThreadCache& cache, unsigned tier,
                                    size_t rounded) {
  const unsigned list = rounded >= kLargeGranule ? kLargeBlocks : tier;
  const Stamp here = HasShelf(tier) ? cache.OldestStamp(tier) : kReady;
  const Stamp there = heap.global().OldestStamp(list);
  const Stamp oldest = here == kReady || there == kReady ? here + there
                       : here < there                    ? here
                                                         : there;
  if (oldest == kReady) return false;
  if (!readiness_.AllPassed(heap, oldest) && !readiness_.AskAll(heap, oldest)) return false;
  const auto passed = [&](Stamp stamp) { return readiness_.AllPassed(heap, stamp); };
  heap.global().Promote(list, passed);
  if (HasShelf(tier)) cache.Promote(tier, passed);
  return true;
}

// ---- Free

bool PageLockedPool::RetireHit(Block* block, const PageLockedHeap& heap) {
  ThreadCache* const found = t_memory.FindPageLocked(heap.handle());
  if (found == nullptr || found->owner() != &heap) return false;
  ThreadCache& cache = *found;
  const unsigned tier = block->tier;
  if (HasShelf(tier)) return cache.FreeHit(block, tier);
  if (cache.IsRequested() || cache.large_bytes() + block->bytes > cache.most_large_bytes()) {
    return false;
  }
  Batch leaving;
  ThreadCache::Changes changes{};
  Takers::Taking taking;
  Takers& takers = source_.takers().Of(kAllDevices);
  if (!cache.FreeLarge(block, &leaving, &changes, takers, &taking)) return false;
  if (leaving.count == 0) [[likely]]
    return true;
  PageLockedHeap& of = HeapOf(*leaving.head);
  of.Settle(changes);
  while (leaving.count != 0) {
    const Batch alone = Batch::Of(leaving.Pop());
    if (Put(of, alone)) continue;
    leaving_.fetch_add(BytesIn(alone), std::memory_order_acq_rel);
    Destroy(of, alone);
  }
  return true;
}

// On a shelf of the thread's cache, as far as that may hold it. `*leaving`: blocks that go to the
// lists, perhaps this one. False: the context has ended, and its blocks with it.
bool PageLockedPool::PutOnShelf(PageLockedHeap& heap, ThreadCache& cache, Block* block, Stamp stamp,
                                Batch* leaving) {
  const unsigned tier = block->tier;
  const size_t bytes = block->bytes;
  const size_t requested = block->requested;
  Takers& takers = source_.takers().Of(kAllDevices);
  if (!heap.ListCache(cache, ThreadCache::Shelves::kAll)) {
    cache.CountFree(tier, requested, bytes);
    return false;
  }
  if (HasShelf(tier)) {
    if (cache.most_bytes() == 0) AllowMore(heap, cache, cache_bytes_, cache.most_large_bytes());
    Takers::Taking taking;
    while (!cache.Free(block, stamp, leaving, takers, &taking)) {
      if (heap.ListCache(cache, ThreadCache::Shelves::kAll)) continue;
      cache.CountFree(tier, requested, bytes);
      return false;
    }
    if (leaving->count != 0) heap.Settle(cache);
    return true;
  }
  const size_t need = cache.large_bytes() + bytes;
  if (stamp == kReady && need > cache.most_large_bytes()) {
    AllowMore(heap, cache, cache.most_bytes(), need);
  }
  if (stamp == kReady && need <= cache.most_large_bytes()) {
    Takers::Taking taking;
    ThreadCache::Changes changes{};
    if (cache.FreeLarge(block, leaving, &changes, takers, &taking)) {
      heap.Settle(changes);
      return true;
    }
  }
  cache.CountFree(tier, requested, bytes);
  heap.accounts().TakeBack(bytes, source_.MoreThanAsked(bytes, requested));
  *leaving = Batch::Of(block, stamp);
  return true;
}

int PageLockedPool::Retire(Block* block, Stamp stamp) {
  PageLockedHeap& heap = HeapOf(*block);
  ThreadCache* const cache = bypassed() || !heap.open() ? nullptr : CacheFor(heap);
  if (cache == nullptr || block->bytes > bound()) return FreeReal(block);
  const HeldContext held(heap);
  heap.HonourRequest(*cache);
  const bool is_large = !HasShelf(block->tier);
  Batch leaving;
  if (!PutOnShelf(heap, *cache, block, stamp, &leaving)) return kSuccess;
  // What leaves the large shelf are blocks of different sizes, each a batch of its own.
  while (leaving.count != 0) {
    Batch one = leaving;
    if (is_large) {
      one = Batch::Of(leaving.Pop(), leaving.stamp);
    } else {
      leaving = Batch{};
    }
    if (Put(heap, one)) continue;
    leaving_.fetch_add(BytesIn(one), std::memory_order_acq_rel);
    Destroy(heap, one);
  }
  return kSuccess;
}

int PageLockedPool::FreeReal(Block* block) {
  const PageLockedHeap& heap = HeapOf(*block);
  const PageLockedApi api(calls_, heap);
  const DeviceAddress address = block->address;
  return source_.RealFree(source_.ForgetFreed(block) ? address : address + 1, api);
}

bool PageLockedPool::StillHas(const Block* block, DeviceAddress address) const {
  return StillFound(side_table_, block, address, [](const ContextPool& owner) {
    return static_cast<const PageLockedHeap&>(owner).context().MayHaveEnded();
  });
}

void PageLockedPool::Unpool(DeviceAddress address) {
  Block* block = FindAround(address);
  if (block == nullptr) return;
  BlockState live = BlockState::kLive;
  if (block->state.compare_exchange_strong(live, BlockState::kUnpooled,
                                           std::memory_order_acq_rel)) {
    statistics_.process().unpooled_blocks.AddShared(1);
  }
}

void PageLockedPool::TellStatistics(ProcessCounters& process) {
  const TierTotals totals = statistics_.Totals();
  const ProcessCounters& own = statistics_.process();
  process.host_requests.Set(totals.requests());
  process.host_thread_cache_hits.Set(totals.thread_cache_hits);
  process.host_global_pool_hits.Set(totals.global_pool_hits);
  process.host_refills.Set(totals.refills);
  process.host_frees.Set(totals.frees);
  process.host_real_frees.Set(totals.real_frees);
  process.host_blocks_released.Set(totals.blocks_released);
  process.host_requested_bytes.Set(totals.requested_bytes);
  process.host_reserved_bytes.Set(own.reserved_bytes.Get());
  process.host_reserved_peak_bytes.RaiseTo(own.reserved_peak_bytes.Get());
  process.host_bypassed.Set(bypassed() ? 1 : 0);
}

}  // namespace cmp
