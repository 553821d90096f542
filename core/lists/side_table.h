// Pointer to block: which allocations are ours. Constant time; any number of readers and writers,
// no lock; three dependent loads, two for blocks of 2 MiB and more.
//
//   address  [56 .. 36] root  [35 .. 21] region  [20 .. 8] slot
//
//   root  -> middle -> region entry -> leaf -> Block*
//                                  \-> Block*   (tagged: one large block begins here,
//                                                or one began before and goes on here)
//
// A region is 2 MiB of address space. The driver puts allocations of 2 MiB and more at the base
// of a region of their own, so such a region needs no leaf.
//
// Invariants: nodes are never freed; an entry is set before the program sees the address, and
// cleared before a real free of the program's, so a found block is ours. That of a block that the
// pool really frees, or the program in the order of a stream or by the library, is cleared
// afterwards, unless the driver has given the address out again by then. Find knows bases alone,
// FindAround every byte of a block: at its base, and in every region that it goes on in (small ones
// of page-locked memory lie across regions, too); else by the nearest base below, which a leaf has
// a bit for.
#ifndef CMP_CORE_LISTS_SIDE_TABLE_H_
#define CMP_CORE_LISTS_SIDE_TABLE_H_

#include <atomic>
#include <bit>

#include "core/base/memory.h"
#include "core/base/types.h"

namespace cmp {

class SideTable {
 public:
  explicit SideTable(Arena& arena)
      : arena_(arena), root_(static_cast<Root*>(arena.Allocate(sizeof(Root)))) {}
  // False: no memory, and nothing else may be called.
  bool opened() const { return root_ != nullptr; }

  // The block whose base is `address`, or nullptr.
  Block* Find(DeviceAddress address) const {
    if (std::rotr(address, kSlotShift) >> (kAddressBits - kSlotShift) != 0) [[unlikely]]
      return nullptr;  // not aligned, or beyond the table; 0 is in it, and no block's
    // acquire on every level pairs with the release that published the node or the block.
    const Middle* middle = root_->entries[address >> kRootShift].load(std::memory_order_acquire);
    if (middle == nullptr) [[unlikely]]
      return nullptr;
    const uintptr_t region = middle->entries[RegionOf(address)].load(std::memory_order_acquire);
    if ((region & kTags) != 0) {
      const bool base = (region & kGoesOnTag) == 0 && (address & (kLargeGranule - 1)) == 0;
      return base ? BlockIn(region) : nullptr;
    }
    if (region == 0) [[unlikely]]
      return nullptr;
    return LeafIn(region)->entries[SlotOf(address)].load(std::memory_order_acquire);
  }

  // The block in whose memory `address` is, or nullptr. What it is worth the caller decides: the
  // block may be leaving, or another one by now.
  Block* FindAround(DeviceAddress address) const {
    Block* block = FindNear(address);
    if (block == nullptr) return nullptr;
    // Relaxed: see above.
    const DeviceAddress base = __atomic_load_n(&block->address, __ATOMIC_RELAXED);
    return address - base < __atomic_load_n(&block->bytes, __ATOMIC_RELAXED) ? block : nullptr;
  }
  // If `address` is in a block, that one; else any, or nullptr. For who looks at it anyway.
  Block* FindNear(DeviceAddress address) const {
    const uintptr_t region = RegionIn(address);
    if ((region & kTags) != 0) return BlockIn(region);
    if (region == 0) return nullptr;
    const Leaf* leaf = LeafIn(region);
    Block* block = leaf->entries[SlotOf(address)].load(std::memory_order_acquire);
    return block != nullptr ? block : leaf->Around(address);
  }

  // For whoever counts what is in the region of a small block; see idle_chunks.h. All 0 at first.
  struct Chunk {
    std::atomic<uint64_t> count;
  };
  // nullptr where no small block was ever entered.
  Chunk* ChunkOf(DeviceAddress address) const {
    const uintptr_t region = RegionIn(address);
    const bool leaf = region != 0 && (region & kTags) == 0;
    return leaf ? &LeafIn(region)->chunk : nullptr;
  }

  // True if `address` can be entered: aligned, and within the addresses that the table spans.
  static bool CanHold(DeviceAddress address) {
    return address != 0 && (address & (kMinBlock - 1)) == 0 && address >> kAddressBits == 0;
  }

  // Enters `block` under block->address. `*displaced` is what was there before (the driver gave the
  // address out again: the block is leaving, or somebody freed it behind our back), or nullptr.
  // False: no memory for a node; nothing was entered. REQUIRES: CanHold(block->address)
  bool Insert(Block* block, Block** displaced);

  // Removes the entries for `bytes` at `address` that are `block`: its record may be another one's
  // by now.
  void Erase(DeviceAddress address, size_t bytes, Block* block);

 private:
  static constexpr unsigned kAddressBits = 57;
  static constexpr unsigned kRootShift = 36;
  static constexpr unsigned kRegionShift = 21;
  static constexpr unsigned kSlotShift = 8;
  static constexpr uintptr_t kLargeTag = 1;   // begins here
  static constexpr uintptr_t kGoesOnTag = 2;  // began before
  static constexpr uintptr_t kTags = kLargeTag | kGoesOnTag;
  static_assert(size_t{1} << kRegionShift == kLargeGranule);
  static_assert(size_t{1} << kSlotShift == kMinBlock);

  // Which slots of a region have a block, by pairs: the driver gives out multiples of 512 bytes.
  // What is looked at first is set last, and cleared first; who clears looks once more.
  class Begins {
   public:
    void Set(size_t slot) {
      // Release, here and below: who finds the bit finds the entry.
      words_[WordOf(slot)].fetch_or(BitOf(slot), std::memory_order_acq_rel);
      SetWord(WordOf(slot));
    }
    // The slot's entry is empty; is_empty() says whether the pair's still are. Either this sees an
    // entry that came meanwhile, or its Set comes after this and undoes it.
    template <typename IsEmpty>
    void Clear(size_t slot, IsEmpty is_empty) {
      std::atomic<uint64_t>& word = words_[WordOf(slot)];
      const uint64_t others = ~BitOf(slot);
      if ((word.fetch_and(others, std::memory_order_acq_rel) & others) == 0) {
        which_.fetch_and(~(uint64_t{1} << WordOf(slot)), std::memory_order_acq_rel);
        if (word.load(std::memory_order_acquire) != 0) SetWord(WordOf(slot));
      }
      if (!is_empty()) Set(slot);
    }
    // The even slot of the nearest pair at or below that has its bit, or kNone. A bit may stay
    // where nothing is (of several that set and clear it at once), none is missing for long.
    static constexpr size_t kNone = ~size_t{0};
    size_t AtOrBelow(size_t slot) const {
      size_t word = WordOf(slot);
      uint64_t bits =
          words_[word].load(std::memory_order_acquire) & ~uint64_t{0} >> (63 - BitNumberOf(slot));
      uint64_t words = which_.load(std::memory_order_acquire) & ((uint64_t{1} << word) - 1);
      while (bits == 0) {
        if (words == 0) return kNone;
        word = static_cast<size_t>(std::bit_width(words)) - 1;
        words &= ~(uint64_t{1} << word);
        bits = words_[word].load(std::memory_order_acquire);
      }
      return 2 * (64 * word + static_cast<size_t>(std::bit_width(bits)) - 1);
    }

   private:
    static size_t WordOf(size_t slot) { return slot / 128; }
    static size_t BitNumberOf(size_t slot) { return slot / 2 % 64; }
    static uint64_t BitOf(size_t slot) { return uint64_t{1} << BitNumberOf(slot); }
    void SetWord(size_t word) { which_.fetch_or(uint64_t{1} << word, std::memory_order_acq_rel); }

    std::atomic<uint64_t> words_[64];
    std::atomic<uint64_t> which_;  // of these are not 0
  };

  struct Leaf {
    std::atomic<Block*> entries[size_t{1} << (kRegionShift - kSlotShift)];
    Chunk chunk;
    std::atomic<Block*> goes_on;  // a block that began before
    Begins begins;

    Block* Around(DeviceAddress address) const;
    void ClearBegin(size_t slot);  // its entry was cleared
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
  static Block* BlockIn(uintptr_t region) { return reinterpret_cast<Block*>(region & ~kTags); }
  static Leaf* LeafIn(uintptr_t region) { return reinterpret_cast<Leaf*>(region); }
  // The entry of the address's region, 0 where there is none.
  uintptr_t RegionIn(DeviceAddress address) const {
    if (address >> kAddressBits != 0) return 0;
    const Middle* middle = root_->entries[address >> kRootShift].load(std::memory_order_acquire);
    if (middle == nullptr) return 0;
    return middle->entries[RegionOf(address)].load(std::memory_order_acquire);
  }
  std::atomic<uintptr_t>* RegionEntry(DeviceAddress address);
  // Calls visit(region entry) for the regions that a block goes on in.
  template <typename Visitor>
  void ForEachFurtherRegion(DeviceAddress address, size_t bytes, Visitor visit);
  void SetFurther(Block* block);
  void ClearFurther(DeviceAddress address, size_t bytes, Block* block);
  // The slot for `address`, or nullptr without memory. A large block found in the way moves into
  // slot 0 of the new leaf.
  std::atomic<Block*>* LeafSlot(std::atomic<uintptr_t>& region, DeviceAddress address);

  Arena& arena_;
  Root* const root_;  // all-zero is the empty one
};

}  // namespace cmp

#endif  // CMP_CORE_LISTS_SIDE_TABLE_H_
