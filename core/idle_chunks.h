// How much memory small idle blocks would give back to the driver.
//
// The driver packs blocks below 2 MiB into chunks of 2 MiB, aligned to 2 MiB, and keeps a chunk
// until its last block is really freed (measured). So only wholly idle chunks count: those in which
// idle blocks leave less room than their smallest one takes.
#ifndef CMP_CORE_IDLE_CHUNKS_H_
#define CMP_CORE_IDLE_CHUNKS_H_

#include "core/memory.h"

namespace cmp {

// Chunks by address, in an open-addressing table of mapped pages.
class IdleChunks {
 public:
  // Room for `blocks` blocks; without memory for it every sum is 0.
  explicit IdleChunks(size_t blocks) {
    while (places_ < 2 * blocks) places_ *= 2;
    chunks_ = static_cast<Chunk*>(MapPages(places_ * sizeof(Chunk)));
  }
  ~IdleChunks() { UnmapPages(chunks_, places_ * sizeof(Chunk)); }
  IdleChunks(const IdleChunks&) = delete;
  IdleChunks& operator=(const IdleChunks&) = delete;

  void Add(DeviceAddress address, size_t bytes) {
    if (chunks_ == nullptr || added_++ >= places_ / 2) return;
    const size_t taken = (bytes + kGrain - 1) / kGrain * kGrain;
    const uint64_t number = address / kLargeGranule;
    size_t place = (number * 0x9e3779b97f4a7c15) >> 32 & (places_ - 1);
    while (chunks_[place].number != 0 && chunks_[place].number != number) {
      place = (place + 1) & (places_ - 1);
    }
    Chunk& chunk = chunks_[place];
    chunk.number = number;
    chunk.taken += taken;
    if (chunk.smallest == 0 || taken < chunk.smallest) chunk.smallest = taken;
  }
  size_t WhollyIdle() const {
    size_t bytes = 0;
    for (size_t i = 0; chunks_ != nullptr && i < places_; ++i) {
      if (chunks_[i].number != 0 && chunks_[i].taken + chunks_[i].smallest > kLargeGranule) {
        bytes += kLargeGranule;
      }
    }
    return bytes;
  }

 private:
  static constexpr size_t kGrain = 512;  // alignment within a chunk (measured)
  struct Chunk {
    uint64_t number;
    size_t taken;
    size_t smallest;
  };
  Chunk* chunks_ = nullptr;
  size_t places_ = 64;
  size_t added_ = 0;
};

// The bytes of wholly idle chunks among a context's blocks. Looks at every record: some nanoseconds
// each. Blocks that move meanwhile are counted or not. Thread-safe.
inline size_t WhollyIdleBytes(BlockRecords& records) {
  const auto for_each_small_idle = [&](auto visit) {
    records.ForEach([&](const Block* block) {
      if (block->state.load(std::memory_order_acquire) != BlockState::kIdle) return;
      // A record may get another block meanwhile: relaxed, as BlockSource::Register writes them.
      const size_t bytes = __atomic_load_n(&block->bytes, __ATOMIC_RELAXED);
      const DeviceAddress address = __atomic_load_n(&block->address, __ATOMIC_RELAXED);
      if (bytes < kLargeGranule) visit(address, bytes);
    });
  };
  size_t blocks = 0;
  size_t all = 0;
  for_each_small_idle([&](DeviceAddress, size_t bytes) {
    ++blocks;
    all += bytes;
  });
  if (all < kLargeGranule / 2) return 0;
  IdleChunks chunks(blocks);
  for_each_small_idle([&](DeviceAddress address, size_t bytes) { chunks.Add(address, bytes); });
  return chunks.WhollyIdle();
}

}  // namespace cmp

#endif  // CMP_CORE_IDLE_CHUNKS_H_
