// The free lists of one thread for one context: the hit path.
//
//   shelf of a tier:   current  [b][b][b]        ready: pop and push here
//                      spare    [b][b][b][b]     a full ready batch, or empty
//                      retiring [b][b]           retired: a free that must wait for a fence pushes
//                      retired  [b][b][b][b]     a full retired batch, or empty
//
// Two batches of each kind, so that a program that allocates and frees around a batch boundary does
// not run to the global pool each time: one pop empties `current` and swaps the spare in, one push
// fills it and makes it the spare; and while one retired batch waits for its fence the next one
// fills. Only whole batches leave. What is too large for a shelf is on large_shelf.h's.
//
// A cache that holds blocks is on its context's list of such caches (ContextPool::ListCache), so
// that nobody has to look at the others; one that is not on it takes nothing.
//
// Invariants: ready_bytes() and retired_bytes() are the sums of the blocks on the tiers' shelves,
// large_bytes() of those on the other one; every block here is kIdle and belongs to `owner`. A
// retired batch's stamp is its blocks' largest. The owner thread takes the flag for every
// operation; whoever empties the cache of another thread takes it too (owner_flag.h), or leaves a
// request, and then the owner empties it. That is the only sharing: nothing here is on a cache line
// that another thread writes in normal running.
#ifndef CMP_CORE_LISTS_THREAD_CACHE_H_
#define CMP_CORE_LISTS_THREAD_CACHE_H_

#include <pthread.h>

#include <initializer_list>

#include "core/base/lock.h"
#include "core/base/owner_flag.h"
#include "core/base/statistics.h"
#include "core/base/types.h"
#include "core/lists/large_shelf.h"
#include "core/lists/takers.h"

namespace cmp {

class ThreadCache;

// Caches whose context has ended, for the next ones that are needed. Thread-safe.
class SpareCaches {
 public:
  void Put(ThreadCache* cache);
  ThreadCache* Take();  // nullptr: there is none

 private:
  Mutex lock_;
  ThreadCache* first_ = nullptr;  // through next_of_thread
};

// What thread caches of one pool have in common.
struct CacheLimits {
  OwnerFlag::Kind flag = OwnerFlag::Kind::kOfOwner;
  unsigned steps = 4;                   // of the tiers
  size_t bytes = 0;                     // of one cache, on the shelves of its tiers
  size_t large_bytes = 0;               // of one cache, on the large shelf
  unsigned tiers = 0;                   // tiers below this have a shelf
  uint32_t batch[kMaxSmallTiers] = {};  // blocks that move at once, at least 1
  SpareCaches* spare = nullptr;
};

class alignas(64) ThreadCache {
 public:
  struct alignas(64) Shelf {  // what a ready block needs is on one line
    Batch current;
    TierCounters* counters = nullptr;  // the cache's, of the tier
    uint32_t most = 0;                 // blocks to which a hit adds one: the next makes a batch
    Batch spare;
    Batch retiring;
    Batch retired;
    uint32_t next_refill = 1;  // slow start: 1, 2, 3, no more than a batch
    uint32_t made_to_ask_less = 0;
    uint16_t pass_by = 0;       // so many of the next occasions to make blocks for that
    uint16_t next_pass_by = 1;  // after the next attempt in vain
  };
  static_assert(sizeof(Shelf) == 2 * kCacheLine);

  ThreadCache(ContextPool* owner, const CacheLimits* limits, TierCounters* counters, Shelf* shelves)
      : flag_(limits->flag),
        tiers_(limits->steps),
        owner_(owner),
        shelves_(shelves),
        counters_(counters),
        limits_(limits) {
    for (unsigned tier = 0; tier < limits->tiers; ++tier) {
      new (&shelves[tier]) Shelf;
      shelves[tier].counters = counters + tier;
      shelves[tier].most = limits->batch[tier] - 1;
    }
  }

  // The context has ended, and its lists: from now on it is spare, and nobody's.
  static void MakeSpare(ThreadCache* cache) { cache->limits_->spare->Put(cache); }
  // A spare one becomes a cache of another context. It goes on counting where it did.
  static ThreadCache* Renew(ThreadCache* spare, ContextPool* owner) {
    return new (spare) ThreadCache(owner, spare->limits_, spare->counters_, spare->shelves_);
  }

  // What changed since the accounts were told last, in their words.
  struct Changes {
    int64_t live;      // bytes that were handed out, less those that came back
    int64_t rounding;  // of these, bytes beyond what was asked for
    int64_t slack;     // and bytes beside them
    int64_t retired;   // bytes of retired blocks here
  };

  // The hit path: as Alloc, but 0 says nothing. Waits for nobody.
  DeviceAddress AllocHit(size_t requested) {
    if (!flag_.TryLock()) [[unlikely]]
      return 0;
    Shelf& shelf = shelves_[tiers_.TierOf(requested)];
    DeviceAddress address = 0;
    if (shelf.current.head != nullptr) [[likely]] {
      address = Take(shelf, requested)->address;
      if (address == 0) __builtin_unreachable();  // what a caller need not check
    }
    flag_.Leave();
    return address;
  }
  // The hit path: as Free of a ready block, if nothing becomes full by it. False: nothing was done.
  // REQUIRES: tier is block->tier
  [[gnu::always_inline]] bool FreeHit(Block* block, size_t tier) {
    if (!flag_.TryLock()) [[unlikely]]
      return false;
    Shelf& shelf = shelves_[tier];
    const size_t ready = ready_bytes_ + block->bytes;
    const bool room = shelf.current.count < shelf.most && ready <= most_ready_;
    if (room) [[likely]] {
      CountFreed(*block, shelf);
      shelf.current.Push(block);
      ready_bytes_ = ready;
    }
    flag_.Leave();
    return room;
  }

  // The address of a block of `tier`, handed out to the program, or 0: nothing here. The block is
  // the program's: another thread may end it, and have its record, at any time.
  // REQUIRES: tier < limits.tiers
  DeviceAddress Alloc(unsigned tier, size_t requested) {
    Held held(flag_);
    Shelf& shelf = shelves_[tier];
    if (shelf.current.count == 0) {
      if (shelf.spare.count == 0) return 0;
      shelf.current = shelf.spare;
      shelf.spare = Batch{};
    }
    return Take(shelf, requested)->address;
  }

  // Takes a block back: ready, or retired until a fence above `stamp` has passed. `*overflow`
  // (often nothing) is over the limit and goes to the global pool; who finds it neither here nor
  // there finds `*taking` begun. False: the cache must be listed first.
  // REQUIRES: block is kIdle, of owner(), and block->tier < limits.tiers
  [[nodiscard]] bool Free(Block* block, Stamp stamp, Batch* overflow, Takers& takers,
                          Takers::Taking* taking) {
    Held held(flag_);
    if (!listed_) return false;
    Shelf& shelf = shelves_[block->tier];
    CountFreed(*block, shelf);
    if (stamp != kReady) {
      *overflow = Retire(shelf, block, stamp);
    } else {
      shelf.current.Push(block);
      ready_bytes_ += block->bytes;
      *overflow = shelf.current.count < limits_->batch[block->tier] && !OverLimit()
                      ? Batch{}
                      : Overflow(shelf.current, shelf.spare, ready_bytes_);
    }
    if (overflow->count != 0) [[unlikely]]
      taking->Begin(takers);
    return true;
  }

  // The stamp of the longest retired batch of `tier`; kReady if nothing is retired.
  Stamp OldestStamp(unsigned tier) {
    Held held(flag_);
    const Shelf& shelf = shelves_[tier];
    return shelf.retired.count != 0 ? shelf.retired.stamp : shelf.retiring.stamp;
  }
  // The stamp of the newest.
  Stamp NewestStamp(unsigned tier) {
    Held held(flag_);
    const Shelf& shelf = shelves_[tier];
    return shelf.retiring.count != 0 ? shelf.retiring.stamp : shelf.retired.stamp;
  }
  // Retired batches of `tier` for which passed(stamp) become ready.
  template <typename Passed>
  void Promote(unsigned tier, Passed passed) {
    Held held(flag_);
    Shelf& shelf = shelves_[tier];
    for (Batch* batch : {&shelf.retired, &shelf.retiring}) {
      if (batch->count == 0 || !passed(batch->stamp)) continue;
      Batch& to = shelf.current.count == 0 ? shelf.current : shelf.spare;
      if (to.count != 0) break;
      retired_bytes_ -= BytesOf(*batch);
      ready_bytes_ += BytesOf(*batch);
      to = *batch;
      to.stamp = kReady;
      *batch = Batch{};
    }
    SetMostReady();
  }
  bool HasReady(unsigned tier) {
    Held held(flag_);
    return shelves_[tier].current.count != 0 || shelves_[tier].spare.count != 0;
  }

  // Puts ready blocks of `tier` on the shelf: the rest of a batch, or of a refill. False: the cache
  // must be listed first, or it would have more than `most` bytes of idle blocks.
  [[nodiscard]] bool Stock(unsigned tier, Batch batch, size_t most = ~size_t{0});

  // ---- The large shelf: of blocks of tiers that have none. By the owner thread, but where it says
  // otherwise.

  // As Alloc: the newest block of exactly `bytes`.
  DeviceAddress AllocLarge(unsigned tier, size_t bytes, size_t requested) {
    Held held(flag_);
    Block* block = large_.Take(bytes);
    if (block == nullptr) return 0;
    block->tier = static_cast<uint16_t>(tier);  // its free counts in the row of the request
    block->GiveToProgram(requested);
    CountServed(counters_[tier], &TierCounters::thread_cache_hits, requested, bytes);
    NoteHandedOut(bytes, requested);
    return block->address;
  }
  // As Free, of a ready block. `*leaving`: each a batch of its own, the oldest on top; then it
  // settles.
  [[nodiscard]] bool FreeLarge(Block* block, Batch* leaving, Changes* changes, Takers& takers,
                               Takers::Taking* taking) {
    Held held(flag_);
    if (!large_.is_open()) return false;
    CountFreed(counters_[block->tier], block->requested, block->bytes);
    NoteTakenBack(block->bytes, block->requested);
    large_.Put(block, leaving);
    if (leaving->count != 0) [[unlikely]] {
      if (leaving->head != block) taking->Begin(takers);  // it was on no list yet
      *changes = SettleHeld();
    }
    return true;
  }
  // Its idle bytes, recent for others than the owner.
  size_t large_bytes() const { return large_.bytes(); }

  // Counts a request that this cache could not serve; see TierCounters.
  void Count(unsigned tier, Counter TierCounters::*served, size_t requested, size_t bytes);
  // Counts a free of a block that has no shelf.
  void CountFree(unsigned tier, size_t requested, size_t bytes);
  // The number of blocks to make at the next refill of `tier`, at most kMostMade: one call pays for
  // all of them, and is to take a tenth of a millisecond at most. Measured, H200: a real allocation
  // takes 4 to 27 us; 128 blocks in one call took 3.5 ms where the worst real call of a run was
  // 0.2. (Not by a clock: what a program is given would change from run to run.)
  static constexpr uint32_t kMostMade = 3;
  uint32_t NextRefill(unsigned tier);
  // The same where it is for fewer questions of the driver alone: none once a few are idle here,
  // and a few in all until the next refill. Then MadeToAskLess, where it is not 0.
  uint32_t NextToAskLess(unsigned tier);
  void MadeToAskLess(unsigned tier, uint32_t blocks);
  Changes Settle() {
    Held held(flag_);
    return SettleHeld();
  }
  // Counts a block that the global pool served, and settles.
  Changes CountShared(unsigned tier, size_t requested, size_t bytes) {
    Held held(flag_);
    CountServed(counters_[tier], &TierCounters::global_pool_hits, requested, bytes);
    NoteHandedOut(bytes, requested);
    return SettleHeld();
  }

  // ---- For the list of the context's caches, under its lock. Who empties the cache of another
  // thread takes it before.

  // Whether it is on the list.
  bool listed() const { return listed_; }
  // True for the caller, its owner, who must put it on the list.
  // The large shelf is opened only where it is wanted: whoever looks for large blocks passes the
  // others by.
  enum class Shelves : bool { kOfTiers, kAll };
  [[nodiscard]] bool BeginListed(Shelves shelves = Shelves::kOfTiers) {
    Held held(flag_);
    if (shelves == Shelves::kAll && !large_.is_open()) large_.Open(limits_->large_bytes);
    if (listed_) return false;
    owner_thread_ = pthread_self();
    most_bytes_.store(limits_->bytes, std::memory_order_relaxed);
    SetMostReady();
    return listed_ = true;
  }
  // For pools whose caches share what they may hold: this one may have so much from now on, on the
  // shelves of its tiers and on the large one. By its owner. REQUIRES: listed(), with all shelves
  void Allow(size_t bytes, size_t large_bytes) {
    Held held(flag_);
    most_bytes_.store(bytes, std::memory_order_relaxed);
    SetMostReady();
    large_.Raise(large_bytes);
  }
  // For the owner, as of now, with no flag; 0 where it is not listed. Others may end it at any
  // time.
  size_t most_bytes() const { return most_bytes_.load(std::memory_order_relaxed); }
  size_t most_large_bytes() const { return large_.most_bytes(); }
  // REQUIRES: listed()
  bool IsOfThisThread() const { return pthread_equal(owner_thread_, pthread_self()) != 0; }
  // As those of OwnerFlag. REQUIRES: listed(), not of this thread
  void BeginTaking() { flag_.BeginTaking(); }
  [[nodiscard]] bool EndTaking(bool barrier) { return flag_.EndTaking(barrier); }
  void GiveBack() { flag_.GiveBack(); }
  // Somebody could not take it: its thread is to empty it.
  bool IsRequested() const { return flag_.IsRequested(); }
  // These three: REQUIRES: listed(), and of this thread or taken, which ends with them.
  //
  // Takes everything: calls put(batch) for each batch; the flag is held. From then on the cache is
  // not listed any more.
  template <typename Put>
  Changes Empty(Put put, bool short_of_memory = false) {
    const Access access(*this);
    flag_.Honour();
    for (unsigned tier = 0; tier < limits_->tiers; ++tier) {
      // Another thread's shelves are lines that this one does not have: no more than need be.
      if (!short_of_memory && ready_bytes() + retired_bytes() == 0) break;
      TakeShelf(tier, put);
      if (short_of_memory) shelves_[tier].next_refill = 1;  // what is made ahead is not kept
    }
    large_.Close(put);
    listed_ = false;
    most_bytes_.store(0, std::memory_order_relaxed);
    SetMostReady();
    return SettleHeld();
  }
  // The same of the large shelf alone. The cache stays listed.
  template <typename Put>
  Changes EmptyLarge(Put put) {
    const Access access(*this);
    large_.Close(put);
    return SettleHeld();
  }
  // Takes one of that size, or nullptr. It settles: who takes it tells the accounts what it
  // becomes, which is not to come before what its free was.
  Block* TakeLarge(size_t bytes, Changes* changes) {
    const Access access(*this);
    *changes = SettleHeld();
    return large_.Take(bytes);
  }
  // Whether there may be any on the large shelf, and the size of the best fit, 0: there is none.
  // For these the cache need not be taken; the latter is recent.
  bool takes_large() const { return large_.is_open(); }
  size_t BestFitOfLarge(size_t bytes, size_t most) const { return large_.BestFit(bytes, most); }

  ContextPool* owner() const { return owner_; }
  // Idle bytes here. For who has taken the cache: others may be emptying it.
  size_t ready_bytes() const { return ready_bytes_; }
  size_t retired_bytes() const { return retired_bytes_; }

  // For the context's list of caches and the thread's: written under the cache list's lock and by
  // the owner thread respectively.
  ThreadCache* next_of_context = nullptr;
  ThreadCache* previous_of_context = nullptr;
  ThreadCache* next_of_thread = nullptr;
  // Under the cache list's lock: see ContextPool::Allow.
  size_t allowed = 0;
  // A stream of the owner thread, made on first use; see fill.h.
  void* fill_stream = nullptr;

 private:
  // The flag, for who empties: taken already, unless it is this thread's.
  class [[nodiscard]] Access {
   public:
    explicit Access(ThreadCache& cache) : cache_(cache), own_(cache.IsOfThisThread()) {
      if (own_) cache_.flag_.Lock();
    }
    ~Access() { own_ ? cache_.flag_.Unlock() : cache_.flag_.GiveBack(); }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    ThreadCache& cache_;
    const bool own_;
  };
  // A batch comes from or goes to the global pool: idle before and after.
  void Move(size_t& to, size_t bytes) {
    to += bytes;
    settled_bytes_ += bytes;
    SetMostReady();
  }
  // After a change of most_bytes_ or of what is retired.
  void SetMostReady() {
    const size_t most = most_bytes();
    most_ready_ = most > retired_bytes_ ? most - retired_bytes_ : 0;
  }
  static size_t BytesOf(const Batch& batch) { return batch.count * batch.head->bytes; }
  bool OverLimit() const { return ready_bytes() + retired_bytes() > most_bytes(); }
  // A block that is on no shelf of a tier: bytes beyond what was asked for are rounding below 2
  // MiB, slack from there.
  static size_t SlackOf(size_t bytes, size_t requested) {
    const size_t rounded = (requested + kLargeGranule - 1) & ~(kLargeGranule - 1);
    return bytes < kLargeGranule ? 0 : bytes - rounded;
  }
  // REQUIRES for all below: the flag is held
  void NoteHandedOut(size_t bytes, size_t requested) {
    const size_t slack = SlackOf(bytes, requested);
    large_live_ += bytes - slack;
    large_slack_ += slack;
    if (bytes < kLargeGranule) large_rounding_ += bytes - requested;
  }
  void NoteTakenBack(size_t bytes, size_t requested) {
    const size_t slack = SlackOf(bytes, requested);
    large_live_ -= bytes - slack;
    large_slack_ -= slack;
    if (bytes < kLargeGranule) large_rounding_ -= bytes - requested;
  }
  static void CountServed(TierCounters& counters, Counter TierCounters::*served, size_t requested,
                          size_t bytes) {
    (counters.*served).Add(1);
    counters.requested_bytes.Add(requested);
    counters.block_bytes.Add(bytes);
  }
  Changes SettleHeld();
  Block* Take(Shelf& shelf, size_t requested) {
    Block* block = shelf.current.Pop();
    const size_t bytes = block->bytes;
    ready_bytes_ -= bytes;
    requested_ += requested;
    block->GiveToProgram(requested);
    TierCounters& counters = *shelf.counters;
    counters.thread_cache_hits.Add(1);
    counters.requested_bytes.Add(requested);
    counters.block_bytes.Add(bytes);
    return block;
  }
  static void CountFreed(TierCounters& counters, size_t requested, size_t bytes) {
    counters.frees.Add(1);
    counters.requested_freed_bytes.Add(requested);
    counters.block_freed_bytes.Add(bytes);
  }
  // Of a block that goes on the shelf of its tier.
  void CountFreed(const Block& block, const Shelf& shelf) {
    const size_t requested = block.requested;
    CountFreed(*shelf.counters, requested, block.bytes);
    requested_ -= requested;
  }
  Batch Retire(Shelf& shelf, Block* block, Stamp stamp);
  template <typename Put>
  void TakeShelf(unsigned tier, Put put) {
    Shelf& shelf = shelves_[tier];
    for (Batch* batch : {&shelf.current, &shelf.spare, &shelf.retired, &shelf.retiring}) {
      if (batch->count == 0) continue;
      Move(batch->stamp == kReady ? ready_bytes_ : retired_bytes_, size_t{0} - BytesOf(*batch));
      put(*batch);
      *batch = Batch{};
    }
  }
  Batch Overflow(Batch& filling, Batch& full, size_t& bytes);

  // What a hit needs is on one line.
  alignas(64) OwnerFlag flag_;
  const Tiers tiers_;
  ContextPool* owner_;
  Shelf* shelves_;
  size_t ready_bytes_ = 0;
  size_t most_ready_ = 0;  // most_bytes_ less what is retired, at least 0
  size_t requested_ = 0;   // wraps: of blocks handed out since it was settled, less that of those
                           // that came back
  TierCounters* counters_;
  const CacheLimits* limits_;
  size_t retired_bytes_ = 0;
  std::atomic<size_t> most_bytes_{0};  // 0 while it is not listed; relaxed, for who only looks
  bool listed_ = false;
  pthread_t owner_thread_ = {};  // that listed it
  // The bytes here as the accounts know them, moved batches included; and those that were retired
  // when they were told.
  size_t settled_bytes_ = 0;
  size_t settled_retired_ = 0;
  LargeShelf large_;
  // These wrap, too: what has become of blocks of tiers without a shelf since the accounts were
  // told.
  size_t large_live_ = 0;
  size_t large_rounding_ = 0;
  size_t large_slack_ = 0;
};

}  // namespace cmp

#endif  // CMP_CORE_LISTS_THREAD_CACHE_H_
