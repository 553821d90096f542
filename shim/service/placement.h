// How the driver places blocks, as far as its answers tell (measured, H200), and what these answers
// would be had the block been allocated as it was asked for: a recycled one may be larger.
//
// Below 2 MiB a block is in a chunk of 2 MiB, from there on it has whole multiples of 2 MiB to
// itself. An answer that is not what this says of the driver's own block is left alone.
#ifndef CMP_SHIM_SERVICE_PLACEMENT_H_
#define CMP_SHIM_SERVICE_PLACEMENT_H_

#include <cuda.h>

#include <cstring>

#include "core/base/types.h"

namespace cmp {

inline constexpr size_t RoundedUp(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// The physical memory that an allocation of `bytes` is in: CU_POINTER_ATTRIBUTE_MAPPING_SIZE.
inline constexpr size_t MappingBytes(size_t bytes) { return RoundedUp(bytes, kLargeGranule); }

// Of a block in use.
inline size_t CorrectedMappingBytes(const Block& block, size_t answer) {
  return answer == MappingBytes(block.bytes) ? MappingBytes(block.requested) : answer;
}

// CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID names the physical memory. Of a block that has it to itself
// it is another one with each allocation; a small one's is its chunk's, and left as it is. (One
// that is alone in its chunk gets a new one, too, where the driver gave the chunk back meanwhile.)
inline uint64_t CorrectedMemoryBlockId(Block& block, uint64_t answer) {
  return block.bytes < kLargeGranule ? answer : BufferIdOf(&block);
}

// Where the driver's handles have these fields, of four and eight bytes: the size of the
// allocation, that of its mapping in units of 4 KiB, the allocation's offset in it. An importer's
// driver takes size and offset as they stand, and nothing else that was changed.
struct IpcHandleFields {
  static constexpr size_t kPlace = 16;
  static constexpr size_t kPage = 4096;
  uint64_t bytes;
  uint32_t mapping_pages;
  uint32_t offset;
};
static_assert(IpcHandleFields::kPlace + sizeof(IpcHandleFields) <= sizeof(CUipcMemHandle));

// The driver's handle of a block in use: the importer sees the size that was asked for.
inline void CorrectIpcHandle(const Block& block, CUipcMemHandle* handle) {
  char* const place = reinterpret_cast<char*>(handle) + IpcHandleFields::kPlace;
  IpcHandleFields fields;
  memcpy(&fields, place, sizeof fields);
  const size_t offset = block.bytes < kLargeGranule ? block.address % kLargeGranule : 0;
  if (fields.bytes != block.bytes || fields.offset != offset ||
      uint64_t{fields.mapping_pages} * IpcHandleFields::kPage != MappingBytes(block.bytes)) {
    return;
  }
  fields.bytes = block.requested;
  memcpy(place, &fields, sizeof fields);
}

// Where what is given to others of a block's mapping (as a dma-buf) ends: of a small one's chunk
// the driver gives every page, whoever has it.
inline DeviceAddress ExportableEnd(const Block& block) {
  return RoundedUp(block.address + block.requested, kLargeGranule);
}

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_PLACEMENT_H_
