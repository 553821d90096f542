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
// fills. Only whole batches leave.
//
// A cache that holds blocks is on its context's list of such caches (ContextPool::ListCache), so
// that nobody has to look at the others; one that is not on it takes nothing.
//
// Invariants: ready_bytes() and retired_bytes() are the sums of the blocks on all shelves; every
// block here is kIdle and belongs to `owner`. A retired batch's stamp is its blocks' largest. The
// owner thread takes the flag for every operation; whoever empties the cache of another thread
// takes it too. That is the only sharing: nothing here is on a cache line that another thread
// writes in normal running.
#ifndef CMP_CORE_LISTS_THREAD_CACHE_H_
#define CMP_CORE_LISTS_THREAD_CACHE_H_

#include <initializer_list>

#include "core/base/lock.h"
#include "core/base/statistics.h"
#include "core/base/types.h"
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
  size_t bytes = 0;                     // of one cache
  unsigned tiers = 0;                   // tiers below this have a shelf
  uint32_t batch[kMaxSmallTiers] = {};  // blocks that move at once, at least 1
  SpareCaches* spare = nullptr;
};

class alignas(64) ThreadCache {
 public:
  struct alignas(64) Shelf {  // what a ready block needs is on one line
    Batch current;
    Batch spare;
    Batch retiring;
    Batch retired;
    uint32_t next_refill = 1;  // slow start: 1, 2, 3, no more than a batch
  };

  ThreadCache(ContextPool* owner, const CacheLimits* limits, TierCounters* counters, Shelf* shelves)
      : owner_(owner), counters_(counters), limits_(limits), shelves_(shelves) {}

  // The context has ended, and its lists: from now on it is spare, and nobody's.
  static void MakeSpare(ThreadCache* cache) { cache->limits_->spare->Put(cache); }
  // A spare one becomes a cache of another context. It goes on counting where it did.
  static ThreadCache* Renew(ThreadCache* spare, ContextPool* owner) {
    for (unsigned tier = 0; tier < spare->limits_->tiers; ++tier) spare->shelves_[tier] = Shelf{};
    return new (spare) ThreadCache(owner, spare->limits_, spare->counters_, spare->shelves_);
  }

  // The hit path: as Alloc, but 0 says nothing. Waits for nobody.
  DeviceAddress AllocHit(unsigned tier, size_t requested) {
    if (!flag_.TryLock()) [[unlikely]]
      return 0;
    Shelf& shelf = shelves_[tier];
    const DeviceAddress address =
        shelf.current.count == 0 ? 0 : Take(shelf, tier, requested)->address;
    flag_.Unlock();
    return address;
  }
  // The hit path: as Free of a ready block, if nothing becomes full by it. False: nothing was done.
  bool FreeHit(Block* block) {
    if (!flag_.TryLock()) [[unlikely]]
      return false;
    const unsigned tier = block->tier;
    Shelf& shelf = shelves_[tier];
    const size_t ready = ready_bytes() + block->bytes;
    const bool room =
        shelf.current.count + 1 < limits_->batch[tier] && ready + retired_bytes() <= most_bytes_;
    if (room) [[likely]] {
      CountFreed(*block, tier);
      shelf.current.Push(block);
      ready_bytes_.store(ready, std::memory_order_relaxed);
    }
    flag_.Unlock();
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
    return Take(shelf, tier, requested)->address;
  }

  // Takes a block back: ready, or retired until a fence above `stamp` has passed. `*overflow`
  // (often nothing) is over the limit and goes to the global pool; who finds it neither here nor
  // there finds `*taking` begun. False: the cache must be listed first.
  // REQUIRES: block is kIdle, of owner(), and block->tier < limits.tiers
  [[nodiscard]] bool Free(Block* block, Stamp stamp, Batch* overflow, Takers& takers,
                          Takers::Taking* taking) {
    Held held(flag_);
    if (!listed_) return false;
    CountFreed(*block, block->tier);
    Shelf& shelf = shelves_[block->tier];
    if (stamp != kReady) {
      *overflow = Retire(shelf, block, stamp);
    } else {
      shelf.current.Push(block);
      AddReadyBytes(block->bytes);
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
      if (to.count != 0) return;
      Add(retired_bytes_, size_t{0} - BytesOf(*batch));
      Add(ready_bytes_, BytesOf(*batch));
      to = *batch;
      to.stamp = kReady;
      *batch = Batch{};
    }
  }
  bool HasReady(unsigned tier) {
    Held held(flag_);
    return shelves_[tier].current.count != 0 || shelves_[tier].spare.count != 0;
  }

  // Puts ready blocks of `tier` on the shelf: the rest of a batch, or of a refill. False: the cache
  // must be listed first.
  [[nodiscard]] bool Stock(unsigned tier, Batch batch);
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
  // Takes everything: calls put(batch) for each batch. The flag is held. From then on the cache is
  // not listed any more.
  template <typename Put>
  void Empty(Put put, bool short_of_memory = false) {
    Held held(flag_);
    for (unsigned tier = 0; tier < limits_->tiers; ++tier) {
      // Another thread's shelves are lines that this one does not have: no more than need be.
      if (!short_of_memory && ready_bytes() + retired_bytes() == 0) break;
      TakeShelf(tier, put);
      if (short_of_memory) shelves_[tier].next_refill = 1;  // what is made ahead is not kept
    }
    listed_ = false;
    most_bytes_ = 0;
  }
  // Whether it is on the list; under the list's lock.
  bool listed() const { return listed_; }
  // True for the caller who must put it on the list.
  [[nodiscard]] bool BeginListed() {
    Held held(flag_);
    if (listed_) return false;
    most_bytes_ = limits_->bytes;
    return listed_ = true;
  }

  // What changed since it was asked last: for the accounts.
  struct Changes {
    int64_t handed_out;  // bytes of blocks, less those that came back
    int64_t rounding;    // of these, bytes beyond what was asked for
    int64_t retired;     // bytes of retired blocks here
  };
  Changes Settle() {
    Held held(flag_);
    const size_t bytes = ready_bytes() + retired_bytes();
    const size_t handed_out = settled_bytes_ - bytes;
    const Changes changes{static_cast<int64_t>(handed_out),
                          static_cast<int64_t>(handed_out - requested_),
                          static_cast<int64_t>(retired_bytes() - settled_retired_)};
    settled_bytes_ = bytes;
    requested_ = 0;
    settled_retired_ = retired_bytes();
    return changes;
  }

  ContextPool* owner() const { return owner_; }
  // Idle bytes here; exact for the owner, recent for others.
  size_t ready_bytes() const { return ready_bytes_.load(std::memory_order_relaxed); }
  size_t retired_bytes() const { return retired_bytes_.load(std::memory_order_relaxed); }

  // For the context's list of caches and the thread's: written under the cache list's lock and by
  // the owner thread respectively.
  ThreadCache* next_of_context = nullptr;
  ThreadCache* previous_of_context = nullptr;
  ThreadCache* next_of_thread = nullptr;
  // A stream of the owner thread, made on first use; see fill.h.
  void* fill_stream = nullptr;

 private:
  using Bytes = std::atomic<size_t>;
  // One writer at a time: whoever holds the flag.
  static void Add(Bytes& to, size_t bytes) {
    to.store(to.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
  }
  void AddReadyBytes(size_t bytes) { Add(ready_bytes_, bytes); }
  // The same for a batch that comes from or goes to the global pool: idle before and after.
  void Move(Bytes& to, size_t bytes) {
    Add(to, bytes);
    settled_bytes_ += bytes;
  }
  static size_t BytesOf(const Batch& batch) { return batch.count * batch.head->bytes; }
  bool OverLimit() const { return ready_bytes() + retired_bytes() > most_bytes_; }
  // REQUIRES for all below: the flag is held
  Block* Take(Shelf& shelf, unsigned tier, size_t requested) {
    Block* block = shelf.current.Pop();
    AddReadyBytes(-block->bytes);
    requested_ += requested;
    block->GiveToProgram(requested);
    TierCounters& counters = counters_[tier];
    counters.thread_cache_hits.Add(1);
    counters.requested_bytes.Add(requested);
    counters.block_bytes.Add(block->bytes);
    return block;
  }
  void CountFreed(const Block& block, unsigned tier) {
    TierCounters& counters = counters_[tier];
    counters.frees.Add(1);
    counters.requested_freed_bytes.Add(block.requested);
    counters.block_freed_bytes.Add(block.bytes);
    requested_ -= block.requested;
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
  Batch Overflow(Batch& filling, Batch& full, Bytes& bytes);

  OwnerFlag flag_;
  ContextPool* owner_;
  TierCounters* counters_;
  const CacheLimits* limits_;
  Shelf* shelves_;
  Bytes ready_bytes_{0};
  Bytes retired_bytes_{0};
  size_t most_bytes_ = 0;  // 0 while it is not listed
  bool listed_ = false;
  // The bytes here as the accounts know them, moved batches included; and those that were retired
  // when they were told.
  size_t settled_bytes_ = 0;
  size_t settled_retired_ = 0;
  size_t requested_ = 0;  // wraps: of blocks handed out since, less that of those that came back
};

}  // namespace cmp

#endif  // CMP_CORE_LISTS_THREAD_CACHE_H_
