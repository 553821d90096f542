// Ends that the real calls do not wait in: of what work may still use, and of the process. A free
// before them has waited.
#include <unistd.h>

#include "physical.h"

namespace observations {
namespace {

// A kernel uses `word` and `object`, something unrelated is freed, and what it uses ends.
void UseAndEnd(char* word, unsigned long long object, const std::function<void()>& end) {
  const SimRange range = {word, 8};
  SimWork work = {};
  work.duration_ns = kLong;
  work.writes = &range;
  work.write_count = word != nullptr ? 1 : 0;
  work.objects = &object;
  work.object_count = object != 0 ? 1 : 0;
  const uint64_t hazards = simHazardCount();
  MUST(program::Launch(NonBlockingStream(), work));
  FreeUnrelated();
  end();
  MUST(cudaDeviceSynchronize());
  See("kernels that used what was gone", simHazardCount() - hazards, 0);
}

CUtexObject NewTexture() {
  CUDA_RESOURCE_DESC resource = {};
  resource.resType = CU_RESOURCE_TYPE_LINEAR;
  resource.res.linear.devPtr = Address(DeviceWord());
  resource.res.linear.sizeInBytes = 4096;
  resource.res.linear.format = CU_AD_FORMAT_FLOAT;
  resource.res.linear.numChannels = 1;
  const CUDA_TEXTURE_DESC description = {};
  CUtexObject texture = 0;
  MUST_DRIVER(cuTexObjectCreate(&texture, &resource, &description, nullptr));
  return texture;
}

CUsurfObject NewSurface() {
  const CUDA_ARRAY_DESCRIPTOR shape = {64, 64, CU_AD_FORMAT_FLOAT, 1};
  CUDA_RESOURCE_DESC resource = {};
  resource.resType = CU_RESOURCE_TYPE_ARRAY;
  MUST_DRIVER(cuArrayCreate(&resource.res.array.hArray, &shape));
  CUsurfObject surface = 0;
  MUST_DRIVER(cuSurfObjectCreate(&surface, &resource));
  return surface;
}

void Texture() {
  const CUtexObject texture = NewTexture();
  UseAndEnd(nullptr, texture, [=] { MUST_DRIVER(cuTexObjectDestroy(texture)); });
}

void Surface() {
  const CUsurfObject surface = NewSurface();
  UseAndEnd(nullptr, surface, [=] { MUST_DRIVER(cuSurfObjectDestroy(surface)); });
}

void Library() {
  CUlibrary library = nullptr;
  MUST_DRIVER(cuLibraryLoadData(&library, "global x 64", nullptr, nullptr, 0, nullptr, nullptr, 0));
  CUdeviceptr variable = 0;
  MUST_DRIVER(cuLibraryGetGlobal(&variable, nullptr, library, "x"));
  UseAndEnd(reinterpret_cast<char*>(variable), 0, [=] { MUST_DRIVER(cuLibraryUnload(library)); });
}

void Unmap() {
  char* block = MapPhysical(MakePhysical());
  UseAndEnd(block, 0, [=] { MUST_DRIVER(cuMemUnmap(Address(block), kPhysicalBytes)); });
}

void TakeAccess() {
  char* block = MapPhysical(MakePhysical());
  UseAndEnd(block, 0, [=] { SetAccess(Address(block), CU_MEM_ACCESS_FLAGS_PROT_NONE); });
}

void UnbindMulticast() {
  CUmulticastObjectProp properties = {};
  properties.numDevices = 1;
  properties.size = kPhysicalBytes;
  CUmemGenericAllocationHandle object = 0;
  MUST_DRIVER(cuMulticastCreate(&object, &properties));
  MUST_DRIVER(cuMulticastAddDevice(object, 0));
  MUST_DRIVER(cuMulticastBindMem(object, 0, MakePhysical(), 0, kPhysicalBytes, 0));
  UseAndEnd(MapPhysical(object), 0,
            [=] { MUST_DRIVER(cuMulticastUnbind(object, 0, 0, kPhysicalBytes)); });
}

// This device's access to another one's pool.
void TakePoolAccess() {
  cudaMemPool_t pool = nullptr;
  MUST(cudaDeviceGetDefaultMemPool(&pool, 1));
  cudaMemAccessDesc access = {};
  access.location.type = cudaMemLocationTypeDevice;
  access.location.id = 0;
  access.flags = cudaMemAccessFlagsProtReadWrite;
  MUST_DRIVER(cuMemPoolSetAccess(pool, reinterpret_cast<CUmemAccessDesc*>(&access), 1));
  void* block = nullptr;
  MUST(cudaSetDevice(1));
  MUST(cudaMallocFromPoolAsync(&block, 4096, pool, nullptr));
  MUST(cudaDeviceSynchronize());
  MUST(cudaSetDevice(0));
  access.flags = cudaMemAccessFlagsProtNone;
  UseAndEnd(static_cast<char*>(block), 0, [&] {
    MUST_DRIVER(cuMemPoolSetAccess(pool, reinterpret_cast<CUmemAccessDesc*>(&access), 1));
  });
}

void FreeStreamOrdered() {
  void* block = nullptr;
  MUST(cudaMallocAsync(&block, 4096, nullptr));
  MUST(cudaDeviceSynchronize());
  UseAndEnd(static_cast<char*>(block), 0, [=] { MUST(cudaFree(block)); });
}

void TextureWhileCapturing() {
  const cudaStream_t captured = NonBlockingStream();
  const CUtexObject texture = NewTexture();
  cudaGraph_t graph = nullptr;
  UseAndEnd(nullptr, texture, [&] {
    MUST(cudaStreamBeginCapture(captured, cudaStreamCaptureModeRelaxed));
    MUST_DRIVER(cuTexObjectDestroy(texture));
    MUST(cudaStreamEndCapture(captured, &graph));
  });
}

// ---- The process. From here on nothing is printed but by what is under test: `exit` is its end.

// Registered before CUDA is initialised, so it runs after what CUDA does at exit.
char* g_result = nullptr;
void LookAtResult() {
  if (g_result != nullptr && HostWord(g_result) != 17) {
    constexpr char kWrong[] = "the result is missing\n";
    if (write(STDOUT_FILENO, kWrong, sizeof kWrong - 1) < 0) _exit(2);
    _exit(1);
  }
}
const bool g_looks_at_exit = (atexit(&LookAtResult), true);

// A kernel writes plain page-locked memory, which is looked at when the program is done.
void ResultAtExit() {
  g_result = PageLocked();
  WriteWord(NonBlockingStream(), g_result, 17, kLong);
  FreeUnrelated();
  exit(0);
}

void PrintAtExit() {
  SimWork work = {};
  work.duration_ns = kLong;
  work.print = "printed by a kernel\n";
  MUST(program::Launch(NonBlockingStream(), work));
  FreeUnrelated();
  exit(0);
}

// A kernel that is still running when the process ends shows nothing.
void NothingAtExit() {
  SimWork work = {};
  work.duration_ns = kLong;
  work.print = "printed by a kernel\n";
  FreeUnrelated();
  MUST(program::Launch(NonBlockingStream(), work));
  NoteRunning();
  exit(0);
}

}  // namespace

std::vector<Scenario> EndScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const char* rule, const char* name, void (*run)()) {
    scenarios.push_back({Expect::kVisible, rule, name, run});
  };
  constexpr const char* kDestruction = "pay_before_destruction";
  add(kDestruction, "texture", Texture);
  add(kDestruction, "texture-while-capturing", TextureWhileCapturing);
  add(kDestruction, "surface", Surface);
  add(kDestruction, "library", Library);
  add(kDestruction, "unmap", Unmap);
  add(kDestruction, "take-access", TakeAccess);
  add(kDestruction, "unbind-multicast", UnbindMulticast);
  add(kDestruction, "take-pool-access", TakePoolAccess);
  add(kDestruction, "free-stream-ordered", FreeStreamOrdered);
  add("pay_at_exit", "result-at-exit", ResultAtExit);
  add("pay_at_exit", "print-at-exit", PrintAtExit);
  scenarios.push_back({Expect::kQuiet, "-", "nothing-at-exit", NothingAtExit});
  return scenarios;
}

}  // namespace observations
