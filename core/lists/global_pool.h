// The free lists that all threads of one context share.
//
//   small tiers (below 2 MiB)   one lock and one list of batches each
//   large blocks (2 MiB up)     one lock; a list per size in steps of 2 MiB, a bitmap of the lists
//                               that are not empty, so the best fit within the slack is one scan of
//                               a few words; and one list of all of them by age
//
//   list:   newest <-> batch <-> ... <-> oldest      links and count in each batch's first block
//
// Taking is last in, first out (warm in the driver and the GPU's page tables); release begins at
// the oldest end of whichever list has waited longest. Beside each tier's list of ready batches,
// and beside all lists of large blocks, there is one of retired batches, whose fences pass in the
// order in which they came, or nearly.
//
// Invariant: ready_bytes() and retired_bytes() are the sums of the blocks here; each is kIdle.
#ifndef CMP_CORE_LISTS_GLOBAL_POOL_H_
#define CMP_CORE_LISTS_GLOBAL_POOL_H_

#include <utility>

#include "core/base/lock.h"
#include "core/base/memory.h"
#include "core/base/tiers.h"
#include "core/base/types.h"
#include "core/lists/idle_chunks.h"

namespace cmp {

class GlobalPool {
 public:
  GlobalPool(const Tiers& tiers, IdleChunks& chunks) : tiers_(tiers), chunks_(chunks) {}

  // The lists of global pools that have ended, for the next ones. Thread-safe.
  class SpareLists;
  // Makes the lists; false when memory is exhausted. Before anything else, and again once it has
  // ended, given its lists back and nobody uses it any more.
  bool Open(size_t max_block, Arena& arena, SpareLists& spare);

  // Adds a batch of idle blocks of one tier: ready ones, or with a stamp, retired ones. Once it has
  // ended it does nothing.
  // REQUIRES: batch.count > 0
  void Put(Batch batch);
  // Adds ready blocks, each a batch of its own and of any size, the one to come first on top.
  void PutEach(Batch blocks);
  // The stamp of what has been retired longest: of a small tier, or of all large blocks. kReady if
  // nothing is.
  Stamp OldestStamp(unsigned tier);
  // Retired batches of a small tier, or all large blocks, for which passed(stamp) become ready,
  // from the oldest on until one is not. passed must take no lock.
  template <typename Passed>
  void Promote(unsigned tier, Passed passed) {
    for (;;) {
      // From the one list to the other under the lock of both: who is short of memory meanwhile
      // finds the batch on one of them.
      Held held(LockOf(tier));
      if (IsGone()) return;
      List& retired = RetiredOf(tier);
      Block* head = retired.oldest;
      if (head == nullptr || !passed(head->links->stamp)) return;
      const Batch batch = Remove(retired, head);
      AddTo(ReadyBytesOf(head), BytesOf(batch));
      AddReady(batch, clock_.fetch_add(1, std::memory_order_relaxed));
      retired_bytes_.fetch_sub(BytesOf(batch), std::memory_order_release);
    }
  }
  template <typename Passed>
  void PromoteAll(Passed passed) {
    for (unsigned tier = 0; tier <= small_tiers_; ++tier) Promote(tier, passed);
  }
  // Is there a ready block that would serve? For large ones: of at least `bytes`, at most `most`.
  bool HasReady(unsigned tier, size_t bytes, size_t most);
  // A batch of ready blocks of `tier`, count 0 if there is none. REQUIRES: the tier is below 2 MiB
  Batch TakeBatch(unsigned tier);
  // The smallest ready block of at least `bytes` and at most `most`, or nullptr.
  // REQUIRES: bytes is a multiple of 2 MiB
  Block* TakeLarge(size_t bytes, size_t most);
  // Ready blocks, longest idle first, until they are at least `bytes`, or `most` of them, or
  // nothing is left that has been idle since `before` on the clock. In place of a large one that is
  // more than what is left to take: the smallest that suffices. Costs the same whatever is here.
  static constexpr uint64_t kAnyTime = ~uint64_t{0};
  Batch TakeOldest(size_t bytes, uint64_t before = kAnyTime, uint32_t most = ~0u);
  // Notes the clock of this moment; returns that of kMarks such moments ago. One caller at a time.
  static constexpr unsigned kMarks = 32;
  uint64_t Mark() {
    const uint64_t now = clock_.load(std::memory_order_relaxed);
    return std::exchange(marks_[next_mark_++ % kMarks], now);
  }
  // As TakeOldest, of large blocks alone.
  Batch TakeOldestLarge(size_t bytes, uint32_t most = ~0u);
  // Retired blocks, of stamps up to `before`, until they are at least `bytes` or nothing is left:
  // for a real free, if it waits for their work by itself or need not.
  Batch TakeRetired(size_t bytes, Stamp before = kAnyTime);
  // The same of large blocks alone.
  Batch TakeRetiredLarge(size_t bytes, Stamp before);

  // Everything that is here; nothing comes after it.
  Batch End();
  // After that, once: its lists are another pool's from now on. Whoever still looks here finds
  // nothing: locks stay locks, and under each of them is asked whose the lists are.
  void GiveListsBack(SpareLists& spare);

  // Who asks for the retired ones first, and then for the ready ones, misses none that becomes
  // ready meanwhile: it is added before it is subtracted (release, acquire). And sees who took what
  // is here no more: takers.h.
  size_t ready_bytes() const {
    return ready_bytes_.load(std::memory_order_acquire) +
           ready_large_bytes_.load(std::memory_order_acquire);
  }
  size_t retired_bytes() const { return retired_bytes_.load(std::memory_order_acquire); }
  bool HasIdle() const { return retired_bytes() != 0 || ready_bytes() != 0; }
  // Of both, in blocks of 2 MiB and more. It stays as it is while such a block becomes ready: who
  // adds this up for the program never counts one twice, nor misses it.
  size_t large_bytes() const { return large_bytes_.load(std::memory_order_acquire); }

 private:
  // Heads of batches, linked through one of their pairs.
  template <BlockLinks::Pair BlockLinks::*pair>
  struct Links {
    Block* newest = nullptr;
    Block* oldest = nullptr;
    void Add(Block* head) {
      head->links->*pair = {nullptr, newest};
      (newest == nullptr ? oldest : (newest->links->*pair).newer) = head;
      newest = head;
    }
    void AddOldest(Block* head) {
      head->links->*pair = {oldest, nullptr};
      (oldest == nullptr ? newest : (oldest->links->*pair).older) = head;
      oldest = head;
    }
    void Remove(Block* head) {
      const BlockLinks::Pair& its = head->links->*pair;
      (its.newer == nullptr ? newest : (its.newer->links->*pair).older) = its.older;
      (its.older == nullptr ? oldest : (its.older->links->*pair).newer) = its.newer;
    }
  };
  using List = Links<&BlockLinks::list>;
  using AgeList = Links<&BlockLinks::age>;
  struct alignas(64) TierList {
    Mutex lock;
    List list;
    List retired;
  };

  // Batches as lists hold them: the count is the head's.
  static void Add(List& list, Batch batch, uint64_t now) {
    batch.head->batch_count = batch.count;
    batch.head->idle_since = now;
    list.Add(batch.head);
  }
  static Batch Remove(List& list, Block* head) {
    list.Remove(head);
    return Batch{head, head->batch_count};
  }

  void AddReady(const Batch& batch, uint64_t now);  // REQUIRES: the list's lock held
  // Put of what counts as idle already. False: it has ended.
  bool PutCounted(Batch batch);

  struct Lists {
    TierList* small = nullptr;
    List* bins = nullptr;
    uint64_t* bin_words = nullptr;  // a bit for each bin: it is not empty
    size_t bin_count = 0;
    Lists* next = nullptr;
  };
  // REQUIRES: a lock of the lists held
  bool IsGone() const { return gone_.load(std::memory_order_relaxed); }

  static bool IsLarge(const Block* block) { return block->bytes >= kLargeGranule; }
  Mutex& LockOf(unsigned tier) { return tier < small_tiers_ ? small_[tier].lock : large_lock_; }
  List& RetiredOf(unsigned tier) {
    return tier < small_tiers_ ? small_[tier].retired : large_retired_;
  }
  static size_t BytesOf(const Batch& batch) { return batch.count * batch.head->bytes; }
  using Bytes = std::atomic<size_t>;
  // A batch came, or was taken. Under the list's lock, so that the sums never miss a block that is
  // on a list.
  void AddBytes(Bytes& bytes, Batch batch) { Change(bytes, batch, 1); }
  void SubtractBytes(Bytes& bytes, Batch batch) { Change(bytes, batch, size_t{0} - 1); }
  void Change(Bytes& bytes, Batch batch, size_t sign) {
    const size_t change = sign * BytesOf(batch);
    AddTo(bytes, change);
    if (IsLarge(batch.head)) AddTo(large_bytes_, change);
  }
  // Those of large blocks alone are changed under their lock: without a locked instruction.
  void AddTo(Bytes& bytes, size_t change) {
    if (&bytes == &ready_large_bytes_ || &bytes == &large_bytes_) {
      bytes.store(bytes.load(std::memory_order_relaxed) + change, std::memory_order_release);
    } else {
      bytes.fetch_add(change, std::memory_order_release);
    }
  }
  Bytes& ReadyBytesOf(const Block* head) {
    return IsLarge(head) ? ready_large_bytes_ : ready_bytes_;
  }
  static size_t BinOf(size_t bytes) { return bytes / kLargeGranule - 1; }
  // The list with the smallest blocks of at least `bytes` and at most `most`, or nullptr.
  // REQUIRES: large_lock_ held
  List* BestBin(size_t bytes, size_t most) const;
  void RemoveLarge(Block* block);  // REQUIRES: large_lock_ held; the block is ready
  // The ready large block to take, where `bytes` are left to take and others have been idle since
  // `then`: the oldest, or what suffices and has been idle since `before`. nullptr: theirs go
  // first.
  Block* TakeLargeOf(size_t bytes, uint64_t then, uint64_t before);
  // TakeRetired of one list, or of all large blocks.
  void TakeRetiredOf(unsigned tier, size_t bytes, Stamp before, Batch* taken, size_t* taken_bytes);
  // At most `bytes` and at most `most` blocks of the oldest batch of a small tier, at least one;
  // none if there is none that has been idle since `before`.
  Batch TakeOldestOf(unsigned tier, size_t bytes, uint64_t before, uint32_t most);

  const Tiers& tiers_;
  IdleChunks& chunks_;
  unsigned small_tiers_ = 0;
  Lists* lists_ = nullptr;
  TierList* small_ = nullptr;  // these three: of lists_
  size_t bin_count_ = 0;
  Mutex large_lock_;
  List* bins_ = nullptr;
  AgeList by_age_;  // of all bins
  uint64_t* bin_words_ = nullptr;
  List large_retired_;
  Bytes ready_bytes_{0};  // without the large ones
  Bytes ready_large_bytes_{0};
  Bytes retired_bytes_{0};
  Bytes large_bytes_{0};
  std::atomic<uint64_t> clock_{1};
  uint64_t marks_[kMarks] = {};
  unsigned next_mark_ = 0;
  // Read under each list's lock; whoever sets it takes those locks afterwards.
  std::atomic<bool> ended_{false};
  std::atomic<bool> gone_{false};
};

class GlobalPool::SpareLists {
 public:
  void Put(Lists* lists) {
    Held held(lock_);
    lists->next = first_;
    first_ = lists;
  }
  Lists* Take(size_t bin_count) {  // nullptr: there are none
    Held held(lock_);
    for (Lists** link = &first_; *link != nullptr; link = &(*link)->next) {
      Lists* const lists = *link;
      if (lists->bin_count != bin_count) continue;  // of a device of another size
      *link = lists->next;
      return lists;
    }
    return nullptr;
  }

 private:
  Mutex lock_;
  Lists* first_ = nullptr;
};

}  // namespace cmp

#endif  // CMP_CORE_LISTS_GLOBAL_POOL_H_
