#include "core/pool/pool.h"

namespace cmp {

namespace {
constexpr uint64_t kMostBoundWaitNs = 100'000;
}  // namespace

DeviceAddress Pool::AllocHitElsewhere(ContextHandle current, size_t bytes) {
  ThreadCache* cache = t_memory.FindCache(current);
  return cache == nullptr ? 0 : cache->AllocHit(bytes);
}

bool Pool::RetireHitElsewhere(Block* block) {
  ContextPool& context = *block->owner();
  const ThreadMemory::Entry* entry = t_memory.Find(context.handle());
  if (entry == nullptr || entry->owner != &context || context.over_bound()) return false;
  return HasShelf(block->tier) ? RetireInto(*entry, block)
                               : RetireLargeHit(context, *entry->cache, block);
}

bool Pool::Retire(Block* block, Stamp stamp, const DeviceApi& api) {
  ContextPool& context = *block->owner();
  ThreadCache* cache = t_memory.FindCache(context.handle());
  if (cache == nullptr || cache->owner() != &context) [[unlikely]]
    cache = CacheFor(context);
  const size_t bytes = block->bytes;  // once it is on a list the block is anybody's
  const unsigned tier = block->tier;
  const Batch alone = Batch::Of(block, stamp);
  if (cache == nullptr) [[unlikely]] {
    TierCounters& counters = statistics_.shared_slot()[block->tier];
    counters.frees.AddShared(1);
    counters.requested_freed_bytes.AddShared(block->requested);
    counters.block_freed_bytes.AddShared(block->bytes);
    context.accounts().TakeBack(bytes, source_.MoreThanAsked(*block));
    context.global().Put(alone);
    ageing_.MemoryIsIdle();
    return false;
  }
  context.HonourRequest(*cache);
  if (HasShelf(tier)) [[likely]] {
    Batch overflow;
    Takers& takers = source_.takers().Of(context.device());
    Takers::Taking taking;
    while (!cache->Free(block, stamp, &overflow, takers, &taking)) {
      if (context.ListCache(*cache)) continue;
      cache->CountFree(tier, block->requested, bytes);  // it has ended, and the block with it
      return false;
    }
    if (overflow.count != 0) [[unlikely]] {
      context.Settle(*cache);
      PutIdle(context, overflow);
    }
  } else if (stamp != kReady || context.over_bound() || !FreeLargeListed(context, *cache, block)) {
    cache->CountFree(tier, block->requested, bytes);
    context.accounts().TakeBack(bytes, source_.MoreThanAsked(*block));
    PutIdle(context, alone);
  }
  const bool keeps_bound = context.over_bound() || (stamp != kReady && IsNearBound(context, bytes));
  if (keeps_bound) [[unlikely]]
    return TidyInFree(context, cache, bytes, tier, api);
  ageing_.InFree(context, bytes, api);
  return false;
}

// The rare end of a free, apart so that the usual one need not remember whether it waited.
bool Pool::TidyInFree(ContextPool& context, ThreadCache* cache, size_t bytes, unsigned tier,
                      const DeviceApi& api) {
  const bool waited = KeepBound(context, cache, bytes, tier, api);
  ageing_.InFree(context, bytes, api);
  return waited;
}

// What the program gives back may be too much beside managed memory, though no more is held.
void Pool::PutIdle(ContextPool& context, Batch batch) {
  context.global().Put(batch);
  if (!source_.LeavesRoom(context)) context.SetOverBound(true);
}

bool Pool::IsNearBound(const ContextPool& context, size_t more) {
  const Accounts& accounts = context.accounts();
  return accounts.reserved() + more > accounts.reserve().near_bound();
}

// A block of this size was freed. Brings the context back under its bound if it is over it. Near
// the bound, a part of what is idle should be ready: then an allocation finds a block, or there is
// one to release for the block that it makes, without a wait. If the device is so far behind that
// too much is retired, the free waits for older fences, of the block's own tier if that has nothing
// ready: never longer than the real free would, and for the last of them it begins to wait within
// kMostBoundWaitNs. True: it has waited.
bool Pool::KeepBound(ContextPool& context, ThreadCache* cache, size_t bytes, unsigned tier,
                     const DeviceApi& api) {
  if (context.over_bound()) {
    readiness_.PromotePassed(context);
    if (source_.MayTrimAside(context)) {
      context.SetOverBound(false);  // first: the thread says if it finds nothing
      if (ageing_.TrimSoon(context)) return false;
    }
    const size_t reserved = context.accounts().reserved();
    source_.Trim(context, bytes, api);
    context.Settle(*cache);
    LeaveRoom(context, 0, Quietly::kNo, api);
    if (source_.IsOver(context)) context.SetOverBound(true);
    if (context.accounts().reserved() < reserved) return false;  // it has paid
  }
  if (!IsNearBound(context, bytes)) return false;
  const size_t headroom = context.accounts().reserve().headroom();
  context.Settle(*cache);
  const bool has_ready = HasReady(context, cache, bytes, tier);
  // Small blocks are wanted again as they are; a large one, or the room for it, comes of others.
  if (has_ready || bytes >= kLargeGranule) {
    if (context.ready() >= headroom) return false;
    context.global().PromoteAll([&](Stamp stamp) { return readiness_.HasPassed(context, stamp); });
    if (context.ready() >= headroom) return false;
    context.GatherLarge();  // what other threads have of these is known now
    if (context.ready() >= headroom) return false;
  }
  const Stamp wait_for =
      has_ready ? context.fences().passed() : OldestStamp(context, cache, tier, bytes);
  if (wait_for == kReady || readiness_.HasPassed(context, wait_for)) return false;
  // One fence after the other, and not for long: a program that waits in each free has never so
  // much behind it as one that does not.
  const Fences& fences = context.fences();
  const uint64_t begin = NowNs();
  bool waited = false;
  while (!fences.Covers(wait_for) && readiness_.Wait(context, fences.passed())) {
    waited = true;
    if (NowNs() - begin >= kMostBoundWaitNs) break;
  }
  if (!waited) return false;
  statistics_.process().bound_wait_ns.AddShared(statistics_.CountWait(begin));
  statistics_.process().bound_waits.AddShared(1);
  return true;
}

bool Pool::HasReady(ContextPool& context, ThreadCache* cache, size_t bytes, unsigned tier) {
  if (HasShelf(tier)) return cache->HasReady(tier) || context.global().HasReady(tier, 0, 0);
  const size_t most = bytes + (bytes < kLargeGranule ? 0 : SlackFor(context, bytes));
  return cache->BestFitOfLarge(bytes, most) != 0 ||
         context.global().HasReady(bytes >= kLargeGranule ? kLargeBlocks : tier, bytes, most);
}

int Pool::FreeReal(Block* block, const DeviceApi& api) {
  const DeviceAddress address = block->address;
  // A block whose context was dropped meanwhile is no allocation any more: the real call says so.
  return source_.RealFree(source_.ForgetFreed(block) ? address : address + 1, api);
}

int Pool::FreeRealUnlessRefused(Block* block, const DeviceApi& api) {
  const Uncancelled uncancelled;  // or it would be leaving for ever
  if (block->BeginLeaving()) {    // else its context has ended, and the memory with it
    const RelaxedCaptureMode relaxed(*host_.driver());
    const int status = source_.RealFree(block->address, api);
    if (IsRefusedFree(status) && block->StayWithProgram(BlockState::kUnpooled)) return status;
  }
  source_.ForgetFreed(block);
  return kSuccess;
}

bool Pool::StillHas(const Block* block, DeviceAddress address) const {
  return StillFound(side_table_, block, address,
                    [](const ContextPool& owner) { return owner.MayHaveEnded(); });
}

bool Pool::Unpool(DeviceAddress address) {
  Block* block = Find(address);
  if (block == nullptr) return false;
  BlockState live = BlockState::kLive;
  if (block->state.compare_exchange_strong(live, BlockState::kUnpooled,
                                           std::memory_order_acq_rel)) {
    statistics_.process().unpooled_blocks.AddShared(1);
    return true;
  }
  return live == BlockState::kUnpooled;
}

BlockState Pool::BeginFreeElsewhere(Block* block, DeviceAddress address) {
  const BlockState taken = Take(block, address);
  // Leaving: the driver may give the address to another thread before the call has returned. That
  // it fails (the context has ended) is found at the end.
  if (taken == BlockState::kLive || taken == BlockState::kUnpooled) (void)block->BeginLeaving();
  return taken;
}

void Pool::EndFreeElsewhere(Block* block, BlockState taken, bool freed) {
  if (!freed && block->StayWithProgram(taken)) return;
  source_.ForgetFreed(block);
  statistics_.process().unpooled_blocks.AddShared(1);
}

}  // namespace cmp
