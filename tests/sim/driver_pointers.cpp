// Driver entry points that answer questions about pointers, and those that share memory between
// processes.
//
// An IPC handle names the process, its memory file and the place in it, so that another process
// maps the very same bytes. As with the real driver, a handle of an address inside an allocation is
// that of its base, and an importer takes size and offset as they stand, but nothing else that was
// changed.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstring>

#include "driver_entry.h"
#include "sim.h"

namespace cmp::sim {
namespace {

// Process, sizes and offset are where a real handle has them (measured).
struct ExportedMemory {
  char magic[8];
  int pid;
  int file;
  uint64_t bytes;
  uint32_t chunk_pages;  // of kHostPage bytes
  uint32_t offset;       // in the chunk
  uint64_t chunk;
  uint64_t file_offset;  // of the chunk
  uint64_t check;        // of all but size and offset

  uint64_t Check() const {
    uint64_t sum = 0;
    for (const uint64_t word : {static_cast<uint64_t>(pid), static_cast<uint64_t>(file),
                                uint64_t{chunk_pages}, chunk, file_offset}) {
      sum = (sum ^ word) * 0x9e3779b97f4a7c15;
    }
    return sum;
  }
};
static_assert(sizeof(ExportedMemory) <= sizeof(CUipcMemHandle));
static_assert(offsetof(ExportedMemory, pid) == 8 && offsetof(ExportedMemory, bytes) == 16 &&
              offsetof(ExportedMemory, chunk_pages) == 24 &&
              offsetof(ExportedMemory, offset) == 28);
constexpr char kMemoryMagic[8] = {'c', 'm', 'p', 's', 'i', 'm', '1', 0};

bool IsDeviceKind(const Allocation& allocation) {
  const MemoryKind kind = allocation.kind;
  return !allocation.on_host && (kind == MemoryKind::kDevice || kind == MemoryKind::kPool ||
                                 kind == MemoryKind::kImported || kind == MemoryKind::kMapped ||
                                 kind == MemoryKind::kExternal);
}

template <typename T>
CUresult Put(void* data, T value) {
  std::memcpy(data, &value, sizeof value);
  return CUDA_SUCCESS;
}

CUresult Attribute(Simulation& sim, const Allocation& allocation, void* data,
                   CUpointer_attribute attribute, CUdeviceptr pointer) {
  const bool host = allocation.kind == MemoryKind::kHost ||
                    allocation.kind == MemoryKind::kRegistered || allocation.on_host;
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return Put(data, allocation.context);
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return Put<unsigned>(data, host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      return Put(data, pointer);
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      if (IsDeviceKind(allocation)) return CUDA_ERROR_INVALID_VALUE;
      return Put(data, PointerTo(pointer));
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      return Put<unsigned>(data, allocation.sync_memops);
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      return Put<unsigned long long>(data, allocation.buffer_id);
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return Put<unsigned>(data, allocation.kind == MemoryKind::kManaged);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      return Put<int>(data, allocation.device);
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      return Put<unsigned>(data, allocation.kind == MemoryKind::kDevice);
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return Put<CUdeviceptr>(data, allocation.base);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      return Put<size_t>(data, allocation.bytes);
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return Put<unsigned>(data, 1);
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      return Put<void*>(data, nullptr);
    default:
      break;
  }
  if (!IsDeviceKind(allocation)) return CUDA_ERROR_NOT_SUPPORTED;
  constexpr int kIsHwDecompressCapable = 21;  // not in headers before 12.8
  switch (static_cast<int>(attribute)) {
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      return Put(data, CUDA_POINTER_ATTRIBUTE_P2P_TOKENS{});
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
      return Put<unsigned long long>(data, 0);
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case kIsHwDecompressCapable:
      return Put<unsigned>(data, 1);
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      return Put<unsigned>(data, CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE);
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      return Put<size_t>(data, sim.allocations.ChunkOf(allocation).bytes);
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      return Put<CUdeviceptr>(data, sim.allocations.ChunkOf(allocation).start);
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      return Put<unsigned long long>(data, sim.allocations.ChunkOf(allocation).id);
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

// What cuPointerGetAttributes writes where there is no answer.
void PutUnknown(void* data, CUpointer_attribute attribute) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      Put<int>(data, -2);
      break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_MAPPED:
      Put<unsigned>(data, 0);
      break;
    default:
      Put<unsigned long long>(data, 0);
  }
}

// Where a range of the allocation that is exported may end: of a small one's chunk every page is
// given (measured).
uintptr_t ExportableEnd(const Allocation& allocation) {
  return (allocation.range().end() + kPage - 1) / kPage * kPage;
}

ExportedMemory Describe(Simulation& sim, const Allocation& allocation) {
  const DeviceMemory& memory = sim.allocations.device(allocation.device);
  const DeviceMemory::Chunk chunk = sim.allocations.ChunkOf(allocation);
  ExportedMemory exported{};
  std::memcpy(exported.magic, kMemoryMagic, sizeof kMemoryMagic);
  exported.pid = getpid();
  exported.file = memory.file();
  exported.bytes = allocation.bytes;
  // Of a large one its own (measured: 513 of 2 MiB and a byte).
  const size_t bytes = allocation.bytes < kSmallLimit ? chunk.bytes : allocation.bytes;
  exported.chunk_pages = static_cast<uint32_t>((bytes + kHostPage - 1) / kHostPage);
  exported.offset = static_cast<uint32_t>(allocation.base - chunk.start);
  exported.chunk = chunk.start;
  exported.file_offset = memory.FileOffset(chunk.start);
  exported.check = exported.Check();
  return exported;
}

CUresult Import(Simulation& sim, const Context& context, const ExportedMemory& exported,
                MemoryKind kind, CUdeviceptr* pointer) {
  if (std::memcmp(exported.magic, kMemoryMagic, sizeof kMemoryMagic) != 0 ||
      exported.check != exported.Check() ||
      exported.offset + exported.bytes > exported.chunk_pages * kHostPage) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/fd/%d", exported.pid, exported.file);
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t offset = exported.file_offset + exported.offset;
  const uint64_t start = offset / kHostPage * kHostPage;
  const size_t bytes = offset + exported.bytes - start;
  void* mapping =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, static_cast<off_t>(start));
  close(file);
  if (mapping == MAP_FAILED) return CUDA_ERROR_MAP_FAILED;
  *pointer = AddressOf(mapping) + (offset - start);
  sim.allocations.AddImported(context, AddressOf(mapping), bytes, *pointer, exported.bytes, kind);
  return CUDA_SUCCESS;
}

CUresult Open(Simulation& sim, CUdeviceptr* pointer, const CUipcMemHandle& handle) {
  if (pointer == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Context* context = nullptr;
  const CUresult unsafe = CheckUnsafeCall(sim);
  if (unsafe != CUDA_SUCCESS) return unsafe;
  const CUresult result = RequireContext(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  ExportedMemory exported;
  std::memcpy(&exported, &handle, sizeof exported);
  if (exported.pid == getpid()) return CUDA_ERROR_INVALID_CONTEXT;  // as CUDA documents
  return Import(sim, *context, exported, MemoryKind::kImported, pointer);
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr pointer) {
  return Enter("cuMemGetAddressRange_v2", [&](Simulation& sim, Lock&) -> CUresult {
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const Allocation* allocation = sim.allocations.Find(pointer);
    if (allocation == nullptr) return CUDA_ERROR_NOT_FOUND;
    if (base != nullptr) *base = allocation->base;
    if (bytes != nullptr) *bytes = allocation->bytes;
    return CUDA_SUCCESS;
  });
}

CUresult cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  return Enter("cuPointerGetAttribute", [&](Simulation& sim, Lock&) -> CUresult {
    if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const Allocation* allocation = sim.allocations.Find(pointer);
    if (allocation == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return Attribute(sim, *allocation, data, attribute, pointer);
  });
}

CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute* attributes, void** data,
                                CUdeviceptr pointer) {
  return Enter("cuPointerGetAttributes", [&](Simulation& sim, Lock&) -> CUresult {
    if (attributes == nullptr || data == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    const Allocation* allocation = sim.allocations.Find(pointer);
    for (unsigned i = 0; i < count; ++i) {
      if (allocation == nullptr && attributes[i] == CU_POINTER_ATTRIBUTE_HOST_POINTER) {
        Put(data[i], pointer);
      } else if (allocation == nullptr ||
                 Attribute(sim, *allocation, data[i], attributes[i], pointer) != CUDA_SUCCESS) {
        PutUnknown(data[i], attributes[i]);
      }
    }
    return CUDA_SUCCESS;
  });
}

CUresult cuPointerSetAttribute(const void* value, CUpointer_attribute attribute,
                               CUdeviceptr pointer) {
  return Enter("cuPointerSetAttribute", [&](Simulation& sim, Lock&) -> CUresult {
    Allocation* allocation = sim.allocations.Find(pointer);
    if (value == nullptr || allocation == nullptr || !IsDeviceKind(*allocation)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS) return CUDA_ERROR_INVALID_VALUE;
    allocation->sync_memops = *static_cast<const unsigned*>(value);
    return CUDA_SUCCESS;
  });
}

CUresult cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr pointer) {
  return Enter("cuIpcGetMemHandle", [&](Simulation& sim, Lock&) -> CUresult {
    if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const Allocation* allocation = sim.allocations.Find(pointer);
    if (allocation == nullptr || allocation->kind != MemoryKind::kDevice) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const ExportedMemory exported = Describe(sim, *allocation);
    std::memset(handle, 0, sizeof *handle);
    std::memcpy(handle, &exported, sizeof exported);
    return CUDA_SUCCESS;
  });
}

CUresult cuIpcOpenMemHandle(CUdeviceptr* pointer, CUipcMemHandle handle, unsigned int) {
  return Enter("cuIpcOpenMemHandle",
               [&](Simulation& sim, Lock&) { return Open(sim, pointer, handle); });
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr* pointer, CUipcMemHandle handle, unsigned int) {
  return Enter("cuIpcOpenMemHandle_v2",
               [&](Simulation& sim, Lock&) { return Open(sim, pointer, handle); });
}

CUresult cuIpcCloseMemHandle(CUdeviceptr pointer) {
  return Enter("cuIpcCloseMemHandle", [&](Simulation& sim, Lock& lock) -> CUresult {
    const Allocation* found = sim.allocations.FindBase(pointer);
    if (found == nullptr || found->kind != MemoryKind::kImported) return CUDA_ERROR_INVALID_VALUE;
    const CUresult drained = Drain(sim, lock, found->context);
    if (drained != CUDA_SUCCESS) return drained;
    Allocation* allocation = sim.allocations.FindBase(pointer);
    if (allocation == nullptr || allocation->kind != MemoryKind::kImported) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    sim.allocations.Release(*allocation);
    return CUDA_SUCCESS;
  });
}

CUresult cuMemPoolExportPointer(CUmemPoolPtrExportData* shared, CUdeviceptr pointer) {
  return Enter("cuMemPoolExportPointer", [&](Simulation& sim, Lock&) -> CUresult {
    const Allocation* allocation = sim.allocations.Find(pointer);
    if (shared == nullptr || allocation == nullptr || allocation->kind != MemoryKind::kPool ||
        allocation->mapping != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    static_assert(sizeof(ExportedMemory) <= sizeof *shared);
    const ExportedMemory exported = Describe(sim, *allocation);
    std::memset(shared, 0, sizeof *shared);
    std::memcpy(shared, &exported, sizeof exported);
    return CUDA_SUCCESS;
  });
}

// Also in the process that exported it.
CUresult cuMemPoolImportPointer(CUdeviceptr* pointer, CUmemoryPool pool,
                                CUmemPoolPtrExportData* shared) {
  return Enter("cuMemPoolImportPointer", [&](Simulation& sim, Lock&) -> CUresult {
    const MemoryPool* found = sim.pools.Find(pool);
    if (pointer == nullptr || shared == nullptr || found == nullptr || !found->imported) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    ExportedMemory exported;
    std::memcpy(&exported, shared, sizeof exported);
    return Import(sim, *context, exported, MemoryKind::kPool, pointer);
  });
}

// The file descriptor is the device's whole memory file: enough to see that an export happened.
CUresult cuMemGetHandleForAddressRange(void* handle, CUdeviceptr pointer, size_t bytes,
                                       CUmemRangeHandleType type, unsigned long long) {
  return Enter("cuMemGetHandleForAddressRange", [&](Simulation& sim, Lock&) -> CUresult {
    const Allocation* allocation = sim.allocations.Find(pointer);
    if (handle == nullptr || type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD || allocation == nullptr ||
        !IsDeviceKind(*allocation) || pointer % kHostPage != 0 || bytes % kHostPage != 0 ||
        bytes == 0 || bytes > ExportableEnd(*allocation) - pointer) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    *static_cast<int*>(handle) =
        fcntl(sim.allocations.device(allocation->device).file(), F_DUPFD_CLOEXEC, 0);
    return CUDA_SUCCESS;
  });
}

int simDescribeIpcHandle(const CUipcMemHandle* handle, CUdeviceptr* base, size_t* bytes, int* pid) {
  ExportedMemory exported;
  std::memcpy(&exported, handle, sizeof exported);
  if (std::memcmp(exported.magic, kMemoryMagic, sizeof kMemoryMagic) != 0) return 0;
  if (base != nullptr) *base = exported.chunk + exported.offset;
  if (bytes != nullptr) *bytes = exported.bytes;
  if (pid != nullptr) *pid = exported.pid;
  return 1;
}

}  // extern "C"
