#include "core/pool/page_locked_pool.h"

#include "core/driver/driver.h"
#include "core/driver/memory_limit.h"
#include "core/driver/numa_policy.h"

namespace cmp {

namespace {
// By default at most this, and this part of what the process may have, is idle.
constexpr size_t kMostIdle = 256 * kMiB;
constexpr size_t kShareOfLimit = 16;
// Of what may be idle, one thread's cache may have this part on the shelves of its tiers.
constexpr size_t kShareOfCache = 64;
constexpr size_t kBatchBytes = 256 * kKiB;
constexpr uint32_t kMostBatchBlocks = 32;
// Released by one free to make room for its block.
constexpr uint32_t kMostReleased = 16;

Options HeapOptions(const Options& options, size_t bound) {
  Options of_heaps = options;
  of_heaps.max_block = bound < kMinBlock ? kMinBlock : bound;
  return of_heaps;
}

unsigned TierCount(const Tiers& tiers) { return tiers.TierOf(kMostTierBytes) + 1; }
}  // namespace

// The real calls, for one heap's flags.
class PageLockedPool::Api : public DeviceApi {
 public:
  Api(const PageLockedCalls& calls, const PageLockedHeap& heap)
      : DeviceApi(
            this,
            [](const void* self, size_t bytes, bool, DeviceAddress* address) {
              const Api& api = *static_cast<const Api*>(self);
              return api.calls_.allocate(api.heap_.context(), api.heap_.flags(), bytes, address);
            },
            [](const void*) {},
            [](const void* self, DeviceAddress address) {
              return static_cast<const Api*>(self)->calls_.release(address);
            },
            [](const void*, size_t*, size_t*) { return false; }),
        calls_(calls),
        heap_(heap) {}
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

 private:
  const PageLockedCalls& calls_;
  const PageLockedHeap& heap_;
};

// The driver frees page-locked memory for who has a context, whichever; a thread of the pool's own
// has none.
class InContext {
 public:
  InContext(const Driver& driver, ContextHandle context)
      : driver_(driver),
        pushed_(CurrentContext(driver) == nullptr &&
                driver.push_current(static_cast<CUcontext>(context)) == CUDA_SUCCESS) {}
  ~InContext() {
    CUcontext popped = nullptr;
    if (pushed_) driver_.pop_current(&popped);
  }
  InContext(const InContext&) = delete;
  InContext& operator=(const InContext&) = delete;

 private:
  const Driver& driver_;
  const bool pushed_;
};

// ---- Creation

PageLockedPool::PageLockedPool(const Options& options, const PoolHost& host, Contexts& contexts,
                               Readiness& readiness, Arena& arena)
    : options_(options),
      host_(host),
      calls_(*host.page_locked),
      contexts_(contexts),
      readiness_(readiness),
      arena_(arena),
      tiers_(options.tier_steps),
      source_(host, arena, tiers_, side_table_, chunks_, readiness, statistics_) {
  size_t bound = options.page_locked;
  if (bound == kPageLockedAuto) {
    const size_t share = ControlGroupLimit() / kShareOfLimit;
    bound = share < kMostIdle ? share : kMostIdle;
  }
  bound_.store(bound, std::memory_order_relaxed);
  heap_options_ = HeapOptions(options, bound);
  cache_bytes_ = bound / kShareOfCache < options.thread_cache_bytes ? bound / kShareOfCache
                                                                    : options.thread_cache_bytes;
  while (limits_.tiers < tiers_.TierOf(kLargeGranule) &&
         tiers_.SizeOf(limits_.tiers) <= options.thread_cache_max_block &&
         tiers_.SizeOf(limits_.tiers) <= cache_bytes_ / 4) {
    const size_t blocks = kBatchBytes / tiers_.SizeOf(limits_.tiers);
    limits_.batch[limits_.tiers++] = blocks < 2                  ? 2
                                     : blocks > kMostBatchBlocks ? kMostBatchBlocks
                                                                 : static_cast<uint32_t>(blocks);
  }
  limits_.steps = tiers_.steps();
  if (!HasBarriers()) limits_.flag = OwnerFlag::Kind::kOrdinary;
  limits_.spare = &spare_caches_;  // and no bytes: see Allow
  if (limits_.tiers != 0) hit_bytes_ = tiers_.SizeOf(limits_.tiers - 1);
}

PageLockedPool* PageLockedPool::Create(const Options& options, const PoolHost& host,
                                       Contexts& contexts, Readiness& readiness, Arena& arena) {
  const Tiers tiers(options.tier_steps);
  void* page = MapPages(Statistics::PageBytes(tiers, TierCount(tiers)));
  void* memory = page == nullptr ? nullptr : MapPages(sizeof(PageLockedPool));
  if (memory == nullptr) return nullptr;
  auto* pool = new (memory) PageLockedPool(options, host, contexts, readiness, arena);
  if (!pool->side_table_.opened() || pool->bound() == 0) return nullptr;
  pool->statistics_.Open(page, pool->tiers_, TierCount(pool->tiers_), 0, "");
  return pool;
}

// ---- Heaps

// Held meanwhile: see Contexts::ForEachIf.
template <typename Visitor>
void PageLockedPool::ForEachHeap(Visitor visit) const {
  const size_t used = heaps_used_.load(std::memory_order_acquire);
  for (size_t i = 0; i < used; ++i) {
    PageLockedHeap* heap = heaps_[i].load(std::memory_order_acquire);
    if (heap == nullptr) continue;
    const HeldContext held(*heap);
    if (heaps_[i].load(std::memory_order_acquire) == heap) visit(*heap);
  }
}

// What it returns is held by the caller's cache from then on, or by the context, which the caller
// holds, and which is not ended before its heaps are.
PageLockedHeap* PageLockedPool::HeapFor(ContextPool& context, unsigned flags) {
  PageLockedHeap* found = nullptr;
  const auto look = [&](PageLockedHeap& heap) {
    if (heap.context_ == &context && heap.flags_ == flags && heap.open()) found = &heap;
  };
  ForEachHeap(look);
  if (found != nullptr) return found;
  Held held(heaps_lock_);
  ForEachHeap(look);
  if (found != nullptr) return found;
  size_t place = 0;
  while (place < kMostHeaps && heaps_[place].load(std::memory_order_relaxed) != nullptr) ++place;
  if (place == kMostHeaps) return nullptr;
  PageLockedHeap* heap = nullptr;
  for (ContextPool** link = &spare_heaps_; *link != nullptr; link = &(*link)->next_spare) {
    if (!(*link)->HoldSpare()) continue;
    heap = static_cast<PageLockedHeap*>(*link);
    *link = heap->next_spare;
    break;
  }
  if (heap == nullptr) {
    heap = arena_.New<PageLockedHeap>(tiers_, heap_options_, source_.slabs(), chunks_);
    if (heap == nullptr) return nullptr;
  }
  const HeldContext opening = HeldContext::Adopt(*heap);
  ContextIdentity identity = context.identity();
  identity.handle = KeyOf(identity.handle, flags);
  identity.device = kAllDevices;
  context.Hold();
  heap->context_ = &context;
  heap->flags_ = flags;
  // Not of a context that ends: what is dropped with it is dropped after this.
  const ContextPool::User user(context);
  if (user.ended() || !heap->Open(identity, heap_options_, arena_, spare_lists_)) {
    context.LetGo();
    heap->next_spare = spare_heaps_;
    spare_heaps_ = heap;
    return nullptr;
  }
  heaps_[place].store(heap, std::memory_order_release);
  if (place >= heaps_used_.load(std::memory_order_relaxed)) {
    heaps_used_.store(place + 1, std::memory_order_release);
  }
  return heap;
}

void PageLockedPool::DropContext(ContextPool& context) {
  ForEachHeap([&](PageLockedHeap& heap) {
    if (heap.context_ != &context) return;
    heap.End();
    const bool in_hand = !source_.ForgetAll(heap);
    if (in_hand) heap.Hold();
    while (ThreadCache* cache = heap.AdoptCache()) MakeSpareCache(cache);
    Held held(heaps_lock_);
    bool there = false;
    for (std::atomic<PageLockedHeap*>& place : heaps_) {
      if (place.load(std::memory_order_relaxed) != &heap) continue;
      place.store(nullptr, std::memory_order_release);
      there = true;
    }
    if (!there) return;  // another thread's affair
    heap.global().GiveListsBack(spare_lists_);
    if (in_hand) return;
    context.LetGo();
    heap.next_spare = spare_heaps_;
    spare_heaps_ = &heap;
  });
}

ThreadCache* PageLockedPool::CacheFor(PageLockedHeap& heap) {
  return FindOrMakeCache(heap, heap.context(), {limits_, spare_caches_, statistics_, arena_});
}

// ---- How much may be idle

size_t PageLockedPool::IdleBytes() const {
  size_t bytes = leaving_.load(std::memory_order_acquire);
  ForEachHeap([&](PageLockedHeap& heap) {
    // In this order: what becomes ready, or comes from a cache, is counted twice meanwhile.
    bytes += heap.allowed() + heap.global().retired_bytes() + heap.global().ready_bytes();
  });
  return bytes;
}

// What a real allocation counts against is seen by the first one.
void PageLockedPool::LearnWhatCounts(size_t bytes) {
  if (options_.page_locked != kPageLockedAuto ||
      knows_what_counts_.exchange(true, std::memory_order_relaxed)) {
    return;
  }
  const size_t limit = LockedMemoryLimit();
  if (limit == kNoMemoryLimit || LockedMemory() < bytes) return;
  if (limit / kShareOfLimit < bound()) {
    bound_.store(limit / kShareOfLimit, std::memory_order_relaxed);
  }
}

// A cache may hold more, where the bound has room. REQUIRES: the calling thread's
void PageLockedPool::AllowMore(PageLockedHeap& heap, ThreadCache& cache, size_t bytes,
                               size_t large_bytes) {
  Held held(lock_);
  const size_t more = bytes + large_bytes - cache.most_bytes() - cache.most_large_bytes();
  if (IdleBytes() + more <= bound()) (void)heap.Allow(cache, bytes, large_bytes);
}

void PageLockedPool::EmptyAllCaches() {
  ForEachHeap([](PageLockedHeap& heap) { heap.EmptyCaches(); });
}

// Idle blocks go on the heap's lists. False: there is no room for them.
bool PageLockedPool::Put(PageLockedHeap& heap, Batch batch) {
  const size_t bytes = BytesIn(batch);
  const auto put = [&] {
    Held held(lock_);
    if (IdleBytes() + bytes > bound() && RuleIsOn(Rule::kPageLockedBound)) return false;
    heap.global().Put(batch);
    return true;
  };
  return put() || (MakeRoom(heap, bytes) && put());
}

// In a free of the program's: its real free would have waited for the device, as those here do.
bool PageLockedPool::MakeRoom(PageLockedHeap& heap, size_t bytes) {
  if (bytes > bound()) return false;
  EmptyAllCaches();  // what they may hold and do not is room, too
  uint32_t left = kMostReleased;
  const auto release = [&](PageLockedHeap& from) {
    while (left != 0) {
      Batch oldest;
      {
        Held held(lock_);
        const size_t now = IdleBytes() + bytes;
        if (now <= bound()) return;
        oldest = from.global().TakeOldest(now - bound(), GlobalPool::kAnyTime, 1);
        leaving_.fetch_add(BytesIn(oldest), std::memory_order_acq_rel);
      }
      if (oldest.count == 0) return;
      left -= oldest.count < left ? oldest.count : left;
      Destroy(from, oldest);
    }
  };
  release(heap);
  ForEachHeap([&](PageLockedHeap& other) {
    if (&other != &heap && other.context_ == heap.context_) release(other);
  });
  Held held(lock_);
  return IdleBytes() + bytes <= bound();
}

// Really frees idle blocks that are on no list, and counted as leaving.
size_t PageLockedPool::Destroy(PageLockedHeap& heap, Batch batch) {
  const size_t bytes = BytesIn(batch);
  size_t freed = 0;
  {
    const ContextPool::User user(heap.context());
    const ContextPool::Unasked unasked(heap.context(), ContextPool::When::kAtOnce);
    const Uncancelled uncancelled;
    if (unasked.allowed()) {
      const BlockSource::Hand hand(source_, heap);
      const InContext in_context(*host_.driver(), heap.context().handle());
      freed = source_.Free(heap, batch, Api(calls_, heap));
    } else {
      heap.global().Put(batch);
    }
  }
  leaving_.fetch_sub(bytes, std::memory_order_acq_rel);
  return freed;
}

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
  Allocation made = Make(*heap, {bytes, rounded, tier, BlockState::kLive});
  // The caller's real call may find more to release, and says what the program is to see.
  if (made.status == kOutOfMemory) return Allocation{};
  if (!made.pooled()) return made;
  LearnWhatCounts(rounded);
  made.served = Served::kRefill;
  cache->Count(tier, &TierCounters::refills, bytes, made.bytes);
  statistics_.shared_slot()[tier].blocks_made.AddShared(1);
  return made;
}

Allocation PageLockedPool::Make(PageLockedHeap& heap, const Request& request) {
  const Uncancelled uncancelled;
  const Api api(calls_, heap);
  Allocation made = source_.Make(heap, request, false, api);
  if (made.status == kOutOfMemory && ReleaseAll() != 0) {
    made = source_.Make(heap, request, false, api);
  }
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
  Batch batch = heap.global().TakeBatch(tier);
  if (batch.count == 0) return Allocation{};
  Block* block = batch.Pop();
  if (batch.count != 0) {
    // The rest only where the cache may hold it; else it stays where it is counted.
    const bool stocked = has_shelf && cache.ready_bytes() + BytesIn(batch) <= cache.most_bytes() &&
                         cache.Stock(tier, batch);
    if (!stocked) heap.global().Put(batch);
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

void PageLockedPool::PromotePassed(PageLockedHeap& heap) {
  GlobalPool& global = heap.global();
  if (global.retired_bytes() == 0) return;
  const unsigned small_tiers = tiers_.TierOf(kLargeGranule);
  for (unsigned tier = 0; tier <= small_tiers; ++tier) {
    const Stamp oldest = global.OldestStamp(tier);
    if (oldest == kReady) continue;
    if (!readiness_.AllPassed(heap, oldest) && !readiness_.AskAll(heap, oldest)) continue;
    global.Promote(tier, [&](Stamp stamp) { return readiness_.AllPassed(heap, stamp); });
  }
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
  const Api api(calls_, heap);
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

// ---- How idle memory goes back

size_t PageLockedPool::ReleaseAll() {
  size_t bytes = 0;
  ForEachHeap([&](PageLockedHeap& heap) {
    heap.EmptyCaches();
    PromotePassed(heap);
    Batch oldest;
    {
      Held held(lock_);
      oldest = heap.global().TakeOldest(~size_t{0});
      leaving_.fetch_add(BytesIn(oldest), std::memory_order_acq_rel);
    }
    if (oldest.count != 0) bytes += Destroy(heap, oldest);
  });
  return bytes;
}

bool PageLockedPool::HasIdle() {
  bool idle = false;
  ForEachHeap([&](PageLockedHeap& heap) { idle |= heap.open() && heap.HasIdle(); });
  return idle;
}

// The real free waits for the device, and other threads' launches for that: so it is made only
// while nothing is unfinished that was submitted to any context, one block at a time.
bool PageLockedPool::Age(const std::atomic<bool>& stop) {
  const uint64_t now = NowNs();
  uint64_t ticks = marked_ns_ == 0 ? 1 : (now - marked_ns_) / kTickNs;
  if (ticks == 0) return HasIdle();
  if (ticks > GlobalPool::kMarks) ticks = GlobalPool::kMarks;
  marked_ns_ = now;
  ForEachHeap([&](PageLockedHeap& heap) {
    if (!heap.open()) return;
    heap.EmptyCaches();
    PromotePassed(heap);
    uint64_t before = 0;
    for (uint64_t i = 0; i < ticks; ++i) before = heap.global().Mark();
    const auto quiet = [&] {
      return readiness_.StampOfAll(heap) == kReady || !RuleIsOn(Rule::kPageLockedQuietly);
    };
    while (!stop.load(std::memory_order_seq_cst) && quiet()) {
      Batch aged;
      {
        Held held(lock_);
        aged = heap.global().TakeOldest(1, before, 1);
        leaving_.fetch_add(BytesIn(aged), std::memory_order_acq_rel);
      }
      if (aged.count == 0 || Destroy(heap, aged) == 0) return;
    }
  });
  return HasIdle();
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
