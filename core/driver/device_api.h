// The real calls that the pool makes, as the entry point that is being served would make them.
// An entry point of the runtime gives the runtime's, one of the driver the driver's; blocks made
// through either are interchangeable.
//
// Every function may be called from any thread and is called with no lock of the pool held.
#ifndef CMP_CORE_DRIVER_DEVICE_API_H_
#define CMP_CORE_DRIVER_DEVICE_API_H_

#include "core/base/types.h"

namespace cmp {

class DeviceApi {
 public:
  // Allocates `bytes` of device memory in the current context. Returns the layer's own status;
  // on success *address is set. `last_resort`: the program will see this failure, so it must be
  // the layer's own in every respect (the runtime's last error included).
  int Allocate(size_t bytes, bool last_resort, DeviceAddress* address) const {
    return allocate_(self_, bytes, last_resort, address);
  }
  // Undoes what failed calls of Allocate left behind, after a later one succeeded.
  void Recovered() const { recovered_(self_); }
  // Frees `address`, of any context.
  int Release(DeviceAddress address) const { return release_(self_, address); }
  // Free and total bytes of the current device; false if it cannot be told.
  bool MemoryInfo(size_t* free, size_t* total) const { return memory_info_(self_, free, total); }

 protected:
  using AllocateFunction = int (*)(const void* self, size_t bytes, bool last_resort,
                                   DeviceAddress* address);
  using RecoveredFunction = void (*)(const void* self);
  using ReleaseFunction = int (*)(const void* self, DeviceAddress address);
  using MemoryInfoFunction = bool (*)(const void* self, size_t* free, size_t* total);

  constexpr DeviceApi(const void* self, AllocateFunction allocate, RecoveredFunction recovered,
                      ReleaseFunction release, MemoryInfoFunction memory_info)
      : self_(self),
        allocate_(allocate),
        recovered_(recovered),
        release_(release),
        memory_info_(memory_info) {}

 private:
  const void* self_;
  AllocateFunction allocate_;
  RecoveredFunction recovered_;
  ReleaseFunction release_;
  MemoryInfoFunction memory_info_;
};

}  // namespace cmp

#endif  // CMP_CORE_DRIVER_DEVICE_API_H_
