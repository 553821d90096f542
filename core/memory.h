// Bookkeeping memory, from mmap alone: the pool must work inside malloc-less moments of a process
// and must not recurse into a program's own malloc.
//
// Invariant: what an arena hands out is zeroed, and is never given back or moved; records may
// therefore be read through stale pointers.
#ifndef CMP_CORE_MEMORY_H_
#define CMP_CORE_MEMORY_H_

#include <cstddef>
#include <new>

#include "core/lock.h"
#include "core/types.h"

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

// The store of block records.
class BlockRecords {
 public:
  explicit BlockRecords(Arena& arena) : arena_(arena) {}

  // A record in state kUnused, or nullptr when memory is exhausted. Thread-safe.
  Block* Take();
  // REQUIRES: `block` is kUnused and on no list. Thread-safe.
  void Return(Block* block);
  // Calls visit(block) for every record ever made, in any state. Records that other threads own
  // may change meanwhile.
  template <typename Visitor>
  void ForEach(Visitor visit) {
    for (Slab* slab = slabs_.load(std::memory_order_acquire); slab != nullptr; slab = slab->next) {
      for (Block& block : slab->blocks) visit(&block);
    }
  }

 private:
  struct Slab {
    Block blocks[255];
    Slab* next = nullptr;
  };
  Arena& arena_;
  Mutex lock_;
  Block* unused_ = nullptr;
  std::atomic<Slab*> slabs_{nullptr};
};

}  // namespace cmp

#endif  // CMP_CORE_MEMORY_H_
