// Pointer to block: which allocations are ours. Constant time; any number of readers and writers,
// no lock; three dependent loads, two for blocks of 2 MiB and more.
//
//   address  [56 .. 36] root  [35 .. 21] region  [20 .. 8] slot
//
//   root  -> middle -> region entry -> leaf -> Block*
//                                  \-> Block*   (tagged: one large block begins here)
//
// A region is 2 MiB of address space. The driver puts allocations of 2 MiB and more at the base
// of a region of their own, so such a region needs no leaf.
//
// Invariants: nodes are never freed; an entry is set before the program sees the address, and
// cleared before a real free of the program's, so a found block is ours. That of a block that the
// pool really frees is cleared afterwards, unless the driver has given the address out again by
// then. Only bases are entered: an interior pointer is not found.
#ifndef CMP_CORE_SIDE_TABLE_H_
#define CMP_CORE_SIDE_TABLE_H_

#include <atomic>
#include <bit>

#include "core/memory.h"
#include "core/types.h"

namespace cmp {

class SideTable {
 public:
  explicit SideTable(Arena& arena) : arena_(arena) {}

  // The block whose base is `address`, or nullptr.
  Block* Find(DeviceAddress address) const {
    if (std::rotr(address, kSlotShift) >> (kAddressBits - kSlotShift) != 0) [[unlikely]]
      return nullptr;  // not aligned, or beyond the table; 0 is in it, and no block's
    // acquire on every level pairs with the release that published the node or the block.
    const Root* root = root_.load(std::memory_order_acquire);
    if (root == nullptr) [[unlikely]]
      return nullptr;
    const Middle* middle = root->entries[address >> kRootShift].load(std::memory_order_acquire);
    if (middle == nullptr) [[unlikely]]
      return nullptr;
    const uintptr_t region = middle->entries[RegionOf(address)].load(std::memory_order_acquire);
    if ((region & kLargeTag) != 0) {
      Block* block = reinterpret_cast<Block*>(region & ~kLargeTag);
      return (address & (kLargeGranule - 1)) == 0 ? block : nullptr;
    }
    if (region == 0) [[unlikely]]
      return nullptr;
    return reinterpret_cast<Leaf*>(region)->entries[SlotOf(address)].load(
        std::memory_order_acquire);
  }

  // For whoever counts what is in the region of a small block; see idle_chunks.h. All 0 at first.
  struct Chunk {
    std::atomic<uint64_t> count;
  };
  // nullptr where no small block was ever entered.
  Chunk* ChunkOf(DeviceAddress address) const {
    if (address >> kAddressBits != 0) return nullptr;
    const Root* root = root_.load(std::memory_order_acquire);
    if (root == nullptr) return nullptr;
    const Middle* middle = root->entries[address >> kRootShift].load(std::memory_order_acquire);
    if (middle == nullptr) return nullptr;
    const uintptr_t region = middle->entries[RegionOf(address)].load(std::memory_order_acquire);
    const bool leaf = region != 0 && (region & kLargeTag) == 0;
    return leaf ? &reinterpret_cast<Leaf*>(region)->chunk : nullptr;
  }

  // True if `address` can be entered: aligned, and within the addresses that the table spans.
  static bool CanHold(DeviceAddress address) {
    return address != 0 && (address & (kMinBlock - 1)) == 0 && address >> kAddressBits == 0;
  }

  // Enters `block` under block->address. `*displaced` is what was there before (the driver gave the
  // address out again: the block is leaving, or somebody freed it behind our back), or nullptr.
  // False: no memory for a node; nothing was entered. REQUIRES: CanHold(block->address)
  bool Insert(Block* block, Block** displaced);

  // Removes the entry for `address` if it is `block`.
  void Erase(DeviceAddress address, Block* block);

 private:
  static constexpr unsigned kAddressBits = 57;
  static constexpr unsigned kRootShift = 36;
  static constexpr unsigned kRegionShift = 21;
  static constexpr unsigned kSlotShift = 8;
  static constexpr uintptr_t kLargeTag = 1;
  static_assert(size_t{1} << kRegionShift == kLargeGranule);
  static_assert(size_t{1} << kSlotShift == kMinBlock);

  struct Leaf {
    std::atomic<Block*> entries[size_t{1} << (kRegionShift - kSlotShift)];
    Chunk chunk;
  };
  struct Middle {
    std::atomic<uintptr_t> entries[size_t{1} << (kRootShift - kRegionShift)];
  };
  struct Root {
    std::atomic<Middle*> entries[size_t{1} << (kAddressBits - kRootShift)];
  };

  static size_t RegionOf(DeviceAddress address) {
    return (address >> kRegionShift) & ((size_t{1} << (kRootShift - kRegionShift)) - 1);
  }
  static size_t SlotOf(DeviceAddress address) {
    return (address >> kSlotShift) & ((size_t{1} << (kRegionShift - kSlotShift)) - 1);
  }
  std::atomic<uintptr_t>* RegionEntry(DeviceAddress address);
  // The slot for `address`, or nullptr without memory. A large block found in the way moves into
  // slot 0 of the new leaf.
  std::atomic<Block*>* LeafSlot(std::atomic<uintptr_t>& region, DeviceAddress address);

  Arena& arena_;
  std::atomic<Root*> root_{nullptr};
};

}  // namespace cmp

#endif  // CMP_CORE_SIDE_TABLE_H_
