#include "core/memory.h"

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

Block* BlockRecords::Take() {
  Held held(lock_);
  if (unused_ == nullptr) {
    Slab* slab = arena_.New<Slab>();
    if (slab == nullptr) return nullptr;
    for (Block& block : slab->blocks) {
      block.next = unused_;
      unused_ = &block;
    }
    slab->next = slabs_.load(std::memory_order_relaxed);
    slabs_.store(slab, std::memory_order_release);  // ForEach sees constructed records
  }
  Block* block = unused_;
  unused_ = block->next;
  block->next = nullptr;
  return block;
}

void BlockRecords::Return(Block* block) {
  Held held(lock_);
  block->next = unused_;
  unused_ = block;
}

}  // namespace cmp
