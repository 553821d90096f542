// The probe's questions about pointers in, behind and of freed blocks, and about IPC handles: what
// the driver tells of its layout. (`probe pointers`)
#include "probe.h"

namespace cmp::sim {
namespace {

constexpr size_t kChunk = size_t{2} << 20;
// Numbers where older headers lack the names.
constexpr int kMappingBase = 19;    // CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR
constexpr int kMemoryBlockId = 20;  // CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID
constexpr int kLastAttribute = 21;  // CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE

const char* InWords(CUdeviceptr answer, CUdeviceptr pointer) {
  return answer == pointer ? "itself" : answer == 0 ? "null" : "other";
}

std::string Range(CUdeviceptr base, CUdeviceptr pointer) {
  CUdeviceptr start = 0;
  size_t bytes = 0;
  const CUresult result = cuMemGetAddressRange(&start, &bytes, pointer);
  if (result != CUDA_SUCCESS) return std::string("range ") + Name(result);
  return "range " + std::to_string(bytes) + (start == base ? " of its base" : " of another");
}

std::string OfRuntime(CUdeviceptr pointer) {
  cudaPointerAttributes attributes{};
  attributes.devicePointer = attributes.hostPointer = &attributes;
  const auto asked = reinterpret_cast<void*>(pointer);
  if (cudaPointerGetAttributes(&attributes, asked) != cudaSuccess) return "runtime: an error";
  const auto address = [](const void* p) { return reinterpret_cast<CUdeviceptr>(p); };
  return "runtime: type " + std::to_string(attributes.type) + " device " +
         std::to_string(attributes.device) + " device pointer " +
         InWords(address(attributes.devicePointer), pointer) + " host pointer " +
         InWords(address(attributes.hostPointer), pointer);
}

// Every attribute of `pointer`, but for the one that is refused of device memory. `base`: of its
// block.
void SayAttributes(const std::string& what, CUdeviceptr base, CUdeviceptr pointer) {
  std::string answers;
  int refused = 0;
  int asked = 0;
  for (int i = CU_POINTER_ATTRIBUTE_CONTEXT; i <= kLastAttribute; ++i) {
    const auto attribute = static_cast<CUpointer_attribute>(i);
    if (attribute == CU_POINTER_ATTRIBUTE_HOST_POINTER) continue;
    ++asked;
    unsigned long long answer[8] = {};
    const CUresult result = cuPointerGetAttribute(answer, attribute, pointer);
    const unsigned long long value = answer[0];
    answers += ' ';
    answers += std::to_string(i) + ":";
    if (result != CUDA_SUCCESS) {
      refused += result == CUDA_ERROR_INVALID_VALUE ? 1 : 0;
      answers += Name(result);
      continue;
    }
    switch (i) {
      case CU_POINTER_ATTRIBUTE_CONTEXT:
        answers += value == reinterpret_cast<CUdeviceptr>(g_context) ? "current" : "other";
        break;
      case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        answers += InWords(value, pointer);
        break;
      case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      case kMemoryBlockId:
        answers += "id";
        break;
      case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        answers += value == base ? "base" : "other";
        break;
      case kMappingBase:
        answers += value == base / kChunk * kChunk ? "chunk" : "other";
        break;
      default:
        answers += std::to_string(value);
    }
  }
  if (refused == asked) answers = " every attribute ERROR_INVALID_VALUE";
  Say(what, answers.substr(1) + "; " + Range(base, pointer) + "; " + OfRuntime(pointer));
}

unsigned long long IdOf(CUdeviceptr pointer, int attribute) {
  unsigned long long id = 0;
  cuPointerGetAttribute(&id, static_cast<CUpointer_attribute>(attribute), pointer);
  return id;
}

const char* Change(unsigned long long before, unsigned long long after) {
  return before == after ? "same" : after > before ? "grew" : "fell";
}

void ProbeAttributesOf(size_t bytes) {
  const std::string name = "block of " + std::to_string(bytes) + ", ";
  CUdeviceptr block = 0;
  cuMemAlloc(&block, bytes);
  SayAttributes(name + "base", block, block);
  SayAttributes(name + "last byte", block, block + bytes - 1);
  SayAttributes(name + "end", block, block + bytes);
  const unsigned long long buffer = IdOf(block, CU_POINTER_ATTRIBUTE_BUFFER_ID);
  const unsigned long long memory = IdOf(block, kMemoryBlockId);
  cuMemFree(block);
  SayAttributes(name + "freed", block, block);
  cuMemAlloc(&block, bytes);
  SayAttributes(name + "again", block, block);
  Say(name + "alone in its chunk, ids",
      std::string("buffer ") + Change(buffer, IdOf(block, CU_POINTER_ATTRIBUTE_BUFFER_ID)) +
          ", memory block " + Change(memory, IdOf(block, kMemoryBlockId)));
  cuMemFree(block);
  const size_t less = bytes - bytes / 8;
  if (less == bytes) return;
  cuMemAlloc(&block, less);
  SayAttributes(name + "then one of " + std::to_string(less), block, block);
  SayAttributes(name + "then its end", block, block + less);
  cuMemFree(block);
}

// What a refused asynchronous free leaves behind.
void ProbeRefusedFrees() {
  CUdeviceptr block = 0;
  cuMemAlloc(&block, 1000);
  const auto say = [&, buffer = IdOf(block, CU_POINTER_ATTRIBUTE_BUFFER_ID)](const char* what,
                                                                             CUresult result) {
    Say(what, std::string(Name(result)) + ", buffer id " +
                  Change(buffer, IdOf(block, CU_POINTER_ATTRIBUTE_BUFFER_ID)) + ", " +
                  Range(block, block));
  };
  CUstream stream = nullptr;
  cuStreamCreate(&stream, CU_STREAM_DEFAULT);
  cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
  const CUresult captured = cuMemFreeAsync(block, stream);
  CUgraph graph = nullptr;
  Say("cuMemFreeAsync in a capture, its end", cuStreamEndCapture(stream, &graph));
  say("cuMemFreeAsync in a capture", captured);
  say("cuMemFreeAsync of the middle", cuMemFreeAsync(block + 8, stream));
  Say("cuMemFreeAsync", cuMemFreeAsync(block, stream));
  cuStreamSynchronize(stream);
  SayAttributes("then", block, block);
  CUipcMemHandle handle;
  Say("IPC handle of freed memory", cuIpcGetMemHandle(&handle, block));
}

template <typename T>
T FieldOf(const CUipcMemHandle& handle, size_t offset) {
  T value{};
  std::memcpy(&value, reinterpret_cast<const char*>(&handle) + offset, sizeof value);
  return value;
}

void ProbeHandles() {
  for (const size_t bytes : {size_t{4096}, size_t{256} << 20}) {
    CUdeviceptr blocks[2] = {};
    CUipcMemHandle handles[2];
    for (int i = 0; i < 2; ++i) {
      cuMemAlloc(&blocks[i], bytes);
      cuIpcGetMemHandle(&handles[i], blocks[i]);
    }
    const std::string name = "IPC handle of " + std::to_string(bytes) + ": ";
    Say(name + "process", FieldOf<int>(handles[0], 8) == getpid());
    Say(name + "size", std::to_string(FieldOf<uint64_t>(handles[0], 16)));
    const auto offset = FieldOf<unsigned>(handles[1], 28);
    Say(name + "offset of the second in its chunk", offset == blocks[1] % kChunk);
    cuMemFree(blocks[0]);
    cuMemFree(blocks[1]);
  }
}

}  // namespace

void ProbePointers() {
  for (const size_t bytes : {size_t{1}, size_t{683}, size_t{1048576}, size_t{2097152},
                             size_t{2796203}, size_t{16777216}}) {
    ProbeAttributesOf(bytes);
  }
  ProbeRefusedFrees();
  ProbeHandles();
}

}  // namespace cmp::sim
