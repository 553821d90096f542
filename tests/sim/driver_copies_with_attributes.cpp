// Driver entry points for copies with attributes: batches, and single ones (CUDA 13.2).
//
// Pointers alone; an array on either side is CUDA_ERROR_NOT_SUPPORTED. copies.h holds what copies
// have in common.
#include "copies.h"
#include "driver_entry.h"

#if CUDA_VERSION >= 12080

namespace cmp::sim {
namespace {

struct To {
  CUstream stream = nullptr;
  DefaultStream null_means = kLegacy;
  bool IsLegacy() const {
    return stream == CU_STREAM_LEGACY || (stream == nullptr && null_means == kLegacy);
  }
};

// False: no valid order.
bool ReadOf(CUmemcpySrcAccessOrder order, SourceRead* read) {
  *read = order == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL ? SourceRead::kDuringCall
          : order == CU_MEMCPY_SRC_ACCESS_ORDER_ANY           ? SourceRead::kAnyTime
                                                              : SourceRead::kInOrder;
  return order == CU_MEMCPY_SRC_ACCESS_ORDER_STREAM || order == CU_MEMCPY_SRC_ACCESS_ORDER_ANY ||
         order == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
}

CUresult Copy1D(Simulation& sim, Lock& lock, CUdeviceptr to, CUdeviceptr from, size_t bytes,
                const CUmemcpyAttributes* attributes, const To& where) {
  SourceRead read{};
  if (attributes == nullptr || !ReadOf(attributes->srcAccessOrder, &read)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return Copy(sim, lock,
              {{to, -1}, {from, -1}, bytes, 1, 1, where.stream, where.null_means, false, read});
}

// Each copy comes after the one before it, which the batch allows but does not promise.
CUresult CopyBatch(Simulation& sim, Lock& lock, const CUdeviceptr* to, const CUdeviceptr* from,
                   const size_t* bytes, size_t count, const CUmemcpyAttributes* attributes,
                   const size_t* first_copies, size_t attribute_count, size_t* failed,
                   const To& where) {
  if (failed != nullptr) *failed = SIZE_MAX;
  if (to == nullptr || from == nullptr || bytes == nullptr || count == 0 || attributes == nullptr ||
      first_copies == nullptr || attribute_count == 0 || attribute_count > count ||
      first_copies[0] != 0 || where.IsLegacy()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0, of = 0; i < count; ++i) {
    while (of + 1 < attribute_count && first_copies[of + 1] <= i) ++of;
    const CUresult result = Copy1D(sim, lock, to[i], from[i], bytes[i], &attributes[of], where);
    if (result == CUDA_SUCCESS) continue;
    if (failed != nullptr) *failed = i;
    return result;
  }
  return CUDA_SUCCESS;
}

CopySide SideOf(const CUmemcpy3DOperand& operand, const CUextent3D& extent) {
  const auto& pointer = operand.op.ptr;
  const size_t pitch = pointer.rowLength != 0 ? pointer.rowLength : extent.width;
  const size_t rows = pointer.layerHeight != 0 ? pointer.layerHeight : extent.height;
  return {pointer.ptr, -1, pitch, pitch * rows};
}

CUresult Copy3D(Simulation& sim, Lock& lock, const CUDA_MEMCPY3D_BATCH_OP* box,
                unsigned long long flags, const To& where) {
  SourceRead read{};
  if (box == nullptr || flags != 0 || !ReadOf(box->srcAccessOrder, &read)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const CUextent3D& extent = box->extent;
  if (extent.width == 0 || extent.height == 0 || extent.depth == 0) return CUDA_ERROR_INVALID_VALUE;
  if (box->src.type != CU_MEMCPY_OPERAND_TYPE_POINTER ||
      box->dst.type != CU_MEMCPY_OPERAND_TYPE_POINTER) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return Copy(sim, lock,
              {SideOf(box->dst, extent), SideOf(box->src, extent), extent.width, extent.height,
               extent.depth, where.stream, where.null_means, false, read});
}

CUresult CopyBatch3D(Simulation& sim, Lock& lock, size_t count, const CUDA_MEMCPY3D_BATCH_OP* boxes,
                     size_t* failed, unsigned long long flags, const To& where) {
  if (failed != nullptr) *failed = SIZE_MAX;
  if (count == 0 || boxes == nullptr || where.IsLegacy()) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    const CUresult result = Copy3D(sim, lock, &boxes[i], flags, where);
    if (result == CUDA_SUCCESS) continue;
    if (failed != nullptr) *failed = i;
    return result;
  }
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemcpyBatchAsync(CUdeviceptr* to, CUdeviceptr* from, size_t* bytes, size_t count,
                            CUmemcpyAttributes* attributes, size_t* first_copies,
                            size_t attribute_count, size_t* failed, CUstream stream) {
  return Enter("cuMemcpyBatchAsync", [&](Simulation& sim, Lock& lock) {
    return CopyBatch(sim, lock, to, from, bytes, count, attributes, first_copies, attribute_count,
                     failed, {stream, kLegacy});
  });
}

CUresult cuMemcpyBatchAsync_ptsz(CUdeviceptr* to, CUdeviceptr* from, size_t* bytes, size_t count,
                                 CUmemcpyAttributes* attributes, size_t* first_copies,
                                 size_t attribute_count, size_t* failed, CUstream stream) {
  return Enter("cuMemcpyBatchAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return CopyBatch(sim, lock, to, from, bytes, count, attributes, first_copies, attribute_count,
                     failed, {stream, kPerThread});
  });
}

CUresult cuMemcpy3DBatchAsync(size_t count, CUDA_MEMCPY3D_BATCH_OP* boxes, size_t* failed,
                              unsigned long long flags, CUstream stream) {
  return Enter("cuMemcpy3DBatchAsync", [&](Simulation& sim, Lock& lock) {
    return CopyBatch3D(sim, lock, count, boxes, failed, flags, {stream, kLegacy});
  });
}

CUresult cuMemcpy3DBatchAsync_ptsz(size_t count, CUDA_MEMCPY3D_BATCH_OP* boxes, size_t* failed,
                                   unsigned long long flags, CUstream stream) {
  return Enter("cuMemcpy3DBatchAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return CopyBatch3D(sim, lock, count, boxes, failed, flags, {stream, kPerThread});
  });
}

#if CUDA_VERSION >= 13000

CUresult cuMemcpyBatchAsync_v2(CUdeviceptr* to, CUdeviceptr* from, size_t* bytes, size_t count,
                               CUmemcpyAttributes* attributes, size_t* first_copies,
                               size_t attribute_count, CUstream stream) {
  return Enter("cuMemcpyBatchAsync_v2", [&](Simulation& sim, Lock& lock) {
    return CopyBatch(sim, lock, to, from, bytes, count, attributes, first_copies, attribute_count,
                     nullptr, {stream, kLegacy});
  });
}

CUresult cuMemcpyBatchAsync_v2_ptsz(CUdeviceptr* to, CUdeviceptr* from, size_t* bytes, size_t count,
                                    CUmemcpyAttributes* attributes, size_t* first_copies,
                                    size_t attribute_count, CUstream stream) {
  return Enter("cuMemcpyBatchAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return CopyBatch(sim, lock, to, from, bytes, count, attributes, first_copies, attribute_count,
                     nullptr, {stream, kPerThread});
  });
}

CUresult cuMemcpy3DBatchAsync_v2(size_t count, CUDA_MEMCPY3D_BATCH_OP* boxes,
                                 unsigned long long flags, CUstream stream) {
  return Enter("cuMemcpy3DBatchAsync_v2", [&](Simulation& sim, Lock& lock) {
    return CopyBatch3D(sim, lock, count, boxes, nullptr, flags, {stream, kLegacy});
  });
}

CUresult cuMemcpy3DBatchAsync_v2_ptsz(size_t count, CUDA_MEMCPY3D_BATCH_OP* boxes,
                                      unsigned long long flags, CUstream stream) {
  return Enter("cuMemcpy3DBatchAsync_v2_ptsz", [&](Simulation& sim, Lock& lock) {
    return CopyBatch3D(sim, lock, count, boxes, nullptr, flags, {stream, kPerThread});
  });
}

#endif

CUresult cuMemcpyWithAttributesAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                     CUmemcpyAttributes* attributes, CUstream stream) {
  return Enter("cuMemcpyWithAttributesAsync", [&](Simulation& sim, Lock& lock) {
    return Copy1D(sim, lock, to, from, bytes, attributes, {stream, kLegacy});
  });
}

CUresult cuMemcpyWithAttributesAsync_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                          CUmemcpyAttributes* attributes, CUstream stream) {
  return Enter("cuMemcpyWithAttributesAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy1D(sim, lock, to, from, bytes, attributes, {stream, kPerThread});
  });
}

CUresult cuMemcpy3DWithAttributesAsync(CUDA_MEMCPY3D_BATCH_OP* box, unsigned long long flags,
                                       CUstream stream) {
  return Enter("cuMemcpy3DWithAttributesAsync", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, flags, {stream, kLegacy});
  });
}

CUresult cuMemcpy3DWithAttributesAsync_ptsz(CUDA_MEMCPY3D_BATCH_OP* box, unsigned long long flags,
                                            CUstream stream) {
  return Enter("cuMemcpy3DWithAttributesAsync_ptsz", [&](Simulation& sim, Lock& lock) {
    return Copy3D(sim, lock, box, flags, {stream, kPerThread});
  });
}

}  // extern "C"

#endif
