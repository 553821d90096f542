// What belongs to one context: its fences, its global pool, its thread caches, its accounts.
//
// Invariants: blocks of a context never leave it; its accounts count every real allocation that the
// pool holds for it, live or idle. Driver calls of the pool's own about the context (fences, real
// frees of idle blocks) are made by users of it, and a context ends only once it has none. Once
// closed (the context was reset, destroyed or has failed) it serves nothing any more.
//
// A record is never destroyed. Once its context has ended it is another one's, but not while
// somebody holds it (HeldContext): every cache of a thread does, and whoever has a block in hand
// that the pool took from the program, or from a list, keeps its record from being used again at
// all. Who does neither may
// - look at what Contexts::Glance says, which is always that of some context that there was,
// - be a User, and then wait for a fence or ask about it: fences are numbered by one clock, so one
//   of the context that has ended counts as passed.
#ifndef CMP_CORE_CONTEXTS_CONTEXT_POOL_H_
#define CMP_CORE_CONTEXTS_CONTEXT_POOL_H_

#include <utility>

#include "core/base/options.h"
#include "core/base/own_line.h"
#include "core/base/types.h"
#include "core/contexts/accounts.h"
#include "core/contexts/hits.h"
#include "core/driver/context_identity.h"
#include "core/driver/release_stream.h"
#include "core/fences/fences.h"
#include "core/lists/global_pool.h"
#include "core/lists/thread_cache.h"

namespace cmp {

class ContextPool {
 public:
  // Closed, and held by the caller.
  ContextPool(const Tiers& tiers, const Options& options, BlockSlabs& slabs, IdleChunks& chunks)
      : accounts_(options.reserve), records_(slabs), global_(tiers, chunks) {}

  // It is this context's from now on. False when memory is exhausted: it is nobody's. Before
  // anything else. REQUIRES: the caller alone holds it
  bool Open(const ContextIdentity& identity, const Options& options, Arena& arena,
            GlobalPool::SpareLists& spare);

  // For who holds it.
  const ContextIdentity& identity() const { return identity_; }
  // A larger request is oversized.
  size_t max_block() const { return max_block_; }
  // These for everybody. Relaxed: who does not hold it may get that of the next context.
  ContextHandle handle() const { return __atomic_load_n(&identity_.handle, __ATOMIC_RELAXED); }
  int device() const { return __atomic_load_n(&identity_.device, __ATOMIC_RELAXED); }
  GlobalPool& global() { return global_; }
  const GlobalPool& global() const { return global_; }
  BlockRecords& records() { return records_; }
  Fences& fences() { return fences_; }
  const Fences& fences() const { return fences_; }
  Accounts& accounts() { return accounts_; }
  const Accounts& accounts() const { return accounts_; }
  Arena& arena() { return *arena_; }
  ReleaseStream& release_stream() { return release_stream_; }
  const ReleaseStream& release_stream() const { return release_stream_; }

  // While anybody holds it, it is not used again for another context. Who found it where it may be
  // gone by now must find it there once more after this. acq_rel: whose hold comes after TakeSpare
  // sees that it is gone there, and TakeSpare sees what the last holder did.
  void Hold() { holds_.fetch_add(1, std::memory_order_acq_rel); }
  void LetGo() { holds_.fetch_sub(1, std::memory_order_release); }
  // Holds it if nobody does. REQUIRES: its context has ended, and is nowhere to be found
  [[nodiscard]] bool HoldSpare() {
    int none = 0;
    return holds_.compare_exchange_strong(none, 1, std::memory_order_acq_rel,
                                          std::memory_order_relaxed);
  }

  // ---- Its life: open, then closed (it has failed), then ended. During a call that ends it if it
  // succeeds it is not open either; during one that may give up its last reference it is.

  bool open() const { return IsOpen(phase_.load(std::memory_order_acquire)); }
  // May work of it be running? Until it has ended, also while it is being ended; but nothing runs
  // any more in one that is broken.
  bool may_work() const {
    return (phase_.load(std::memory_order_acquire) & (kIsBroken | kHasEnded)) == 0;
  }
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
    return (phase & ~(kIsClosed | kIsBroken)) != 0;
  }
  // The pool is off for it, for good: it is broken, or the pool's lists are wrong and its work goes
  // on. True for the caller that closed it.
  enum class Why : bool { kBroken, kDistrusted };
  bool Close(Why why) {
    const uint32_t closed = why == Why::kBroken ? kIsClosed | kIsBroken : kIsClosed;
    return Leave(phase_.fetch_or(closed, std::memory_order_seq_cst));
  }
  // Around a real call that ends it if it succeeds; waits until no user is left. Then it has ended,
  // or it is what it was before. Held meanwhile. REQUIRES: the caller holds it
  void BeginEnding() {
    Hold();
    Leave(phase_.fetch_add(kEnding, std::memory_order_seq_cst));
    Drain();
  }
  void CancelEnding() {
    phase_.fetch_sub(kEnding, std::memory_order_release);
    LetGo();
  }
  // Around one that ends it if it gives up the last reference. It stays open, but no call that the
  // program has not asked for is made about it meanwhile; waits until none is, but not long: it may
  // be waiting for what the caller does next. Held as above.
  void BeginReferenceEnding() {
    Hold();
    phase_.fetch_add(kReferenceEnding, std::memory_order_seq_cst);
    Pause pause;
    for (int i = 0; i < kMostPauses && unasked_.load(std::memory_order_seq_cst) != 0; ++i) {
      pause.Wait();
    }
  }
  void CancelReferenceEnding() {
    phase_.fetch_sub(kReferenceEnding, std::memory_order_release);
    LetGo();
  }
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
    // False: make no call about it. True of one that is closed and still works: its fences tell
    // when, as ever.
    bool entered() const { return MayBeAsked(phase_); }
    // True: whatever the pool knew of it is gone; add nothing.
    bool ended() const { return (phase_ & kHasEnded) != 0; }

   private:
    ContextPool& context_;
    uint32_t phase_;
  };
  // Around calls about it that the program has not asked for: one real free of its idle memory, by
  // a user of it, or questions about its fences from elsewhere, which are allowed of one that is
  // closed, too. While its last reference may be given up none is made: waits for that, not long,
  // or with kAtOnce not at all. seq_cst as above.
  enum class When : bool { kAtOnce, kSoon };
  class [[nodiscard]] Unasked {
   public:
    Unasked(ContextPool& context, When when) : context_(context) {
      Pause pause;
      for (int i = 0; i < kMostPauses; ++i) {
        context_.unasked_.fetch_add(1, std::memory_order_seq_cst);
        const uint32_t phase = context_.phase_.load(std::memory_order_seq_cst);
        may_ask_ = MayBeAsked(phase) && !MayBeEnding(phase);
        allowed_ = may_ask_ && IsOpen(phase);
        if (may_ask_) return;
        context_.unasked_.fetch_sub(1, std::memory_order_release);
        if (!MayBeEnding(phase) || when == When::kAtOnce) return;
        pause.Wait();
      }
    }
    ~Unasked() {
      if (may_ask_) context_.unasked_.fetch_sub(1, std::memory_order_release);
    }
    Unasked(const Unasked&) = delete;
    Unasked& operator=(const Unasked&) = delete;
    bool allowed() const { return allowed_; }  // false: make no call, but where
    bool may_ask() const { return may_ask_; }  // questions about its fences

   private:
    ContextPool& context_;
    bool allowed_ = false;
    bool may_ask_ = false;
  };

  // A cache without a thread, for the calling thread; nullptr if there is none.
  ThreadCache* AdoptCache();
  // The thread of `cache` is gone: its blocks go to the global pool, the next thread may have it.
  // False: the context has ended, and does not want it.
  [[nodiscard]] bool AbandonCache(ThreadCache* cache);
  // `cache` will hold blocks: from now on it may. A cache is listed while it has any, or had since
  // EmptyCaches was called last. False: it may not, the context has ended.
  [[nodiscard]] bool ListCache(ThreadCache& cache,
                               ThreadCache::Shelves shelves = ThreadCache::Shelves::kOfTiers);
  // The same where caches share what they may hold, and one that was just listed may hold nothing:
  // from now on it may have so much. False: it is not listed any more. By its thread.
  [[nodiscard]] bool Allow(ThreadCache& cache, size_t bytes, size_t large_bytes);
  // What listed caches may hold together by that.
  size_t allowed() const { return allowed_.load(std::memory_order_acquire); }
  // Moves the blocks of every thread's cache to the global pool; returns their bytes. Costs nothing
  // for caches that were empty the last time and have been left alone since. `short_of_memory`:
  // what the threads make ahead begins small again. A cache that cannot be taken (owner_flag.h)
  // keeps its blocks until its thread calls again, and finds the request.
  size_t EmptyCaches(bool short_of_memory = false);
  // For the calling thread, at the beginning of what is no hit.
  void HonourRequest(ThreadCache& cache) {
    if (cache.IsRequested()) [[unlikely]]
      EmptyRequested(cache);
  }
  // Moves what large shelves have to the global pool. Returns the idle bytes in blocks of 2 MiB and
  // more, to the byte, as no shelf takes any before that is known.
  size_t GatherLarge();
  // The same with EmptyCaches.
  size_t GatherAll();
  // Takes a ready block of at least `bytes` and at most `most` off the large shelf of some thread's
  // cache, or nullptr: not for ever, it looks at no more than kMostAsked of them.
  static constexpr int kMostAsked = 64;
  Block* TakeFromShelves(size_t bytes, size_t most);
  // Tells the accounts what the calling thread's cache handed out and got back by itself.
  void Settle(ThreadCache& cache) { Settle(cache.Settle()); }
  void Settle(const ThreadCache::Changes& changes) {
    accounts_.Settle(changes.live, changes.rounding, changes.slack);
    if (changes.retired != 0) {
      cached_retired_.fetch_add(changes.retired, std::memory_order_relaxed);
    }
  }

  // The context has ended: from now on neither caches nor the global pool take blocks. Calls
  // gone(block) for every idle one, which is on no list any more; but for those of caches that
  // cannot be taken, whose threads have them in hand for good.
  template <typename Gone>
  void EndLists(Gone gone) {
    {
      Held held(caches_lock_);
      ended_ = true;
      EmptyAllListed(false);
      listed_ = nullptr;
    }
    for (Batch batch = global_.End(); batch.count != 0;) gone(batch.Pop());
  }

  // The same was called: what caches there are is nobody's but their threads'.
  bool ListsHaveEnded() {
    if ((phase_.load(std::memory_order_acquire) & kHasEnded) == 0) return false;
    Held held(caches_lock_);
    return ended_;
  }

  // May any of its memory be idle?
  bool HasIdle();
  // Idle bytes: exact, looks into every listed cache that can be taken. While others move blocks
  // these are not one snapshot.
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

 private:
  // REQUIRES for both: caches_lock_ held
  template <typename Condition, typename Visitor>
  void ForEachListed(Condition is, Visitor visit);
  size_t EmptyAllListed(bool short_of_memory);
  // REQUIRES: the same, and the cache is the calling thread's, or taken
  size_t EmptyListed(ThreadCache& cache, bool short_of_memory);
  void EmptyRequested(ThreadCache& cache);
  // After a change of `before` to something else: every thread forgets the caches that it
  // remembers. True if it was open, or ends by the change without having been closed.
  static bool Leave(uint32_t before) {
    if (IsOpen(before)) ForgetWhatThreadsRemember();
    return (before & (kIsClosed | kHasEnded)) == 0;
  }
  void Drain() const {
    for (Pause pause; users_.load(std::memory_order_seq_cst) != 0;) pause.Wait();
  }

  static constexpr uint32_t kIsClosed = 1;
  static constexpr uint32_t kHasEnded = 2;
  static constexpr uint32_t kIsBroken = 4;  // and closed
  static constexpr uint32_t kEnding = 8;    // and its multiples: so many calls are ending it
  static constexpr uint32_t kReferenceEnding = 1 << 16;  // the same
  static constexpr int kMostPauses = 1000;  // about a second: longer than a thread has no processor
  static constexpr bool IsOpen(uint32_t phase) { return phase % kReferenceEnding == 0; }
  static constexpr bool MayBeAsked(uint32_t phase) { return IsOpen(phase & ~kIsClosed); }
  static constexpr bool MayBeEnding(uint32_t phase) {
    return phase >= kReferenceEnding && (phase & kHasEnded) == 0;
  }

  // ---- On a cache line of its own: every free reads it, a few write it now and then.
 public:
  // What the host knows of the context; see host.h. Set before anybody else sees the record, and
  // then never changed.
  alignas(kCacheLine) void* of_host = nullptr;

  // Set by who leaves the context over its bound; the next free pays, or where it is a little over,
  // a tick.
  bool over_bound() const { return fences_.Has(Fences::kOverBound); }
  void SetOverBound(bool over) { fences_.SetReason(Fences::kOverBound, over); }
  // There are other contexts. Set before anybody finds the second one; under the lock of Contexts.
  void SetAmongSeveral(bool several) { fences_.SetReason(Fences::kAmongSeveral, several); }

 private:
  std::atomic<uint32_t> phase_{kIsClosed};
  ContextIdentity identity_;
  Arena* arena_ = nullptr;

  // ---- These begin lines of their own, the first with what every free reads.
  Fences fences_;
  Accounts accounts_;

  // ---- The rest is written wherever a cache is not enough.
 public:
  // The device's memory in all; 0: it was not asked yet.
  alignas(kCacheLine) std::atomic<size_t> device_bytes{0};
  // What refills may still take before the device's free memory must be asked for again, and
  // whether less than a tenth of the device was free then.
  std::atomic<int64_t> unasked_bytes{0};
  std::atomic<bool> scarce{false};
  // The fence that had passed when a wait for room for managed memory was in vain. Relaxed: a hint.
  static constexpr uint64_t kNever = ~uint64_t{0};
  std::atomic<uint64_t> waited_in_vain_at{kNever};
  // The same of a wait for retired blocks, for a call that lacks memory.
  std::atomic<uint64_t> asked_in_vain_at{kNever};
  // Of a context whose memory ages in the program's frees: when the next tick is due, and since
  // when on the global pool's clock what is to be released has been idle; 0: nothing is.
  std::atomic<uint64_t> next_tick_ns{0};
  std::atomic<uint64_t> aged_before{0};
  // For BlockSource::WarmUp: how many real allocations there had been at the last tick, and how
  // many ticks have left it to the next; more than may where one has failed. Relaxed: one thread at
  // a time.
  std::atomic<uint64_t> made_before_tick{0};
  std::atomic<uint32_t> warm_ups_put_off{0};
  // A free has left it to the ageing thread to bring the context under its bound.
  std::atomic<bool> trim_due{false};
  // Through the records that nobody may need any more; see Contexts.
  ContextPool* next_spare = nullptr;

 private:
  size_t max_block_ = kGiB;
  std::atomic<int> holds_{1};
  std::atomic<int> unasked_{0};
  std::atomic<int> users_{0};
  BlockRecords records_;
  GlobalPool global_;
  ReleaseStream release_stream_;
  Mutex caches_lock_;
  bool ended_ = false;                 // under caches_lock_
  ThreadCache* listed_ = nullptr;      // through next_of_context and previous_of_context
  ThreadCache* threadless_ = nullptr;  // through next_of_context
  std::atomic<int64_t> cached_retired_{0};
  std::atomic<size_t> allowed_{0};  // written under caches_lock_
};
static_assert(alignof(Fences) == kCacheLine && alignof(Accounts) == kCacheLine);
static_assert(sizeof(ContextPool) <= 24 * kCacheLine, "kept small: there may be many");

// A context whose record is not used again for another one meanwhile; or none.
class [[nodiscard]] HeldContext {
 public:
  HeldContext() = default;
  explicit HeldContext(ContextPool& context) : context_(&context), held_(&context) {
    context.Hold();
  }
  // One that the caller holds: it is let go for him.
  static HeldContext Adopt(ContextPool& context) { return {&context, &context}; }
  // One that something else holds at least as long.
  static HeldContext Of(ContextPool& context) { return {&context, nullptr}; }
  HeldContext(HeldContext&& other) noexcept
      : context_(std::exchange(other.context_, nullptr)),
        held_(std::exchange(other.held_, nullptr)) {}
  HeldContext& operator=(HeldContext&& other) noexcept {
    std::swap(context_, other.context_);
    std::swap(held_, other.held_);
    return *this;
  }
  ~HeldContext() {
    if (held_ != nullptr) held_->LetGo();
  }
  ContextPool* get() const { return context_; }
  ContextPool& operator*() const { return *context_; }
  ContextPool* operator->() const { return context_; }
  explicit operator bool() const { return context_ != nullptr; }

 private:
  HeldContext(ContextPool* context, ContextPool* held) : context_(context), held_(held) {}

  ContextPool* context_ = nullptr;
  ContextPool* held_ = nullptr;
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXTS_CONTEXT_POOL_H_
