#include "shim/visible/copied_memory.h"

#include "shim/lookup/lookup.h"
#include "shim/visible/visible_memory.h"

namespace cmp {

namespace {

#if CUDA_VERSION >= 12080
static_assert(sizeof(CopyBox) == sizeof(CUDA_MEMCPY3D_BATCH_OP));
static_assert(offsetof(CopyBox, from.pointer) == offsetof(CUDA_MEMCPY3D_BATCH_OP, src.op.ptr.ptr));
static_assert(offsetof(CopyBox, to.pointer) == offsetof(CUDA_MEMCPY3D_BATCH_OP, dst.op.ptr.ptr));
static_assert(kPointerOperand == CU_MEMCPY_OPERAND_TYPE_POINTER);
#endif

// The copies of one call, one after another.
class Look {
 public:
  bool Sees(CUdeviceptr to, CUdeviceptr from) {
    return g_visible_memory.IsPageLocked(to) || g_visible_memory.IsPageLocked(from) ||
           !IsTheDevices(to, &last_to_) || !IsTheDevices(from, &last_from_);
  }

 private:
  struct Allocation {
    CUdeviceptr start = 0;
    size_t bytes = 0;
  };

  // Copies of a list are often of the same memory: the last allocation is remembered.
  bool IsTheDevices(CUdeviceptr address, Allocation* last) {
    if (address - last->start < last->bytes) return true;
    if (questions_ == kMostQuestions) return false;
    ++questions_;
    if (!IsOnDevice(address)) return false;
    Allocation found;
    const auto& ask = RealDriver()->cuPointerGetAttribute;
    const bool known =
        ask(&found.start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, address) == CUDA_SUCCESS &&
        ask(&found.bytes, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address) == CUDA_SUCCESS;
    *last = known ? found : Allocation{address, 1};
    return true;
  }

  static constexpr int kMostQuestions = 16;
  int questions_ = 0;
  Allocation last_to_;
  Allocation last_from_;
};

}  // namespace

Devices DeviceOf(CUdeviceptr address) {
  const DriverCalls* real = RealDriver();
  if (real == nullptr || real->cuPointerGetAttribute == nullptr) return kAnyDevice;
  unsigned type = CU_MEMORYTYPE_HOST;
  CUresult status = real->cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address);
  if (status == CUDA_ERROR_INVALID_VALUE) return 0;  // memory of the host that CUDA does not know
  if (status == CUDA_SUCCESS && type == CU_MEMORYTYPE_HOST) return 0;
  int device = -1;
  if (status == CUDA_SUCCESS) {
    status = real->cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address);
  }
  return status == CUDA_SUCCESS ? DeviceBit(device) : kAnyDevice;
}

bool IsOnDevice(CUdeviceptr address) {
  const DriverCalls* real = RealDriver();
  unsigned type = CU_MEMORYTYPE_HOST;
  return real != nullptr && real->cuPointerGetAttribute != nullptr &&
         real->cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address) ==
             CUDA_SUCCESS &&
         type == CU_MEMORYTYPE_DEVICE;
}

bool MayBeSeen(const CUdeviceptr* to, const CUdeviceptr* from, size_t count) {
  if (to == nullptr || from == nullptr) return false;  // the real call refuses it
  Look look;
  for (size_t i = 0; i < count; ++i) {
    if (look.Sees(to[i], from[i])) return true;
  }
  return false;
}

bool MayBeSeen(const void* boxes, size_t count) {
  if (boxes == nullptr) return false;
  const auto* box = static_cast<const CopyBox*>(boxes);
  Look look;
  // An array is the device's.
  const auto address = [](const CopyOperand& side, const CopyOperand& other) {
    return side.type == kPointerOperand ? side.pointer : other.pointer;
  };
  for (const CopyBox* end = box + count; box != end; ++box) {
    if (box->to.type != kPointerOperand && box->from.type != kPointerOperand) continue;
    if (look.Sees(address(box->to, box->from), address(box->from, box->to))) return true;
  }
  return false;
}

}  // namespace cmp
