// What belongs to one context: its fences, its global pool, its thread caches, its accounts.
//
// Invariants: blocks of a context never leave it; reserved() counts every real allocation that the
// pool holds for it, live or idle. Driver calls of the pool's own about the context (fences, real
// frees of idle blocks) are made by users of it, and a context ends only once it has none. A
// ContextPool is never destroyed: once closed (the context was reset, destroyed or has failed) it
// serves nothing any more and stale references to it are harmless.
#ifndef CMP_CORE_CONTEXT_POOL_H_
#define CMP_CORE_CONTEXT_POOL_H_

#include "core/fences.h"
#include "core/global_pool.h"
#include "core/options.h"
#include "core/thread_cache.h"
#include "core/types.h"

namespace cmp {

// Grows whenever a thread's remembered caches may be stale: a context was closed, or the process
// forked. Read on every hit, written almost never.
inline constinit std::atomic<uint64_t> g_cache_epoch{1};

// Which context: the handle may be reused by CUDA for a later context, the id never is.
struct ContextIdentity {
  ContextHandle handle = nullptr;
  uint64_t id = 0;
  int device = 0;
  bool primary = false;  // the device's primary context
  // The device's kernels may use all memory of the host (CUDA programming guide, "Unified memory").
  bool reaches_host_memory = false;
};

class ContextPool {
 public:
  ContextPool(const ContextIdentity& identity, const Tiers& tiers, const Options& options)
      : identity_(identity),
        global_(tiers, options.max_block),
        reserve_(options.reserve),
        bound_(options.reserve.bytes) {}

  // False when memory is exhausted. Call once, before anything else.
  bool Open(Arena& arena) {
    arena_ = &arena;
    return global_.Open(arena);
  }

  const ContextIdentity& identity() const { return identity_; }
  GlobalPool& global() { return global_; }
  Fences& fences() { return fences_; }
  const Fences& fences() const { return fences_; }
  Arena& arena() { return *arena_; }
  // What the host knows of the context; see host.h. Set before anybody else sees the context.
  void* of_host = nullptr;

  // False once the pool is off for this context.
  bool open() const { return open_.load(std::memory_order_acquire); }
  // Closes it, and makes every thread forget the caches that it remembers. True for the caller
  // that closed it.
  bool Close() {
    if (!open_.exchange(false, std::memory_order_seq_cst)) return false;
    g_cache_epoch.fetch_add(1, std::memory_order_acq_rel);
    return true;
  }

  void Reopen() { open_.store(true, std::memory_order_release); }

  // While a User of an open context lives, the context does not end. seq_cst on both sides: of a
  // user who enters and somebody who closes, at least one sees the other. A user's calls that may
  // wait are made Uncancelled: who is cancelled while it is a user stays one for ever.
  class [[nodiscard]] User {
   public:
    explicit User(ContextPool& context) : context_(context) {
      context_.users_.fetch_add(1, std::memory_order_seq_cst);
      entered_ = context_.open_.load(std::memory_order_seq_cst);
    }
    ~User() { context_.users_.fetch_sub(1, std::memory_order_release); }
    User(const User&) = delete;
    User& operator=(const User&) = delete;
    // False: the context is closed; make no call about it.
    bool entered() const { return entered_; }

   private:
    ContextPool& context_;
    bool entered_;
  };
  // Closes it and waits until no user is left.
  bool CloseAndDrain() {
    const bool closed = Close();
    for (Pause pause; users_.load(std::memory_order_seq_cst) != 0;) pause.Wait();
    return closed;
  }

  // A cache without a thread, for the calling thread; nullptr if there is none.
  ThreadCache* AdoptCache();
  // Lists a new cache of the calling thread.
  void AddCache(ThreadCache* cache);
  // The thread of `cache` is gone: its blocks go to the global pool, the next thread may have it.
  void AbandonCache(ThreadCache* cache);
  // Moves the blocks of every thread's cache to the global pool; returns their bytes.
  size_t EmptyCaches() { return EmptyShelves(kAllTiers); }
  // The same of one tier.
  static constexpr unsigned kAllTiers = ~0U;
  size_t EmptyShelves(unsigned tier);

  // Accounts, in bytes. Reads of several threads' counters are not one snapshot: a batch on its
  // way between a cache and the global pool counts as live.
  size_t reserved() const { return reserved_.load(std::memory_order_relaxed); }
  size_t ready() const;
  size_t retired() const;
  size_t live() const;
  // Notes the live bytes of this moment; returns by how much the peak rose.
  size_t SampleLivePeak();
  size_t live_peak() const { return live_peak_.load(std::memory_order_relaxed); }
  void AddReserved(size_t bytes) { reserved_.fetch_add(bytes, std::memory_order_relaxed); }
  void SubtractReserved(size_t bytes) { reserved_.fetch_sub(bytes, std::memory_order_relaxed); }

  // CMP_RESERVE: what may be reserved, given the peak of live bytes so far.
  size_t bound() const { return bound_.load(std::memory_order_relaxed); }
  // How close to the bound idle memory should be ready: a quarter of what may be idle at the peak.
  size_t headroom() const { return (bound() - live_peak()) / 4; }
  // Bytes over it now.
  size_t Excess() const {
    const size_t held = reserved();
    return held > bound() ? held - bound() : 0;
  }
  // Set by an allocation that crossed the bound and could not release; the next free pays.
  std::atomic<bool> over_bound{false};

  // Bytes by which blocks in use exceed their rounded requests: reuse with slack.
  std::atomic<size_t> slack_in_use{0};
  // The device's free bytes when it was asked last, and what was reserved then.
  void NoteFreeMemory(size_t free) {
    asked_reserved_.store(reserved(), std::memory_order_relaxed);
    asked_free_.store(free, std::memory_order_relaxed);
  }
  // The device's free bytes by our own accounts since then; 0 before it was asked.
  size_t EstimatedFree() const {
    const size_t then = asked_free_.load(std::memory_order_relaxed) +
                        asked_reserved_.load(std::memory_order_relaxed);
    const size_t now = reserved();
    return then > now ? then - now : 0;
  }
  // What refills may still take before the device's free memory must be asked for again, and
  // whether less than a tenth of the device was free then.
  std::atomic<int64_t> unasked_bytes{0};
  std::atomic<bool> scarce{false};

 private:
  void PutAll(ThreadCache* cache, unsigned tier, size_t* bytes);

  const ContextIdentity identity_;
  Arena* arena_ = nullptr;
  Fences fences_;
  GlobalPool global_;
  const RelativeBytes reserve_;
  std::atomic<size_t> bound_;
  std::atomic<bool> open_{true};
  std::atomic<int> users_{0};
  Mutex caches_lock_;
  std::atomic<ThreadCache*> caches_{nullptr};  // grows at the head only
  std::atomic<size_t> reserved_{0};
  std::atomic<size_t> live_peak_{0};
  std::atomic<size_t> asked_free_{0};
  std::atomic<size_t> asked_reserved_{0};
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXT_POOL_H_
