// Asks the runtime and the driver about pointers, in use and freed, and about free memory; tries
// frees that are refused, and exports. It knows nothing of the pool: on the same machine its output
// must be the same without and with the preload.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <set>
#include <string>
#include <vector>

namespace {

constexpr size_t kMiB = size_t{1} << 20;

template <typename Function>
Function* Driver(const char* name) {
  static void* library = dlopen("libcuda.so.1", RTLD_LAZY);
  return reinterpret_cast<Function*>(dlsym(library, name));
}

void Ask(const char* what, void* pointer, const void* base) {
  const auto address = reinterpret_cast<CUdeviceptr>(pointer);
  CUdeviceptr start = 0;
  size_t bytes = 0;
  const int range = Driver<CUresult(CUdeviceptr*, size_t*, CUdeviceptr)>("cuMemGetAddressRange_v2")(
      &start, &bytes, address);
  size_t range_size = 0;
  const int attribute = Driver<CUresult(void*, CUpointer_attribute, CUdeviceptr)>(
      "cuPointerGetAttribute")(&range_size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address);
  cudaPointerAttributes attributes = {};
  const int runtime = cudaPointerGetAttributes(&attributes, pointer);
  cudaGetLastError();
  std::printf("%-28s range %d base %s size %zu | attribute %d %zu | runtime %d type %d\n", what,
              range, start == reinterpret_cast<CUdeviceptr>(base) ? "right" : "other", bytes,
              attribute, range_size, runtime, static_cast<int>(attributes.type));
}

void Questions(size_t bytes) {
  std::printf("== %zu bytes\n", bytes);
  std::set<unsigned long long> ids;
  for (int round = 0; round < 3; ++round) {
    void* p = nullptr;
    if (cudaMalloc(&p, bytes) != cudaSuccess) std::exit(1);
    auto* const end = static_cast<char*>(p);
    Ask("base", p, p);
    Ask("last byte", end + bytes - 1, p);
    unsigned long long id = 0;
    Driver<CUresult(void*, CUpointer_attribute, CUdeviceptr)>("cuPointerGetAttribute")(
        &id, CU_POINTER_ATTRIBUTE_BUFFER_ID, reinterpret_cast<CUdeviceptr>(p));
    ids.insert(id);
    cudaFree(p);
    Ask("freed", p, p);
  }
  std::printf("buffer ids of three allocations: %zu different\n", ids.size());
}

// ---- Every attribute, in words that do not depend on addresses and ids

constexpr int kMemoryBlockId = 20;  // older headers lack the names
constexpr int kLastAttribute = 21;

CUdeviceptr Address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

std::string Word(unsigned long long value, CUdeviceptr base, CUdeviceptr pointer) {
  if (value == pointer) return "itself";
  if (value == base) return "base";
  return value == 0 ? "0" : "other";
}

std::string Answer(int attribute, unsigned long long value, CUdeviceptr base, CUdeviceptr pointer) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      return value == 0 ? "0" : "context";
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return Word(value, base, pointer);
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      return value == base / (2 * kMiB) * (2 * kMiB) ? "chunk" : Word(value, base, pointer);
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case kMemoryBlockId:
      return value == 0 ? "0" : "id";
    default:
      return std::to_string(value);
  }
}

unsigned long long Number(const void* pointer, int attribute) {
  unsigned long long answer[8] = {};
  Driver<CUresult(void*, CUpointer_attribute, CUdeviceptr)>("cuPointerGetAttribute")(
      answer, static_cast<CUpointer_attribute>(attribute), Address(pointer));
  return answer[0];
}

void AskAll(const char* what, const char* block, size_t offset) {
  const auto one =
      Driver<CUresult(void*, CUpointer_attribute, CUdeviceptr)>("cuPointerGetAttribute");
  const auto together = Driver<CUresult(unsigned, CUpointer_attribute*, void**, CUdeviceptr)>(
      "cuPointerGetAttributes");
  const CUdeviceptr base = Address(block);
  const CUdeviceptr pointer = base + offset;
  std::printf("%s:", what);
  std::vector<CUpointer_attribute> asked;
  std::vector<unsigned long long> answers(kLastAttribute);
  std::vector<void*> places;
  for (int i = 1; i <= kLastAttribute; ++i) {
    const auto attribute = static_cast<CUpointer_attribute>(i);
    unsigned long long answer[8] = {};
    const int result = one(answer, attribute, pointer);
    std::printf(" %s", result != 0 ? ("error " + std::to_string(result)).c_str()
                                   : Answer(i, answer[0], base, pointer).c_str());
    if (i == CU_POINTER_ATTRIBUTE_P2P_TOKENS) continue;  // larger than the others
    asked.push_back(attribute);
    places.push_back(&answers[asked.size() - 1]);
  }
  std::printf("\n  together %d:", static_cast<int>(together(static_cast<unsigned>(asked.size()),
                                                            asked.data(), places.data(), pointer)));
  for (size_t i = 0; i < asked.size(); ++i) {
    std::printf(" %s", Answer(asked[i], answers[i], base, pointer).c_str());
  }
  cudaPointerAttributes attributes = {};
  const int runtime = cudaPointerGetAttributes(&attributes, reinterpret_cast<void*>(pointer));
  cudaGetLastError();
  std::printf("\n  runtime %d type %d device %d pointers %s %s\n", runtime,
              static_cast<int>(attributes.type), attributes.device,
              Word(Address(attributes.devicePointer), base, pointer).c_str(),
              Word(Address(attributes.hostPointer), base, pointer).c_str());
}

char* Allocate(size_t bytes) {
  void* block = nullptr;
  if (cudaMalloc(&block, bytes) != cudaSuccess) std::exit(1);
  return static_cast<char*>(block);
}

const char* Change(unsigned long long before, unsigned long long after) {
  return before == after ? "same" : after > before ? "grew" : "fell";
}

void AskAround(const char* what, const char* block, size_t bytes) {
  std::printf("== %s of %zu bytes\n", what, bytes);
  AskAll("base", block, 0);
  AskAll("last byte", block, bytes - 1);
  AskAll("end", block, bytes);
}

// New, recycled, and recycled for less. Memory block ids of what shares its chunk with others are
// left out.
void Walk(size_t bytes) {
  char* block = Allocate(bytes);
  AskAround("new", block, bytes);
  const auto buffer = Number(block, CU_POINTER_ATTRIBUTE_BUFFER_ID);
  const auto memory = Number(block, kMemoryBlockId);
  cudaFree(block);
  AskAll("freed", block, 0);
  AskAll("freed, last byte", block, bytes - 1);
  block = Allocate(bytes);
  AskAround("recycled", block, bytes);
  std::printf("buffer id %s", Change(buffer, Number(block, CU_POINTER_ATTRIBUTE_BUFFER_ID)));
  if (bytes >= 2 * kMiB) {
    std::printf(", memory block id %s", Change(memory, Number(block, kMemoryBlockId)));
  }
  std::printf("\n");
  cudaFree(block);
  const size_t less = bytes - bytes / 8;
  block = Allocate(less);
  AskAround("smaller", block, less);
  cudaFree(block);
  AskAll("smaller, freed", block, 0);
}

// An asynchronous free that is refused leaves the block as it was.
void RefusedFrees(size_t bytes) {
  std::printf("== refused frees of %zu bytes\n", bytes);
  cudaFree(Allocate(bytes));
  char* block = Allocate(bytes);
  const auto id = Number(block, CU_POINTER_ATTRIBUTE_BUFFER_ID);
  cudaStream_t stream = nullptr;
  cudaStreamCreate(&stream);
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  const int captured = cudaFreeAsync(block, stream);
  cudaGraph_t graph = nullptr;
  const int ended = cudaStreamEndCapture(stream, &graph);
  const int interior = cudaFreeAsync(block + 8, stream);
  cudaGetLastError();
  std::printf("in a capture %d, its end %d; of the middle %d; buffer id %s\n", captured, ended,
              interior, Change(id, Number(block, CU_POINTER_ATTRIBUTE_BUFFER_ID)));
  AskAll("then", block, bytes - 1);
  const int freed = cudaFree(block);
  std::printf("freed %d, again %d\n", freed, static_cast<int>(cudaFree(block)));
  cudaGetLastError();
  cudaStreamDestroy(stream);
}

// What others get. `warm`: the size of what was freed just before.
void Exports(size_t warm, size_t bytes) {
  std::printf("== exports of %zu bytes\n", bytes);
  cudaFree(Allocate(warm));
  char* block = Allocate(bytes);
  cudaIpcMemHandle_t handle = {};
  const int status = cudaIpcGetMemHandle(&handle, block + bytes / 2);
  unsigned long long size = 0;
  unsigned place[2] = {};
  std::memcpy(&size, handle.reserved + 16, sizeof(size));
  std::memcpy(&place, handle.reserved + 24, sizeof(place));
  // (Beside it the pages of what it lies in: of a recycled block those of a larger one.)
  const bool right = place[0] * 4096ULL >= size && place[1] == Address(block) % (2 * kMiB);
  std::printf("IPC handle %d: size %llu, its place %s\n", status, size, right ? "right" : "other");
  if (bytes >= 2 * kMiB) {
    const auto dma_buf =
        Driver<CUresult(void*, CUdeviceptr, size_t, CUmemRangeHandleType, unsigned long long)>(
            "cuMemGetHandleForAddressRange");
    const auto page = static_cast<size_t>(getpagesize());
    const size_t whole = (bytes + 2 * kMiB - 1) / (2 * kMiB) * (2 * kMiB);
    for (const size_t length :
         {page, bytes / page * page, (bytes + page - 1) / page * page, whole, whole + page}) {
      int file = -1;
      const int result =
          dma_buf(&file, Address(block), length, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
      std::printf("dma-buf of %zu bytes: %d\n", length, result);
      if (file >= 0) close(file);
    }
  }
  cudaFree(block);
  std::printf("IPC handle of freed memory: %d\n",
              static_cast<int>(cudaIpcGetMemHandle(&handle, block)));
  cudaGetLastError();
}

void Walks() {
  for (const size_t bytes :
       {size_t{1}, size_t{300}, size_t{512}, size_t{1000}, size_t{70000}, kMiB, 3 * kMiB / 2,
        2 * kMiB, 2 * kMiB + 1, size_t{5000001}, 16 * kMiB, 18 * kMiB - 1, 100 * kMiB}) {
    Walk(bytes);
  }
  for (const size_t bytes : {size_t{1000}, size_t{70000}, size_t{5000001}}) RefusedFrees(bytes);
  for (const size_t bytes : {size_t{1000}, size_t{70000}, kMiB, 2 * kMiB, size_t{5000001}}) {
    Exports(bytes, bytes);
  }
  Exports(18 * kMiB, 16 * kMiB);
  Exports(18 * kMiB, 16 * kMiB + 1);
}

}  // namespace

int main() {
  if (cudaFree(nullptr) != cudaSuccess) {
    std::fprintf(stderr, "questions: no CUDA device\n");
    return 77;
  }
  Walks();
  for (const size_t bytes :
       {size_t{1}, size_t{1000}, size_t{70000}, kMiB, 2 * kMiB + 1, size_t{5000001}, 100 * kMiB}) {
    Questions(bytes);
  }
  // What is freed is free again; small blocks as far as their chunks of 2 MiB are wholly idle.
  size_t before = 0;
  size_t after = 0;
  size_t total = 0;
  for (const size_t bytes : {size_t{2000}, size_t{70000}, size_t{700000}}) {
    cudaMemGetInfo(&before, &total);
    std::vector<void*> small(64 * kMiB / bytes);
    for (void*& block : small) cudaMalloc(&block, bytes);
    for (size_t i = 0; i + 1 < small.size(); ++i) cudaFree(small[i]);
    cudaMemGetInfo(&after, &total);
    std::printf(
        "all but one of 64 MiB in blocks of %zu are freed: at least 58 MiB are free again: %s\n",
        bytes, after + 6 * kMiB >= before ? "yes" : "no");
    cudaFree(small.back());
  }
  cudaMemGetInfo(&before, &total);
  std::vector<void*> blocks(20);
  for (void*& block : blocks) cudaMalloc(&block, 30 * kMiB);
  size_t between = 0;
  cudaMemGetInfo(&between, &total);
  for (void* block : blocks) cudaFree(block);
  cudaMemGetInfo(&after, &total);
  std::printf("20 blocks of 30 MiB: %zu MiB taken, %zu MiB given back\n", (before - between) / kMiB,
              (after - between) / kMiB);
  // The pitch is the driver's.
  for (const size_t width : {size_t{1}, size_t{511}, size_t{513}, size_t{5000}, size_t{100000}}) {
    for (const size_t height : {size_t{1}, size_t{7}, size_t{300}}) {
      void* p = nullptr;
      size_t pitch = 0;
      const int status = cudaMallocPitch(&p, &pitch, width, height);
      std::printf("pitch of %zu x %zu: %d %zu\n", width, height, status, pitch);
      cudaFree(p);
    }
  }
  return 0;
}
