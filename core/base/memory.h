// Bookkeeping memory, from mmap alone: the pool must work inside malloc-less moments of a process
// and must not recurse into a program's own malloc.
//
// Invariant: what an arena hands out is zeroed, and is never given back or moved; records may
// therefore be read through stale pointers.
#ifndef CMP_CORE_BASE_MEMORY_H_
#define CMP_CORE_BASE_MEMORY_H_

#include <cstddef>
#include <new>

#include "core/base/lock.h"
#include "core/base/types.h"

namespace cmp {

// Whole pages, zeroed on first touch; nullptr when the system has none left. Thread-safe.
void* MapPages(size_t bytes);
// Gives whole pages back. nullptr is nothing.
void UnmapPages(void* pages, size_t bytes);

class Arena {
 public:
  constexpr Arena() = default;

  // `bytes` of zeroed memory aligned to 64, or nullptr when the system has none left. Thread-safe.
  void* Allocate(size_t bytes);

  template <typename T, typename... Arguments>
  T* New(Arguments&&... arguments) {
    static_assert(alignof(T) <= 64);
    void* memory = Allocate(sizeof(T));
    return memory == nullptr ? nullptr : new (memory) T(static_cast<Arguments&&>(arguments)...);
  }

 private:
  Mutex lock_;
  char* next_ = nullptr;
  size_t left_ = 0;
};

struct BlockSlab {
  static constexpr size_t kBlocks = 256;
  BlockSlab() {
    for (size_t i = 0; i < kBlocks; ++i) blocks[i].links = &links[i];
  }
  Block blocks[kBlocks];
  BlockLinks links[kBlocks];
  std::atomic<BlockSlab*> next{nullptr};
};

// Slabs of records that no context uses. Thread-safe.
class BlockSlabs {
 public:
  explicit BlockSlabs(Arena& arena) : arena_(arena) {}
  // One whose records are all kUnused, or nullptr when memory is exhausted.
  BlockSlab* Take();
  // REQUIRES: nobody has a record of it, on a list or in hand
  void Return(BlockSlab* slab);

 private:
  Arena& arena_;
  Mutex lock_;
  BlockSlab* unused_ = nullptr;
};

// The records of one context's blocks, in slabs of its own, so that the context finds its blocks
// without looking at those of others, and leaves nothing behind. Thread-safe.
class BlockRecords {
 public:
  explicit BlockRecords(BlockSlabs& slabs) : slab_store_(slabs) {}

  // Those of a context that has no block yet.
  void Open();
  // A record that the caller owns, kUnused. nullptr: memory is exhausted, or the context has ended.
  Block* Take();
  // REQUIRES: `block` is kUnused and on no list.
  void Return(Block* block);
  // The context has ended, and nobody is making a block: forget(block) for every record, which
  // leaves it kUnused. False: somebody who frees it has it in hand; its slab is not used again.
  // True: nobody had one in hand.
  template <typename Forget>
  bool End(Forget forget) {
    bool all_unused = true;
    for (BlockSlab* slab = TakeSlabs(); slab != nullptr;) {
      BlockSlab* const next = slab->next.load(std::memory_order_acquire);
      bool unused = true;
      for (Block& block : slab->blocks) unused &= forget(&block);
      if (unused) slab_store_.Return(slab);
      all_unused &= unused;
      slab = next;
    }
    return all_unused;
  }

 private:
  BlockSlab* TakeSlabs();

  BlockSlabs& slab_store_;
  Mutex lock_;
  Block* unused_ = nullptr;
  bool ended_ = false;
  std::atomic<BlockSlab*> slabs_{nullptr};
};

}  // namespace cmp

#endif  // CMP_CORE_BASE_MEMORY_H_
