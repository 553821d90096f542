#include "core/base/memory.h"

#include <sys/mman.h>

namespace cmp {

namespace {
constexpr size_t kArenaChunk = kMiB;
}  // namespace

void* MapPages(size_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

void UnmapPages(void* pages, size_t bytes) {
  if (pages != nullptr) munmap(pages, bytes);
}

void* Arena::Allocate(size_t bytes) {
  bytes = (bytes + 63) & ~size_t{63};
  if (bytes >= kArenaChunk / 4) return MapPages(bytes);
  Held held(lock_);
  if (bytes > left_) {
    void* chunk = MapPages(kArenaChunk);
    if (chunk == nullptr) return nullptr;
    next_ = static_cast<char*>(chunk);
    left_ = kArenaChunk;
  }
  void* memory = next_;
  next_ += bytes;
  left_ -= bytes;
  return memory;
}

BlockSlab* BlockSlabs::Take() {
  Held held(lock_);
  BlockSlab* slab = unused_;
  if (slab == nullptr) return arena_.New<BlockSlab>();
  unused_ = slab->next.load(std::memory_order_relaxed);
  return slab;
}

void BlockSlabs::Return(BlockSlab* slab) {
  Held held(lock_);
  slab->next.store(unused_, std::memory_order_relaxed);
  unused_ = slab;
}

void BlockRecords::Open() {
  Held held(lock_);
  ended_ = false;
}

Block* BlockRecords::Take() {
  Held held(lock_);
  if (ended_) return nullptr;
  if (unused_ == nullptr) {
    BlockSlab* slab = slab_store_.Take();
    if (slab == nullptr) return nullptr;
    for (Block& block : slab->blocks) {
      block.next = unused_;
      unused_ = &block;
    }
    slab->next.store(slabs_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    slabs_.store(slab, std::memory_order_release);  // End sees constructed records
  }
  Block* block = unused_;
  unused_ = block->next;
  block->next = nullptr;
  return block;
}

void BlockRecords::Return(Block* block) {
  Held held(lock_);
  if (ended_) return;  // End has it
  block->next = unused_;
  unused_ = block;
}

BlockSlab* BlockRecords::TakeSlabs() {
  Held held(lock_);
  ended_ = true;
  unused_ = nullptr;
  return slabs_.exchange(nullptr, std::memory_order_acq_rel);
}

}  // namespace cmp
