#include "core/contexts/context_pool.h"

namespace cmp {

namespace {
size_t MaxBlockOf(const ContextIdentity& identity, const Options& options) {
  if (options.max_block != kOfTheDevice) return options.max_block;
  return identity.device_bytes / 8 > kGiB ? identity.device_bytes / 8 : kGiB;
}
}  // namespace

bool ContextPool::Open(const ContextIdentity& identity, const Options& options, Arena& arena,
                       GlobalPool::SpareLists& spare) {
  max_block_ = MaxBlockOf(identity, options);
  if (!global_.Open(max_block_, arena, spare)) return false;
  release_stream_.Open();
  __atomic_store_n(&identity_.handle, identity.handle, __ATOMIC_RELAXED);
  __atomic_store_n(&identity_.device, identity.device, __ATOMIC_RELAXED);
  identity_.id = identity.id;
  identity_.primary = identity.primary;
  identity_.reaches_host_memory = identity.reaches_host_memory;
  identity_.device_bytes = identity.device_bytes;
  arena_ = &arena;
  records_.Open();
  accounts_.Open();
  fences_.Open();
  {
    Held held(caches_lock_);
    ended_ = false;
  }
  cached_retired_.store(0, std::memory_order_relaxed);
  allowed_.store(0, std::memory_order_relaxed);
  device_bytes.store(identity.device_bytes, std::memory_order_relaxed);
  unasked_bytes.store(0, std::memory_order_relaxed);
  waited_in_vain_at.store(kNever, std::memory_order_relaxed);
  asked_in_vain_at.store(kNever, std::memory_order_relaxed);
  scarce.store(false, std::memory_order_relaxed);
  next_tick_ns.store(0, std::memory_order_relaxed);
  aged_before.store(0, std::memory_order_relaxed);
  trim_due.store(false, std::memory_order_relaxed);
  made_before_tick.store(0, std::memory_order_relaxed);
  warm_ups_put_off.store(0, std::memory_order_relaxed);
  phase_.store(0, std::memory_order_seq_cst);
  return true;
}

ThreadCache* ContextPool::AdoptCache() {
  Held held(caches_lock_);
  ThreadCache* cache = threadless_;
  if (cache != nullptr) threadless_ = cache->next_of_context;
  return cache;
}

bool ContextPool::ListCache(ThreadCache& cache, ThreadCache::Shelves shelves) {
  Held held(caches_lock_);
  if (ended_) return false;
  if (!cache.BeginListed(shelves)) return true;
  cache.previous_of_context = nullptr;
  cache.next_of_context = listed_;
  if (listed_ != nullptr) listed_->previous_of_context = &cache;
  listed_ = &cache;
  return true;
}

bool ContextPool::Allow(ThreadCache& cache, size_t bytes, size_t large_bytes) {
  Held held(caches_lock_);
  if (ended_ || !cache.listed()) return false;
  const size_t before = cache.allowed;
  cache.Allow(bytes, large_bytes);
  cache.allowed = bytes + large_bytes;
  allowed_.fetch_add(cache.allowed - before, std::memory_order_acq_rel);
  return true;
}

size_t ContextPool::EmptyListed(ThreadCache& cache, bool short_of_memory) {
  size_t bytes = 0;
  const auto put = [&](Batch batch) {
    bytes += batch.count * batch.head->bytes;
    global_.Put(batch);
  };
  Settle(cache.Empty(put, short_of_memory));
  // After its blocks have come to the lists: what is idle never seems less than it is.
  if (cache.allowed != 0) {
    allowed_.fetch_sub(std::exchange(cache.allowed, 0), std::memory_order_acq_rel);
  }
  ThreadCache* const next = cache.next_of_context;
  ThreadCache* const previous = cache.previous_of_context;
  (previous == nullptr ? listed_ : previous->next_of_context) = next;
  if (next != nullptr) next->previous_of_context = previous;
  return bytes;
}

// For every cache for which is(cache), and which is the calling thread's or can be taken;
// visit(cache) may unlist it, and gives back what was taken.
template <typename Condition, typename Visitor>
void ContextPool::ForEachListed(Condition is, Visitor visit) {
  bool others = false;
  for (ThreadCache* cache = listed_; cache != nullptr; cache = cache->next_of_context) {
    if (cache->IsOfThisThread() || !is(*cache)) continue;
    cache->BeginTaking();
    others = true;
  }
  const bool barrier = others && BarrierOnEveryThread();  // one for all of them
  for (ThreadCache *cache = listed_, *next = nullptr; cache != nullptr; cache = next) {
    next = cache->next_of_context;
    if (is(*cache) && (cache->IsOfThisThread() || cache->EndTaking(barrier))) visit(*cache);
  }
}

size_t ContextPool::EmptyAllListed(bool short_of_memory) {
  size_t bytes = 0;
  ForEachListed([](const ThreadCache&) { return true; },
                [&](ThreadCache& cache) { bytes += EmptyListed(cache, short_of_memory); });
  return bytes;
}

size_t ContextPool::EmptyCaches(bool short_of_memory) {
  Held held(caches_lock_);
  return EmptyAllListed(short_of_memory);
}

void ContextPool::EmptyRequested(ThreadCache& cache) {
  Held held(caches_lock_);
  if (!ended_ && cache.listed()) EmptyListed(cache, false);
}

size_t ContextPool::GatherAll() {
  Held held(caches_lock_);
  EmptyAllListed(false);
  return global_.large_bytes();  // under the lock: no shelf is opened before
}

size_t ContextPool::GatherLarge() {
  Held held(caches_lock_);
  ForEachListed([](const ThreadCache& cache) { return cache.takes_large(); },
                [&](ThreadCache& cache) {
                  Settle(cache.EmptyLarge([&](Batch batch) { global_.Put(batch); }));
                });
  return global_.large_bytes();  // as above
}

Block* ContextPool::TakeFromShelves(size_t bytes, size_t most) {
  Held held(caches_lock_);
  int left = kMostAsked;
  for (ThreadCache* cache = listed_; cache != nullptr && left-- != 0;
       cache = cache->next_of_context) {
    const size_t fit = cache->takes_large() ? cache->BestFitOfLarge(bytes, most) : 0;
    if (fit == 0) continue;
    if (!cache->IsOfThisThread()) {
      cache->BeginTaking();
      if (!cache->EndTaking(BarrierOnEveryThread())) continue;
    }
    ThreadCache::Changes changes;
    Block* block = cache->TakeLarge(fit, &changes);
    Settle(changes);
    if (block != nullptr) return block;
  }
  return nullptr;
}

bool ContextPool::AbandonCache(ThreadCache* cache) {
  Held held(caches_lock_);
  if (ended_) return false;
  if (cache->listed()) EmptyListed(*cache, false);
  cache->next_of_context = threadless_;
  threadless_ = cache;
  return true;
}

bool ContextPool::HasIdle() {
  Held held(caches_lock_);
  return listed_ != nullptr || global_.HasIdle() || accounts_.HasIdle();
}

ContextPool::Idle ContextPool::CountIdle() {
  Held held(caches_lock_);
  Idle idle{};
  idle.retired = global_.retired_bytes();  // first: what becomes ready meanwhile is counted twice
  idle.ready = global_.ready_bytes();
  ForEachListed([](const ThreadCache&) { return true; },
                [&](ThreadCache& cache) {
                  idle.ready += cache.ready_bytes() + cache.large_bytes();
                  idle.retired += cache.retired_bytes();
                  if (!cache.IsOfThisThread()) cache.GiveBack();
                });
  return idle;
}

}  // namespace cmp
