// The pool of page-locked memory, made; its heaps, made and dropped with their contexts.
#include "core/driver/memory_limit.h"
#include "core/pool/page_locked_pool.h"

namespace cmp {

namespace {
// Of what may be idle, one thread's cache may have this part on the shelves of its tiers.
constexpr size_t kShareOfCache = 64;
constexpr size_t kBatchBytes = 256 * kKiB;
constexpr uint32_t kMostBatchBlocks = 32;

Options HeapOptions(const Options& options, size_t bound) {
  Options of_heaps = options;
  of_heaps.max_block = bound < kMinBlock ? kMinBlock : bound;
  return of_heaps;
}

unsigned TierCount(const Tiers& tiers) { return tiers.TierOf(kMostTierBytes) + 1; }
}  // namespace

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

}  // namespace cmp
