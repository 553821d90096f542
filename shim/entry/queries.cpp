// The interposed entry points of the driver that answer questions about memory, or give it away to
// others. The pool must not show: an idle block is no allocation, a block in use has the size that
// was asked for, the pool's idle memory is free.
#include <algorithm>

#include "shim/loaded/nvidia_libraries.h"
#include "shim/lookup/entry_points.h"
#include "shim/service/kept_pools.h"
#include "shim/service/placement.h"
#include "shim/service/service.h"
#include "shim/visible/visible_memory.h"

namespace cmp {

namespace {

// An address at which nothing is ever allocated: the driver's answer about it is the answer about
// memory that was freed.
constexpr CUdeviceptr kNowhere = 1;

// What the program may know of the place of `pointer`.
struct Place {
  Block* block = nullptr;  // ours and in use
  bool freed = false;      // ours, but not the program's (any more, or beyond what it asked for)
  bool page_locked = false;
};

bool IsInUse(const Block& block) {
  const BlockState state = block.state.load(std::memory_order_acquire);
  return state == BlockState::kLive || state == BlockState::kUnpooled;
}

// In a block whose context is there: of one that has ended the driver may have given the address to
// somebody else.
Place PlaceIn(Block* block, CUdeviceptr pointer, bool in_use, bool page_locked) {
  if (!in_use || pointer - block->address >= block->requested) return {nullptr, true, page_locked};
  return {block, false, page_locked};
}

[[gnu::noinline, gnu::cold]] Place PlaceIn(PageLockedPool& pool, CUdeviceptr pointer) {
  Block* block = pool.FindAround(pointer);
  if (block == nullptr) return Place{};
  const bool in_use = IsInUse(*block);
  const bool known = in_use ? PageLockedPool::HeapOf(*block).context().open()
                            : pool.StillHas(block, block->address);
  return known ? PlaceIn(block, pointer, in_use, true) : Place{};
}
Place PlaceOfPageLocked(CUdeviceptr pointer) {
  PageLockedPool* pool = g_page_locked.load(std::memory_order_acquire);
  return pool == nullptr ? Place{} : PlaceIn(*pool, pointer);
}

Place PlaceOf(CUdeviceptr pointer) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  if (pool == nullptr || t_inside_real != 0) return Place{};
  Block* block = pool->FindAround(pointer);
  if (block == nullptr) return PlaceOfPageLocked(pointer);
  const bool in_use = IsInUse(*block);
  const bool known = in_use ? block->owner()->open() : pool->StillHas(block, block->address);
  return known ? PlaceIn(block, pointer, in_use, false) : Place{};
}

// Which answers about a block in use are not the driver's own.
constexpr uint64_t kCorrected = uint64_t{1} << CU_POINTER_ATTRIBUTE_RANGE_SIZE |
                                uint64_t{1} << CU_POINTER_ATTRIBUTE_MAPPING_SIZE |
                                uint64_t{1} << CU_POINTER_ATTRIBUTE_BUFFER_ID |
                                uint64_t{1} << CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID;
bool IsCorrected(CUpointer_attribute attribute) {
  const auto number = static_cast<unsigned>(attribute);  // whatever the program passes
  return number < 64 && (kCorrected >> number & 1) != 0;
}

// Corrects one of these.
[[gnu::noinline]] void CorrectAttribute(const Place& place, CUpointer_attribute attribute,
                                        void* data) {
  if (data == nullptr) return;
  Block* const block = place.block;
  auto* const number = static_cast<unsigned long long*>(data);
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      *number = block->requested;
      break;
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      if (!place.page_locked) *number = CorrectedMappingBytes(*block, *number);
      break;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      // An allocation of its own each time that the block is handed out, as programs that cache by
      // the id expect.
      *number = BufferIdOf(block);
      break;
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      if (!place.page_locked) *number = CorrectedMemoryBlockId(*block, *number);
      break;
    default:
      break;
  }
}

// The driver was asked about kNowhere in place of `pointer`: where it answers with what it was
// asked about (the host's address of what it does not know), that was `pointer`.
void CorrectFreed(CUpointer_attribute attribute, CUdeviceptr pointer, void* data) {
  if (data == nullptr) return;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR: {
      auto* const address = static_cast<CUdeviceptr*>(data);
      if (*address == kNowhere) *address = pointer;
      break;
    }
    default:
      break;
  }
}

// Page-locked memory whose device pointer was asked for is used by kernels.
void NoteDevicePointer(CUpointer_attribute attribute, CUdeviceptr pointer, const void* caller) {
  if (attribute != CU_POINTER_ATTRIBUTE_DEVICE_POINTER) return;
  if (!g_visible_memory.IsPageLocked(pointer) || IsNvidiaLibrary(caller)) return;
  g_visible_memory.SetMapped(pointer);
}

// What is off the lists of a device's contexts to be really freed.
size_t LeavingBytes(Pool& pool, int device) {
  size_t bytes = 0;
  pool.ForEachContext([&](ContextPool& context) {
    if (context.open() && context.device() == device) bytes += context.accounts().leaving();
  });
  return bytes;
}

// A block whose real free is under way is neither idle nor free memory, and one that was freed
// between the two questions was both: then they are asked again. Not for ever: threads that free
// may always be at it; what ages goes in short portions, with pauses.
//
// The last answer counts what is leaving as free. A block that was leaving both before and after
// the question was hardly freed by it: of each thread that frees one at most was, for the moment
// between the end of the driver's call and its note. Without it all that these threads have in hand
// would be missing.
CUresult MemoryWithIdle(const DriverCalls& real, Pool& pool, CUdevice device, size_t* free,
                        size_t* total) {
  constexpr int kMostTries = 24;         // some 4 ms
  constexpr int kMostForPortions = 120;  // some 100 ms
  Pause pause;
  for (int tries = 1;; ++tries) {
    const uint64_t ended = pool.hands(device).ended;
    // Only for the last answer, which the first never is.
    const size_t leaving = tries == 1 ? 0 : LeavingBytes(pool, device);
    const CUresult status = real.cuMemGetInfo_v2(free, total);
    if (status != CUDA_SUCCESS) return status;
    // What other threads free into their caches meanwhile is no reason to empty them again.
    const auto caches = tries == 1 ? Pool::Caches::kEmptied : Pool::Caches::kLeft;
    *free += pool.ReleasableBytes(device, caches);
    const Hands hands = pool.hands(device);
    if (hands.now == 0 && hands.ended == ended) return status;
    if (tries >= (hands.quiet != 0 ? kMostForPortions : kMostTries)) {
      *free += std::min(leaving, LeavingBytes(pool, device));
      if (total != nullptr) *free = std::min(*free, *total);
      return status;
    }
    pause.Wait();
  }
}

}  // namespace

}  // namespace cmp

using cmp::kNowhere;

CUresult Driver_cuMemGetInfo_v2(size_t* free, size_t* total) {
  CMP_REAL(cuMemGetInfo_v2);
  cmp::Pool* pool = cmp::g_pool.load(std::memory_order_acquire);
  const cmp::Driver* driver = cmp::LoadedDriver();
  CUdevice device = 0;
  // From inside a real call of ours the question is another one's, and what that thread frees would
  // be waited for in vain.
  if (free == nullptr || pool == nullptr || driver == nullptr || cmp::t_inside_real != 0 ||
      driver->context_device(&device) != CUDA_SUCCESS) {
    return real->cuMemGetInfo_v2(free, total);
  }
  cmp::ReleaseKept(device);
  return cmp::MemoryWithIdle(*real, *pool, device, free, total);
}

CUresult Driver_cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr pointer) {
  CMP_REAL(cuMemGetAddressRange_v2);
  const cmp::Place place = cmp::PlaceOf(pointer);
  if (place.freed) return real->cuMemGetAddressRange_v2(base, bytes, kNowhere);
  const CUresult status = real->cuMemGetAddressRange_v2(base, bytes, pointer);
  if (status == CUDA_SUCCESS && place.block != nullptr && bytes != nullptr) {
    *bytes = place.block->requested;
  }
  return status;
}

CUresult Driver_cuPointerGetAttribute(void* data, CUpointer_attribute attribute,
                                      CUdeviceptr pointer) {
  CMP_REAL(cuPointerGetAttribute);
  const cmp::Place place = cmp::PlaceOf(pointer);
  if (place.freed) {
    const CUresult status = real->cuPointerGetAttribute(data, attribute, kNowhere);
    if (status == CUDA_SUCCESS) cmp::CorrectFreed(attribute, pointer, data);
    return status;
  }
  const CUresult status = real->cuPointerGetAttribute(data, attribute, pointer);
  if (status != CUDA_SUCCESS) return status;
  if (place.block == nullptr || place.page_locked) {
    cmp::NoteDevicePointer(attribute, pointer, CMP_CALLER);
  }
  if (place.block != nullptr && cmp::IsCorrected(attribute)) {
    cmp::CorrectAttribute(place, attribute, data);
  }
  return status;
}

CUresult Driver_cuPointerGetAttributes(unsigned count, CUpointer_attribute* attributes, void** data,
                                       CUdeviceptr pointer) {
  CMP_REAL(cuPointerGetAttributes);
  const cmp::Place place = cmp::PlaceOf(pointer);
  if (place.freed) {
    const CUresult status = real->cuPointerGetAttributes(count, attributes, data, kNowhere);
    for (unsigned i = 0; status == CUDA_SUCCESS && i < count; ++i) {
      cmp::CorrectFreed(attributes[i], pointer, data[i]);
    }
    return status;
  }
  const CUresult status = real->cuPointerGetAttributes(count, attributes, data, pointer);
  for (unsigned i = 0; status == CUDA_SUCCESS && i < count; ++i) {
    if (place.block == nullptr) {
      cmp::NoteDevicePointer(attributes[i], pointer, CMP_CALLER);
    } else if (cmp::IsCorrected(attributes[i])) [[unlikely]] {
      cmp::CorrectAttribute(place, attributes[i], data[i]);
    }
  }
  if (place.page_locked && status == CUDA_SUCCESS) [[unlikely]] {
    for (unsigned i = 0; i < count; ++i) {
      cmp::NoteDevicePointer(attributes[i], pointer, CMP_CALLER);
    }
  }
  return status;
}

// Attributes that are set stay with the allocation: a block that has one is not handed out again.
CUresult Driver_cuPointerSetAttribute(const void* value, CUpointer_attribute attribute,
                                      CUdeviceptr pointer) {
  CMP_REAL(cuPointerSetAttribute);
  if (cmp::PlaceOf(pointer).freed) {
    return real->cuPointerSetAttribute(value, attribute, kNowhere);
  }
  cmp::UnpoolRange(pointer);
  cmp::NoteShared(cmp::Visible::kAttributes, CMP_CALLER);
  return real->cuPointerSetAttribute(value, attribute, pointer);
}

// Page-locked memory that the program has freed is none any more.
CUresult Driver_cuMemHostGetDevicePointer_v2(CUdeviceptr* address, void* pointer, unsigned flags) {
  CMP_REAL(cuMemHostGetDevicePointer_v2);
  const auto asked = reinterpret_cast<CUdeviceptr>(pointer);
  const cmp::Place place = cmp::PlaceOfPageLocked(asked);
  if (place.freed) {
    return real->cuMemHostGetDevicePointer_v2(address, reinterpret_cast<void*>(kNowhere), flags);
  }
  const CUresult status = real->cuMemHostGetDevicePointer_v2(address, pointer, flags);
  if (status == CUDA_SUCCESS && !cmp::IsNvidiaLibrary(CMP_CALLER)) {
    cmp::g_visible_memory.SetMapped(asked);
  }
  return status;
}

CUresult Driver_cuMemHostGetFlags(unsigned* flags, void* pointer) {
  CMP_REAL(cuMemHostGetFlags);
  const bool freed = cmp::PlaceOfPageLocked(reinterpret_cast<CUdeviceptr>(pointer)).freed;
  return real->cuMemHostGetFlags(flags, freed ? reinterpret_cast<void*>(kNowhere) : pointer);
}

CUresult Driver_cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr pointer) {
  CMP_REAL(cuIpcGetMemHandle);
  const cmp::Place place = cmp::PlaceOf(pointer);
  if (place.freed) return real->cuIpcGetMemHandle(handle, kNowhere);
  cmp::UnpoolRange(pointer);
  cmp::NoteShared(cmp::Visible::kExports, CMP_CALLER);
  const CUresult status = real->cuIpcGetMemHandle(handle, pointer);
  if (status == CUDA_SUCCESS && place.block != nullptr) {
    cmp::CorrectIpcHandle(*place.block, handle);
  }
  return status;
}

CUresult Driver_cuMemGetHandleForAddressRange(void* handle, CUdeviceptr pointer, size_t bytes,
                                              int type, unsigned long long flags) {
  CMP_REAL(cuMemGetHandleForAddressRange);
  const cmp::Place place = cmp::PlaceOf(pointer);
  // (`pointer` is in the block, before that end.)
  const bool beyond = place.block != nullptr && bytes > cmp::ExportableEnd(*place.block) - pointer;
  if (place.freed || beyond) {
    return real->cuMemGetHandleForAddressRange(handle, kNowhere, bytes, type, flags);
  }
  cmp::UnpoolRange(pointer);
  cmp::NoteShared(cmp::Visible::kExports, CMP_CALLER);
  return real->cuMemGetHandleForAddressRange(handle, pointer, bytes, type, flags);
}
