// The free lists that all threads of one context share.
//
//   small tiers (below 2 MiB)   one lock and one list of batches each
//   large blocks (2 MiB up)     one lock; a list per size in steps of 2 MiB and a bitmap of the
//                               lists that are not empty, so the best fit within the slack is one
//                               scan of a few words
//
//   list:   newest <-> batch <-> ... <-> oldest      links and count in each batch's first block
//
// Taking is last in, first out (warm in the driver and the GPU's page tables); release begins at
// the oldest end of whichever list has waited longest.
//
// Invariant: bytes() is the sum of all blocks here; each of them is kIdle.
#ifndef CMP_CORE_GLOBAL_POOL_H_
#define CMP_CORE_GLOBAL_POOL_H_

#include "core/lock.h"
#include "core/memory.h"
#include "core/tiers.h"
#include "core/types.h"

namespace cmp {

class GlobalPool {
 public:
  GlobalPool(const Tiers& tiers, size_t max_block) : tiers_(tiers), max_block_(max_block) {}

  // Makes the lists; false when memory is exhausted. Call once, before anything else.
  bool Open(Arena& arena);

  // Adds a batch of idle blocks of one tier. REQUIRES: batch.count > 0
  void Put(Batch batch);
  // A batch of blocks of `tier`, count 0 if there is none. REQUIRES: the tier is below 2 MiB
  Batch TakeBatch(unsigned tier);
  // The smallest block of at least `bytes` and at most `most`, or nullptr.
  // REQUIRES: bytes is a multiple of 2 MiB
  Block* TakeLarge(size_t bytes, size_t most);
  // Idle blocks, longest idle first, until they are at least `bytes` or nothing is left.
  Batch TakeOldest(size_t bytes);

  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  // Of these, in blocks of 2 MiB and more.
  size_t large_bytes() const { return large_bytes_.load(std::memory_order_relaxed); }

 private:
  struct List {
    Block* newest = nullptr;
    Block* oldest = nullptr;
    void Add(Batch batch, uint64_t now);
    Batch Remove(Block* head);
  };
  struct alignas(64) TierList {
    Mutex lock;
    List list;
  };

  bool IsLarge(const Block* block) const { return block->bytes >= kLargeGranule; }
  static size_t BinOf(size_t bytes) { return bytes / kLargeGranule - 1; }
  // The first bin from `bin` on that is not empty, or bin_count_. REQUIRES: large_lock_ held
  size_t NextBin(size_t bin) const;
  Batch RemoveFromBin(size_t bin, Block* head);  // REQUIRES: large_lock_ held

  const Tiers& tiers_;
  const size_t max_block_;
  unsigned small_tiers_ = 0;
  TierList* small_ = nullptr;
  size_t bin_count_ = 0;
  Mutex large_lock_;
  List* bins_ = nullptr;
  uint64_t* bin_words_ = nullptr;
  std::atomic<size_t> bytes_{0};
  std::atomic<size_t> large_bytes_{0};
  std::atomic<uint64_t> clock_{1};
};

}  // namespace cmp

#endif  // CMP_CORE_GLOBAL_POOL_H_
