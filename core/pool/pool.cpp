#include "core/pool/pool.h"

#include "core/pool/ladder.h"

namespace cmp {

namespace {
constexpr uint32_t kMaxBatchBlocks = 128;
// The large shelf of a cache may have so many times what is on those of its tiers.
constexpr size_t kLargeShare = 4;
}  // namespace

// ---- Alloc

Allocation Pool::Alloc(ContextPool& context, size_t bytes, const DeviceApi& api) {
  ThreadCache* cache = CacheFor(context);
  if (cache == nullptr || bytes > kMostTierBytes) return AllocReal(&context, bytes, api);
  context.HonourRequest(*cache);
  const unsigned tier = tiers_.TierOf(bytes);
  const bool oversized = bytes > context.max_block();
  const size_t rounded = oversized ? bytes : tiers_.RoundedBytes(bytes);
  bool asked = false;
  if (!oversized) {
    const Allocation idle = TakeIdle(context, cache, bytes, rounded, tier, &asked);
    if (idle.pooled()) {
      const bool own = idle.served == Served::kThreadCache;
      if (asked && own) AskLess(context, *cache, tier, rounded, api);
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
    Refill(context, *cache, tier, rounded, cache->NextRefill(tier) - 1, api);
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

// An idle block for the request, handed out, or none. Waits for nothing. `*asked`: the driver was,
// about a fence.
Allocation Pool::TakeIdle(ContextPool& context, ThreadCache* cache, size_t bytes, size_t rounded,
                          unsigned tier, bool* asked) {
  const Allocation ready = TakeReady(context, cache, bytes, rounded, tier);
  if (ready.pooled() || !PromoteRetired(context, cache, tier, rounded, asked)) return ready;
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
// request. Only who had to ask makes more: no captures are seen there either, during which a
// request that finds a ready block is to make no call.
void Pool::AskLess(ContextPool& context, ThreadCache& cache, unsigned tier, size_t rounded,
                   const DeviceApi& api) {
  if (host_.sees_submissions || options_.free_sync != FreeSync::kNone || !HasShelf(tier)) return;
  const uint32_t more = cache.NextToAskLess(tier);
  if (more == 0) return;
  cache.MadeToAskLess(tier, Refill(context, cache, tier, rounded, more, api));
  ageing_.MemoryIsIdle();
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
bool Pool::PromoteRetired(ContextPool& context, ThreadCache* cache, unsigned tier, size_t rounded,
                          bool* asked) {
  const Stamp oldest = OldestStamp(context, cache, tier, rounded);
  if (oldest == kReady) return false;
  if (!readiness_.HasPassed(context, oldest)) {
    *asked = true;
    if (!readiness_.Ask(context, oldest)) return false;
  }
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
// has become usual, as far as the bound and the device's free memory go. Returns how many.
uint32_t Pool::Refill(ContextPool& context, ThreadCache& cache, unsigned tier, size_t rounded,
                      uint32_t wanted, const DeviceApi& api) {
  if (wanted == 0) return 0;
  const size_t bytes = wanted * rounded;
  const Accounts& accounts = context.accounts();
  if (accounts.reserved() + bytes > accounts.reserve().near_bound()) return 0;
  if (!source_.CheckFreeMemory(context, bytes, api)) return 0;
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
  const uint32_t blocks = batch.count;
  statistics_.shared_slot()[tier].blocks_made.AddShared(blocks);
  Stock(context, cache, tier, batch);
  return blocks;
}

void Pool::NotePeak(ContextPool& context) {
  const size_t rise = context.accounts().NotePeak();
  if (rise == 0) return;
  const auto change = static_cast<int64_t>(rise);
  const int64_t peaks = peaks_.fetch_add(change, std::memory_order_relaxed) + change;
  // Below 0 for a moment where the context is being dropped meanwhile.
  if (peaks > 0) statistics_.process().live_peak_bytes.RaiseTo(static_cast<uint64_t>(peaks));
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
