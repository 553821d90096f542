// Memory that calls of the program name, by an address and how far they go from there: has the
// program all of it? A block that is idle is no allocation of the program's any more, nor is what
// lies beyond the size that it asked for. The driver knows better only where the pool asked for
// more, and so it is the driver that refuses such a call: it is handed an address that is none.
//
// Measured on an H200 (tests/gpu/freed_memory_h200.md): copies, sets, nodes of graphs and stream
// memory operations answer about a freed pointer, and about one byte too many, as they answer about
// the null pointer, in captures too; only those that are told no type (cudaMemcpyDefault) take a
// freed one for the host's, and crash, where the null pointer is refused. Of no bytes nothing is
// refused. A box is looked at from its base on, with its offset.
//
// Sound beside other threads: who allocated memory knows of it after the pool does, and an address
// that the driver gave to somebody else is idle no more by then.
#ifndef CMP_SHIM_SERVICE_NAMED_MEMORY_H_
#define CMP_SHIM_SERVICE_NAMED_MEMORY_H_

#include <cuda.h>
#include <string.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/pool/pool_instance.h"
#include "shim/visible/copied_memory.h"
#include "shim/work/copied_devices.h"

namespace cmp {

enum class Has : uint8_t { kAll, kNotAll, kUnknown };

// What the program has of these bytes, if the first of them is in `block`.
inline Has HasOf(const Block& block, CUdeviceptr address, size_t bytes) {
  // Relaxed: the record may be another block's by now, which a second look shows.
  const size_t offset = address - __atomic_load_n(&block.address, __ATOMIC_RELAXED);
  if (offset >= __atomic_load_n(&block.bytes, __ATOMIC_RELAXED)) return Has::kUnknown;
  const BlockState state = block.state.load(std::memory_order_acquire);
  if (state != BlockState::kLive && state != BlockState::kUnpooled) [[unlikely]] {
    // Where its real free is under way, the driver knows.
    return state == BlockState::kIdle ? Has::kNotAll : Has::kUnknown;
  }
  const size_t asked_for = __atomic_load_n(&block.requested, __ATOMIC_RELAXED);
  return offset < asked_for && bytes <= asked_for - offset ? Has::kAll : Has::kNotAll;
}

// The second look, for who found that it has not all.
bool IsRefusedAt(const Pool& pool, const Block& block, CUdeviceptr address, size_t bytes);

// Two or three lines of the side table and one of the block.
inline bool IsRefused(CUdeviceptr address, size_t bytes) {
  const Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr) return false;
  const Block* block = pool->FindNear(address);
  return block != nullptr && HasOf(*block, address, bytes) == Has::kNotAll &&
         IsRefusedAt(*pool, *block, address, bytes);
}

// ---- Where the arguments of a call name memory.
//
// ForEachNamed calls visit(address, bytes) for each place, which may change the address. What the
// program has in structures and lists is copied before it is changed, by visit.Copied: that part of
// a list alone that names such memory, since no other part of it happens then.

namespace named {

// Is anything refused?
class Look {
 public:
  static constexpr bool kChanges = false;
  void operator()(CUdeviceptr& address, size_t bytes) {
    if (IsRefused(address, bytes)) [[unlikely]]
      refused_ = true;
  }
  // For what this never changes.
  template <typename Part>
  Part& Copied(const Part& part) {
    return const_cast<Part&>(part);
  }
  bool refused() const { return refused_; }

 private:
  bool refused_ = false;
};

// The null pointer for what is refused. Lives across the real call, which reads the copies.
class Replace {
 public:
  static constexpr bool kChanges = true;
  void operator()(CUdeviceptr& address, size_t bytes) {
    if (IsRefused(address, bytes)) address = 0;
  }
  template <typename Part>
  Part& Copied(const Part& part) {
    Part* copy = reinterpret_cast<Part*>(memory_ + used_);
    used_ += (sizeof(Part) + alignof(std::max_align_t) - 1) & ~(alignof(std::max_align_t) - 1);
    if (used_ > sizeof memory_) __builtin_trap();  // no call has so many parts
    memcpy(copy, &part, sizeof part);
    return *copy;
  }

 private:
  alignas(std::max_align_t) unsigned char memory_[512];
  size_t used_ = 0;
};

// What is not aligned the driver refuses as it is, during captures before it looks at the memory.
template <typename Value, typename Visit>
void VisitAligned(Visit& visit, CUdeviceptr& address, size_t bytes) {
  static_assert(std::is_unsigned_v<Value> && sizeof(Value) <= sizeof(uint64_t));
  if (address % sizeof(Value) == 0) visit(address, bytes);
}

// Rows of `width` bytes, up to the end of the last one.
inline size_t RowsEnd(size_t offset, size_t pitch, size_t width, size_t rows) {
  return width == 0 || rows == 0 ? 0 : offset + (rows - 1) * pitch + width;
}
inline size_t RowsOf(const CUDA_MEMCPY2D& box, size_t) { return box.Height; }
template <typename Box>
size_t RowsOf(const Box& box, size_t height) {
  return box.Depth == 0 || box.Height == 0 ? 0 : (box.Depth - 1) * height + box.Height;
}
inline size_t SourceHeight(const CUDA_MEMCPY2D&) { return 0; }
inline size_t TargetHeight(const CUDA_MEMCPY2D&) { return 0; }
template <typename Box>
size_t SourceHeight(const Box& box) {
  return box.srcHeight;
}
template <typename Box>
size_t TargetHeight(const Box& box) {
  return box.dstHeight;
}

template <typename Visit, typename Box>
void VisitBox(Visit& visit, const Box*& box) {
  if (box == nullptr) return;  // the real call refuses it
  const auto names = [](CUmemorytype type) {
    return type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_UNIFIED;
  };
  CUdeviceptr from = box->srcDevice;
  CUdeviceptr to = box->dstDevice;
  if (names(box->srcMemoryType)) {
    visit(from, RowsEnd(SourceOffset(*box), box->srcPitch, box->WidthInBytes,
                        RowsOf(*box, SourceHeight(*box))));
  }
  if (names(box->dstMemoryType)) {
    visit(to, RowsEnd(TargetOffset(*box), box->dstPitch, box->WidthInBytes,
                      RowsOf(*box, TargetHeight(*box))));
  }
  if (from == box->srcDevice && to == box->dstDevice) return;
  Box& copy = visit.Copied(*box);
  // The null pointer, not an address behind it, which the driver might take for the host's.
  if (from != copy.srcDevice) {
    copy.srcDevice = from;
    copy.srcXInBytes = copy.srcY = 0;
    if constexpr (requires { copy.srcZ; }) copy.srcZ = 0;
  }
  if (to != copy.dstDevice) {
    copy.dstDevice = to;
    copy.dstXInBytes = copy.dstY = 0;
    if constexpr (requires { copy.dstZ; }) copy.dstZ = 0;
  }
  box = &copy;
}

// Of boxes in lists only where they begin: how long rows are is said in elements.
template <typename Visit>
bool VisitBatchBox(Visit& visit, void*& boxes, size_t at) {
  const CopyBox& box = static_cast<const CopyBox*>(boxes)[at];
  const size_t bytes = box.extent[0] != 0 && box.extent[1] != 0 && box.extent[2] != 0 ? 1 : 0;
  CUdeviceptr from = box.from.pointer;
  CUdeviceptr to = box.to.pointer;
  if (box.from.type == kPointerOperand) visit(from, bytes);
  if (box.to.type == kPointerOperand) visit(to, bytes);
  if (from == box.from.pointer && to == box.to.pointer) return false;
  CopyBox& copy = visit.Copied(box);
  copy.from.pointer = from;
  copy.to.pointer = to;
  boxes = &copy;
  return true;
}

// ---- Copies. Whatever follows the parameters named here says nothing of memory; what the call
// takes for the host's is not looked at.

template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, CUdeviceptr& to, CUdeviceptr& from, size_t& bytes, More&...) {
  visit(to, bytes);
  visit(from, bytes);
}
template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, CUdeviceptr& to, const void*&, size_t& bytes, More&...) {
  visit(to, bytes);
}
template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, void*&, CUdeviceptr& from, size_t& bytes, More&...) {
  visit(from, bytes);
}
template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, CUdeviceptr& to, CUcontext&, CUdeviceptr& from, CUcontext&,
                  size_t& bytes, More&...) {
  visit(to, bytes);
  visit(from, bytes);
}
template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, CUarray&, size_t&, CUdeviceptr& from, size_t& bytes, More&...) {
  visit(from, bytes);
}
template <typename Visit, typename... More>
void ForEachNamed(Visit&, CUarray&, size_t&, const void*&, size_t&, More&...) {}
template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, CUdeviceptr& to, CUarray&, size_t&, size_t& bytes, More&...) {
  visit(to, bytes);
}
template <typename Visit, typename... More>
void ForEachNamed(Visit&, void*&, CUarray&, size_t&, size_t&, More&...) {}
template <typename Visit>
void ForEachNamed(Visit&, CUarray&, size_t&, CUarray&, size_t&, size_t&) {}

template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, const CUDA_MEMCPY2D*& box, More&...) {
  VisitBox(visit, box);
}
template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, const CUDA_MEMCPY3D*& box, More&...) {
  VisitBox(visit, box);
}
template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, const CUDA_MEMCPY3D_PEER*& box, More&...) {
  VisitBox(visit, box);
}

template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, CUdeviceptr*& to, CUdeviceptr*& from, size_t*& bytes, size_t& count,
                  void*&, size_t*& attribute_of, size_t& attributes, More&...) {
  if (to == nullptr || from == nullptr || bytes == nullptr) return;
  for (size_t i = 0; i < count; ++i) {
    CUdeviceptr one_to = to[i];
    CUdeviceptr one_from = from[i];
    visit(one_to, bytes[i]);
    visit(one_from, bytes[i]);
    if (!Visit::kChanges || (one_to == to[i] && one_from == from[i])) continue;
    to = &visit.Copied(one_to);
    from = &visit.Copied(one_from);
    bytes += i;
    count = 1;
    attribute_of = &visit.Copied(size_t{0});
    attributes = 1;
    return;
  }
}
template <typename Visit, typename... More>
void ForEachNamed(Visit& visit, size_t& count, void*& boxes, More&...) {
  if (boxes == nullptr) return;
  for (size_t i = 0; i < count; ++i) {
    if (!VisitBatchBox(visit, boxes, i)) continue;
    count = 1;
    return;
  }
}
template <typename Visit>
void ForEachNamed(Visit& visit, void*& box, unsigned long long&, CUstream&) {
  if (box != nullptr) VisitBatchBox(visit, box, 0);
}

// ---- Sets

template <typename Visit, typename Value, typename... More>
void ForEachNamed(Visit& visit, CUdeviceptr& to, Value&, size_t& count, More&...) {
  VisitAligned<Value>(visit, to, count * sizeof(Value));
}
template <typename Visit, typename Value, typename... More>
void ForEachNamed(Visit& visit, CUdeviceptr& to, size_t& pitch, Value&, size_t& width,
                  size_t& height, More&...) {
  VisitAligned<Value>(visit, to, RowsEnd(0, pitch, width * sizeof(Value), height));
}

// ---- Single values

template <typename Visit, typename Value>
void ForEachNamed(Visit& visit, CUstream&, CUdeviceptr& address, Value&, unsigned&) {
  VisitAligned<Value>(visit, address, sizeof(Value));
}
template <typename Visit>
void ForEachNamed(Visit& visit, CUstream&, unsigned& count, void*& operations, unsigned&) {
  if (operations == nullptr) return;
  const auto* all = static_cast<const CUstreamBatchMemOpParams*>(operations);
  for (unsigned i = 0; i < count; ++i) {
    const CUstreamBatchMemOpType what = all[i].operation;
    const bool one =
        what == CU_STREAM_MEM_OP_WAIT_VALUE_32 || what == CU_STREAM_MEM_OP_WRITE_VALUE_32;
    const bool two =
        what == CU_STREAM_MEM_OP_WAIT_VALUE_64 || what == CU_STREAM_MEM_OP_WRITE_VALUE_64;
    if (!one && !two) continue;
    // Both kinds have it at the same place.
    CUdeviceptr address = all[i].writeValue.address;
    visit(address, one ? sizeof(cuuint32_t) : sizeof(cuuint64_t));
    if (address == all[i].writeValue.address) continue;
    CUstreamBatchMemOpParams& copy = visit.Copied(all[i]);
    copy.writeValue.address = address;
    operations = &copy;
    count = 1;
    return;
  }
}
static_assert(offsetof(CUstreamBatchMemOpParams, writeValue.address) ==
              offsetof(CUstreamBatchMemOpParams, waitValue.address));

// ---- Nodes of graphs

// CUDA_MEMSET_NODE_PARAMS of either version, which begin alike.
template <typename Set, typename Visit>
void VisitSet(Visit& visit, Set& set) {
  visit(set.dst, RowsEnd(0, set.pitch, set.width * set.elementSize, set.height));
}
template <typename Visit>
void ForEachNamed(Visit& visit, const CUDA_MEMCPY3D*& copy) {
  VisitBox(visit, copy);
}
template <typename Visit>
void ForEachNamed(Visit& visit, const CUDA_MEMSET_NODE_PARAMS*& set) {
  if (set == nullptr) return;
  CUDA_MEMSET_NODE_PARAMS changed = *set;
  VisitSet(visit, changed);
  if (changed.dst != set->dst) set = &visit.Copied(changed);
}

}  // namespace named

template <typename... Arguments>
bool NamesRefused(Arguments... arguments) {
  named::Look look;
  named::ForEachNamed(look, arguments...);
  return look.refused();
}

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_NAMED_MEMORY_H_
