#include "core/side_table.h"

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
  Root* root = NodeAt(root_, arena_);
  if (root == nullptr) return nullptr;
  Middle* middle = NodeAt(root->entries[address >> kRootShift], arena_);
  return middle == nullptr ? nullptr : &middle->entries[RegionOf(address)];
}

std::atomic<Block*>* SideTable::LeafSlot(std::atomic<uintptr_t>& region, DeviceAddress address) {
  uintptr_t entry = region.load(std::memory_order_acquire);
  while (entry == 0 || (entry & kLargeTag) != 0) {
    void* memory = arena_.Allocate(sizeof(Leaf));
    if (memory == nullptr) return nullptr;
    Leaf* leaf = static_cast<Leaf*>(memory);
    if (entry != 0) {
      leaf->entries[0].store(reinterpret_cast<Block*>(entry & ~kLargeTag),
                             std::memory_order_relaxed);
    }
    if (region.compare_exchange_strong(entry, reinterpret_cast<uintptr_t>(leaf),
                                       std::memory_order_acq_rel, std::memory_order_acquire)) {
      return &leaf->entries[SlotOf(address)];
    }
  }
  return &reinterpret_cast<Leaf*>(entry)->entries[SlotOf(address)];
}

bool SideTable::Insert(Block* block, Block** displaced) {
  const DeviceAddress address = block->address;
  *displaced = nullptr;
  std::atomic<uintptr_t>* region = RegionEntry(address);
  if (region == nullptr) return false;
  if (block->bytes >= kLargeGranule && (address & (kLargeGranule - 1)) == 0) {
    const uintptr_t tagged = reinterpret_cast<uintptr_t>(block) | kLargeTag;
    uintptr_t entry = region->load(std::memory_order_acquire);
    while (entry == 0 || (entry & kLargeTag) != 0) {
      if (region->compare_exchange_weak(entry, tagged, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        *displaced = reinterpret_cast<Block*>(entry & ~kLargeTag);
        return true;
      }
    }
  }
  std::atomic<Block*>* slot = LeafSlot(*region, address);
  if (slot == nullptr) return false;
  *displaced = slot->exchange(block, std::memory_order_acq_rel);
  return true;
}

void SideTable::Erase(DeviceAddress address, Block* block) {
  std::atomic<uintptr_t>* region = RegionEntry(address);
  if (region == nullptr) return;
  uintptr_t entry = reinterpret_cast<uintptr_t>(block) | kLargeTag;
  if (region->compare_exchange_strong(entry, 0, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
    return;
  }
  if (entry == 0 || (entry & kLargeTag) != 0) return;  // somebody else's
  Block* expected = block;
  reinterpret_cast<Leaf*>(entry)->entries[SlotOf(address)].compare_exchange_strong(
      expected, nullptr, std::memory_order_acq_rel, std::memory_order_relaxed);
}

}  // namespace cmp
