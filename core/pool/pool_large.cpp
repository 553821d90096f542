// Blocks too large for tiers' shelves: on a few places of the thread's own, and in the global pool
// by best fit.
#include "core/pool/pool.h"

namespace cmp {

DeviceAddress Pool::AllocLargeHit(ContextHandle current, size_t bytes) {
  ThreadCache* cache = t_memory.FindCache(current);
  if (cache == nullptr || cache->IsRequested() || bytes - 1 >= kMostTierBytes) return 0;
  const unsigned tier = tiers_.TierOf(bytes);
  const size_t rounded = tiers_.RoundedBytes(bytes);
  ContextPool& context = *cache->owner();
  if (bytes > context.max_block()) return 0;
  if (const DeviceAddress address = cache->AllocLarge(tier, rounded, bytes)) return address;
  const size_t slack = rounded < kLargeGranule ? 0 : SlackFor(context, rounded);
  return TakeShared(context, cache, bytes, rounded, tier, slack).address;
}

// By how much a block may be larger than what it serves, from 2 MiB up: see MayRoundUp. All of them
// together by a sixty-fourth of the device; by nothing once the program has half of it, or once
// less than a tenth of it is free.
size_t Pool::SlackFor(const ContextPool& context, size_t rounded) const {
  const size_t device = context.device_bytes.load(std::memory_order_relaxed);
  const Accounts& accounts = context.accounts();
  if (context.scarce.load(std::memory_order_relaxed) || accounts.live() > device / 2) return 0;
  const auto slack = static_cast<size_t>(static_cast<double>(rounded) * options_.slack);
  return accounts.slack() + slack > device / 64 ? 0 : slack;
}

// Beside managed memory each free looks whether what is idle leaves that its room: on the lists of
// the global pool.
bool Pool::KeepsLarge(const ContextPool& context) const {
  return limits_.tiers != 0 && !context.accounts().reserve().IsBesideManaged();
}

// A ready block goes on this thread's large shelf. False: nothing was done, that is not open.
bool Pool::FreeLarge(ContextPool& context, ThreadCache& cache, Block* block) {
  Batch leaving;
  ThreadCache::Changes changes;
  Takers::Taking taking;
  Takers& takers = source_.takers().Of(context.device());
  if (!cache.FreeLarge(block, &leaving, &changes, takers, &taking)) return false;
  if (leaving.count != 0) [[unlikely]] {
    context.Settle(changes);
    context.global().PutEach(leaving);
  }
  return true;
}

// The same, and it is opened. False: it is to have none, or the context has ended.
bool Pool::FreeLargeListed(ContextPool& context, ThreadCache& cache, Block* block) {
  while (KeepsLarge(context)) {
    if (FreeLarge(context, cache, block)) return true;
    if (!context.ListCache(cache, ThreadCache::Shelves::kAll)) return false;
  }
  return false;
}

// Where the shelf is open somebody looks after idle memory already; see Ageing::MemoryIsIdle.
bool Pool::RetireLargeHit(ContextPool& context, ThreadCache& cache, Block* block) {
  return KeepsLarge(context) && ageing_.IsBesideFrees() && !cache.IsRequested() &&
         FreeLarge(context, cache, block);
}

}  // namespace cmp
