#include "allocations.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <set>

namespace cmp::sim {
namespace {

void* MapNothing(void* at, size_t bytes) {
  return mmap(at, bytes, PROT_NONE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at != nullptr ? MAP_FIXED : 0), -1, 0);
}

}  // namespace

PhysicalMemory::~PhysicalMemory() {
  if (memory != nullptr) {
    memory->Free(base, bytes);
  } else if (file >= 0) {
    close(file);
  }
}

void Allocations::AddDevice(size_t capacity) {
  devices_.push_back(std::make_unique<DeviceMemory>(capacity));
}

DeviceMemory::Chunk Allocations::ChunkOf(const Allocation& allocation) {
  if (allocation.backing != nullptr) {
    const PhysicalMemory& backing = *allocation.backing;
    const uint64_t id =
        backing.memory != nullptr ? backing.memory->ChunkOf(backing.base).id : allocation.buffer_id;
    return {allocation.base, allocation.bytes, id};
  }
  const bool of_device = device(allocation.device).Contains(allocation.base);
  if (of_device) return device(allocation.device).ChunkOf(allocation.base);
  return {allocation.base, allocation.bytes, allocation.buffer_id};
}

Allocation* Allocations::Insert(const Context& context, Allocation allocation) {
  const Context& owner = context.whole != nullptr ? *context.whole : context;
  allocation.device = owner.device;
  allocation.context = owner.handle;
  allocation.context_id = owner.id;
  return Insert(allocation);
}

Allocation* Allocations::Insert(Allocation allocation) {
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
  allocation.sync_memops = kind == MemoryKind::kDevice;
  return Insert(context, allocation);
}

Allocation* Allocations::AllocateVariable(const Context* context, size_t bytes, bool managed) {
  bool spoiled = false;
  Allocation allocation;
  allocation.base = device(context != nullptr ? context->device : 0).Allocate(bytes, &spoiled);
  if (allocation.base == 0) return nullptr;
  allocation.bytes = bytes;
  allocation.kind = managed ? MemoryKind::kManaged : MemoryKind::kDevice;
  allocation.variable = true;
  return context != nullptr ? Insert(*context, allocation) : Insert(allocation);
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
                                     size_t mapping_bytes, uintptr_t base, size_t bytes,
                                     MemoryKind kind) {
  Allocation allocation;
  allocation.base = base;
  allocation.bytes = bytes;
  allocation.kind = kind;
  allocation.mapping = mapping;
  allocation.mapping_bytes = mapping_bytes;
  allocation.opened = 1;
  return Insert(context, allocation);
}

Allocation* Allocations::AddExternal(const Context& context, int file, size_t offset,
                                     size_t bytes) {
  Allocation allocation;
  const size_t start = offset / kHostPage * kHostPage;
  allocation.mapping_bytes = offset + bytes - start;
  void* mapping = mmap(nullptr, allocation.mapping_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file,
                       static_cast<off_t>(start));
  if (mapping == MAP_FAILED) return nullptr;
  allocation.mapping = reinterpret_cast<uintptr_t>(mapping);
  allocation.base = allocation.mapping + (offset - start);
  allocation.bytes = bytes;
  allocation.kind = MemoryKind::kExternal;
  return Insert(context, allocation);
}

std::shared_ptr<PhysicalMemory> Allocations::CreatePhysical(int index, size_t bytes) {
  DeviceMemory& memory = device(index);
  bool spoiled = false;
  const uintptr_t base = memory.Allocate(bytes, &spoiled);
  if (base == 0) return nullptr;
  auto physical = std::make_shared<PhysicalMemory>();
  physical->memory = &memory;
  physical->base = base;
  physical->bytes = bytes;
  physical->file = memory.file();
  physical->offset = memory.FileOffset(base);
  return physical;
}

std::shared_ptr<PhysicalMemory> Allocations::CreatePhysicalOfHost(size_t bytes) {
  auto physical = std::make_shared<PhysicalMemory>();
  physical->bytes = bytes;
  physical->file = memfd_create("cmp_sim_host", MFD_CLOEXEC);
  if (physical->file < 0 || ftruncate(physical->file, static_cast<off_t>(bytes)) != 0) {
    return nullptr;
  }
  return physical;
}

uintptr_t Allocations::Reserve(size_t bytes, size_t alignment) {
  // Too much by the alignment, and what is too much given back.
  void* mapping = MapNothing(nullptr, bytes + alignment);
  if (mapping == MAP_FAILED) return 0;
  const auto begin = reinterpret_cast<uintptr_t>(mapping);
  const uintptr_t start = (begin + alignment - 1) / alignment * alignment;
  if (start > begin) munmap(mapping, start - begin);
  const uintptr_t end = start + bytes;
  if (begin + bytes + alignment > end) {
    munmap(reinterpret_cast<void*>(end), begin + bytes + alignment - end);
  }
  reserved_[start] = bytes;
  return start;
}

bool Allocations::Unreserve(uintptr_t start, size_t bytes) {
  const auto found = reserved_.find(start);
  if (found == reserved_.end() || found->second != bytes) return false;
  const auto inside = live_.lower_bound(start);
  if (inside != live_.end() && inside->first < start + bytes) return false;
  munmap(reinterpret_cast<void*>(start), bytes);
  reserved_.erase(found);
  return true;
}

bool Allocations::Map(uintptr_t start, size_t bytes, size_t offset,
                      std::shared_ptr<PhysicalMemory> backing) {
  auto after = reserved_.upper_bound(start);
  if (after == reserved_.begin()) return false;
  const auto& [reserved, length] = *std::prev(after);
  const Range range{start, bytes};
  if (range.end() > reserved + length) return false;
  auto next = live_.lower_bound(range.end());
  if (next != live_.begin() && std::prev(next)->second.range().Overlaps(range)) return false;
  // Nobody may touch it before cuMemSetAccess.
  if (mmap(reinterpret_cast<void*>(start), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, backing->file,
           static_cast<off_t>(backing->offset + offset)) == MAP_FAILED) {
    return false;
  }
  Allocation allocation;
  allocation.base = start;
  allocation.bytes = bytes;
  allocation.kind = MemoryKind::kMapped;
  allocation.on_host = backing->properties.location.type != CU_MEM_LOCATION_TYPE_DEVICE;
  allocation.device = allocation.on_host ? 0 : backing->properties.location.id;
  allocation.accessible = false;
  allocation.backing = std::move(backing);
  allocation.backing_offset = offset;
  Insert(allocation);
  return true;
}

std::vector<Allocation*> Allocations::MappedIn(const Range& range) {
  std::vector<Allocation*> found;
  uintptr_t at = range.start;
  while (at < range.end()) {
    Allocation* next = FindBase(at);
    if (next == nullptr || next->kind != MemoryKind::kMapped) return {};
    found.push_back(next);
    at = next->range().end();
  }
  return at == range.end() ? found : std::vector<Allocation*>{};
}

bool Multicast::IsBound(size_t offset, size_t bytes) const {
  return std::all_of(devices.begin(), devices.end(), [&](int device) {
    size_t bound_bytes = 0;  // bound stretches of one device do not overlap
    for (const Bound& each : bound) {
      if (each.device != device) continue;
      const size_t begin = std::max(each.offset, offset);
      const size_t end = std::min(each.offset + each.bytes, offset + bytes);
      if (begin < end) bound_bytes += end - begin;
    }
    return bound_bytes == bytes;
  });
}

std::vector<Range> Allocations::MappingsOf(const PhysicalMemory& memory, size_t offset,
                                           size_t bytes) const {
  std::vector<Range> found;
  for (const auto& [base, allocation] : live_) {
    if (allocation.backing.get() != &memory) continue;
    const size_t begin = std::max(allocation.backing_offset, offset);
    const size_t end = std::min(allocation.backing_offset + allocation.bytes, offset + bytes);
    if (begin < end) found.push_back({base + (begin - allocation.backing_offset), end - begin});
  }
  return found;
}

std::vector<Range> Allocations::AllocatedFrom(CUmemoryPool pool) const {
  std::vector<Range> found;
  for (const auto& [base, allocation] : live_) {
    if (allocation.pool == pool && pool != nullptr) found.push_back(allocation.range());
  }
  return found;
}

void Allocations::SetAccess(Allocation& mapped, CUmemAccess_flags access) {
  mapped.accessible = access != CU_MEM_ACCESS_FLAGS_PROT_NONE;
  mprotect(reinterpret_cast<void*>(mapped.base), mapped.bytes,
           access == CU_MEM_ACCESS_FLAGS_PROT_NONE   ? PROT_NONE
           : access == CU_MEM_ACCESS_FLAGS_PROT_READ ? PROT_READ
                                                     : PROT_READ | PROT_WRITE);
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

Allocation* Allocations::FindFreeable(uintptr_t base) {
  Allocation* allocation = FindBase(base);
  if (allocation == nullptr || allocation->variable) return nullptr;
  const MemoryKind kind = allocation->kind;
  const bool freeable = kind == MemoryKind::kDevice || kind == MemoryKind::kPool ||
                        kind == MemoryKind::kExternal || kind == MemoryKind::kManaged;
  return freeable ? allocation : nullptr;
}

std::vector<uintptr_t> Allocations::GranulesIn(const Range& range) {
  std::vector<uintptr_t> granules;
  const Allocation* allocation = range.bytes == 0 ? nullptr : Find(range.start);
  if (allocation == nullptr || allocation->kind != MemoryKind::kManaged || allocation->variable) {
    return granules;
  }
  const uintptr_t first = range.start - (range.start - allocation->base) % kPage;
  const uintptr_t end = std::min(range.end(), allocation->range().end());
  for (uintptr_t at = first; at < end; at += kPage) granules.push_back(at);
  return granules;
}

void Allocations::BringManaged(int index, const std::vector<Range>& ranges) {
  std::set<uintptr_t> used;  // each once, in the order in which they are named
  for (const Range& range : ranges) {
    for (const uintptr_t granule : GranulesIn(range)) {
      if (!used.insert(granule).second) continue;
      for (const auto& memory : devices_) {
        if (memory != devices_[static_cast<size_t>(index)]) memory->DropManaged(granule);
      }
      device(index).UseManaged(granule);
    }
  }
}

void Allocations::SendManagedHome(const Range& range) {
  for (const uintptr_t granule : GranulesIn(range)) {
    for (const auto& memory : devices_) memory->DropManaged(granule);
  }
}

void Allocations::ForgetManagedCounts() {
  for (const auto& memory : devices_) memory->managed = {};
}

void Allocations::Release(Allocation& allocation) {
  SendManagedHome(allocation.range());
  const uintptr_t base = allocation.base;
  if (allocation.kind == MemoryKind::kMapped) {
    MapNothing(reinterpret_cast<void*>(base), allocation.bytes);
  } else if (allocation.mapping != 0) {
    munmap(reinterpret_cast<void*>(allocation.mapping), allocation.mapping_bytes);
  } else if (allocation.kind != MemoryKind::kRegistered) {
    device(allocation.device).Free(base, allocation.bytes);
  }
  live_.erase(base);
}

Allocation* Allocations::AllocateKept(const Context& context, uintptr_t base, size_t bytes) {
  Allocation allocation;
  allocation.base = base;
  allocation.bytes = bytes;
  allocation.kind = MemoryKind::kPool;
  return Insert(context, allocation);
}

std::vector<Allocation*> Allocations::PooledIn(uint64_t context_id) {
  std::vector<Allocation*> found;
  for (auto& [base, allocation] : live_) {
    if (allocation.context_id == context_id && allocation.pool != nullptr) {
      found.push_back(&allocation);
    }
  }
  return found;
}

void Allocations::ReleaseContext(uint64_t context_id) {
  for (auto at = live_.begin(); at != live_.end();) {
    Allocation& allocation = at->second;
    ++at;
    if (allocation.context_id == context_id) Release(allocation);
  }
}

bool Allocations::IsDeviceAddress(uintptr_t address) const {
  if (std::any_of(devices_.begin(), devices_.end(),
                  [=](const auto& memory) { return memory->Contains(address); })) {
    return true;
  }
  auto after = reserved_.upper_bound(address);
  if (after == reserved_.begin()) return false;
  const auto& [start, bytes] = *std::prev(after);
  return address < start + bytes;
}

bool Allocations::IsUsable(const Range& range) const {
  return !IsDeviceAddress(range.start) || Covers(range);
}

namespace {

// The part of an allocation that `range` covers can be used: nothing can be done through a
// multicast object where a device has no memory bound.
bool MayBeUsed(const Allocation& allocation, const Range& range) {
  if (!allocation.accessible) return false;
  if (allocation.backing == nullptr || allocation.backing->multicast == nullptr) return true;
  const uintptr_t begin = std::max(allocation.base, range.start);
  const uintptr_t end = std::min(allocation.range().end(), range.end());
  return allocation.backing->multicast->IsBound(
      allocation.backing_offset + (begin - allocation.base), end - begin);
}

}  // namespace

bool Allocations::Covers(const Range& range) const {
  auto after = live_.upper_bound(range.start);
  if (after == live_.begin()) return false;
  auto at = std::prev(after);
  if (range.start >= at->second.range().end()) return false;
  while (MayBeUsed(at->second, range)) {
    const uintptr_t end = at->second.range().end();
    if (range.end() <= end) return true;
    const bool mapped = at->second.kind == MemoryKind::kMapped;
    ++at;
    if (!mapped || at == live_.end() || at->first != end ||
        at->second.kind != MemoryKind::kMapped) {
      return false;
    }
  }
  return false;
}

size_t Allocations::PageLockedBytes() const {
  size_t bytes = 0;
  for (const auto& [base, allocation] : live_) {
    if (allocation.kind == MemoryKind::kHost) bytes += allocation.bytes;
  }
  return bytes;
}

size_t Allocations::LiveOnDevice(int index) const {
  size_t count = 0;
  for (const auto& [base, allocation] : live_) {
    const MemoryKind kind = allocation.kind;
    count +=
        (kind == MemoryKind::kDevice || kind == MemoryKind::kPool || kind == MemoryKind::kArray) &&
        !allocation.variable && allocation.mapping == 0 && allocation.device == index;
  }
  return count;
}

}  // namespace cmp::sim
