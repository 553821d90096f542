// Which devices' memory the arguments of a copy name. Asked only in a process with several
// contexts: the driver is asked about each address, since the program may mean any byte of an
// allocation.
#ifndef CMP_SHIM_COPIED_DEVICES_H_
#define CMP_SHIM_COPIED_DEVICES_H_

#include <cuda.h>

#include "core/device_links.h"
#include "shim/copied_memory.h"
#include "shim/work.h"

namespace cmp {

// Contexts, streams, numbers.
template <typename Other>
Devices DevicesIn(const Other&) {
  return 0;
}
inline Devices DevicesIn(CUdeviceptr address) { return DeviceOf(address); }
inline Devices DevicesIn(const void* address) {
  return DeviceOf(reinterpret_cast<CUdeviceptr>(address));
}
inline Devices DevicesIn(void* address) { return DevicesIn(const_cast<const void*>(address)); }
// Not worth a question each.
inline Devices DevicesIn(CUarray) { return kAnyDevice; }
inline Devices DevicesIn(const CUdeviceptr*) { return kAnyDevice; }
inline Devices DevicesIn(CUdeviceptr*) { return kAnyDevice; }

inline Devices DevicesInSide(CUmemorytype type, CUdeviceptr address) {
  if (type == CU_MEMORYTYPE_HOST) return 0;
  return type == CU_MEMORYTYPE_ARRAY ? kAnyDevice : DeviceOf(address);
}
template <typename Box>
Devices DevicesInBox(const Box* box) {
  if (box == nullptr) return 0;  // the real call refuses it
  return DevicesInSide(box->srcMemoryType, box->srcDevice) |
         DevicesInSide(box->dstMemoryType, box->dstDevice);
}
inline Devices DevicesIn(const CUDA_MEMCPY2D* box) { return DevicesInBox(box); }
inline Devices DevicesIn(const CUDA_MEMCPY3D* box) { return DevicesInBox(box); }
inline Devices DevicesIn(const CUDA_MEMCPY3D_PEER* box) { return DevicesInBox(box); }

inline Devices DevicesOf(StreamName stream) {
  const ContextPool* context = WorkOf(stream)->context();
  return context == nullptr ? kAnyDevice : DeviceBit(context->identity().device);
}

// Of a copy on `stream`: the devices in whose contexts it may run. It links none: see
// core/device_links.h.
template <typename... Arguments>
Devices DevicesOfCopy(StreamName stream, const Arguments&... arguments) {
  return (DevicesOf(stream) | ... | DevicesIn(arguments));
}

}  // namespace cmp

#endif  // CMP_SHIM_COPIED_DEVICES_H_
