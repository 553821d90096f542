#include "core/pool.h"

#include <initializer_list>

#include "core/thread_exit.h"

namespace cmp {

thread_local constinit ThreadMemory t_memory;

namespace {
constexpr uint32_t kMaxBatchBlocks = 128;
// The largest request that has a tier; no device has more.
constexpr size_t kMostTierBytes = (size_t{1} << 47) - 1;
}  // namespace

// ---- Alloc

Allocation Pool::Alloc(ContextPool& context, size_t bytes, const DeviceApi& api) {
  ThreadCache* cache = CacheFor(context);
  if (cache == nullptr || bytes > kMostTierBytes) return AllocReal(&context, bytes, api);
  const unsigned tier = tiers_.TierOf(bytes);
  const bool oversized = bytes > options_.max_block;
  const size_t rounded = oversized ? bytes : tiers_.RoundedBytes(bytes);
  const BlockState state = oversized ? BlockState::kUnpooled : BlockState::kLive;
  if (!oversized) {
    if (Block* block = TakeIdle(context, cache, bytes, rounded, tier)) {
      return Allocation{kSuccess, block->address, block, true};
    }
  }
  Allocation made = source_.Make(context, rounded, tier, state, false, api);
  const bool rescue = made.status == kOutOfMemory;
  if (rescue) {
    made = source_.MakeAfterReleases(context, bytes, rounded, tier, state, api, [&]() -> Block* {
      return oversized ? nullptr : TakeIdle(context, cache, bytes, rounded, tier);
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
  if (made.block == nullptr || made.reused) return made;
  made.block->requested = bytes;
  cache->Count(tier, oversized ? &TierCounters::real : &TierCounters::refills, bytes,
               made.block->bytes);
  statistics_.shared_slot()[tier].blocks_made.AddShared(oversized ? 0 : 1);
  NotePeak(context);
  // Alloc waits for nothing, and a real free might: who crosses the bound leaves it to the next
  // free.
  if (context.Excess() != 0) context.over_bound.store(true, std::memory_order_relaxed);
  if (!rescue && HasShelf(tier)) {
    Refill(context, *cache, tier, rounded, api);
  } else {
    source_.CheckFreeMemory(context, made.block->bytes, api);
  }
  return made;
}

Allocation Pool::AllocReal(ContextPool* context, size_t bytes, const DeviceApi& api) {
  ContextPool& owner = context == nullptr ? unpooled_ : *context;
  const unsigned tier = tiers_.TierOf(bytes < kMostTierBytes ? bytes : kMostTierBytes);
  Allocation made = source_.Make(owner, bytes, tier, BlockState::kUnpooled, true, api);
  if (made.status == kOutOfMemory && ReleaseThreadCaches(api) != 0) {
    made = source_.Make(owner, bytes, tier, BlockState::kUnpooled, true, api);
    if (made.status == kSuccess) {
      api.Recovered();
      statistics_.process().out_of_memory_rescues.AddShared(1);
    }
  }
  if (made.status != kSuccess) {
    statistics_.process().failed_allocations.AddShared(1);
  } else if (made.block != nullptr) {
    made.block->requested = bytes;
    TierCounters& counters = statistics_.shared_slot()[tier];
    counters.real.AddShared(1);
    counters.requested_bytes.AddShared(bytes);
    counters.block_bytes.AddShared(bytes);
    NotePeak(owner);
  }
  return made;
}

// An idle block for the request, handed out, or nullptr.
Block* Pool::TakeIdle(ContextPool& context, ThreadCache* cache, size_t bytes, size_t rounded,
                      unsigned tier) {
  if (HasShelf(tier)) {
    if (Block* block = cache->Alloc(tier, bytes)) return block;
  }
  Block* block = nullptr;
  if (rounded >= kLargeGranule) {
    block = TakeIdleLarge(context, rounded);
  } else if (Batch batch = context.global().TakeBatch(tier); batch.count != 0) {
    block = batch.Pop();
    if (HasShelf(tier)) {
      cache->Stock(tier, batch);
    } else if (batch.count != 0) {
      context.global().Put(batch);
    }
  }
  if (block == nullptr) return nullptr;
  block->GiveToProgram(bytes);
  cache->Count(tier, &TierCounters::global_pool_hits, bytes, block->bytes);
  NotePeak(context);
  return block;
}

// Reuse with slack saves a real call now and costs memory for as long as the block is in use. So
// that a program which fills the device still fits, all slack in use together is kept below a
// sixteenth of what is free, and there is none once less than a tenth of the device is.
Block* Pool::TakeIdleLarge(ContextPool& context, size_t rounded) {
  size_t slack = 0;
  if (!context.scarce.load(std::memory_order_relaxed)) {
    const size_t budget = context.EstimatedFree() / 16;
    const size_t used = context.slack_in_use.load(std::memory_order_relaxed);
    slack = static_cast<size_t>(static_cast<double>(rounded) * options_.slack);
    if (slack > budget - (used < budget ? used : budget)) slack = 0;
  }
  Block* block = context.global().TakeLarge(rounded, rounded + slack);
  if (block != nullptr) {
    context.slack_in_use.fetch_add(block->bytes - rounded, std::memory_order_relaxed);
  }
  return block;
}

// Slow start: one request was just served by a real call; make more blocks of its tier while that
// has become usual, as far as the bound and the device's free memory go.
void Pool::Refill(ContextPool& context, ThreadCache& cache, unsigned tier, size_t rounded,
                  const DeviceApi& api) {
  const uint32_t wanted = cache.NextRefill(tier) - 1;
  if (wanted == 0) return;
  const size_t bytes = wanted * rounded;
  if (context.reserved() + bytes > context.Bound(0)) return;
  if (!source_.CheckFreeMemory(context, bytes, api)) return;
  Batch batch;
  while (batch.count < wanted) {
    const Allocation made = source_.Make(context, rounded, tier, BlockState::kIdle, false, api);
    if (made.status != kSuccess) {
      api.Recovered();  // the program's own request was served
      break;
    }
    if (made.block == nullptr) {
      source_.RealFree(made.address, api);
      break;
    }
    batch.Push(made.block);
  }
  statistics_.shared_slot()[tier].blocks_made.AddShared(batch.count);
  cache.Stock(tier, batch);
}

void Pool::NotePeak(ContextPool& context) {
  const size_t rise = context.SampleLivePeak();
  if (rise != 0) statistics_.process().live_peak_bytes.AddShared(rise);
}

// ---- Free

BlockState Pool::Take(Block* block, DeviceAddress address) {
  for (const BlockState owned : {BlockState::kLive, BlockState::kUnpooled}) {
    if (!block->TakeFromProgram(owned)) continue;
    if (block->address == address) [[likely]]
      return owned;
    // A double free that lost so late that the record has another block by now: give it back.
    block->state.store(owned, std::memory_order_release);
    return BlockState::kUnused;
  }
  return block->state.load(std::memory_order_acquire);
}

void Pool::Retire(Block* block, const DeviceApi& api) {
  ContextPool& context = *block->owner();
  if (const size_t slack = SlackOf(*block)) {
    context.slack_in_use.fetch_sub(slack, std::memory_order_relaxed);
  }
  ThreadCache* cache = RememberedCache(context.identity().handle);
  if (cache == nullptr || cache->owner() != &context) [[unlikely]]
    cache = CacheFor(context);
  if (cache == nullptr) [[unlikely]] {
    TierCounters& counters = statistics_.shared_slot()[block->tier];
    counters.frees.AddShared(1);
    counters.requested_freed_bytes.AddShared(block->requested);
    counters.block_freed_bytes.AddShared(block->bytes);
    context.global().Put(Batch{block, 1});
    return;
  }
  if (HasShelf(block->tier)) [[likely]] {
    const Batch overflow = cache->Free(block);
    if (overflow.count != 0) [[unlikely]]
      context.global().Put(overflow);
  } else {
    cache->CountFree(block->tier, block->requested, block->bytes);
    context.global().Put(Batch{block, 1});
  }
  if (context.over_bound.load(std::memory_order_relaxed)) [[unlikely]] {
    source_.TrimToBound(context, api);
  }
}

int Pool::FreeReal(Block* block, const DeviceApi& api) {
  const DeviceAddress address = block->address;
  if (const size_t slack = SlackOf(*block)) {
    block->owner()->slack_in_use.fetch_sub(slack, std::memory_order_relaxed);
  }
  source_.CountRealFree(*block);
  // A block whose context was dropped meanwhile is no allocation any more: the real call says so.
  return source_.RealFree(source_.Forget(block) ? address : address + 1, api);
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

bool Pool::Release(DeviceAddress address) {
  Block* block = Find(address);
  if (block == nullptr) return false;
  const BlockState taken = Take(block, address);
  if (taken != BlockState::kLive && taken != BlockState::kUnpooled) return false;
  if (const size_t slack = SlackOf(*block)) {
    block->owner()->slack_in_use.fetch_sub(slack, std::memory_order_relaxed);
  }
  source_.CountRealFree(*block);
  source_.Forget(block);
  statistics_.process().unpooled_blocks.AddShared(1);
  return true;
}

// ---- Release

size_t Pool::ReleaseAll(const DeviceApi& api) {
  size_t bytes = 0;
  ForEachContext(
      [&](ContextPool& context) { bytes += source_.ReleaseOldest(context, ~size_t{0}, api); });
  return bytes;
}

size_t Pool::ReleasableBytes(int device) {
  size_t bytes = 0;
  ForEachContext([&](ContextPool& context) {
    if (context.identity().device == device) {
      bytes += context.global().large_bytes();
    }
  });
  return bytes;
}

size_t Pool::ReleaseThreadCaches(const DeviceApi& api) {
  ForEachContext([](ContextPool& context) { context.EmptyCaches(); });
  return ReleaseAll(api);
}

size_t Pool::ReleaseOthers(ContextPool& except, const DeviceApi& api) {
  size_t bytes = 0;
  ForEachContext([&](ContextPool& context) {
    if (&context == &except || context.identity().device != except.identity().device) return;
    context.EmptyCaches();
    bytes += source_.ReleaseOldest(context, ~size_t{0}, api);
  });
  return bytes;
}

// ---- Contexts and threads

ContextPool* Pool::FindContext(ContextHandle handle, uint64_t id) {
  ContextPool* found = nullptr;
  ForEachContext([&](ContextPool& context) {
    if (context.identity().handle != handle) return;
    if (context.identity().id == id) {
      found = &context;
    } else {
      DropContext(context);
    }
  });
  return found != nullptr && found->open() ? found : nullptr;
}

ContextPool* Pool::CurrentContextPool(const Driver& driver) {
  const ContextHandle handle = CurrentContext(driver);
  if (handle == nullptr) return nullptr;
  if (ThreadCache* cache = RememberedCache(handle)) return cache->owner();
  const uint64_t id = ContextId(driver, handle);
  if (id == 0) return nullptr;
  if (ContextPool* context = FindContext(handle, id)) return context;
  ContextIdentity identity;
  return IdentifyCurrent(driver, &identity) ? OpenContext(identity) : nullptr;
}

ContextPool* Pool::OpenContext(const ContextIdentity& identity) {
  Held held(contexts_lock_);
  std::atomic<ContextPool*>* place = nullptr;
  for (std::atomic<ContextPool*>& candidate : contexts_) {
    ContextPool* context = candidate.load(std::memory_order_relaxed);
    if (context != nullptr && context->identity().handle == identity.handle &&
        context->identity().id == identity.id) {
      // Another thread was faster; or the context has failed, and stays closed.
      return context->open() ? context : nullptr;
    }
    if (place == nullptr && context == nullptr) place = &candidate;
  }
  if (place == nullptr) return nullptr;
  auto* context = arena_.New<ContextPool>(identity, tiers_, options_);
  if (context == nullptr || !context->Open(arena_)) return nullptr;
  statistics_.process().contexts.AddShared(1);
  place->store(context, std::memory_order_release);
  const auto used = static_cast<size_t>(place - contexts_) + 1;
  if (used > places_used_.load(std::memory_order_relaxed)) {
    places_used_.store(used, std::memory_order_release);  // after the place
  }
  return context;
}

void Pool::DropIfGone(const Driver& driver) {
  const ContextHandle handle = CurrentContext(driver);
  const ThreadCache* cache = RememberedCache(handle);
  if (cache == nullptr) return;  // Alloc will look
  ContextPool& context = *cache->owner();
  if (context.identity().id != ContextId(driver, handle)) DropContext(context);
}

void Pool::DropContext(ContextPool& context) {
  CloseContext(context);
  source_.ForgetAll(context);
  Held held(contexts_lock_);
  for (std::atomic<ContextPool*>& place : contexts_) {
    if (place.load(std::memory_order_relaxed) == &context) {
      place.store(nullptr, std::memory_order_release);
    }
  }
}

ThreadCache* Pool::CacheFor(ContextPool& context) {
  const ContextHandle handle = context.identity().handle;
  ThreadMemory& memory = t_memory;
  ThreadMemory::Entry& entry = memory.EntryOf(handle);
  const uint64_t epoch = g_cache_epoch.load(std::memory_order_acquire);
  if (entry.handle == handle && entry.epoch == epoch && entry.cache->owner() == &context) {
    return entry.cache;
  }
  ThreadCache* cache = memory.caches;
  while (cache != nullptr && cache->owner() != &context) cache = cache->next_of_thread;
  if (cache == nullptr) {
    cache = context.AdoptCache();
    if (cache == nullptr) {
      TierCounters* counters = statistics_.TakeSlot();
      auto* shelves = static_cast<ThreadCache::Shelf*>(
          arena_.Allocate(limits_.tiers * sizeof(ThreadCache::Shelf)));
      if (shelves == nullptr) return nullptr;
      for (unsigned tier = 0; tier < limits_.tiers; ++tier) {
        new (&shelves[tier]) ThreadCache::Shelf;
      }
      cache = arena_.New<ThreadCache>(&context, &limits_, counters, shelves);
      if (cache == nullptr) return nullptr;
      context.AddCache(cache);
      statistics_.process().thread_caches.AddShared(1);
    }
    cache->next_of_thread = memory.caches;
    memory.caches = cache;
    if (!memory.exit_hook) memory.exit_hook = CallAtThreadExit(&Pool::ThreadExit);
  }
  if (context.open()) entry = ThreadMemory::Entry{handle, epoch, cache};
  return cache;
}

void Pool::ThreadExit() {
  ThreadMemory& memory = t_memory;
  ThreadCache* cache = memory.caches;
  memory = ThreadMemory{};
  while (cache != nullptr) {
    ThreadCache* next = cache->next_of_thread;
    cache->owner()->AbandonCache(cache);
    cache = next;
  }
}

void Pool::ForgetThread() {
  t_memory = ThreadMemory{};
  g_cache_epoch.fetch_add(1, std::memory_order_acq_rel);
}

// ---- Creation

Pool::Pool(const Options& options) : options_(options), tiers_(options.tier_steps) {
  // Tiers whose blocks fit a thread cache: those of at most thread_cache_max_block, and below 2
  // MiB.
  while (limits_.tiers < tiers_.TierOf(kLargeGranule) &&
         tiers_.SizeOf(limits_.tiers) <= options.thread_cache_max_block &&
         tiers_.SizeOf(limits_.tiers) <= options.max_block) {
    const size_t blocks = options.batch_bytes / tiers_.SizeOf(limits_.tiers);
    limits_.batch[limits_.tiers++] = blocks < 1                 ? 1
                                     : blocks > kMaxBatchBlocks ? kMaxBatchBlocks
                                                                : static_cast<uint32_t>(blocks);
  }
  limits_.bytes = options.thread_cache_bytes;
  // A block that must be filled is handed out by Alloc, whose caller fills it.
  if (limits_.tiers != 0 && options.fill < 0) hit_bytes_ = tiers_.SizeOf(limits_.tiers - 1);
  unpooled_.Close();
  source_.SetOtherContexts(
      [](void* self, ContextPool& except, const DeviceApi& api) {
        return static_cast<Pool*>(self)->ReleaseOthers(except, api);
      },
      this);
}

size_t Pool::StatisticsBytes(const Options& options) {
  const Tiers tiers(options.tier_steps);
  return Statistics::PageBytes(tiers, tiers.TierOf(kMostTierBytes) + 1);
}

Pool* Pool::Create(const Options& options, void* statistics_page, uint64_t pid,
                   const char* program) {
  void* memory = MapPages(sizeof(Pool));
  if (memory == nullptr) return nullptr;
  Pool* pool = new (memory) Pool(options);
  pool->statistics_.Open(statistics_page, pool->tiers_, pool->tiers_.TierOf(kMostTierBytes) + 1,
                         pid, program);
  return pool;
}

}  // namespace cmp
