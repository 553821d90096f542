// What the driver and the runtime say of pointers: in blocks, behind them, of freed ones; and how
// far memory is given to others.
//
//   pointers walk | refused-frees | exports
#include <initializer_list>
#include <string>
#include <vector>

#include "program.h"

using program::Allocate;
using program::Say;

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kChunk = 2 * kMiB;
constexpr int kAttributes = 21;

CUdeviceptr Address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

// An answer that is an address, relative to what was asked about.
std::string Word(uint64_t value, CUdeviceptr base, CUdeviceptr pointer) {
  if (value == pointer) return "itself";
  if (value == base) return "base";
  return value == 0 ? "0" : "other";
}

std::string Answer(int attribute, uint64_t value, CUdeviceptr base, CUdeviceptr pointer) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT: {
      CUcontext context = nullptr;
      cuCtxGetCurrent(&context);
      return value == reinterpret_cast<uint64_t>(context) ? "current" : std::to_string(value);
    }
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return Word(value, base, pointer);
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      return value == base / kChunk * kChunk ? "chunk" : Word(value, base, pointer);
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      return value == 0 ? "0" : "id";
    default:
      return std::to_string(value);
  }
}

uint64_t Ask(const void* pointer, CUpointer_attribute attribute) {
  uint64_t value = 0;
  cuPointerGetAttribute(&value, attribute, Address(pointer));
  return value;
}

// Every question about base + offset: one by one, together, by range, of the runtime.
void AskAll(const char* what, const char* block, size_t offset) {
  const CUdeviceptr base = Address(block);
  const CUdeviceptr pointer = base + offset;
  printf("%s:", what);
  std::vector<CUpointer_attribute> attributes;
  std::vector<uint64_t> together(kAttributes);
  std::vector<void*> places;
  for (int i = 1; i <= kAttributes; ++i) {
    const auto attribute = static_cast<CUpointer_attribute>(i);
    uint64_t value[8] = {0x5a5a5a5a00000000};  // answers of four bytes leave the rest alone
    const int result = cuPointerGetAttribute(value, attribute, pointer);
    value[0] = value[0] >> 32 == 0x5a5a5a5a ? value[0] & 0xffffffff : value[0];
    if (result != 0) {
      printf(" %d:error %d", i, result);
    } else {
      printf(" %d:%s", i, Answer(i, value[0], base, pointer).c_str());
    }
    if (i == CU_POINTER_ATTRIBUTE_P2P_TOKENS) continue;  // too large for one word
    attributes.push_back(attribute);
    places.push_back(&together[attributes.size() - 1]);
  }
  printf("\n  together %d:",
         static_cast<int>(cuPointerGetAttributes(static_cast<unsigned>(attributes.size()),
                                                 attributes.data(), places.data(), pointer)));
  for (size_t i = 0; i < attributes.size(); ++i) {
    printf(" %s", Answer(attributes[i], together[i], base, pointer).c_str());
  }
  CUdeviceptr start = 0;
  size_t bytes = 0;
  const int range = cuMemGetAddressRange(&start, &bytes, pointer);
  printf("\n  range %d from %s, %zu bytes\n", range, Word(start, base, pointer).c_str(), bytes);
  cudaPointerAttributes answer = {};
  const int runtime = cudaPointerGetAttributes(&answer, reinterpret_cast<void*>(pointer));
  printf("  runtime %d type %d device %d, device pointer %s, host pointer %s\n", runtime,
         answer.type, answer.device, Word(Address(answer.devicePointer), base, pointer).c_str(),
         Word(Address(answer.hostPointer), base, pointer).c_str());
}

void AskAround(const char* what, const char* block, size_t bytes) {
  printf("-- %s of %zu bytes\n", what, bytes);
  AskAll("base", block, 0);
  AskAll("last byte", block, bytes - 1);
  AskAll("end", block, bytes);
  const size_t unit = bytes < kChunk ? 512 : kChunk;
  const size_t rounded = (bytes + unit - 1) / unit * unit;
  if (rounded == bytes) return;
  AskAll("before the rounded end", block, rounded - 1);
  AskAll("rounded end", block, rounded);
}

const char* Change(uint64_t before, uint64_t after) {
  return before == after ? "same" : after > before ? "grew" : "fell";
}

void Walk(size_t bytes) {
  char* block = Allocate(bytes);
  AskAround("new", block, bytes);
  const uint64_t buffer = Ask(block, CU_POINTER_ATTRIBUTE_BUFFER_ID);
  const uint64_t memory = Ask(block, CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID);
  printf("ids, asked again: %s, %s\n", Change(buffer, Ask(block, CU_POINTER_ATTRIBUTE_BUFFER_ID)),
         Change(memory, Ask(block + bytes - 1, CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID)));
  MUST(cudaFree(block));
  AskAll("freed", block, 0);
  AskAll("freed, last byte", block, bytes - 1);
  block = Allocate(bytes);
  AskAround("recycled", block, bytes);
  printf("ids of the next: %s, %s\n", Change(buffer, Ask(block, CU_POINTER_ATTRIBUTE_BUFFER_ID)),
         Change(memory, Ask(block, CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID)));
  MUST(cudaFree(block));
  const size_t less = bytes - bytes / 8;
  block = Allocate(less);
  AskAround("smaller", block, less);
  MUST(cudaFree(block));
  AskAll("smaller, freed", block, 0);
}

// A free that is refused leaves the block as it was: what is said of it, and that it is freed once.
void RefusedFrees(size_t bytes) {
  printf("-- block of %zu bytes\n", bytes);
  program::Warm(bytes, 4);
  const cudaStream_t stream = program::NonBlockingStream();
  char* block = Allocate(bytes);
  const uint64_t buffer = Ask(block, CU_POINTER_ATTRIBUTE_BUFFER_ID);
  const uint64_t memory = Ask(block, CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID);
  const auto say = [&](const char* what, cudaError_t result) {
    Say(what, result);
    cudaGetLastError();
    AskAll("  then", block, bytes - 1);
    printf("  ids %s, %s\n", Change(buffer, Ask(block, CU_POINTER_ATTRIBUTE_BUFFER_ID)),
           Change(memory, Ask(block, CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID)));
  };
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  const cudaError_t captured = cudaFreeAsync(block, stream);
  cudaGraph_t graph = nullptr;
  Say("end of the capture", cudaStreamEndCapture(stream, &graph));
  say("cudaFreeAsync in a capture", captured);
  if (bytes > 8) say("cudaFreeAsync of the middle", cudaFreeAsync(block + 8, stream));
  for (const int error : {1, 2, 801, 999}) {
    simFailNext("cuMemFreeAsync", 1, error);
    say("cudaFreeAsync, refused", cudaFreeAsync(block, stream));
  }
  simFailNever();
  Say("cudaFree", cudaFree(block));
  AskAll("  then", block, 0);
  Say("cudaFree", cudaFree(block));
  cudaGetLastError();

  block = Allocate(bytes);
  simFailNext("cuMemFreeAsync", 1, 1);
  Say("cudaFreeAsync, refused", cudaFreeAsync(block, stream));
  cudaGetLastError();
  simFailNever();
  Say("cudaFreeAsync", cudaFreeAsync(block, stream));
  MUST(cudaStreamSynchronize(stream));
  AskAll("  then", block, 0);
  Say("cudaFree", cudaFree(block));
  cudaGetLastError();
  program::NoteServed("afterwards", bytes);
  MUST(cudaStreamDestroy(stream));
}

// How far a block is given to others as a dma-buf: as far as without a pool.
void Exports(size_t warm, size_t bytes) {
  constexpr size_t kPage = 4096;
  printf("-- block of %zu bytes\n", bytes);
  program::Warm(warm, 1);
  char* block = Allocate(bytes);
  const size_t first = (kPage - Address(block) % kPage) % kPage;
  const size_t unit = bytes < kChunk ? kPage : kChunk;
  const size_t all =
      (Address(block) % unit + bytes + unit - 1) / unit * unit - Address(block) % unit;
  const auto say = [&](const char* what, size_t offset, size_t length) {
    int file = -1;
    Say(what, static_cast<cudaError_t>(cuMemGetHandleForAddressRange(
                  &file, Address(block) + offset, length, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0)));
    if (file >= 0) close(file);
  };
  if (first + kPage <= all) {
    say("a page", first, kPage);
    say("all", first, all - first);
    say("one page more", first, all - first + kPage);
    say("beyond", first + kPage, all - first);
    say("from the end", all, kPage);
    say("more than there is", first, SIZE_MAX / kPage * kPage);
  }
  say("nothing", first, 0);
  MUST(cudaFree(block));
  say("a page of freed memory", first, kPage);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string scenario = count > 1 ? arguments[1] : "";
  // Small blocks are not alone in their chunk: its other block stays.
  char* keeper = Allocate(256);
  if (scenario == "walk") {
    for (const size_t bytes :
         {size_t{1}, size_t{300}, size_t{512}, size_t{683}, size_t{1000}, size_t{4096},
          size_t{70000}, size_t{300000}, kChunk, size_t{2796203}, 3 * kMiB + 1, size_t{5000001},
          16 * kMiB, 18 * kMiB - 1, size_t{100000001}}) {
      Walk(bytes);
    }
  } else if (scenario == "refused-frees") {
    for (const size_t bytes : {size_t{1}, size_t{1000}, size_t{70000}, size_t{5000001}}) {
      RefusedFrees(bytes);
    }
  } else if (scenario == "exports") {
    for (const size_t bytes : {size_t{1}, size_t{5000}, size_t{70000}, size_t{1000000}, kChunk,
                               size_t{5000001}, 16 * kMiB}) {
      Exports(bytes, bytes);
    }
    Exports(18 * kMiB, 16 * kMiB);
    Exports(18 * kMiB, 16 * kMiB + 1);
  } else {
    return 2;
  }
  MUST(cudaFree(keeper));
  program::SayHazards();
  return 0;
}
