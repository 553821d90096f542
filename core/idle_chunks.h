// How much memory small idle blocks would give back to the driver.
//
// The driver packs blocks below 2 MiB into chunks of 2 MiB, aligned to 2 MiB, and keeps a chunk
// until its last block is really freed (measured). So only chunks count whose blocks of the pool
// are all idle, and on lists of global pools: whoever wants to know empties the thread caches
// first. Chunks in which others have blocks too are not told apart.
#ifndef CMP_CORE_IDLE_CHUNKS_H_
#define CMP_CORE_IDLE_CHUNKS_H_

#include "core/side_table.h"

namespace cmp {

// Running counts: asking costs the same whatever there is. Thread-safe.
class IdleChunks {
 public:
  explicit IdleChunks(const SideTable& side_table) : side_table_(side_table) {}

  // A small block was made, or is about to be really freed.
  void Add(const Block& block, int device) {
    SideTable::Chunk* chunk = side_table_.ChunkOf(block.address);
    if (chunk == nullptr) return;
    // Until it is empty again all of it counts for one device, whoever has blocks in it.
    if (chunk->count.load(std::memory_order_relaxed) == 0) {
      chunk->device.store(device, std::memory_order_relaxed);
    }
    ChangeTaken(*chunk, kOne * Taken(block));
  }
  void Remove(DeviceAddress address, size_t bytes) {
    SideTable::Chunk* chunk = side_table_.ChunkOf(address);
    if (chunk != nullptr) ChangeTaken(*chunk, 0 - kOne * Taken(bytes));
  }
  // Small blocks came on a list of a global pool, or were taken off it. REQUIRES: the caller has
  // the batch
  void AddIdle(const Batch& batch) { ChangeIdle(batch, 1); }
  void RemoveIdle(const Batch& batch) { ChangeIdle(batch, 0 - uint64_t{1}); }

  // The bytes of a device's chunks that are wholly idle.
  size_t Bytes(int device) const {
    const int64_t chunks = whole_[PlaceOf(device)].load(std::memory_order_acquire);
    return chunks > 0 ? static_cast<size_t>(chunks) * kLargeGranule : 0;
  }

  // The bytes of a device's chunks with blocks of the pool that are between these.
  size_t Gaps(int device) const {
    const int64_t bytes = gaps_[PlaceOf(device)].load(std::memory_order_relaxed);
    return bytes > 0 ? static_cast<size_t>(bytes) : 0;
  }

 private:
  // In a chunk's count: bytes of blocks above, of idle ones below, both in the driver's steps.
  static constexpr uint64_t kOne = uint64_t{1} << 32;
  static constexpr int kMostDevices = 64;  // those beyond share a place

  static int PlaceOf(int device) {
    return device >= 0 && device < kMostDevices ? device : kMostDevices;
  }
  static uint64_t Taken(size_t bytes) { return (bytes + kSmallGrain - 1) / kSmallGrain; }
  static uint64_t Taken(const Block& block) { return Taken(block.bytes); }
  static int IsWhole(uint64_t count) {
    return count != 0 && count >> 32 == (count & (kOne - 1)) ? 1 : 0;
  }

  void Change(DeviceAddress address, uint64_t change) {
    SideTable::Chunk* chunk = side_table_.ChunkOf(address);
    if (chunk != nullptr) Change(*chunk, change);
  }
  uint64_t Change(SideTable::Chunk& chunk, uint64_t change) {  // returns the count before
    // Relaxed: the sums are exact once nobody moves blocks.
    const uint64_t before = chunk.count.fetch_add(change, std::memory_order_relaxed);
    const int whole = IsWhole(before + change) - IsWhole(before);
    if (whole == 0) return before;
    const int place = PlaceOf(chunk.device.load(std::memory_order_relaxed));
    // release: who misses a chunk here sees who has its blocks in hand (BlockSource::Hand).
    whole_[place].fetch_add(whole, std::memory_order_release);
    return before;
  }
  void ChangeTaken(SideTable::Chunk& chunk, uint64_t change) {
    const int place = PlaceOf(chunk.device.load(std::memory_order_relaxed));
    const uint64_t before = Change(chunk, change);
    const int64_t gap = GapOf(before + change) - GapOf(before);
    gaps_[place].fetch_add(gap, std::memory_order_relaxed);
  }
  static int64_t GapOf(uint64_t count) {
    const uint64_t taken = (count >> 32) * kSmallGrain;
    return taken == 0 ? 0 : static_cast<int64_t>(kLargeGranule) - static_cast<int64_t>(taken);
  }
  // Blocks that were made together are neighbours: one change for each run of them.
  void ChangeIdle(const Batch& batch, uint64_t sign) {
    if (batch.count == 0 || batch.head->bytes >= kLargeGranule) return;
    const uint64_t each = sign * Taken(*batch.head);
    const Block* block = batch.head;
    for (uint32_t i = 0; i < batch.count;) {
      const DeviceAddress chunk = block->address / kLargeGranule;
      const DeviceAddress address = block->address;
      uint64_t blocks = 0;
      for (; i < batch.count && block->address / kLargeGranule == chunk; ++i, block = block->next) {
        ++blocks;
      }
      Change(address, blocks * each);
    }
  }

  const SideTable& side_table_;
  std::atomic<int64_t> whole_[kMostDevices + 1] = {};
  std::atomic<int64_t> gaps_[kMostDevices + 1] = {};
};

}  // namespace cmp

#endif  // CMP_CORE_IDLE_CHUNKS_H_
