#include "core/lists/side_table.h"

namespace cmp {

namespace {

// Publishes a zeroed node in `entry` unless somebody was faster; the loser's node (address space
// that was never touched) stays with the arena. release: readers see the node zeroed.
template <typename Node>
Node* NodeAt(std::atomic<Node*>& entry, Arena& arena) {
  Node* node = entry.load(std::memory_order_acquire);
  if (node != nullptr) return node;
  void* memory = arena.Allocate(sizeof(Node));
  if (memory == nullptr) return nullptr;
  Node* fresh = static_cast<Node*>(memory);  // all-zero is the empty node
  if (entry.compare_exchange_strong(node, fresh, std::memory_order_acq_rel,
                                    std::memory_order_acquire)) {
    return fresh;
  }
  return node;
}

}  // namespace

std::atomic<uintptr_t>* SideTable::RegionEntry(DeviceAddress address) {
  Middle* middle = NodeAt(root_->entries[address >> kRootShift], arena_);
  return middle == nullptr ? nullptr : &middle->entries[RegionOf(address)];
}

// The block that begins nearest below. In a region there are either small blocks or a large one,
// but for what is just leaving.
Block* SideTable::Leaf::Around(DeviceAddress address) const {
  const size_t last = SlotOf(address);
  size_t pair = begins.AtOrBelow(last);
  while (pair != Begins::kNone) {
    for (const size_t slot : {pair + 1, pair}) {
      if (slot > last) continue;
      Block* block = entries[slot].load(std::memory_order_acquire);
      if (block != nullptr) return block;
    }
    pair = pair == 0 ? Begins::kNone : begins.AtOrBelow(pair - 1);  // a bit that stayed, or will go
  }
  return goes_on.load(std::memory_order_acquire);
}

void SideTable::Leaf::ClearBegin(size_t slot) {
  begins.Clear(slot, [&] {
    const size_t even = slot & ~size_t{1};
    return entries[even].load(std::memory_order_acquire) == nullptr &&
           entries[even + 1].load(std::memory_order_acquire) == nullptr;
  });
}

template <typename Visitor>
void SideTable::ForEachFurtherRegion(DeviceAddress address, size_t bytes, Visitor visit) {
  const DeviceAddress end = address + bytes;
  DeviceAddress next = (address & ~(kLargeGranule - 1)) + kLargeGranule;
  for (; next < end && next >> kAddressBits == 0; next += kLargeGranule) {
    std::atomic<uintptr_t>* region = RegionEntry(next);
    if (region == nullptr) return;  // no memory: these bytes are not found
    visit(*region);
  }
}

// Whatever is there of another block is leaving: the driver has given the address out again.
void SideTable::SetFurther(Block* block) {
  const uintptr_t tagged = reinterpret_cast<uintptr_t>(block) | kGoesOnTag;
  ForEachFurtherRegion(block->address, block->bytes, [&](std::atomic<uintptr_t>& region) {
    uintptr_t entry = region.load(std::memory_order_acquire);
    while (entry == 0 || (entry & kTags) != 0) {
      if (region.compare_exchange_weak(entry, tagged, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
        return;
      }
    }
    LeafIn(entry)->goes_on.store(block, std::memory_order_release);
  });
}

void SideTable::ClearFurther(DeviceAddress address, size_t bytes, Block* block) {
  ForEachFurtherRegion(address, bytes, [&](std::atomic<uintptr_t>& region) {
    uintptr_t entry = reinterpret_cast<uintptr_t>(block) | kGoesOnTag;
    if (region.compare_exchange_strong(entry, 0, std::memory_order_acq_rel,
                                       std::memory_order_acquire) ||
        entry == 0 || (entry & kTags) != 0) {
      return;
    }
    Block* expected = block;
    LeafIn(entry)->goes_on.compare_exchange_strong(expected, nullptr, std::memory_order_acq_rel,
                                                   std::memory_order_relaxed);
  });
}

std::atomic<Block*>* SideTable::LeafSlot(std::atomic<uintptr_t>& region, DeviceAddress address) {
  uintptr_t entry = region.load(std::memory_order_acquire);
  while (entry == 0 || (entry & kTags) != 0) {
    void* memory = arena_.Allocate(sizeof(Leaf));
    if (memory == nullptr) return nullptr;
    Leaf* leaf = static_cast<Leaf*>(memory);
    if ((entry & kLargeTag) != 0) {
      leaf->entries[0].store(BlockIn(entry), std::memory_order_relaxed);
      leaf->begins.Set(0);
    } else if (entry != 0) {
      leaf->goes_on.store(BlockIn(entry), std::memory_order_relaxed);
    }
    if (region.compare_exchange_strong(entry, reinterpret_cast<uintptr_t>(leaf),
                                       std::memory_order_acq_rel, std::memory_order_acquire)) {
      return &leaf->entries[SlotOf(address)];
    }
  }
  return &LeafIn(entry)->entries[SlotOf(address)];
}

bool SideTable::Insert(Block* block, Block** displaced) {
  const DeviceAddress address = block->address;
  *displaced = nullptr;
  std::atomic<uintptr_t>* region = RegionEntry(address);
  if (region == nullptr) return false;
  SetFurther(block);
  if (block->bytes >= kLargeGranule && (address & (kLargeGranule - 1)) == 0) {
    const uintptr_t tagged = reinterpret_cast<uintptr_t>(block) | kLargeTag;
    uintptr_t entry = region->load(std::memory_order_acquire);
    while (entry == 0 || (entry & kTags) != 0) {
      if (region->compare_exchange_weak(entry, tagged, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        if ((entry & kLargeTag) != 0) *displaced = BlockIn(entry);
        return true;
      }
    }
  }
  std::atomic<Block*>* slot = LeafSlot(*region, address);
  if (slot == nullptr) {
    ClearFurther(address, block->bytes, block);
    return false;
  }
  *displaced = slot->exchange(block, std::memory_order_acq_rel);
  LeafIn(region->load(std::memory_order_acquire))->begins.Set(SlotOf(address));
  return true;
}

void SideTable::Erase(DeviceAddress address, size_t bytes, Block* block) {
  std::atomic<uintptr_t>* region = RegionEntry(address);
  if (region == nullptr) return;
  uintptr_t entry = reinterpret_cast<uintptr_t>(block) | kLargeTag;
  if (!region->compare_exchange_strong(entry, 0, std::memory_order_acq_rel,
                                       std::memory_order_acquire) &&
      entry != 0 && (entry & kTags) == 0) {
    Leaf& leaf = *LeafIn(entry);
    const size_t slot = SlotOf(address);
    Block* expected = block;
    const bool cleared = leaf.entries[slot].compare_exchange_strong(
        expected, nullptr, std::memory_order_acq_rel, std::memory_order_relaxed);
    if (cleared) leaf.ClearBegin(slot);
  }
  ClearFurther(address, bytes, block);
}

}  // namespace cmp
