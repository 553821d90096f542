// What belongs to one context: its fences, its global pool, its thread caches, its accounts.
//
// Invariants: blocks of a context never leave it; its accounts count every real allocation that the
// pool holds for it, live or idle. Driver calls of the pool's own about the context (fences, real
// frees of idle blocks) are made by users of it, and a context ends only once it has none. A
// ContextPool is never destroyed: once closed (the context was reset, destroyed or has failed) it
// serves nothing any more and stale references to it are harmless.
#ifndef CMP_CORE_CONTEXT_POOL_H_
#define CMP_CORE_CONTEXT_POOL_H_

#include "core/accounts.h"
#include "core/fences.h"
#include "core/global_pool.h"
#include "core/options.h"
#include "core/release_stream.h"
#include "core/thread_cache.h"
#include "core/types.h"

namespace cmp {

// Grows whenever a thread's remembered caches may be stale: a context was closed or is about to
// end, or the process forked. Read on every hit, written almost never.
inline constinit std::atomic<uint64_t> g_cache_epoch{1};

// Which context: the handle may be reused by CUDA for a later context, the id never is.
struct ContextIdentity {
  ContextHandle handle = nullptr;
  uint64_t id = 0;
  int device = 0;
  bool primary = false;  // the device's primary context
  // The device's kernels may use all memory of the host (CUDA programming guide, "Unified memory").
  bool reaches_host_memory = false;
  size_t device_bytes = 0;  // of the device's memory; 0: not known
};

class ContextPool {
 public:
  ContextPool(const ContextIdentity& identity, const Tiers& tiers, const Options& options,
              BlockSlabs& slabs, IdleChunks& chunks)
      : identity_(identity),
        max_block_(MaxBlock(options.max_block, identity.device_bytes)),
        records_(slabs),
        accounts_(options.reserve),
        global_(tiers, max_block_, chunks) {}

  // False when memory is exhausted. Call once, before anything else.
  bool Open(Arena& arena, GlobalPool::SpareLists& spare) {
    arena_ = &arena;
    return global_.Open(arena, spare);
  }

  const ContextIdentity& identity() const { return identity_; }
  // A larger request is oversized.
  size_t max_block() const { return max_block_; }
  GlobalPool& global() { return global_; }
  BlockRecords& records() { return records_; }
  Fences& fences() { return fences_; }
  const Fences& fences() const { return fences_; }
  Accounts& accounts() { return accounts_; }
  const Accounts& accounts() const { return accounts_; }
  Arena& arena() { return *arena_; }
  ReleaseStream& release_stream() { return release_stream_; }
  // What the host knows of the context; see host.h. Set before anybody else sees the context.
  void* of_host = nullptr;

  // ---- Its life: open, then closed (it has failed), then ended. During a call that ends it if it
  // succeeds it is not open either; during one that may give up its last reference it is.

  bool open() const { return IsOpen(phase_.load(std::memory_order_acquire)); }
  // What the pool knows of its memory is wrong, or may be soon: the driver may have given the
  // addresses to another context. Who finds a block of it that is not in use knows nothing of the
  // address. Waits where that is about to be decided.
  bool MayHaveEnded() const {
    uint32_t phase = phase_.load(std::memory_order_acquire);
    Pause pause;
    for (int i = 0; i < kMostPauses && MayBeEnding(phase); ++i) {
      pause.Wait();
      phase = phase_.load(std::memory_order_acquire);
    }
    return (phase & ~kIsClosed) != 0;
  }
  // The pool is off for it, for good. True for the caller that closed it.
  bool Close() { return Leave(phase_.fetch_or(kIsClosed, std::memory_order_seq_cst)); }
  // Around a real call that ends it if it succeeds; waits until no user is left. Then it has ended,
  // or it is what it was before.
  void BeginEnding() {
    Leave(phase_.fetch_add(kEnding, std::memory_order_seq_cst));
    Drain();
  }
  void CancelEnding() { phase_.fetch_sub(kEnding, std::memory_order_release); }
  // Around one that ends it if it gives up the last reference. It stays open, but nothing of it is
  // really freed meanwhile; waits until nothing is, but not long: the free may be waiting for what
  // the caller does next.
  void BeginReferenceEnding() {
    phase_.fetch_add(kReferenceEnding, std::memory_order_seq_cst);
    Pause pause;
    for (int i = 0; i < kMostPauses && releasing_.load(std::memory_order_seq_cst) != 0; ++i) {
      pause.Wait();
    }
  }
  void CancelReferenceEnding() { phase_.fetch_sub(kReferenceEnding, std::memory_order_release); }
  // It has ended, and no user is left. True for one caller, if it was not closed.
  bool End() {
    const bool left = Leave(phase_.fetch_or(kHasEnded, std::memory_order_seq_cst));
    Drain();
    return left;
  }

  // While a User of a context that has not ended lives, it does not end. seq_cst on both sides: of
  // a user who enters and somebody who ends it, at least one sees the other. A user's calls that
  // may wait are made Uncancelled: who is cancelled while it is a user stays one for ever.
  class [[nodiscard]] User {
   public:
    explicit User(ContextPool& context) : context_(context) {
      context_.users_.fetch_add(1, std::memory_order_seq_cst);
      phase_ = context_.phase_.load(std::memory_order_seq_cst);
    }
    ~User() { context_.users_.fetch_sub(1, std::memory_order_release); }
    User(const User&) = delete;
    User& operator=(const User&) = delete;
    // False: it is not open; make no call about it.
    bool entered() const { return IsOpen(phase_); }
    // True: whatever the pool knew of it is gone; add nothing.
    bool ended() const { return (phase_ & kHasEnded) != 0; }

   private:
    ContextPool& context_;
    uint32_t phase_;
  };
  // Around one real free of its memory, by a user of it: waits, not long, while its last reference
  // may be given up. seq_cst as above.
  class [[nodiscard]] Releasing {
   public:
    explicit Releasing(ContextPool& context) : context_(context) {
      Pause pause;
      for (int i = 0; i < kMostPauses; ++i) {
        context_.releasing_.fetch_add(1, std::memory_order_seq_cst);
        const uint32_t phase = context_.phase_.load(std::memory_order_seq_cst);
        allowed_ = IsOpen(phase) && !MayBeEnding(phase);
        if (allowed_) return;
        context_.releasing_.fetch_sub(1, std::memory_order_release);
        if (!MayBeEnding(phase)) return;
        pause.Wait();
      }
    }
    ~Releasing() {
      if (allowed_) context_.releasing_.fetch_sub(1, std::memory_order_release);
    }
    Releasing(const Releasing&) = delete;
    Releasing& operator=(const Releasing&) = delete;
    bool allowed() const { return allowed_; }  // false: make no real free

   private:
    ContextPool& context_;
    bool allowed_ = false;
  };

  // A cache without a thread, for the calling thread; nullptr if there is none.
  ThreadCache* AdoptCache();
  // The thread of `cache` is gone: its blocks go to the global pool, the next thread may have it.
  // False: the context has ended, and does not want it.
  [[nodiscard]] bool AbandonCache(ThreadCache* cache);
  // `cache` will hold blocks: from now on it may. A cache is listed while it has any, or had since
  // EmptyCaches was called last. False: it may not, the context has ended.
  [[nodiscard]] bool ListCache(ThreadCache& cache);
  // Moves the blocks of every thread's cache to the global pool; returns their bytes. Costs nothing
  // for caches that were empty the last time and have been left alone since. `short_of_memory`:
  // what the threads make ahead begins small again.
  size_t EmptyCaches(bool short_of_memory = false);
  // Tells the accounts what the calling thread's cache handed out and got back by itself.
  void Settle(ThreadCache& cache) {
    const ThreadCache::Changes changes = cache.Settle();
    if (changes.handed_out != 0 || changes.rounding != 0) {
      accounts_.Settle(changes.handed_out, changes.rounding);
    }
    if (changes.retired != 0) {
      cached_retired_.fetch_add(changes.retired, std::memory_order_relaxed);
    }
  }

  // The context has ended: from now on neither caches nor the global pool take blocks. Calls
  // gone(block) for every idle one, which is on no list any more.
  template <typename Gone>
  void EndLists(Gone gone) {
    {
      Held held(caches_lock_);
      ended_ = true;
      while (listed_ != nullptr) EmptyListed(*listed_, false);
    }
    for (Batch batch = global_.End(); batch.count != 0;) gone(batch.Pop());
  }

  // The same was called: what caches there are is nobody's but their threads'.
  bool ListsHaveEnded() {
    if ((phase_.load(std::memory_order_acquire) & kHasEnded) == 0) return false;
    Held held(caches_lock_);
    return ended_;
  }

  // Idle bytes: exact, looks at every listed cache. While others move blocks these are not one
  // snapshot.
  struct Idle {
    size_t ready;
    size_t retired;
  };
  Idle CountIdle();
  // The ready ones among them, by the accounts.
  size_t ready() const {
    const size_t idle = accounts_.idle();
    const int64_t cached = cached_retired_.load(std::memory_order_relaxed);
    const size_t retired = global_.retired_bytes() + (cached > 0 ? static_cast<size_t>(cached) : 0);
    return idle > retired ? idle - retired : 0;
  }

  // Set by who leaves the context over its bound; the next free pays.
  std::atomic<bool> over_bound{false};

  // The device's memory in all, when it was asked last; 0 before.
  std::atomic<size_t> device_bytes{0};
  // What refills may still take before the device's free memory must be asked for again, and
  // whether less than a tenth of the device was free then.
  std::atomic<int64_t> unasked_bytes{0};
  std::atomic<bool> scarce{false};

 private:
  static size_t MaxBlock(size_t option, size_t device_bytes) {
    if (option != kOfTheDevice) return option;
    return device_bytes / 8 > kGiB ? device_bytes / 8 : kGiB;
  }
  size_t EmptyListed(ThreadCache& cache, bool short_of_memory);  // REQUIRES: caches_lock_ held
  // After a change of `before` to something else: every thread forgets the caches that it
  // remembers. True if it was open, or ends by the change without having been closed.
  static bool Leave(uint32_t before) {
    if (IsOpen(before)) g_cache_epoch.fetch_add(1, std::memory_order_acq_rel);
    return (before & (kIsClosed | kHasEnded)) == 0;
  }
  void Drain() const {
    for (Pause pause; users_.load(std::memory_order_seq_cst) != 0;) pause.Wait();
  }

  const ContextIdentity identity_;
  const size_t max_block_;
  Arena* arena_ = nullptr;
  BlockRecords records_;
  Accounts accounts_;
  Fences fences_;
  GlobalPool global_;
  ReleaseStream release_stream_;
  static constexpr uint32_t kIsClosed = 1;
  static constexpr uint32_t kHasEnded = 2;
  static constexpr uint32_t kEnding = 4;  // and its multiples: so many calls are ending it
  static constexpr uint32_t kReferenceEnding = 1 << 16;  // the same
  static constexpr int kMostPauses = 100;                // less than a tenth of a second
  static constexpr bool IsOpen(uint32_t phase) { return phase % kReferenceEnding == 0; }
  static constexpr bool MayBeEnding(uint32_t phase) {
    return phase >= kReferenceEnding && (phase & kHasEnded) == 0;
  }
  std::atomic<uint32_t> phase_{0};
  std::atomic<int> releasing_{0};
  std::atomic<int> users_{0};
  Mutex caches_lock_;
  bool ended_ = false;                 // under caches_lock_
  ThreadCache* listed_ = nullptr;      // through next_of_context and previous_of_context
  ThreadCache* threadless_ = nullptr;  // through next_of_context
  std::atomic<int64_t> cached_retired_{0};
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXT_POOL_H_
