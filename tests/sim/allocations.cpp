#include "allocations.h"

#include <sys/mman.h>

namespace cmp::sim {
namespace {

constexpr size_t kHostPage = 4096;

}  // namespace

void Allocations::AddDevice(size_t capacity) {
  devices_.push_back(std::make_unique<DeviceMemory>(capacity));
}

Allocation* Allocations::Insert(const Context& context, Allocation allocation) {
  allocation.device = context.device;
  allocation.context = context.handle;
  allocation.context_id = context.id;
  allocation.buffer_id = ++last_buffer_id_;
  return &(live_[allocation.base] = allocation);
}

Allocation* Allocations::AllocateDevice(const Context& context, size_t bytes, MemoryKind kind,
                                        bool* spoiled) {
  Allocation allocation;
  allocation.base = device(context.device).Allocate(bytes, spoiled);
  if (allocation.base == 0) return nullptr;
  allocation.bytes = bytes;
  allocation.kind = kind;
  return Insert(context, allocation);
}

Allocation* Allocations::AllocateHost(const Context& context, size_t bytes, MemoryKind kind,
                                      unsigned flags) {
  Allocation allocation;
  allocation.mapping_bytes = (bytes + kHostPage - 1) / kHostPage * kHostPage;
  void* mapping = mmap(nullptr, allocation.mapping_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  allocation.base = allocation.mapping = reinterpret_cast<uintptr_t>(mapping);
  allocation.bytes = bytes;
  allocation.kind = kind;
  allocation.flags = flags;
  return Insert(context, allocation);
}

Allocation* Allocations::Register(const Context& context, uintptr_t start, size_t bytes,
                                  unsigned flags) {
  const Range range{start, bytes};
  auto after = live_.lower_bound(range.end());
  if (after != live_.begin() && std::prev(after)->second.range().Overlaps(range)) return nullptr;
  Allocation allocation;
  allocation.base = start;
  allocation.bytes = bytes;
  allocation.kind = MemoryKind::kRegistered;
  allocation.flags = flags;
  return Insert(context, allocation);
}

Allocation* Allocations::AddImported(const Context& context, uintptr_t mapping,
                                     size_t mapping_bytes, uintptr_t base, size_t bytes) {
  Allocation allocation;
  allocation.base = base;
  allocation.bytes = bytes;
  allocation.kind = MemoryKind::kImported;
  allocation.mapping = mapping;
  allocation.mapping_bytes = mapping_bytes;
  allocation.opened = 1;
  return Insert(context, allocation);
}

Allocation* Allocations::Find(uintptr_t address) {
  auto after = live_.upper_bound(address);
  if (after == live_.begin()) return nullptr;
  Allocation& allocation = std::prev(after)->second;
  return address < allocation.range().end() ? &allocation : nullptr;
}

Allocation* Allocations::FindBase(uintptr_t address) {
  const auto found = live_.find(address);
  return found == live_.end() ? nullptr : &found->second;
}

void Allocations::Release(Allocation& allocation) {
  const uintptr_t base = allocation.base;
  switch (allocation.kind) {
    case MemoryKind::kDevice:
    case MemoryKind::kPool:
      device(allocation.device).Free(base, allocation.bytes);
      break;
    case MemoryKind::kManaged:
    case MemoryKind::kHost:
    case MemoryKind::kImported:
      munmap(reinterpret_cast<void*>(allocation.mapping), allocation.mapping_bytes);
      break;
    case MemoryKind::kRegistered:
      break;
  }
  live_.erase(base);
}

void Allocations::ReleaseContext(uint64_t context_id) {
  for (auto at = live_.begin(); at != live_.end();) {
    Allocation& allocation = at->second;
    ++at;
    if (allocation.context_id == context_id) Release(allocation);
  }
}

int Allocations::DeviceOf(uintptr_t address) const {
  for (size_t i = 0; i < devices_.size(); ++i) {
    if (devices_[i]->Contains(address)) return static_cast<int>(i);
  }
  return -1;
}

bool Allocations::IsUsable(const Range& range) const {
  if (DeviceOf(range.start) < 0) return true;
  auto after = live_.upper_bound(range.start);
  return after != live_.begin() && range.end() <= std::prev(after)->second.range().end();
}

size_t Allocations::LiveOnDevice(int index) const {
  size_t count = 0;
  for (const auto& [base, allocation] : live_) {
    count += (allocation.kind == MemoryKind::kDevice || allocation.kind == MemoryKind::kPool) &&
             allocation.device == index;
  }
  return count;
}

}  // namespace cmp::sim
