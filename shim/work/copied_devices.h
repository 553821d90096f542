// Which devices' memory the arguments of a copy name. Asked only in a process with several
// contexts: the driver is asked about each address, since the program may mean any byte of an
// allocation.
#ifndef CMP_SHIM_WORK_COPIED_DEVICES_H_
#define CMP_SHIM_WORK_COPIED_DEVICES_H_

#include <cuda.h>

#include <type_traits>

#include "core/contexts/device_links.h"
#include "shim/visible/copied_memory.h"
#include "shim/work/work_of_stream.h"

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

// Where a box begins on each side.
inline size_t SourceOffset(const CUDA_MEMCPY2D& box) {
  return box.srcY * box.srcPitch + box.srcXInBytes;
}
inline size_t TargetOffset(const CUDA_MEMCPY2D& box) {
  return box.dstY * box.dstPitch + box.dstXInBytes;
}
template <typename Box>
size_t SourceOffset(const Box& box) {
  return (box.srcZ * box.srcHeight + box.srcY) * box.srcPitch + box.srcXInBytes;
}
template <typename Box>
size_t TargetOffset(const Box& box) {
  return (box.dstZ * box.dstHeight + box.dstY) * box.dstPitch + box.dstXInBytes;
}

// The offsets may lead far from the address, and the program may call memory the host's that is
// not.
inline Devices DevicesInSide(CUmemorytype type, const void* host, CUdeviceptr device,
                             size_t offset) {
  if (type == CU_MEMORYTYPE_ARRAY) return kAnyDevice;
  if (type == CU_MEMORYTYPE_HOST) device = reinterpret_cast<CUdeviceptr>(host);
  return DeviceOf(device + offset);
}
template <typename Box>
Devices DevicesInBox(const Box* box) {
  if (box == nullptr) return 0;  // the real call refuses it
  return DevicesInSide(box->srcMemoryType, box->srcHost, box->srcDevice, SourceOffset(*box)) |
         DevicesInSide(box->dstMemoryType, box->dstHost, box->dstDevice, TargetOffset(*box));
}
inline Devices DevicesIn(const CUDA_MEMCPY2D* box) { return DevicesInBox(box); }
inline Devices DevicesIn(const CUDA_MEMCPY3D* box) { return DevicesInBox(box); }
inline Devices DevicesIn(const CUDA_MEMCPY3D_PEER* box) { return DevicesInBox(box); }

inline Devices DevicesOf(StreamName stream) {
  const ContextPool* context = OwnerOf(stream).work().context();
  return context == nullptr ? kAnyDevice : DeviceBit(context->device());
}

// What may link the devices that it names. A copy of bytes in a row links nothing (measured, see
// device_links.h).
template <typename Argument>
inline constexpr bool kIsBoxOrArray =
    std::is_same_v<Argument, CUarray> || std::is_same_v<Argument, const CUDA_MEMCPY2D*> ||
    std::is_same_v<Argument, const CUDA_MEMCPY3D*> ||
    std::is_same_v<Argument, const CUDA_MEMCPY3D_PEER*>;

// Of a copy on `stream`: the devices in whose contexts it may run.
template <typename... Arguments>
Devices DevicesOfCopy(StreamName stream, const Arguments&... arguments) {
  const Devices devices = (DevicesOf(stream) | ... | DevicesIn(arguments));
  const bool several = (devices & (devices - 1)) != 0;
  if (several && ((kIsBoxOrArray<Arguments>) || ...)) g_device_links.Link(devices);
  return devices;
}

}  // namespace cmp

#endif  // CMP_SHIM_WORK_COPIED_DEVICES_H_
