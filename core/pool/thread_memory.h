// The first load of a hit: which caches a thread remembers.
#ifndef CMP_CORE_POOL_THREAD_MEMORY_H_
#define CMP_CORE_POOL_THREAD_MEMORY_H_

#include "core/contexts/context_pool.h"
#include "core/lists/thread_cache.h"

namespace cmp {

// What a thread remembers: the caches of the contexts that it used last. Initial-exec: one
// instruction to reach, and a preloaded library's thread-local storage is static.
struct ThreadMemory {
  static constexpr size_t kEntries = 16;
  // An epoch of now: `cache` is there.
  struct alignas(32) Entry {
    ContextHandle handle = nullptr;
    uint64_t epoch = 0;
    ThreadCache* cache = nullptr;
    const ContextPool* owner = nullptr;  // the cache's

    // acquire pairs with the release that made the entry stale: what was done before is seen.
    bool IsOfNow() const { return g_hit_epoch.load(std::memory_order_acquire) == epoch; }
  };
  Entry last;  // the first look: of the context that the thread used last
  Entry entries[kEntries];
  ThreadCache* caches = nullptr;  // all that this thread owns, through next_of_thread
  bool exit_hook = false;

  // The entry of a context, or the one that it would get: one of two places.
  Entry& EntryOf(ContextHandle handle) {
    const auto bits = reinterpret_cast<uintptr_t>(handle);
    const size_t first = ((bits >> 4) ^ (bits >> 12)) % kEntries;
    if (entries[first].handle == handle) [[likely]]
      return entries[first];
    const bool taken = entries[first].handle != nullptr;
    return entries[taken ? (first ^ (bits >> 8)) % kEntries ^ 1 : first];
  }
  // The same if it is of now, else nullptr.
  const Entry* Find(ContextHandle handle) {
    if (last.handle == handle && last.IsOfNow()) [[likely]]
      return &last;
    return FindAmongAll(handle);
  }
  ThreadCache* FindCache(ContextHandle handle) {
    const Entry* entry = Find(handle);
    return entry == nullptr ? nullptr : entry->cache;
  }
  // The cache of page-locked memory, by context and flags (page_locked_pool.h). There is no first
  // look: a preloaded library's static thread-local storage has no room left.
  ThreadCache* FindPageLocked(ContextHandle key) {
    const Entry& entry = EntryOf(key);
    return entry.handle == key && entry.IsOfNow() ? entry.cache : nullptr;
  }

 private:
  [[gnu::noinline]] const Entry* FindAmongAll(ContextHandle handle);
};
extern thread_local constinit ThreadMemory t_memory;

// What the caches of one kind of memory have in common.
struct CachesOf {
  const CacheLimits& limits;
  SpareCaches& spare;
  Statistics& statistics;
  Arena& arena;
};
// A cache whose context has ended is nobody's any more.
void MakeSpareCache(ThreadCache* cache);
// This thread's cache for a pool, which it holds from then on, remembered under its handle
// while that pool and `context` are open; nullptr when memory is exhausted, or where we
// would not learn of the thread's end. REQUIRES: the caller holds the pool, or has a block of it in
// hand
ThreadCache* FindOrMakeCache(ContextPool& pool, const ContextPool& context, const CachesOf& caches);

}  // namespace cmp

#endif  // CMP_CORE_POOL_THREAD_MEMORY_H_
