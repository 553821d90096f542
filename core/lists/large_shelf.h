// The few blocks that a thread keeps for one context beside the shelves of its tiers: ready ones
// that are too large for a shelf, of whatever size, freed last.
//
//   oldest  [b][b][b]...  newest        at most kSlots of them, of so many bytes in all
//
// A pair of cudaMalloc and cudaFree of a size that the thread just used takes no lock that others
// take. Where there is no room for one more the oldest leave, half of the slots at once: the global
// pool's lock is paid for several.
//
// Invariants: bytes() is the sum of the blocks here; each is kIdle, ready, and of the cache's
// owner. A shelf that is not open has none and takes none: it is opened and closed under the lock
// of its context's list of caches.
#ifndef CMP_CORE_LISTS_LARGE_SHELF_H_
#define CMP_CORE_LISTS_LARGE_SHELF_H_

#include <atomic>

#include "core/base/types.h"

namespace cmp {

// REQUIRES, but where it says otherwise: the flag of the cache is held
class LargeShelf {
 public:
  static constexpr unsigned kSlots = 8;

  // REQUIRES for these two: the lock of the list of caches as well
  void Open(size_t most_bytes) {
    Raise(most_bytes);
    open_ = true;
  }
  // Calls put(batch) for each block, the oldest first: it is empty, and closed.
  template <typename Put>
  void Close(Put put) {
    open_ = false;
    Raise(0);
    for (Batch all = TakeOldest(count_); all.count != 0;) put(Batch::Of(all.Pop()));
  }
  // Under the flag, or under the list's lock.
  bool is_open() const { return open_; }
  // It may have so much from now on. REQUIRES, for others: is_open()
  void Raise(size_t most_bytes) { most_bytes_.store(most_bytes, std::memory_order_relaxed); }
  // With no flag, too: as of now.
  size_t most_bytes() const { return most_bytes_.load(std::memory_order_relaxed); }

  // For anybody, with no lock: exact for who holds the flag, recent for others. Relaxed: who acts
  // on it takes the flag and looks again.
  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  // The smallest size of at least `bytes` and at most `most` that is here; 0: there is none.
  size_t BestFit(size_t bytes, size_t most) const {
    size_t best = 0;
    if (this->bytes() < bytes) return best;
    for (const std::atomic<size_t>& size : sizes_) {
      const size_t here = size.load(std::memory_order_relaxed);
      if (here >= bytes && here <= most && (best == 0 || here < best)) best = here;
    }
    return best;
  }

  // The newest block of exactly `bytes`, or nullptr.
  Block* Take(size_t bytes) {
    for (unsigned slot = count_; slot-- != 0;) {
      if (sizes_[slot].load(std::memory_order_relaxed) != bytes) continue;
      Block* block = blocks_[slot];
      AddBytes(size_t{0} - bytes);
      MoveDown(slot, slot + 1);
      return block;
    }
    return nullptr;
  }
  // Takes a block. `*leaving`: those for which there is no room, each a batch of its own, the
  // oldest on top; perhaps the block itself. REQUIRES: is_open(), and *leaving is empty
  void Put(Block* block, Batch* leaving) {
    if (block->bytes > most_bytes()) {
      leaving->Push(block);
      return;
    }
    unsigned gone = count_ == kSlots ? kSlots / 2 : 0;
    size_t sum = bytes() + block->bytes;
    for (unsigned slot = 0; slot < gone; ++slot) sum -= blocks_[slot]->bytes;
    while (sum > most_bytes()) sum -= blocks_[gone++]->bytes;
    if (gone != 0) *leaving = TakeOldest(gone);
    blocks_[count_] = block;
    sizes_[count_].store(block->bytes, std::memory_order_relaxed);
    ++count_;
    AddBytes(block->bytes);
  }

 private:
  void AddBytes(size_t bytes) {
    bytes_.store(bytes_.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
  }
  // The blocks of `from` and later slots go to `to` and later ones.
  void MoveDown(unsigned to, unsigned from) {
    for (; from < count_; ++to, ++from) {
      blocks_[to] = blocks_[from];
      sizes_[to].store(sizes_[from].load(std::memory_order_relaxed), std::memory_order_relaxed);
    }
    for (count_ = to; to < from; ++to) sizes_[to].store(0, std::memory_order_relaxed);
  }
  Batch TakeOldest(unsigned blocks) {
    Batch taken;
    for (unsigned slot = blocks; slot-- != 0;) {
      AddBytes(size_t{0} - blocks_[slot]->bytes);
      taken.Push(blocks_[slot]);
    }
    MoveDown(0, blocks);
    return taken;
  }

  alignas(64) std::atomic<size_t> sizes_[kSlots] = {};  // of the blocks; 0: none
  Block* blocks_[kSlots] = {};
  unsigned count_ = 0;
  bool open_ = false;
  std::atomic<size_t> most_bytes_{0};
  std::atomic<size_t> bytes_{0};
};

}  // namespace cmp

#endif  // CMP_CORE_LISTS_LARGE_SHELF_H_
