#include "core/pool/pool.h"

#include "core/pool/ladder.h"

namespace cmp {

namespace {
constexpr uint32_t kMaxBatchBlocks = 128;
constexpr uint32_t kFewBlocks = 8;
// The large shelf of a cache may have so many times what is on those of its tiers.
constexpr size_t kLargeShare = 4;
constexpr uint64_t kMostBoundWaitNs = 100'000;
}  // namespace

// ---- Alloc

Allocation Pool::Alloc(ContextPool& context, size_t bytes, const DeviceApi& api) {
  ThreadCache* cache = CacheFor(context);
  if (cache == nullptr || bytes > kMostTierBytes) return AllocReal(&context, bytes, api);
  context.HonourRequest(*cache);
  const unsigned tier = tiers_.TierOf(bytes);
  const bool oversized = bytes > context.max_block();
  const size_t rounded = oversized ? bytes : tiers_.RoundedBytes(bytes);
  if (!oversized) {
    bool asked = false;
    const Allocation idle = TakeIdle(context, cache, bytes, rounded, tier, &asked);
    if (idle.pooled()) {
      if (asked && IsShort(context, *cache, tier)) Refill(context, *cache, tier, rounded, api);
      return idle;
    }
  }
  // Near the bound, what other threads keep idle is worth more than a new block, and a retired
  // block of the tier that will be ready soon makes a whole batch of new ones superfluous.
  context.Settle(*cache);
  const Accounts& accounts = context.accounts();
  const bool near_bound = accounts.reserved() + rounded > accounts.bound();
  if (near_bound) {
    if (!oversized) context.EmptyCaches();
    readiness_.PromotePassed(context);
    const Allocation idle =
        oversized ? Allocation{} : TakeReady(context, cache, bytes, rounded, tier);
    if (idle.pooled()) return idle;
  }
  const bool retired = !oversized && OldestStamp(context, cache, tier, rounded) != kReady;
  const bool pooled = !oversized && MayRoundUp(context, bytes, rounded);
  const Request request{bytes, pooled ? rounded : bytes, tier,
                        pooled ? BlockState::kLive : BlockState::kUnpooled};
  const size_t device = context.device_bytes.load(std::memory_order_relaxed);  // 0: not asked yet
  if (device == 0 || request.bytes <= device) {
    LeaveRoom(context, request.bytes, Quietly::kYes, api);
    if (near_bound) source_.MakeRoom(context, request.bytes, api);
  }
  const uint64_t releases = source_.releases();
  Allocation made = source_.Make(context, request, false, api);
  const bool rescue = made.status == kOutOfMemory;
  if (rescue) {
    made = source_.MakeAfterReleases(context, request, releases, api, [&] {
      bool asked = false;
      return oversized ? Allocation{} : TakeIdle(context, cache, bytes, rounded, tier, &asked);
    });
    if (made.status == kSuccess) {
      api.Recovered();
      statistics_.process().out_of_memory_rescues.AddShared(1);
    }
  }
  if (made.status != kSuccess) {
    statistics_.process().failed_allocations.AddShared(1);
    return made;
  }
  if (!made.pooled() || made.served != Served::kReal) return made;
  if (pooled) made.served = Served::kRefill;
  cache->Count(tier, pooled ? &TierCounters::refills : &TierCounters::real, bytes, made.bytes);
  statistics_.shared_slot()[tier].blocks_made.AddShared(pooled ? 1 : 0);
  NotePeak(context);  // Make has told the accounts
  if (pooled && !rescue) {
    const size_t most = rounded < kLargeGranule ? rounded : rounded + SlackFor(context, rounded);
    const uint64_t now = NowNs();
    const uint64_t since = now > options_.decay_ns ? now - options_.decay_ns : 0;
    source_.NoteMade(context, rounded, most, since, api);
  }
  // Alloc waits for nothing, and a real free might: who crosses the bound leaves it to the next
  // free or, where none comes and it is a little, to a tick of the thread. Not to that at once: the
  // next call of the program would meet it in the driver.
  if (source_.IsOver(context)) context.SetOverBound(true);
  if (pooled && !rescue && !retired && HasShelf(tier)) {
    Refill(context, *cache, tier, rounded, api);
    ageing_.MemoryIsIdle();
  } else {
    source_.CheckFreeMemory(context, made.bytes, api);
  }
  return made;
}

Allocation Pool::AllocReal(ContextPool* context, size_t bytes, const DeviceApi& api) {
  ContextPool& owner = context == nullptr ? unpooled_ : *context;
  const unsigned tier = tiers_.TierOf(bytes < kMostTierBytes ? bytes : kMostTierBytes);
  const Request request{bytes, bytes, tier, BlockState::kUnpooled};
  const int device = context == nullptr ? kAllDevices : context->identity().device;
  Ladder ladder(source_, device, bytes, source_.releases());
  Allocation made = source_.Make(owner, request, true, api);
  const bool rescue = made.status == kOutOfMemory;
  const size_t most = context == nullptr ? 0 : context->identity().device_bytes;
  const bool possible = bytes <= kMostTierBytes && (most == 0 || bytes <= most);
  while (possible && made.status == kOutOfMemory &&
         ladder.Climb([&](size_t wanted) { return ReleaseForRetry(api, device, wanted); })) {
    made = source_.Make(owner, request, true, api);
  }
  if (rescue && made.status == kSuccess) {
    api.Recovered();
    statistics_.process().out_of_memory_rescues.AddShared(1);
  }
  if (made.status != kSuccess) {
    statistics_.process().failed_allocations.AddShared(1);
  } else if (made.pooled()) {
    TierCounters& counters = statistics_.shared_slot()[tier];
    counters.real.AddShared(1);
    counters.requested_bytes.AddShared(bytes);
    counters.block_bytes.AddShared(bytes);
    NotePeak(owner);
    if (source_.IsOver(owner)) owner.SetOverBound(true);
  }
  return made;
}

// An idle block for the request, handed out, or none. Waits for nothing. `*asked`: it was retired.
Allocation Pool::TakeIdle(ContextPool& context, ThreadCache* cache, size_t bytes, size_t rounded,
                          unsigned tier, bool* asked) {
  const Allocation ready = TakeReady(context, cache, bytes, rounded, tier);
  if (ready.pooled() || !PromoteRetired(context, cache, tier, rounded)) return ready;
  *asked = true;
  return TakeReady(context, cache, bytes, rounded, tier);
}

Allocation Pool::TakeReady(ContextPool& context, ThreadCache* cache, size_t bytes, size_t rounded,
                           unsigned tier) {
  const bool has_shelf = HasShelf(tier);
  const DeviceAddress address =
      has_shelf ? cache->Alloc(tier, bytes) : cache->AllocLarge(tier, rounded, bytes);
  if (address != 0) return Allocation{kSuccess, address, rounded, Served::kThreadCache};
  const size_t slack = rounded < kLargeGranule ? 0 : SlackFor(context, rounded);
  const Allocation shared = TakeShared(context, cache, bytes, rounded, tier, slack);
  if (shared.pooled() || has_shelf) return shared;
  // A real call costs more than a look at what other threads keep.
  return HandOut(context, cache, context.TakeFromShelves(rounded, rounded + slack), bytes, tier);
}

// Where frees are not fenced and submissions not seen, every block is retired: who finds nothing
// else records a fence and asks about it, 3 us (measured, H200). With one block that is every
// request.
bool Pool::IsShort(const ContextPool& context, ThreadCache& cache, unsigned tier) const {
  if (options_.free_sync != FreeSync::kNone || !HasShelf(tier)) return false;
  const uint32_t batch = limits_.batch[tier];
  return context.fences().work_since() &&
         cache.IdleOf(tier) < (batch < kFewBlocks ? batch : kFewBlocks);
}

// A block of the global pool; or a larger one of this thread's, where that has none that fits
// better.
Allocation Pool::TakeShared(ContextPool& context, ThreadCache* cache, size_t bytes, size_t rounded,
                            unsigned tier, size_t slack) {
  const size_t own = slack == 0 ? 0 : cache->BestFitOfLarge(rounded, rounded + slack);
  const size_t better = own == 0 ? slack : own - rounded - kLargeGranule;
  if (Block* block = TakeFromGlobal(context, cache, rounded, tier, better)) {
    return HandOut(context, cache, block, bytes, tier);
  }
  const DeviceAddress address = own == 0 ? 0 : cache->AllocLarge(tier, own, bytes);
  if (address == 0) return Allocation{};
  context.Settle(*cache);  // all slack in use together is bounded
  return Allocation{kSuccess, address, own, Served::kThreadCache};
}

Block* Pool::TakeFromGlobal(ContextPool& context, ThreadCache* cache, size_t rounded, unsigned tier,
                            size_t slack) {
  if (rounded >= kLargeGranule) return context.global().TakeLarge(rounded, rounded + slack);
  const Takers::Taking taking(source_.takers().Of(context.device()));
  Batch batch = context.global().TakeBatch(tier);
  if (batch.count == 0) return nullptr;
  Block* block = batch.Pop();
  if (batch.count != 0) {
    HasShelf(tier) ? Stock(context, *cache, tier, batch) : context.global().Put(batch);
  }
  return block;
}

// A ready block that the caller has in hand, or nullptr.
Allocation Pool::HandOut(ContextPool& context, ThreadCache* cache, Block* block, size_t bytes,
                         unsigned tier) {
  if (block == nullptr) return Allocation{};
  const DeviceAddress address = block->address;
  const size_t block_bytes = block->bytes;
  block->tier = static_cast<uint16_t>(tier);  // its free counts in the row of the request
  if (!block->GiveToProgramUnlessEnded(bytes)) return Allocation{};
  context.Settle(cache->CountShared(tier, bytes, block_bytes));
  NotePeak(context);
  return Allocation{kSuccess, address, block_bytes, Served::kGlobalPool};
}

// The stamp of what has been retired longest and might serve the tier; kReady: nothing is retired.
Stamp Pool::OldestStamp(ContextPool& context, ThreadCache* cache, unsigned tier, size_t rounded) {
  const Stamp here = HasShelf(tier) ? cache->OldestStamp(tier) : kReady;
  const Stamp there = context.global().OldestStamp(rounded >= kLargeGranule ? kLargeBlocks : tier);
  if (here == kReady || there == kReady) return here + there;  // the other one
  return here < there ? here : there;
}

// Makes retired blocks of the tier ready whose fences have passed. False: there are none.
bool Pool::PromoteRetired(ContextPool& context, ThreadCache* cache, unsigned tier, size_t rounded) {
  const Stamp oldest = OldestStamp(context, cache, tier, rounded);
  if (oldest == kReady) return false;
  if (!readiness_.HasPassed(context, oldest) && !readiness_.Ask(context, oldest)) return false;
  const auto passed = [&](Stamp stamp) { return readiness_.HasPassed(context, stamp); };
  context.global().Promote(rounded >= kLargeGranule ? kLargeBlocks : tier, passed);
  if (!HasShelf(tier)) return true;
  cache->Promote(tier, passed);
  // What is still retired here is wanted next: by then its fence should have passed.
  if (const Stamp newest = cache->NewestStamp(tier); newest != kReady) {
    readiness_.Cover(context, newest);
  }
  return true;
}

// Bytes of blocks in use beyond what the program asked for save real calls, and cost memory for as
// long as the blocks are in use. A program that fills the device should fit all the same.
//
// Below 2 MiB: once the program has a quarter of the device, or memory is scarce, all of them
// together are to be at most a 256th of the device. A new block that would exceed that is made as
// asked for, and really freed. Idle ones serve whom they fit. With CMP_SLACK=0% there is never any.
bool Pool::MayRoundUp(const ContextPool& context, size_t bytes, size_t rounded) const {
  const size_t waste = rounded < kLargeGranule ? Tiers::Waste(rounded, bytes) : 0;
  if (waste == 0) return true;
  if (options_.slack == 0) return false;
  const size_t device = context.device_bytes.load(std::memory_order_relaxed);
  if (device == 0) return true;  // not asked for yet
  const Accounts& accounts = context.accounts();
  const bool plenty =
      accounts.live() <= device / 4 && !context.scarce.load(std::memory_order_relaxed);
  return plenty || accounts.rounding() + waste <= device / 256;
}

// Idle blocks of `tier` go into this thread's cache.
void Pool::Stock(ContextPool& context, ThreadCache& cache, unsigned tier, Batch batch) {
  while (!cache.Stock(tier, batch)) {
    if (!context.ListCache(cache)) return;  // it has ended, and these blocks with it
  }
}

// Slow start: one request was just served by a real call; make more blocks of its tier while that
// has become usual, as far as the bound and the device's free memory go.
void Pool::Refill(ContextPool& context, ThreadCache& cache, unsigned tier, size_t rounded,
                  const DeviceApi& api) {
  const uint32_t wanted = cache.NextRefill(tier) - 1;
  if (wanted == 0) return;
  const size_t bytes = wanted * rounded;
  const Accounts& accounts = context.accounts();
  if (accounts.reserved() + bytes > accounts.reserve().near_bound()) return;
  if (!source_.CheckFreeMemory(context, bytes, api)) return;
  const Request request{0, rounded, tier, BlockState::kIdle};
  const Uncancelled uncancelled;
  const Takers::Taking taking(source_.takers().Of(context.device()));
  Batch batch;
  while (batch.count < wanted) {
    const Allocation made = source_.Make(context, request, false, api);
    if (made.status != kSuccess) {
      api.Recovered();  // the program's own request was served
      break;
    }
    if (made.idle == nullptr) {
      source_.RealFree(made.address, api);
      break;
    }
    batch.Push(made.idle);
  }
  statistics_.shared_slot()[tier].blocks_made.AddShared(batch.count);
  Stock(context, cache, tier, batch);
}

void Pool::NotePeak(ContextPool& context) {
  const size_t rise = context.accounts().NotePeak();
  if (rise == 0) return;
  const auto change = static_cast<int64_t>(rise);
  const int64_t peaks = peaks_.fetch_add(change, std::memory_order_relaxed) + change;
  // Below 0 for a moment where the context is being dropped meanwhile.
  if (peaks > 0) statistics_.process().live_peak_bytes.RaiseTo(static_cast<uint64_t>(peaks));
}

// ---- Free

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

// ---- Creation

Pool::Pool(const Options& options, const PoolHost& host)
    : options_(options), tiers_(options.tier_steps), host_(host) {
  // Tiers whose blocks fit a thread cache: those of at most thread_cache_max_block, and below 2
  // MiB.
  while (limits_.tiers < tiers_.TierOf(kLargeGranule) &&
         tiers_.SizeOf(limits_.tiers) <= options.thread_cache_max_block &&
         (options.max_block == kOfTheDevice || tiers_.SizeOf(limits_.tiers) <= options.max_block)) {
    const size_t blocks = options.batch_bytes / tiers_.SizeOf(limits_.tiers);
    limits_.batch[limits_.tiers++] = blocks < 1                 ? 1
                                     : blocks > kMaxBatchBlocks ? kMaxBatchBlocks
                                                                : static_cast<uint32_t>(blocks);
  }
  limits_.steps = tiers_.steps();
  if (!HasBarriers()) limits_.flag = OwnerFlag::Kind::kOrdinary;
  limits_.bytes = options.thread_cache_bytes;
  limits_.large_bytes = kLargeShare * limits_.bytes;
  limits_.spare = &spare_caches_;
  // A block that must be filled is handed out by Alloc, whose caller fills it.
  if (limits_.tiers != 0 && options.fill < 0) hit_bytes_ = tiers_.SizeOf(limits_.tiers - 1);
  if (ageing_.HasTicks()) source_.WillBeWarmedUp();
  source_.SetOtherContexts(
      [](void* self, ContextPool& except, size_t bytes, const DeviceApi& api) {
        return static_cast<Pool*>(self)->ReleaseForRetry(api, except.device(), bytes, &except);
      },
      this);
}

size_t Pool::StatisticsBytes(const Options& options) {
  const Tiers tiers(options.tier_steps);
  return Statistics::PageBytes(tiers, tiers.TierOf(kMostTierBytes) + 1);
}

Pool* Pool::Create(const Options& options, void* statistics_page, uint64_t pid, const char* program,
                   const PoolHost& host) {
  void* memory = MapPages(sizeof(Pool));
  if (memory == nullptr) return nullptr;
  Pool* pool = new (memory) Pool(options, host);
  if (!pool->side_table_.opened()) return nullptr;
  if (options.page_locked != 0 && options.mode == Mode::kPool && host.page_locked != nullptr) {
    pool->page_locked_ = PageLockedPool::Create(pool->options_, host, pool->contexts_,
                                                pool->readiness_, pool->arena_);
  }
  pool->statistics_.Open(statistics_page, pool->tiers_, pool->tiers_.TierOf(kMostTierBytes) + 1,
                         pid, program);
  return pool;
}

}  // namespace cmp
