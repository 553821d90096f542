#include "core/context_pool.h"

namespace cmp {

ThreadCache* ContextPool::AdoptCache() {
  Held held(caches_lock_);
  for (ThreadCache* cache = caches_.load(std::memory_order_relaxed); cache != nullptr;
       cache = cache->next_of_context) {
    if (cache->has_thread) continue;
    cache->has_thread = true;
    return cache;
  }
  return nullptr;
}

void ContextPool::AddCache(ThreadCache* cache) {
  Held held(caches_lock_);
  cache->next_of_context = caches_.load(std::memory_order_relaxed);
  caches_.store(cache, std::memory_order_release);  // ready() walks without the lock
}

void ContextPool::PutAll(ThreadCache* cache, unsigned tier, size_t* bytes) {
  const auto put = [&](unsigned, Batch batch) {
    *bytes += batch.count * batch.head->bytes;
    global_.Put(batch);
  };
  if (tier == kAllTiers) {
    cache->Empty(put);
  } else {
    cache->EmptyShelf(tier, put);
  }
}

void ContextPool::AbandonCache(ThreadCache* cache) {
  size_t bytes = 0;
  PutAll(cache, kAllTiers, &bytes);
  Held held(caches_lock_);
  cache->has_thread = false;
}

size_t ContextPool::EmptyShelves(unsigned tier) {
  size_t bytes = 0;
  for (ThreadCache* cache = caches_.load(std::memory_order_acquire); cache != nullptr;
       cache = cache->next_of_context) {
    PutAll(cache, tier, &bytes);
  }
  return bytes;
}

size_t ContextPool::ready() const {
  size_t bytes = global_.ready_bytes();
  for (const ThreadCache* cache = caches_.load(std::memory_order_acquire); cache != nullptr;
       cache = cache->next_of_context) {
    bytes += cache->ready_bytes();
  }
  return bytes;
}

size_t ContextPool::retired() const {
  size_t bytes = global_.retired_bytes();
  for (const ThreadCache* cache = caches_.load(std::memory_order_acquire); cache != nullptr;
       cache = cache->next_of_context) {
    bytes += cache->retired_bytes();
  }
  return bytes;
}

size_t ContextPool::live() const {
  const size_t idle = ready() + retired();
  const size_t held = reserved();
  return held > idle ? held - idle : 0;
}

size_t ContextPool::SampleLivePeak() {
  const size_t now = live();
  size_t peak = live_peak_.load(std::memory_order_relaxed);
  while (now > peak) {
    if (!live_peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) continue;
    const size_t bound =
        static_cast<size_t>(static_cast<double>(now) * reserve_.ratio) + reserve_.bytes;
    size_t seen = bound_.load(std::memory_order_relaxed);
    while (seen < bound && !bound_.compare_exchange_weak(seen, bound, std::memory_order_relaxed)) {
    }
    return now - peak;
  }
  return 0;
}

}  // namespace cmp
