// The memory of one device: an address range of its own, backed by a memory file.
//
// Blocks below kSmallLimit are cut, 512-byte aligned, out of 2 MiB chunks; a chunk counts as used
// as a whole and goes back when its last block does. Larger blocks are whole multiples of 2 MiB.
// Managed memory that is here counts as used. It comes in granules of 2 MiB, each named by the
// address where it begins, and goes when blocks or other granules need its place: those first that
// were used longest ago.
// Invariants: used() is 2 MiB times the chunks, large pages and granules here and never exceeds the
// capacity; memory handed out reads as zeros; what is not handed out is either inaccessible or, in
// a chunk, filled with a poison that is checked when the bytes are handed out again.
// The caller holds the simulator's lock.
#ifndef CMP_TESTS_SIM_DEVICE_MEMORY_H_
#define CMP_TESTS_SIM_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <unordered_map>
#include <vector>

namespace cmp::sim {

inline constexpr size_t kPage = size_t{2} << 20;
inline constexpr size_t kGranularity = kPage;  // of virtual memory and multicast objects
inline constexpr size_t kHostPage = 4096;      // what exports of memory are cut into
inline constexpr size_t kSmallAlignment = 512;
inline constexpr size_t kSmallLimit = kPage;  // from here on a block has its own pages

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t capacity);
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // 0 when the capacity does not suffice. Sets `spoiled` when a freed block was written to.
  uintptr_t Allocate(size_t bytes, bool* spoiled);
  void Free(uintptr_t base, size_t bytes);

  // Work of the device uses the granule: it comes here, unless blocks alone leave no room for it.
  void UseManaged(uintptr_t granule);
  // It goes elsewhere, or has ended.
  void DropManaged(uintptr_t granule);
  struct ManagedCounts {
    uint64_t migrations = 0;   // came here
    uint64_t evictions = 0;    // went to the host for want of room
    uint64_t remote_uses = 0;  // used where it was, for want of room
  };
  ManagedCounts managed;  // since the program cleared them

  // The physical memory that a block is in: the chunk that a small one is cut out of, or its own.
  struct Chunk {
    uintptr_t start = 0;
    size_t bytes = 0;
    uint64_t id = 0;  // of no other one in the process, before or after
  };
  // REQUIRES: `address` is in a block
  Chunk ChunkOf(uintptr_t address) const;

  bool Contains(uintptr_t address) const { return address >= start_ && address < start_ + range_; }
  size_t capacity() const { return capacity_; }
  size_t used() const { return used_; }
  // Where another process finds the same bytes.
  int file() const { return file_; }
  size_t FileOffset(uintptr_t address) const { return address - start_; }

 private:
  // Free stretches by offset, adjacent ones merged, and the offsets freed last: CUDA hands the
  // address of the block freed last to the next one that fits.
  class Extents {
   public:
    // Stretches are not merged across multiples of `boundary` (0: merged everywhere).
    explicit Extents(size_t boundary) : boundary_(boundary) {}

    void Add(size_t offset, size_t bytes);
    bool Take(size_t bytes, size_t* offset);
    bool TakeAt(size_t offset, size_t bytes);
    void Remove(size_t offset, size_t bytes);
    bool Covers(size_t offset, size_t bytes) const;
    // Removes a stretch that leaves for good: its offsets are no longer preferred.
    void Withdraw(size_t offset, size_t bytes);

   private:
    bool AtBoundary(size_t offset) const { return boundary_ != 0 && offset % boundary_ == 0; }

    size_t boundary_;
    std::map<size_t, size_t> free_;
    std::vector<size_t> recent_;
  };

  uintptr_t AllocateSmall(size_t bytes, bool* spoiled);
  void FreeSmall(size_t offset, size_t bytes);
  bool MayHaveData(size_t offset, size_t bytes) const;
  void Zero(size_t offset, size_t bytes);
  void PunchOut(size_t offset, size_t bytes);
  bool TakePages(size_t bytes, size_t* offset);
  bool MakeRoom(size_t bytes);  // false, and nothing was evicted: blocks leave too little
  void ReturnPages(size_t offset, size_t bytes);

  size_t capacity_;
  size_t range_;
  uintptr_t start_ = 0;
  int file_ = -1;
  size_t used_ = 0;
  std::map<size_t, Chunk> chunks_;  // by offset
  std::vector<bool> kept_;          // by kPage: nobody has it, and its bytes are as they were left
  size_t kept_bytes_ = 0;           // of those
  Extents pages_{0};
  Extents small_{kPage};                           // free bytes inside chunks
  std::unordered_map<size_t, size_t> chunk_used_;  // chunk's offset: bytes handed out
  std::list<uintptr_t> granules_;                  // here; the one used last is the last
  std::unordered_map<uintptr_t, std::list<uintptr_t>::iterator> granule_at_;
};

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_DEVICE_MEMORY_H_
