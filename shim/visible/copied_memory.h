// What copies with attributes touch: could the host see when they read and write it?
//
// Of page-locked memory it could, as with every copy. Of pageable memory, too: such a copy may
// write its target, and read its source, after it has returned (measured; a source that is to be
// read during the call as well). Whether an address is the device's is asked of the driver, for a
// few allocations a call; in doubt the host sees it.
//
// The lists and structures are the program's, as the real call is given them. Their types are those
// of CUDA 12.8, which older headers lack: hence the pointers to void.
#ifndef CMP_SHIM_VISIBLE_COPIED_MEMORY_H_
#define CMP_SHIM_VISIBLE_COPIED_MEMORY_H_

#include <cuda.h>

#include <cstddef>

#include "core/contexts/device_links.h"

namespace cmp {

// The device whose memory is at this address, as the driver knows it; none for memory of the host.
Devices DeviceOf(CUdeviceptr address);

// Managed memory counts as the device's. (To ask during a capture is harmless: measured.)
bool IsOnDevice(CUdeviceptr address);

// CUmemcpy3DOperand
struct CopyOperand {
  int type;
  CUdeviceptr pointer;  // or an array
  size_t shape[3];
};
inline constexpr int kPointerOperand = 1;  // CU_MEMCPY_OPERAND_TYPE_POINTER

// CUDA_MEMCPY3D_BATCH_OP
struct CopyBox {
  CopyOperand from;
  CopyOperand to;
  size_t extent[3];
  int source_order;
  unsigned flags;
};

// Of `count` copies.
bool MayBeSeen(const CUdeviceptr* to, const CUdeviceptr* from, size_t count);
// `boxes`: an array of CUDA_MEMCPY3D_BATCH_OP.
bool MayBeSeen(const void* boxes, size_t count);

}  // namespace cmp

#endif  // CMP_SHIM_VISIBLE_COPIED_MEMORY_H_
