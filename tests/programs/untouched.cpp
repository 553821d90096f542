// Allocations that the pool does not serve, next to blocks that it does: whichever call made a
// thing and whichever call is tried to end it, everything goes as the driver says.
#include <cuda.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "program.h"

using program::Say;

// What programs built for per-thread default streams are linked to.
extern "C" CUresult cuMemAllocAsync_ptsz(CUdeviceptr* pointer, size_t bytes, CUstream stream);
extern "C" CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr* pointer, size_t bytes,
                                                 CUmemoryPool pool, CUstream stream);
extern "C" CUresult cuMemFreeAsync_ptsz(CUdeviceptr pointer, CUstream stream);

namespace {

constexpr size_t kMiB = size_t{1} << 20;

int Number(CUresult result) { return static_cast<int>(result); }
int Number(cudaError_t result) { return static_cast<int>(result); }

// The result of a call of either layer, and the last error, which is cleared.
template <typename Result>
void Tell(const std::string& what, Result result) {
  printf("%s: %d, last error %d\n", what.c_str(), Number(result),
         static_cast<int>(cudaGetLastError()));
}

CUdeviceptr Address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }
void* Pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

CUmemAllocationProp OnDevice() {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  return properties;
}

// ---- The kinds. `pointer` is what the program uses, 0 for what has no address; `handle` what it
// keeps besides.
struct Thing {
  CUdeviceptr pointer = 0;
  unsigned long long handle = 0;
  size_t bytes = 0;
};

template <typename Handle>
Handle As(const Thing& thing) {
  return reinterpret_cast<Handle>(thing.handle);
}
template <typename Handle>
unsigned long long From(Handle handle) {
  return reinterpret_cast<unsigned long long>(handle);
}

int MakeManaged(Thing* thing) {
  void* pointer = nullptr;
  const int result = Number(cudaMallocManaged(&pointer, thing->bytes, cudaMemAttachGlobal));
  thing->pointer = Address(pointer);
  return result;
}

int MakeAsync(Thing* thing) {
  void* pointer = nullptr;
  const int result = Number(cudaMallocAsync(&pointer, thing->bytes, nullptr));
  thing->pointer = Address(pointer);
  return result;
}

int MakeAsyncPerThread(Thing* thing) {
  return Number(cuMemAllocAsync_ptsz(&thing->pointer, thing->bytes, nullptr));
}

int MakeFromPool(Thing* thing) {
  cudaMemPool_t pool = nullptr;
  MUST(cudaDeviceGetDefaultMemPool(&pool, 0));
  void* pointer = nullptr;
  const int result = Number(cudaMallocFromPoolAsync(&pointer, thing->bytes, pool, nullptr));
  thing->pointer = Address(pointer);
  return result;
}

int MakeFromPoolPerThread(Thing* thing) {
  CUmemoryPool pool = nullptr;
  cuDeviceGetDefaultMemPool(&pool, 0);
  return Number(cuMemAllocFromPoolAsync_ptsz(&thing->pointer, thing->bytes, pool, nullptr));
}

cudaChannelFormatDesc Bytes() { return {8, 0, 0, 0, cudaChannelFormatKindUnsigned}; }

int MakeArray(Thing* thing) {
  CUDA_ARRAY_DESCRIPTOR description = {};
  description.Width = kMiB;
  description.Height = thing->bytes / kMiB;
  description.Format = CU_AD_FORMAT_UNSIGNED_INT8;
  description.NumChannels = 1;
  CUarray array = nullptr;
  const int result = Number(cuArrayCreate(&array, &description));
  thing->handle = From(array);
  return result;
}

int MakeRuntimeArray(Thing* thing) {
  const cudaChannelFormatDesc channels = Bytes();
  cudaArray_t array = nullptr;
  const int result = Number(cudaMallocArray(&array, &channels, kMiB, thing->bytes / kMiB, 0));
  thing->handle = From(array);
  return result;
}

int MakeArray3D(Thing* thing) {
  const cudaChannelFormatDesc channels = Bytes();
  cudaArray_t array = nullptr;
  const int result =
      Number(cudaMalloc3DArray(&array, &channels, {kMiB, 2, thing->bytes / kMiB / 2}, 0));
  thing->handle = From(array);
  return result;
}

int MakeMipmapped(Thing* thing) {
  const cudaChannelFormatDesc channels = Bytes();
  cudaMipmappedArray_t array = nullptr;
  const int result =
      Number(cudaMallocMipmappedArray(&array, &channels, {kMiB, thing->bytes / kMiB, 0}, 1, 0));
  thing->handle = From(array);
  return result;
}

int MakePhysical(Thing* thing) {
  const CUmemAllocationProp properties = OnDevice();
  CUmemGenericAllocationHandle handle = 0;
  int result = Number(cuMemCreate(&handle, thing->bytes, &properties, 0));
  if (result != 0) return result;
  thing->handle = handle;
  CUmemAccessDesc access = {};
  access.location = properties.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  result = Number(cuMemAddressReserve(&thing->pointer, thing->bytes, 0, 0, 0));
  if (result == 0) result = Number(cuMemMap(thing->pointer, thing->bytes, 0, handle, 0));
  if (result == 0) result = Number(cuMemSetAccess(thing->pointer, thing->bytes, &access, 1));
  return result;
}

int MakeExternal(Thing* thing) {
  const int file = memfd_create("external", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(thing->bytes)) != 0) return -1;
  CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = {};
  description.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD;
  description.handle.fd = file;
  description.size = thing->bytes;
  CUexternalMemory memory = nullptr;
  const int result = Number(cuImportExternalMemory(&memory, &description));
  if (result != 0) return result;
  thing->handle = From(memory);
  CUDA_EXTERNAL_MEMORY_BUFFER_DESC buffer = {};
  buffer.size = thing->bytes;
  return Number(cuExternalMemoryGetMappedBuffer(&thing->pointer, memory, &buffer));
}

int MakePitched(Thing* thing) {
  void* pointer = nullptr;
  size_t pitch = 0;
  const int result = Number(cudaMallocPitch(&pointer, &pitch, kMiB, thing->bytes / kMiB));
  printf("  pitch %zu\n", pitch);
  thing->pointer = Address(pointer);
  return result;
}

int Make3D(Thing* thing) {
  cudaPitchedPtr pitched = {};
  const int result = Number(cudaMalloc3D(&pitched, {kMiB, 2, thing->bytes / kMiB / 2}));
  printf("  pitch %zu, %zu x %zu\n", pitched.pitch, pitched.xsize, pitched.ysize);
  thing->pointer = Address(pitched.ptr);
  return result;
}

// ---- Their ends. `kEnds` names every call that might end something; `end` is the right one.

int EndWithFree(const Thing& thing) { return Number(cudaFree(Pointer(thing.pointer))); }
int EndWithDriverFree(const Thing& thing) { return Number(cuMemFree(thing.pointer)); }
int EndAsync(const Thing& thing) { return Number(cudaFreeAsync(Pointer(thing.pointer), nullptr)); }
int EndAsyncPerThread(const Thing& thing) {
  return Number(cuMemFreeAsync_ptsz(thing.pointer, nullptr));
}
int EndHost(const Thing& thing) { return Number(cudaFreeHost(Pointer(thing.pointer))); }
int EndArray(const Thing& thing) { return Number(cudaFreeArray(As<cudaArray_t>(thing))); }
int EndDriverArray(const Thing& thing) { return Number(cuArrayDestroy(As<CUarray>(thing))); }
int EndMipmapped(const Thing& thing) {
  return Number(cudaFreeMipmappedArray(As<cudaMipmappedArray_t>(thing)));
}
int EndFreeOfHandle(const Thing& thing) { return Number(cudaFree(As<void*>(thing))); }
int EndUnmap(const Thing& thing) { return Number(cuMemUnmap(thing.pointer, thing.bytes)); }
int EndRelease(const Thing& thing) { return Number(cuMemRelease(thing.handle)); }
int EndReservation(const Thing& thing) {
  return Number(cuMemAddressFree(thing.pointer, thing.bytes));
}
int EndImport(const Thing& thing) {
  return Number(cuDestroyExternalMemory(As<CUexternalMemory>(thing)));
}

struct End {
  const char* name;
  int (*call)(const Thing& thing);
};

struct Kind {
  const char* name;
  int (*make)(Thing* thing);
  std::vector<End> wrong;          // fail, and leave the thing as it is
  std::vector<End> right;          // in this order
  std::vector<const char*> calls;  // the driver's entry points behind them
};

const End kFree = {"cudaFree", EndWithFree};
const End kDriverFree = {"cuMemFree", EndWithDriverFree};
const End kFreeAsync = {"cudaFreeAsync", EndAsync};
const End kFreeAsyncPerThread = {"cuMemFreeAsync_ptsz", EndAsyncPerThread};
const End kFreeHost = {"cudaFreeHost", EndHost};
const End kFreeArray = {"cudaFreeArray", EndArray};
const End kArrayDestroy = {"cuArrayDestroy", EndDriverArray};
const End kFreeMipmapped = {"cudaFreeMipmappedArray", EndMipmapped};
const End kFreeOfHandle = {"cudaFree of the handle", EndFreeOfHandle};
const End kUnmap = {"cuMemUnmap", EndUnmap};
const End kRelease = {"cuMemRelease", EndRelease};
const End kReservation = {"cuMemAddressFree", EndReservation};
const End kImport = {"cuDestroyExternalMemory", EndImport};

std::vector<Kind> Kinds() {
  return {
      {"managed",
       MakeManaged,
       {kFreeAsync, kFreeHost, kUnmap},
       {kFree},
       {"cuMemAllocManaged", "cuMemFree_v2"}},
      {"managed, driver",
       MakeManaged,
       {kFreeHost},
       {kDriverFree},
       {"cuMemAllocManaged", "cuMemFree_v2"}},
      {"async",
       MakeAsync,
       {kFreeHost, kUnmap},
       {kFreeAsync},
       {"cuMemAllocAsync", "cuMemFreeAsync"}},
      {"async, freed at once",
       MakeAsync,
       {kFreeHost},
       {kFree},
       {"cuMemAllocAsync", "cuMemFree_v2"}},
      {"async, per thread",
       MakeAsyncPerThread,
       {kFreeHost},
       {kFreeAsyncPerThread},
       {"cuMemAllocAsync_ptsz", "cuMemFreeAsync_ptsz"}},
      {"from pool",
       MakeFromPool,
       {kFreeHost, kUnmap},
       {kFreeAsync},
       {"cuMemAllocFromPoolAsync", "cuMemFreeAsync"}},
      {"from pool, freed at once",
       MakeFromPool,
       {kFreeHost},
       {kDriverFree},
       {"cuMemAllocFromPoolAsync", "cuMemFree_v2"}},
      {"from pool, per thread",
       MakeFromPoolPerThread,
       {kFreeHost},
       {kFreeAsyncPerThread},
       {"cuMemAllocFromPoolAsync_ptsz", "cuMemFreeAsync_ptsz"}},
      {"array",
       MakeArray,
       {kFreeOfHandle, kFreeMipmapped},
       {kArrayDestroy},
       {"cuArrayCreate_v2", "cuArrayDestroy"}},
      {"array, runtime",
       MakeRuntimeArray,
       {kFreeOfHandle, kFreeMipmapped},
       {kFreeArray},
       {"cuArray3DCreate_v2", "cuArrayDestroy"}},
      {"array, 3D",
       MakeArray3D,
       {kFreeOfHandle, kFreeMipmapped},
       {kFreeArray},
       {"cuArray3DCreate_v2", "cuArrayDestroy"}},
      {"mipmapped",
       MakeMipmapped,
       {kFreeOfHandle, kFreeArray},
       {kFreeMipmapped},
       {"cuMipmappedArrayCreate", "cuMipmappedArrayDestroy"}},
      {"physical",
       MakePhysical,
       {kFree, kDriverFree, kFreeAsync, kFreeHost, kReservation},
       {kRelease, kUnmap, kReservation},
       {"cuMemCreate", "cuMemMap", "cuMemUnmap", "cuMemRelease", "cuMemFree_v2"}},
      {"external",
       MakeExternal,
       {kFreeAsync, kFreeHost, kUnmap},
       {kImport, kFree},
       {"cuImportExternalMemory", "cuExternalMemoryGetMappedBuffer", "cuMemFree_v2"}},
      {"pitch", MakePitched, {kFreeHost, kUnmap}, {kFree}, {}},
      {"3D", Make3D, {kFreeHost, kUnmap}, {kDriverFree}, {}},
  };
}

// What can be asked about a pointer, but for the address.
void Describe(CUdeviceptr pointer) {
  cudaPointerAttributes attributes = {};
  const cudaError_t result = cudaPointerGetAttributes(&attributes, Pointer(pointer));
  CUdeviceptr base = 0;
  size_t bytes = 0;
  const CUresult range = cuMemGetAddressRange(&base, &bytes, pointer + 4096);
  CUipcMemHandle handle = {};
  printf("  attributes %d, type %d, device %d; range %d, at its base %d, %zu bytes; IPC %d\n",
         Number(result), static_cast<int>(attributes.type), attributes.device, Number(range),
         base == pointer, bytes, Number(cuIpcGetMemHandle(&handle, pointer)));
  cudaGetLastError();
}

// One kind from its beginning to its end.
void Live(const Kind& kind, size_t bytes) {
  printf("%s, %zu MiB\n", kind.name, bytes / kMiB);
  std::vector<uint64_t> before;
  for (const char* name : kind.calls) before.push_back(simCallCount(name));
  const uint64_t used = simUsedBytes(0);
  Thing thing;
  thing.bytes = bytes;
  Tell("  made", static_cast<cudaError_t>(kind.make(&thing)));
  // Blocks that the pool serves may come out of a 2 MiB chunk, or from what is idle.
  if (!kind.calls.empty()) {
    printf("  takes %llu\n", static_cast<unsigned long long>(simUsedBytes(0) - used));
  }
  static std::atomic<uint64_t> wrong{0};
  if (thing.pointer != 0) {
    Describe(thing.pointer);
    simNoteAlloc(Pointer(thing.pointer), bytes);
    program::LaunchWrite(nullptr, Pointer(thing.pointer), bytes, bytes, 1000);
  }
  for (const End& end : kind.wrong) {
    Tell(std::string("  wrong ") + end.name, static_cast<cudaError_t>(end.call(thing)));
  }
  if (thing.pointer != 0) {
    program::LaunchCheck(nullptr, Pointer(thing.pointer), bytes, bytes, &wrong, 1000);
    simNoteFree(Pointer(thing.pointer));
  }
  MUST(cudaDeviceSynchronize());
  for (const End& end : kind.right) {
    Tell(std::string("  ") + end.name, static_cast<cudaError_t>(end.call(thing)));
  }
  MUST(cudaDeviceSynchronize());
  for (const End& end : kind.right) {
    Tell(std::string("  again ") + end.name, static_cast<cudaError_t>(end.call(thing)));
  }
  if (!kind.calls.empty()) {
    printf("  leaves %llu\n", static_cast<unsigned long long>(simUsedBytes(0) - used));
  }
  printf("  wrong words %llu\n", static_cast<unsigned long long>(wrong));
  for (size_t i = 0; i < kind.calls.size(); ++i) {
    printf("# %s, %zu MiB, %s: %llu\n", kind.name, bytes / kMiB, kind.calls[i],
           static_cast<unsigned long long>(simCallCount(kind.calls[i]) - before[i]));
  }
}

void Calls() {
  program::Warm(4096);
  program::Warm(4 * kMiB);
  for (const Kind& kind : Kinds()) {
    Live(kind, 4 * kMiB);
    Live(kind, 4 * kMiB);
    Live(kind, 10 * kMiB);
  }
  program::NoteServed("afterwards", 4096);
}

// 768 of 1024 MiB were freed, with work of theirs still under way; then the other kind needs
// `bytes`. REQUIRES: 1 GiB of device memory.
void Room(const char* name, size_t bytes) {
  for (const Kind& kind : Kinds()) {
    if (strcmp(kind.name, name) != 0) continue;
    std::vector<char*> blocks(24);
    for (char*& block : blocks) block = program::Allocate(32 * kMiB);
    const cudaStream_t stream = program::NonBlockingStream();
    for (char* block : blocks) program::LaunchWrite(stream, block, 32 * kMiB, 1, 100000);
    for (char* block : blocks) MUST(cudaFree(block));
    Thing thing;
    thing.bytes = bytes;
    Tell("made", static_cast<cudaError_t>(kind.make(&thing)));
    if (thing.pointer == 0 && thing.handle == 0) continue;
    for (const End& end : kind.right) {
      Tell(end.name, static_cast<cudaError_t>(end.call(thing)));
    }
    MUST(cudaDeviceSynchronize());
    void* again = nullptr;
    Say("512 MiB for cudaMalloc", cudaMalloc(&again, 512 * kMiB));
    Say("its free", cudaFree(again));
    return;
  }
  printf("no thing of kind %s\n", name);
}

// One real call fails for want of memory, as a device shared with other processes may.
void FailsOnce(const char* entry_point, const char* name) {
  program::Warm(4 * kMiB);
  for (const Kind& kind : Kinds()) {
    if (strcmp(kind.name, name) != 0) continue;
    simFailNext(entry_point, 1, CUDA_ERROR_OUT_OF_MEMORY);
    const uint64_t frees = program::RealFrees();
    Thing thing;
    thing.bytes = 4 * kMiB;
    printf("# made: %d\n", kind.make(&thing));
    printf("# last error: %d\n", static_cast<int>(cudaGetLastError()));
    printf("# real frees meanwhile: %llu\n",
           static_cast<unsigned long long>(program::RealFrees() - frees));
  }
}

// ---- Green contexts

CUgreenCtx NewGreenContext() {
  CUdevResource resource = {};
  CUdevResourceDesc description = nullptr;
  CUgreenCtx green = nullptr;
  Tell("resource", cuDeviceGetDevResource(0, &resource, CU_DEV_RESOURCE_TYPE_SM));
  Tell("description", cuDevResourceGenerateDesc(&description, &resource, 1));
  Tell("green context", cuGreenCtxCreate(&green, description, 0, CU_GREEN_CTX_DEFAULT_STREAM));
  return green;
}

void NoteReal(const char* when, size_t bytes, int count = 20) {
  const uint64_t allocations = program::RealAllocations();
  const uint64_t frees = program::RealFrees();
  for (int i = 0; i < count; ++i) MUST(cudaFree(program::Allocate(bytes)));
  printf("# real %s: %llu allocations, %llu frees of %d\n", when,
         static_cast<unsigned long long>(program::RealAllocations() - allocations),
         static_cast<unsigned long long>(program::RealFrees() - frees), count);
}

void Green() {
  const size_t sizes[] = {256, 5000, kMiB, 5 * kMiB};
  std::vector<char*> blocks;
  for (const size_t bytes : sizes) program::Warm(bytes);
  for (const size_t bytes : sizes) {
    for (int i = 0; i < 4; ++i) {
      blocks.push_back(program::Allocate(bytes));
      simNoteAlloc(blocks.back(), bytes);
    }
  }
  CUcontext primary = nullptr;
  cuCtxGetCurrent(&primary);
  NoteReal("before", 4096);
  const CUgreenCtx green = NewGreenContext();
  CUcontext context = nullptr;
  Tell("its context", cuCtxFromGreenCtx(&context, green));
  NoteReal("in the primary context", 4096);
  Tell("current", cuCtxSetCurrent(context));
  for (const size_t bytes : sizes)
    NoteReal(("in the green context, " + std::to_string(bytes)).c_str(), bytes);
  // Work of the green context on blocks from before; then frees in either context.
  static std::atomic<uint64_t> wrong{0};
  const cudaStream_t stream = program::NonBlockingStream();
  for (size_t i = 0; i < blocks.size(); ++i) {
    const size_t bytes = sizes[i / 4];
    program::LaunchWrite(stream, blocks[i], bytes, i, 50000);
    program::LaunchCheck(stream, blocks[i], bytes, i, &wrong, 50000);
    const uint64_t live = simLiveAllocations(0);
    Tell("current", cuCtxSetCurrent(i % 2 == 0 ? context : primary));
    simNoteFree(blocks[i]);
    Tell("free", cudaFree(blocks[i]));
    printf("freed %llu\n", static_cast<unsigned long long>(live - simLiveAllocations(0)));
    Tell("again", cudaFree(blocks[i]));
    Tell("again, driver", cuMemFree(Address(blocks[i])));
    char* other = program::Allocate(bytes);  // may be the same address
    simNoteAlloc(other, bytes);
    program::LaunchWrite(stream, other, bytes, i + 1, 50000);
    simNoteFree(other);
    Tell("free", cuMemFree(Address(other)));
  }
  MUST(cudaStreamDestroy(stream));
  Tell("current", cuCtxSetCurrent(primary));
  Tell("end", cuGreenCtxDestroy(green));
  NoteReal("after its end", 4096);
  printf("wrong words %llu\n", static_cast<unsigned long long>(wrong));
}

void SayFreeMemory(const char* where) {
  size_t free_bytes = 0;
  size_t total = 0;
  MUST(cudaMemGetInfo(&free_bytes, &total));
  printf("free in the %s context: %zu of %zu MiB\n", where, free_bytes / kMiB, total / kMiB);
}

// What was idle when the pool stepped aside must not be missing. REQUIRES: 1 GiB of device memory.
void GreenRoom() {
  std::vector<char*> blocks(24);
  for (char*& block : blocks) block = program::Allocate(32 * kMiB);
  for (char* block : blocks) MUST(cudaFree(block));
  const CUgreenCtx green = NewGreenContext();
  CUcontext context = nullptr;
  Tell("its context", cuCtxFromGreenCtx(&context, green));
  SayFreeMemory("primary");
  void* large = nullptr;
  Say("512 MiB in the primary context", cudaMalloc(&large, 512 * kMiB));
  Say("free", cudaFree(large));
  Tell("current", cuCtxSetCurrent(context));
  SayFreeMemory("green");
  large = nullptr;
  Say("768 MiB in the green context", cudaMalloc(&large, 768 * kMiB));
  Say("free", cudaFree(large));
  Thing thing;
  thing.bytes = 768 * kMiB;
  Tell("768 MiB of physical memory", static_cast<cudaError_t>(MakePhysical(&thing)));
}

// A green context's streams without its context: the primary one's frees cover their work.
void GreenStreams() {
#if CUDA_VERSION >= 12050
  const CUgreenCtx green = NewGreenContext();
  CUstream streams[2] = {};
  for (CUstream& stream : streams) {
    Tell("stream", cuGreenCtxStreamCreate(&stream, green, CU_STREAM_NON_BLOCKING, 0));
  }
  static std::atomic<uint64_t> wrong{0};
  program::Random random(3);
  for (int i = 0; i < 300; ++i) {
    const size_t bytes = (1 + random.Below(8)) * 64 * 1024;
    char* block = program::Allocate(bytes);
    simNoteAlloc(block, bytes);
    const CUstream stream = streams[random.Below(2)];
    program::LaunchWrite(stream, block, bytes, i, 30000);
    program::LaunchCheck(stream, block, bytes, i, &wrong, 30000);
    simNoteFree(block);
    MUST(cudaFree(block));
  }
  for (CUstream stream : streams) Tell("end", cuStreamDestroy(stream));
  Tell("end", cuGreenCtxDestroy(green));
  printf("wrong words %llu\n", static_cast<unsigned long long>(wrong));
#endif
}

// The last reference to the primary context is a green context's: with that it ends.
void GreenLast() {
  Tell("init", cuInit(0));
  CUcontext primary = nullptr;
  std::vector<CUdeviceptr> blocks(8);
  for (int round = 0; round < 3; ++round) {
    Tell("retain", cuDevicePrimaryCtxRetain(&primary, 0));
    Tell("current", cuCtxSetCurrent(primary));
    for (CUdeviceptr& block : blocks) {
      block = 0;
      Tell("alloc", cuMemAlloc(&block, 5000));
    }
    for (size_t i = 0; i < blocks.size(); i += 2) Tell("free", cuMemFree(blocks[i]));
    const CUgreenCtx green = NewGreenContext();
    Tell("release", cuDevicePrimaryCtxRelease(0));
    unsigned flags = 0;
    int active = -1;
    Tell("state", cuDevicePrimaryCtxGetState(0, &flags, &active));
    printf("active beside the green context: %d\n", active);
    Tell("end", cuGreenCtxDestroy(green));
    Tell("state", cuDevicePrimaryCtxGetState(0, &flags, &active));
    printf("active after it: %d, allocations left: %llu\n", active,
           static_cast<unsigned long long>(simLiveAllocations(0)));
  }
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  if (strcmp(scenario, "green-last") == 0) {
    GreenLast();
    program::SayHazards();
    return 0;
  }
  MUST(cudaFree(nullptr));
  if (strcmp(scenario, "calls") == 0) {
    Calls();
  } else if (strcmp(scenario, "room") == 0) {
    Room(arguments[2], strtoull(arguments[3], nullptr, 0) * kMiB);
  } else if (strcmp(scenario, "fails-once") == 0) {
    FailsOnce(arguments[2], arguments[3]);
  } else if (strcmp(scenario, "green") == 0) {
    Green();
  } else if (strcmp(scenario, "green-room") == 0) {
    GreenRoom();
  } else if (strcmp(scenario, "green-streams") == 0) {
    GreenStreams();
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
