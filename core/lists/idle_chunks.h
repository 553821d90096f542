// How much memory small idle blocks would give back to the driver.
//
// The driver packs blocks below 2 MiB into chunks of 2 MiB, aligned to 2 MiB, and keeps a chunk
// until its last block is really freed (measured). So only chunks count whose blocks of the pool
// are all idle, and on lists of global pools: whoever wants to know empties the thread caches
// first. Chunks in which others have blocks too are not told apart.
#ifndef CMP_CORE_LISTS_IDLE_CHUNKS_H_
#define CMP_CORE_LISTS_IDLE_CHUNKS_H_

#include "core/lists/side_table.h"

namespace cmp {

// Running counts: asking costs the same whatever there is. Thread-safe.
class IdleChunks {
 public:
  explicit IdleChunks(const SideTable& side_table) : side_table_(side_table) {}

  // A small block was made, or is about to be really freed.
  void Add(const Block& block, int device) {
    SideTable::Chunk* chunk = side_table_.ChunkOf(block.address);
    if (chunk == nullptr) return;
    // All of it counts for the device of its newest block: the driver may have freed the chunk, and
    // made it again on another device, before the block that was there is known to be gone.
    const uint64_t place = static_cast<uint64_t>(PlaceOfDevice(device)) << kPlaceShift;
    uint64_t before = chunk->count.load(std::memory_order_relaxed);
    uint64_t after = 0;
    do {
      after = place | ((before & ~kPlace) + kOne * Taken(block));
    } while (!chunk->count.compare_exchange_weak(before, after, std::memory_order_relaxed));
    Count(whole_, WholeOf, before, after);
    Count(gaps_, GapOf, before, after);
  }
  void Remove(DeviceAddress address, size_t bytes) {
    SideTable::Chunk* chunk = side_table_.ChunkOf(address);
    if (chunk == nullptr) return;
    const uint64_t change = 0 - kOne * Taken(bytes);
    const uint64_t before = Change(*chunk, change);
    Count(gaps_, GapOf, before, before + change);
  }
  // Small blocks came on a list of a global pool, or were taken off it. REQUIRES: the caller has
  // the batch
  void AddIdle(const Batch& batch) { ChangeIdle(batch, 1); }
  void RemoveIdle(const Batch& batch) { ChangeIdle(batch, 0 - uint64_t{1}); }

  // The bytes of a device's chunks that are wholly idle.
  size_t Bytes(int device) const {
    const int64_t chunks = whole_[PlaceOfDevice(device)].load(std::memory_order_acquire);
    return chunks > 0 ? static_cast<size_t>(chunks) * kLargeGranule : 0;
  }

  // The bytes of a device's chunks with blocks of the pool that are between these.
  size_t Gaps(int device) const {
    const int64_t bytes = gaps_[PlaceOfDevice(device)].load(std::memory_order_relaxed);
    return bytes > 0 ? static_cast<size_t>(bytes) : 0;
  }

 private:
  // A chunk's count, from above: its device's place; bytes of blocks; of idle ones. Both in the
  // driver's steps, and neither ever below 0.
  static constexpr unsigned kPlaceShift = 48;
  static constexpr unsigned kTakenShift = 24;
  static constexpr uint64_t kPlace = ~uint64_t{0} << kPlaceShift;
  static constexpr uint64_t kOne = uint64_t{1} << kTakenShift;

  static int PlaceIn(uint64_t count) { return static_cast<int>(count >> kPlaceShift); }
  static uint64_t TakenIn(uint64_t count) { return (count & ~kPlace) >> kTakenShift; }
  static uint64_t Taken(size_t bytes) { return (bytes + kSmallGrain - 1) / kSmallGrain; }
  static uint64_t Taken(const Block& block) { return Taken(block.bytes); }
  static int64_t WholeOf(uint64_t count) {
    const uint64_t taken = TakenIn(count);
    return taken != 0 && taken == (count & (kOne - 1)) ? 1 : 0;
  }
  static int64_t GapOf(uint64_t count) {
    const uint64_t taken = TakenIn(count) * kSmallGrain;
    return taken == 0 ? 0 : static_cast<int64_t>(kLargeGranule) - static_cast<int64_t>(taken);
  }

  void Change(DeviceAddress address, uint64_t change) {
    SideTable::Chunk* chunk = side_table_.ChunkOf(address);
    if (chunk != nullptr) Change(*chunk, change);
  }
  uint64_t Change(SideTable::Chunk& chunk, uint64_t change) {  // returns the count before
    // Relaxed: the sums are exact once nobody moves blocks.
    const uint64_t before = chunk.count.fetch_add(change, std::memory_order_relaxed);
    Count(whole_, WholeOf, before, before + change);
    return before;
  }
  // What a chunk came to goes from the sum of its place then, what it comes to is added to that of
  // its place now: whoever changes it meanwhile, no sum is off in the end.
  using Sums = std::atomic<int64_t>[kDevicePlaces];
  static void Count(Sums& sums, int64_t (*of)(uint64_t), uint64_t before, uint64_t after) {
    const bool moves = PlaceIn(before) != PlaceIn(after);
    const int64_t change = of(after) - (moves ? 0 : of(before));
    // release: who misses a chunk here sees who has its blocks in hand (BlockSource::Hand).
    if (change != 0) sums[PlaceIn(after)].fetch_add(change, std::memory_order_release);
    if (moves) sums[PlaceIn(before)].fetch_sub(of(before), std::memory_order_release);
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
  Sums whole_ = {};
  Sums gaps_ = {};
};

}  // namespace cmp

#endif  // CMP_CORE_LISTS_IDLE_CHUNKS_H_
