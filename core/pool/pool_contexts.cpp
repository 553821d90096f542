// The pool's contexts, and what threads remember of them.
#include "core/base/thread_exit.h"
#include "core/base/warnings.h"
#include "core/pool/pool.h"

namespace cmp {

thread_local constinit ThreadMemory t_memory;

const ThreadMemory::Entry* ThreadMemory::FindAmongAll(ContextHandle handle) {
  const Entry& entry = EntryOf(handle);
  if (entry.handle != handle || !entry.IsOfNow()) return nullptr;
  last = entry;
  return &entry;
}

namespace {
constinit ThreadExitHook g_exit_hook(&Pool::ThreadExit);
}  // namespace

HeldContext Pool::FindContext(ContextHandle handle, uint64_t id) {
  HeldContext found;
  contexts_.ForEachIf([&](const ContextPool& context) { return context.handle() == handle; },
                      [&](ContextPool& context) {
                        if (context.identity().id != id) {
                          DropContext(context);
                        } else if (context.open()) {
                          found = HeldContext(context);
                        }
                      });
  return found;
}

HeldContext Pool::CurrentContextPool(const Driver& driver) {
  const ContextHandle handle = CurrentContext(driver);
  if (handle == nullptr) return {};
  // The thread's cache holds it.
  if (ThreadCache* cache = t_memory.FindCache(handle)) return HeldContext::Of(*cache->owner());
  const uint64_t id = ContextId(driver, handle);
  if (id == 0) return {};
  if (HeldContext context = FindContext(handle, id)) return context;
  ContextIdentity identity;
  return IdentifyCurrent(driver, &identity) ? OpenContext(identity) : HeldContext();
}

HeldContext Pool::OpenContext(const ContextIdentity& identity) {
  Held held(contexts_.lock());
  bool known = false;
  HeldContext open;
  contexts_.ForEach([&](ContextPool& context) {
    if (context.identity().handle != identity.handle || context.identity().id != identity.id) {
      return;
    }
    known = true;  // another thread was faster; or the context has failed, and stays closed
    if (context.open()) open = HeldContext(context);
  });
  if (known) return open;
  if (!contexts_.HasRoom()) {
    static constinit std::atomic<bool> g_said{false};
    if (!g_said.exchange(true, std::memory_order_relaxed)) {
      PrintWarning("more than 256 contexts at once: those beyond get real calls alone");
    }
    return {};
  }
  ContextPool* context = contexts_.TakeSpare();
  if (context == nullptr) {
    context = arena_.New<ContextPool>(tiers_, options_, source_.slabs(), chunks_);
    if (context == nullptr) return {};
  }
  open = HeldContext::Adopt(*context);
  if (!context->Open(identity, options_, arena_, spare_lists_)) {
    contexts_.PutSpare(context);
    return {};
  }
  host_.context_opened(*context);
  contexts_.Add(context);
  statistics_.process().contexts.AddShared(1);
  return open;
}

void Pool::DropIfGone(const Driver& driver, ContextHandle current) {
  const ThreadCache* cache = t_memory.FindCache(current);
  if (cache == nullptr) return;  // Alloc will look
  ContextPool& context = *cache->owner();
  if (context.identity().id != ContextId(driver, current)) DropContext(context);
}

Pool::Presence Pool::PresenceOf(const ContextPool& context) const {
  const Driver* driver = host_.sees_contexts_end ? nullptr : host_.driver();
  if (driver == nullptr) return Presence::kThere;
  const ContextIdentity& identity = context.identity();
  if (identity.handle != CurrentContext(*driver)) {
    // A handle of a context that was destroyed may not be asked for its id; a primary one's stays.
    unsigned flags = 0;
    int active = 0;
    if (!identity.primary ||
        driver->primary_state(identity.device, &flags, &active) != CUDA_SUCCESS) {
      return Presence::kUnknown;
    }
    if (active == 0) return Presence::kGone;
  }
  return ContextId(*driver, identity.handle) == identity.id ? Presence::kThere : Presence::kGone;
}

void Pool::DropContext(ContextPool& context) {
  if (context.End()) statistics_.process().contexts_dropped.AddShared(1);
  if (page_locked_ != nullptr) page_locked_->DropContext(context);
  // Who has a block of it in hand has it, too: nobody would tell when no longer.
  const bool in_hand = !source_.ForgetAll(context);
  if (in_hand) context.Hold();
  while (ThreadCache* cache = context.AdoptCache()) MakeSpareCache(cache);
  Held held(contexts_.lock());
  if (!contexts_.Remove(&context)) return;  // another thread's affair
  host_.context_ended(context);
  peaks_.fetch_sub(static_cast<int64_t>(context.accounts().peak()), std::memory_order_relaxed);
  source_.NoteGivenBack(context, context.accounts().reserve().extra());
  context.global().GiveListsBack(spare_lists_);
  if (!in_hand) contexts_.PutSpare(&context);
}

void MakeSpareCache(ThreadCache* cache) {
  ContextPool* const owner = cache->owner();
  ThreadCache::MakeSpare(cache);
  owner->LetGo();
}

ThreadCache* FindOrMakeCache(ContextPool& pool, const ContextPool& context,
                             const CachesOf& caches) {
  const ContextHandle handle = pool.identity().handle;
  ThreadMemory& memory = t_memory;
  ThreadMemory::Entry& entry = memory.EntryOf(handle);
  const uint64_t epoch = g_hit_epoch.load(std::memory_order_seq_cst);  // first; see hits.h
  if (entry.handle == handle && entry.epoch == epoch && entry.cache->owner() == &pool) {
    return entry.cache;
  }
  ThreadCache* cache = nullptr;
  for (ThreadCache** link = &memory.caches; (cache = *link) != nullptr;) {
    if (cache->owner() == &pool) break;
    if (cache->owner()->ListsHaveEnded()) {
      *link = cache->next_of_thread;
      MakeSpareCache(cache);
    } else {
      link = &cache->next_of_thread;
    }
  }
  if (cache == nullptr) {
    // Nobody would give back what a cache of a thread holds of whose end we do not learn.
    if (!memory.exit_hook && !(memory.exit_hook = g_exit_hook.Arm())) return nullptr;
    cache = pool.AdoptCache();
    const bool holds = cache != nullptr;
    if (cache == nullptr && (cache = caches.spare.Take()) != nullptr) {
      cache = ThreadCache::Renew(cache, &pool);
    }
    if (cache == nullptr) {
      TierCounters* counters = caches.statistics.TakeSlot();
      if (counters == nullptr) return nullptr;
      auto* shelves = static_cast<ThreadCache::Shelf*>(
          caches.arena.Allocate(caches.limits.tiers * sizeof(ThreadCache::Shelf)));
      if (shelves == nullptr) return nullptr;
      cache = caches.arena.New<ThreadCache>(&pool, &caches.limits, counters, shelves);
      if (cache == nullptr) return nullptr;
      caches.statistics.process().thread_caches.AddShared(1);
    }
    if (!holds) pool.Hold();
    cache->next_of_thread = memory.caches;
    memory.caches = cache;
  }
  const bool open = pool.open() && context.open();
  if (open && g_hits_barred.load(std::memory_order_seq_cst) == 0) {
    entry = ThreadMemory::Entry{handle, epoch, cache, &pool};
    if (&pool == &context) memory.last = entry;
  }
  return cache;
}

ThreadCache* Pool::CacheFor(ContextPool& context) {
  return FindOrMakeCache(context, context, {limits_, spare_caches_, statistics_, arena_});
}

void Pool::ThreadExit() {
  ThreadMemory& memory = t_memory;
  ThreadCache* cache = memory.caches;
  memory = ThreadMemory{};
  while (cache != nullptr) {
    ThreadCache* next = cache->next_of_thread;
    if (!cache->owner()->AbandonCache(cache)) MakeSpareCache(cache);
    cache = next;
  }
}

void Pool::ForgetThread() {
  t_memory = ThreadMemory{};
  ForgetWhatThreadsRemember();
}

}  // namespace cmp
