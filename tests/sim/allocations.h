// Every allocation that the program holds, device and host, by address.
//
// Invariant: the ranges of live allocations do not overlap. The caller holds the lock.
#ifndef CMP_TESTS_SIM_ALLOCATIONS_H_
#define CMP_TESTS_SIM_ALLOCATIONS_H_

#include <map>
#include <memory>
#include <vector>

#include "device_memory.h"
#include "types.h"

namespace cmp::sim {

// A multicast object: memory of each of its devices, at offsets of its own. What is written through
// its mappings is not seen in the memory.
struct Multicast {
  struct Bound {
    int device = 0;
    size_t offset = 0;
    size_t bytes = 0;
    std::shared_ptr<PhysicalMemory> memory;  // null: bound by its address
  };
  size_t devices_wanted = 0;
  std::vector<int> devices;
  std::vector<Bound> bound;

  bool IsComplete() const { return devices.size() == devices_wanted; }
  // Every device has memory bound for all of it.
  bool IsBound(size_t offset, size_t bytes) const;
};

// What cuMemCreate or cuMulticastCreate made: gone with the last handle and the last mapping.
struct PhysicalMemory {
  PhysicalMemory() = default;
  PhysicalMemory(const PhysicalMemory&) = delete;
  PhysicalMemory& operator=(const PhysicalMemory&) = delete;
  ~PhysicalMemory();

  DeviceMemory* memory = nullptr;  // null: the host's, or another process's
  bool imported = false;
  uintptr_t base = 0;  // in `memory`
  size_t bytes = 0;
  CUmemAllocationProp properties{};
  int file = -1;  // where its bytes are; closed at the end when it is not the device's
  size_t offset = 0;
  std::unique_ptr<Multicast> multicast;  // null: memory
};

class Allocations {
 public:
  void AddDevice(size_t capacity);
  DeviceMemory& device(int index) { return *devices_[static_cast<size_t>(index)]; }
  // The memory that it is in, which it may share with others.
  DeviceMemory::Chunk ChunkOf(const Allocation& allocation);

  // Device or pool memory. Null: out of memory.
  Allocation* AllocateDevice(const Context& context, size_t bytes, MemoryKind kind, bool* spoiled);
  // A variable of a module, in the device's memory. No context: on the first device, for ever.
  // Null: out of memory.
  Allocation* AllocateVariable(const Context* context, size_t bytes, bool managed);
  // Managed or page-locked memory of the host. Null: the host has no more.
  Allocation* AllocateHost(const Context& context, size_t bytes, MemoryKind kind, unsigned flags);
  // Null: part of the range is registered or allocated already.
  Allocation* Register(const Context& context, uintptr_t start, size_t bytes, unsigned flags);
  Allocation* AddImported(const Context& context, uintptr_t mapping, size_t mapping_bytes,
                          uintptr_t base, size_t bytes, MemoryKind kind);

  // A buffer of memory that another API allocated: bytes of `file`. Null: they cannot be mapped.
  Allocation* AddExternal(const Context& context, int file, size_t offset, size_t bytes);

  // Null: the device has no more.
  std::shared_ptr<PhysicalMemory> CreatePhysical(int device, size_t bytes);
  std::shared_ptr<PhysicalMemory> CreatePhysicalOfHost(size_t bytes);
  uintptr_t Reserve(size_t bytes, size_t alignment);
  // False: no such reservation, or something is mapped in it.
  bool Unreserve(uintptr_t start, size_t bytes);
  // REQUIRES: both sizes are multiples of the host's page. False: not reserved, or mapped already.
  bool Map(uintptr_t start, size_t bytes, size_t offset, std::shared_ptr<PhysicalMemory> backing);
  // The mappings that make up the range, in order. Empty: it is not exactly a number of them.
  std::vector<Allocation*> MappedIn(const Range& range);
  void SetAccess(Allocation& mapped, CUmemAccess_flags access);
  // Where a part of it is mapped.
  std::vector<Range> MappingsOf(const PhysicalMemory& memory, size_t offset, size_t bytes) const;
  // What was allocated from it and lives.
  std::vector<Range> AllocatedFrom(CUmemoryPool pool) const;

  Allocation* Find(uintptr_t address);       // the one that contains the address
  Allocation* FindBase(uintptr_t address);   // the one that begins there
  Allocation* FindFreeable(uintptr_t base);  // one that cuMemFree takes
  void Release(Allocation& allocation);
  // Of a pool's memory: the pool keeps it; it hands it out again; it goes back to the device.
  void Keep(Allocation& allocation) { live_.erase(allocation.base); }
  Allocation* AllocateKept(const Context& context, uintptr_t base, size_t bytes);
  void ReleaseKept(int device_index, uintptr_t base, size_t bytes) {
    device(device_index).Free(base, bytes);
  }
  // Those from pools that go with the context.
  std::vector<Allocation*> PooledIn(uint64_t context_id);
  void ReleaseContext(uint64_t context_id);

  // Managed memory in these ranges is used by work of the device: it comes there, from wherever it
  // is. On what else is in them nothing happens, as on managed variables, which have their place.
  void BringManaged(int device, const std::vector<Range>& ranges);
  void SendManagedHome(const Range& range);  // to the host
  void ForgetManagedCounts();

  // False for device memory that no live allocation covers.
  bool IsUsable(const Range& range) const;
  // A live allocation does, or several mappings side by side.
  bool Covers(const Range& range) const;
  // An address that can only be a device's: of its memory, or reserved.
  bool IsDeviceAddress(uintptr_t address) const;
  size_t LiveOnDevice(int index) const;
  size_t PageLockedBytes() const;  // not what was registered

 private:
  // Where the granules begin that have a part of the range: managed memory's own, from its base.
  std::vector<uintptr_t> GranulesIn(const Range& range);
  // With the context's device; a green context allocates for its primary one.
  Allocation* Insert(const Context& context, Allocation allocation);
  Allocation* Insert(Allocation allocation);

  std::vector<std::unique_ptr<DeviceMemory>> devices_;
  std::map<uintptr_t, Allocation> live_;
  std::map<uintptr_t, size_t> reserved_;
  uint64_t last_buffer_id_ = 0;
};

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_ALLOCATIONS_H_
