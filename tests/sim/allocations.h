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

class Allocations {
 public:
  void AddDevice(size_t capacity);
  DeviceMemory& device(int index) { return *devices_[static_cast<size_t>(index)]; }

  // Device or pool memory. Null: out of memory.
  Allocation* AllocateDevice(const Context& context, size_t bytes, MemoryKind kind, bool* spoiled);
  // Managed or page-locked memory of the host. Null: the host has no more.
  Allocation* AllocateHost(const Context& context, size_t bytes, MemoryKind kind, unsigned flags);
  // Null: part of the range is registered or allocated already.
  Allocation* Register(const Context& context, uintptr_t start, size_t bytes, unsigned flags);
  Allocation* AddImported(const Context& context, uintptr_t mapping, size_t mapping_bytes,
                          uintptr_t base, size_t bytes);

  Allocation* Find(uintptr_t address);      // the one that contains the address
  Allocation* FindBase(uintptr_t address);  // the one that begins there
  void Release(Allocation& allocation);
  void ReleaseContext(uint64_t context_id);

  // False for device memory that no live allocation covers.
  bool IsUsable(const Range& range) const;
  // The device whose address range contains the address, or -1.
  int DeviceOf(uintptr_t address) const;
  size_t LiveOnDevice(int index) const;

 private:
  Allocation* Insert(const Context& context, Allocation allocation);

  std::vector<std::unique_ptr<DeviceMemory>> devices_;
  std::map<uintptr_t, Allocation> live_;
  uint64_t last_buffer_id_ = 0;
};

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_ALLOCATIONS_H_
