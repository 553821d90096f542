// Calls of every kind that run out of memory beside what the program has freed. REQUIRES: 1 GiB of
// device memory, unless a scenario says otherwise.
#include <cuda.h>
#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "create_context.h"
#include "program.h"

using program::Say;

namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr int kOutOfMemory = 2;
constexpr int kOutOfResources = 701;

unsigned long long Calls(const char* name) { return simCallCount(name); }
int Number(CUresult result) { return static_cast<int>(result); }
int Number(cudaError_t result) { return static_cast<int>(result); }

// Blocks of 32 MiB that the program has freed, 896 MiB in all.
void FillAndFree(size_t count = 28) {
  std::vector<void*> blocks(count);
  for (void*& block : blocks) block = program::Allocate(32 * kMiB);
  for (void* block : blocks) MUST(cudaFree(block));
}

// How often the calling thread has waited: a call that awaits another thread does so many times,
// however busy the machine is.
long Pauses() {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}
void Sleep(long microseconds) {
  const timespec time = {0, microseconds * 1000};
  nanosleep(&time, nullptr);
}

size_t Free() {
  size_t free = 0;
  size_t total = 0;
  MUST(cudaMemGetInfo(&free, &total));
  return free;
}

CUmemAllocationProp OnDevice(int device) {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device;
  return properties;
}

CUresult CreatePhysical(size_t bytes, int device = 0) {
  const CUmemAllocationProp properties = OnDevice(device);
  CUmemGenericAllocationHandle handle = 0;
  return cuMemCreate(&handle, bytes, &properties, 0);
}

CUresult CreateArray(size_t bytes) {
  CUDA_ARRAY_DESCRIPTOR description = {};
  description.Width = kMiB;
  description.Height = bytes / kMiB;
  description.Format = CU_AD_FORMAT_UNSIGNED_INT8;
  description.NumChannels = 1;
  CUarray array = nullptr;
  return cuArrayCreate(&array, &description);
}

CUresult AllocatePitch(size_t width, size_t height) {
  CUdeviceptr pointer = 0;
  size_t pitch = 0;
  return cuMemAllocPitch(&pointer, &pitch, width, height, 4);
}

CUresult LoadModule(size_t bytes) {
  CUmodule module = nullptr;
  return cuModuleLoadData(&module, ("global x " + std::to_string(bytes)).c_str());
}

CUresult NewContext(CUdevice device = 0) {
  CUcontext context = nullptr;
  return CreateContext(&context, device);
}

int Launch(cudaStream_t stream = nullptr) { return Number(program::Launch(stream, SimWork{})); }

// 512 MiB must be free for any of these entry points.
void Need(std::initializer_list<const char*> names, int error = kOutOfMemory) {
  for (const char* name : names) simNeed(name, 512 * kMiB, error);
}

cudaGraph_t CapturedGraph() {
  const cudaStream_t stream = program::NonBlockingStream();
  cudaGraph_t graph = nullptr;
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  MUST(program::Launch(stream, SimWork{}));
  MUST(cudaStreamEndCapture(stream, &graph));
  return graph;
}

CUmemoryPool SharedPool() {
  CUmemPoolProps properties = {};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  CUmemoryPool pool = nullptr;
  cuMemPoolCreate(&pool, &properties);
  return pool;
}

// ---- Each needs at least 512 MiB of 1 GiB.
const std::map<std::string, std::function<int()>>& Ways() {
  static const std::map<std::string, std::function<int()>> ways = {
      {"module", [] { return Number(LoadModule(600 * kMiB)); }},
      {"library",
       [] {
         CUlibrary library = nullptr;
         CUdeviceptr address = 0;
         cuLibraryLoadData(&library, "global y 629145600", nullptr, nullptr, 0, nullptr, nullptr,
                           0);
         return Number(cuLibraryGetGlobal(&address, nullptr, library, "y"));
       }},
      {"stack", [] { return Number(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 2048)); }},
      {"heap", [] { return Number(cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 600 * kMiB)); }},
      {"launch",
       [] {
         Need({"cuLaunchKernel"});
         return Launch();
       }},
      {"launch that needs a heap",
       [] {
         Need({"cuLaunchKernel"}, kOutOfResources);
         return Launch();
       }},
      {"launch with attributes",
       [] {
         Need({"cuLaunchKernelEx"});
         const SimWork work = {};
         const SimWork* pointer = &work;
         void* parameters[] = {&pointer};
         CUlaunchConfig config = {};
         return Number(cuLaunchKernelEx(&config, simFunction(), parameters, nullptr));
       }},
      {"copy",
       [] {
         char* block = program::Allocate(64);
         char host[64] = {};
         Need({"cuMemcpyHtoD_v2"});
         return Number(cudaMemcpy(block, host, sizeof host, cudaMemcpyHostToDevice));
       }},
      {"stream",
       [] {
         Need({"cuStreamCreate", "cuStreamCreateWithPriority"});
         cudaStream_t stream = nullptr;
         return Number(cudaStreamCreate(&stream));
       }},
      {"event",
       [] {
         Need({"cuEventCreate"});
         cudaEvent_t event = nullptr;
         return Number(cudaEventCreate(&event));
       }},
      {"context",
       [] {
         Need({"cuCtxCreate_v2", "cuCtxCreate_v4"});
         return Number(NewContext());
       }},
      {"graph",
       [] {
         const cudaGraph_t graph = CapturedGraph();
         Need({"cuGraphInstantiate", "cuGraphInstantiate_v2", "cuGraphInstantiateWithFlags",
               "cuGraphInstantiateWithParams"});
         cudaGraphExec_t executable = nullptr;
         return Number(cudaGraphInstantiate(&executable, graph, 0));
       }},
      {"graph launch",
       [] {
         const cudaGraph_t graph = CapturedGraph();
         cudaGraphExec_t executable = nullptr;
         const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
         Need({"cuGraphLaunch"});
         return made == cudaSuccess ? Number(cudaGraphLaunch(executable, nullptr)) : Number(made);
       }},
      {"array", [] { return Number(CreateArray(600 * kMiB)); }},
      {"array of the runtime",
       [] {
         const cudaChannelFormatDesc bytes = {8, 0, 0, 0, cudaChannelFormatKindUnsigned};
         cudaArray_t array = nullptr;
         return Number(cudaMallocArray(&array, &bytes, kMiB, 600, 0));
       }},
      {"physical", [] { return Number(CreatePhysical(600 * kMiB)); }},
      {"async",
       [] {
         void* pointer = nullptr;
         return Number(cudaMallocAsync(&pointer, 600 * kMiB, nullptr));
       }},
      {"managed",
       [] {
         Need({"cuMemAllocManaged"});
         void* pointer = nullptr;
         return Number(cudaMallocManaged(&pointer, 4096, cudaMemAttachGlobal));
       }},
      {"prefetch",
       [] {
         void* pointer = nullptr;
         MUST(cudaMallocManaged(&pointer, kMiB, cudaMemAttachGlobal));
         Need({"cuMemPrefetchAsync_v2"});
         CUmemLocation device = {};
         device.type = CU_MEM_LOCATION_TYPE_DEVICE;
         return Number(cuMemPrefetchAsync_v2(reinterpret_cast<CUdeviceptr>(pointer), kMiB, device,
                                             0, nullptr));
       }},
      {"page-locked",
       [] {
         Need({"cuMemHostAlloc", "cuMemAllocHost_v2"});
         void* pointer = nullptr;
         return Number(cudaMallocHost(&pointer, 4096));
       }},
      {"addresses",
       [] {
         Need({"cuMemAddressReserve"});
         CUdeviceptr start = 0;
         return Number(cuMemAddressReserve(&start, 2 * kMiB, 0, 0, 0));
       }},
      {"export",
       [] {
         char* block = program::Allocate(64);
         Need({"cuIpcGetMemHandle"});
         cudaIpcMemHandle_t handle = {};
         return Number(cudaIpcGetMemHandle(&handle, block));
       }},
      {"export of an event",
       [] {
         cudaEvent_t event = nullptr;
         MUST(cudaEventCreateWithFlags(&event, cudaEventInterprocess | cudaEventDisableTiming));
         Need({"cuIpcGetEventHandle"});
         CUipcEventHandle handle = {};
         return Number(cuIpcGetEventHandle(&handle, event));
       }},
      {"export of a pool",
       [] {
         const CUmemoryPool pool = SharedPool();
         Need({"cuMemPoolExportToShareableHandle"});
         int handle = -1;
         return Number(cuMemPoolExportToShareableHandle(
             &handle, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
       }},
      {"export of a pool's memory",
       [] {
         CUdeviceptr pointer = 0;
         const CUresult made = cuMemAllocFromPoolAsync(&pointer, 64, SharedPool(), nullptr);
         Need({"cuMemPoolExportPointer"});
         CUmemPoolPtrExportData exported = {};
         return Number(made == CUDA_SUCCESS ? cuMemPoolExportPointer(&exported, pointer) : made);
       }},
  };
  return ways;
}

void Room(const std::string& way) {
  FillAndFree();
  printf("%s: %d, ", way.c_str(), Ways().at(way)());
  printf("last error %d\n", Number(cudaGetLastError()));
  simFailNever();
}

// ---- What must not be tried again

// How often the launch reached the driver, which refuses it, and what was really freed for it.
void CountLaunch(const char* when) {
  const unsigned long long launches = Calls("cuLaunchKernel");
  const unsigned long long frees = program::RealFrees();
  const unsigned long long questions = Calls("cuMemGetInfo_v2");
  printf("%s: %d, ", when, Launch());
  printf("last error %d\n", Number(cudaGetLastError()));
  printf("# %s: %llu launches, %llu frees, %llu questions\n", when,
         Calls("cuLaunchKernel") - launches, program::RealFrees() - frees,
         Calls("cuMemGetInfo_v2") - questions);
}

// Out of registers, or out of memory, for ever.
void Refused(int error) {
  simFailFrom("cuLaunchKernel", 1, error);
  CountLaunch("nothing idle");
  FillAndFree();
  CountLaunch("much idle");
  CountLaunch("once more");
  // As much as before is free or idle.
  FillAndFree();
  CountLaunch("idle again");
  void* live = program::Allocate(64 * kMiB);
  MUST(cudaFree(program::Allocate(128 * kMiB)));
  CountLaunch("less");
  MUST(cudaFree(live));
  CountLaunch("more");
}

// REQUIRES: 4 GiB of device memory
void Enough() {
  FillAndFree(124);
  Need({"cuEventCreate"});
  const unsigned long long frees = program::RealFrees();
  cudaEvent_t event = nullptr;
  Say("event", cudaEventCreate(&event));
  printf("# frees: %llu\n", program::RealFrees() - frees);
  simFailNever();
  program::NoteServed("afterwards", 32 * kMiB);
}

// What cannot be had, in vain, and then by the same arguments what can: sizes stand behind
// pointers.
void InVain() {
  const auto tries = [](const char* what, int (*allocate)(size_t bytes)) {
    for (const size_t bytes : {1500 * kMiB, 600 * kMiB, 1500 * kMiB, 500 * kMiB}) {
      FillAndFree();
      printf("%s of %zu MiB: %d\n", what, bytes / kMiB, allocate(bytes));
      printf("last error %d\n", Number(cudaGetLastError()));
    }
  };
  tries("array", [](size_t bytes) {
    static CUarray array = nullptr;
    static CUDA_ARRAY_DESCRIPTOR description = {};
    description = {kMiB, bytes / kMiB, CU_AD_FORMAT_UNSIGNED_INT8, 1};
    const CUresult status = cuArrayCreate(&array, &description);
    if (status == CUDA_SUCCESS) cuArrayDestroy(array);
    return Number(status);
  });
  tries("module", [](size_t bytes) {
    static CUmodule module = nullptr;
    static char image[64];
    snprintf(image, sizeof(image), "global x %zu", bytes);
    const CUresult status = cuModuleLoadData(&module, image);
    if (status == CUDA_SUCCESS) cuModuleUnload(module);
    return Number(status);
  });
  tries("pitched", [](size_t bytes) {
    static void* pointer = nullptr;
    static size_t pitch = 0;
    const cudaError_t status = cudaMallocPitch(&pointer, &pitch, kMiB, bytes / kMiB);
    if (status == cudaSuccess) MUST(cudaFree(pointer));
    return Number(status);
  });
}

// The same calls as one in vain, but for where they write; then with room for them.
void ElsewhereInVain() {
  FillAndFree();
  Need({"cuEventCreate"});
  void* live = program::Allocate(960 * kMiB);
  MUST(cudaFree(program::Allocate(32 * kMiB)));
  std::vector<CUevent> events(3);
  for (CUevent& event : events) {
    const unsigned long long calls = Calls("cuEventCreate");
    printf("event: %d\n", Number(cuEventCreate(&event, 0)));
    printf("# event at %td: %llu calls\n", &event - events.data(), Calls("cuEventCreate") - calls);
    MUST(cudaFree(program::Allocate(32 * kMiB)));  // as much as before is free or idle
  }
  MUST(cudaFree(live));
  printf("event: %d\n", Number(cuEventCreate(&events.back(), 0)));
  simFailNever();
}

// What is known is not exceeded by much.
void Exactly() {
  std::vector<void*> blocks(75);  // 600 MiB
  for (void*& block : blocks) block = program::Allocate(8 * kMiB);
  void* pointer = nullptr;
  while (cudaMalloc(&pointer, 2 * kMiB) == cudaSuccess) {
  }
  cudaGetLastError();
  for (void* block : blocks) MUST(cudaFree(block));
  const cudaStream_t stream = program::NonBlockingStream();
  unsigned long long used = simUsedBytes(0);
  printf("async: %d\n", Number(cudaMallocAsync(&pointer, 4 * kMiB, stream)));
  printf("# of 4 MiB: %llu MiB released\n", (used + 4 * kMiB - simUsedBytes(0)) / kMiB);
  // The driver may need more than it says.
  simNeed("cuMemCreate", 128 * kMiB, kOutOfMemory);
  used = simUsedBytes(0);
  printf("physical: %d\n", Number(CreatePhysical(2 * kMiB)));
  printf("# more than told: %llu MiB released\n", (used + 2 * kMiB - simUsedBytes(0)) / kMiB);
  simFailNever();
}

// Another thread has all that is idle in hand, in many small blocks, and frees them slowly.
void InHand() {
  constexpr int kBlocks = 1500;
  std::vector<void*> blocks(kBlocks);
  for (void*& block : blocks) block = program::Allocate(64 << 10);
  void* pointer = nullptr;
  while (cudaMalloc(&pointer, 16 * kMiB) == cudaSuccess) {
  }
  cudaGetLastError();
  for (void* block : blocks) MUST(cudaFree(block));
  static std::atomic<bool> begun{false};
  simOnCall(
      "cuMemFreeAsync", SIM_AFTER_CALL,
      [](void*) {
        begun = true;
        Sleep(200);
      },
      nullptr);
  std::thread other([] {
    MUST(cudaSetDevice(0));
    printf("impossible: %d\n", Number(LoadModule(5000 * kMiB)));
  });
  // Without the pool nothing is released.
  for (int i = 0; i < 200 && !begun; ++i) Sleep(1000);
  const int created = Number(CreateArray(80 * kMiB));
  other.join();
  simOnCall("cuMemFreeAsync", SIM_AFTER_CALL, nullptr, nullptr);
  printf("80 MiB: %d\n", created);
}

// A call fails; before it has been looked at why, another thread has really freed the block that it
// lacked, and has told nobody yet. REQUIRES: 4 GiB of device memory
void FreedMeanwhile() {
  enum Step { kNone, kTaken, kFailed, kFreed, kOver };
  static const pthread_t program = pthread_self();
  static std::atomic<Step> step{kNone};
  std::atomic<bool> refused{false};
  static const auto await = [](Step wanted) {
    for (int i = 0; i < 20'000 && step < wanted; ++i) Sleep(1000);
  };
  MUST(cudaFree(program::Allocate(3500 * kMiB)));
  const auto on_call = [](const char* name, int when, void (*hold)(void*)) {
    simOnCall(name, when, hold, nullptr);
  };
  on_call("cuMemFreeAsync", SIM_BEFORE_CALL, [](void*) {
    if (pthread_equal(pthread_self(), program) != 0 || step != kNone) return;
    step = kTaken;
    await(kFailed);
  });
  on_call("cuStreamSynchronize", SIM_AFTER_CALL, [](void*) {
    if (pthread_equal(pthread_self(), program) != 0 || step != kFailed) return;
    step = kFreed;
    await(kOver);
  });
  on_call("cuMemCreate", SIM_AFTER_CALL, [](void*) {
    if (step != kTaken) return;
    step = kFailed;
    await(kFreed);
  });
  std::thread other([&] {
    MUST(cudaSetDevice(0));
    printf("impossible: %d\n", Number(LoadModule(5000 * kMiB)));
    refused = true;
  });
  // Without the pool nothing is released, and the module is refused first.
  for (int i = 0; i < 20'000 && step == kNone && !refused; ++i) Sleep(1000);
  const int created = Number(CreatePhysical(2000 * kMiB));
  printf("# met: %s\n", step == kFreed ? "yes" : "no");
  step = kOver;
  other.join();
  on_call("cuMemFreeAsync", SIM_BEFORE_CALL, nullptr);
  on_call("cuStreamSynchronize", SIM_AFTER_CALL, nullptr);
  on_call("cuMemCreate", SIM_AFTER_CALL, nullptr);
  printf("2000 MiB: %d\n", created);
}

// Memory was freed while a kernel used it; a later kernel stays until the next launch. What needs
// the memory may wait for the first one, as the free would have done, but not for the other.
// `what` of so many bytes; its error.
int Make(const std::string& what, size_t bytes) {
  void* pointer = nullptr;
  size_t pitch = 0;
  if (what == "physical") return Number(CreatePhysical(bytes));
  if (what == "array") return Number(CreateArray(bytes));
  if (what == "block") return Number(cudaMalloc(&pointer, bytes));
  return Number(cudaMallocPitch(&pointer, &pitch, bytes / 1024, 1024));
}

// A second context, of the same device or of another one whose work may use this one's memory, that
// is busy for long.
void KeepAnotherBusy(const std::string& whose) {
  CUcontext own = nullptr;
  MUST(static_cast<cudaError_t>(cuCtxGetCurrent(&own)));
  NewContext(whose == "peer" ? 1 : 0);
  if (whose == "peer") MUST(static_cast<cudaError_t>(cuCtxEnablePeerAccess(own, 0)));
  CUstream stream = nullptr;
  CUdeviceptr block = 0;
  MUST(static_cast<cudaError_t>(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING)));
  MUST(static_cast<cudaError_t>(cuMemAlloc(&block, 1000)));
  MUST(static_cast<cudaError_t>(cuMemFree(block)));
  SimWork work{};
  work.duration_ns = 500'000'000;
  MUST(program::Launch(stream, work));
  MUST(static_cast<cudaError_t>(cuCtxSetCurrent(own)));
}

void LaunchStaying(cudaStream_t stream) {
  SimWork staying{};
  staying.id = 98;
  staying.spin_until_id = 99;
  MUST(program::Launch(stream, staying));
}

void LaunchEnd(cudaStream_t stream) {
  SimWork next{};
  next.id = 99;
  MUST(program::Launch(stream, next));
}

void BesideStaying(const std::string& what, bool first_is_done, const std::string& busy) {
  const cudaStream_t stream = program::NonBlockingStream();
  const cudaStream_t other = program::NonBlockingStream();
  MUST(cudaFree(program::Allocate(1000)));
  MUST(cudaDeviceSynchronize());  // now the pool knows of all work
  if (!busy.empty()) KeepAnotherBusy(busy);
  program::Allocate(600 * kMiB);
  // Small ones of which another context may make use go back by the call that waits.
  const size_t bytes = busy.empty() ? kMiB - 4096 : 4 * kMiB;
  std::vector<char*> blocks;
  for (size_t all = 0; all < 100 * kMiB; all += bytes) blocks.push_back(program::Allocate(bytes));
  char* const large = program::Allocate(100 * kMiB);
  program::LaunchWrite(stream, blocks.front(), 64, 1, 100'000);
  program::LaunchWrite(stream, large, 64, 1, 100'000);
  for (char* block : blocks) MUST(cudaFree(block));
  MUST(cudaFree(large));
  if (first_is_done) simAdvance(10'000'000);
  LaunchStaying(stream);
  printf("%d\n", Make(what, 400 * kMiB));
  LaunchEnd(other);
  MUST(cudaDeviceSynchronize());
}

// The same where another thread launches both kernels: the one just before memory is freed for the
// allocation, which may not hold up the other one.
void BesideAnotherThread(const std::string& what, const std::string& busy) {
  static const pthread_t program = pthread_self();
  static std::thread other;
  static std::atomic<bool> stays{false};
  static cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) stream = program::NonBlockingStream();
  program::Allocate(1000);  // not freed: there is nothing else to free
  MUST(cudaDeviceSynchronize());
  KeepAnotherBusy(busy);
  program::Allocate(600 * kMiB);
  char* const blocks[] = {program::Allocate(100 * kMiB), program::Allocate(100 * kMiB)};
  program::LaunchWrite(streams[0], blocks[0], 64, 1, 100'000);
  for (char* block : blocks) MUST(cudaFree(block));
  const auto work = [] {
    MUST(cudaSetDevice(0));
    LaunchStaying(streams[0]);
    stays = true;
    Sleep(100'000);
    LaunchEnd(streams[1]);
  };
  static void (*const run)() = work;
  const auto start = [](void*) {
    if (pthread_equal(pthread_self(), program) == 0 || other.joinable()) return;
    other = std::thread(run);
    while (!stays) Sleep(100);
  };
  constexpr const char* kFrees[] = {"cuMemFree_v2", "cuMemFreeAsync"};
  for (const char* call : kFrees) simOnCall(call, SIM_BEFORE_CALL, start, nullptr);
  printf("%d\n", Make(what, 400 * kMiB));
  for (const char* call : kFrees) simOnCall(call, SIM_BEFORE_CALL, nullptr, nullptr);
  printf("# met: %s\n", other.joinable() ? "yes" : "no");
  if (!other.joinable()) other = std::thread(run);
  other.join();
  MUST(cudaDeviceSynchronize());
}

// The driver writes sizes back where it was told them: a second try is told what the first was.
void Options() {
  FillAndFree();
  char log[64] = {};
  CUjit_option options[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES};
  const std::string image = "global x " + std::to_string(600 * kMiB);
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  CUmodule module = nullptr;
  printf("module: %d, ", Number(cuModuleLoadDataEx(&module, image.c_str(), 2, options, values)));
  printf("log %s, %zu bytes\n", log, reinterpret_cast<size_t>(values[1]));
  MUST(static_cast<cudaError_t>(cuModuleUnload(module)));
  FillAndFree();
  log[0] = '\0';
  values[1] = reinterpret_cast<void*>(sizeof log);
  Need({"cuLibraryLoadData"});
  CUlibrary library = nullptr;
  printf("library: %d, ", Number(cuLibraryLoadData(&library, image.c_str(), options, values, 2,
                                                   nullptr, nullptr, 0)));
  printf("log %s, %zu bytes\n", log, reinterpret_cast<size_t>(values[1]));
  simFailNever();
}

void Impossible() {
  FillAndFree();
  const unsigned long long frees = program::RealFrees();
  printf("more than the device has: %d\n", Number(CreatePhysical(4096 * kMiB)));
  printf("# frees: %llu\n", program::RealFrees() - frees);
  printf("all that is free: %d\n", Number(CreatePhysical(Free())));
  printf("2 MiB more: %d\n", Number(CreatePhysical(2 * kMiB)));
}

// Larger than any device, twice; and what fails for another reason. REQUIRES: two devices
void ImpossibleShapes(bool pitch_is_known) {
  MUST(cudaSetDevice(1));
  FillAndFree();
  MUST(cudaSetDevice(0));
  FillAndFree();
  if (pitch_is_known) AllocatePitch(kMiB, 1);
  const unsigned long long pitched = Calls("cuMemAllocPitch_v2");
  CUDA_ARRAY3D_DESCRIPTOR layers = {};
  layers.Width = 16384;
  layers.Height = 16384;
  layers.Depth = 64;
  layers.Format = CU_AD_FORMAT_FLOAT;
  layers.NumChannels = 1;
  layers.Flags = CUDA_ARRAY3D_LAYERED;
  const unsigned long long frees = program::RealFrees();
  CUarray array = nullptr;
  void* pointer = nullptr;
  for (int i = 0; i < 2; ++i) {
    printf("plain: %d\n", Number(cudaMalloc(&pointer, 32 * 1024 * kMiB)));
    printf("pitched: %d\n", Number(AllocatePitch(kMiB, 32 * 1024)));
    printf("array: %d\n", Number(CreateArray(32 * 1024 * kMiB)));
    printf("layers: %d\n", Number(cuArray3DCreate(&array, &layers)));
  }
  printf("# pitched: %llu calls\n", Calls("cuMemAllocPitch_v2") - pitched);
  printf("# array: %llu calls\n", Calls("cuArrayCreate_v2"));
  printf("# layers: %llu calls\n", Calls("cuArray3DCreate_v2"));
  printf("# frees: %llu\n", program::RealFrees() - frees);
  // Whatever this device lacks, the other one cannot have it.
  const unsigned long long used = simUsedBytes(1);
  simFailFrom("cuArrayCreate_v2", 1, kOutOfMemory);
  printf("array: %d\n", Number(CreateArray(kMiB)));
  printf("# of the other device: %llu bytes\n", used - simUsedBytes(1));
  simFailNever();
}

// The same graph, again and again, beside as much idle memory.
void GraphInVain() {
  const cudaGraph_t graph = CapturedGraph();
  simFailFrom("cuGraphInstantiateWithFlags", 1, kOutOfMemory);
  timespec begin = {};
  clock_gettime(CLOCK_MONOTONIC, &begin);
  int releases = 0;
  for (int i = 0; i < 20; ++i) {
    FillAndFree();
    const unsigned long long frees = program::RealFrees();
    cudaGraphExec_t executable = nullptr;
    if (cudaGraphInstantiate(&executable, graph, 0) != cudaErrorMemoryAllocation) return;
    if (program::RealFrees() != frees) ++releases;
  }
  timespec end = {};
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("all failed, last error %d\n", Number(cudaGetLastError()));
  printf("# releases: %d in %ld seconds\n", releases, end.tv_sec - begin.tv_sec + 1);
  simFailNever();
}

// Calls fail for reasons of their own while the pool's thread is slow to free what has aged. With 8
// GiB of device memory nothing lacks it, with 1 GiB that cannot be told. REQUIRES: CMP_DECAY
void OwnReasons() {
  static const pthread_t program = pthread_self();
  static std::atomic<bool> held{false};
  static std::atomic<bool> go_on{false};
  simOnCall(
      "cuMemFreeAsync", SIM_BEFORE_CALL,
      [](void*) {
        if (pthread_equal(pthread_self(), program) != 0) return;
        held = true;
        while (!go_on) Sleep(1000);
        held = false;
      },
      nullptr);
  FillAndFree(4);
  for (int i = 0; i < 20'000 && !held; ++i) Sleep(1000);
  const auto fails = [](const char* what, const char* name, const std::function<int()>& call) {
    simFailFrom(name, 1, kOutOfMemory);
    const unsigned long long calls = Calls(name);
    const long pauses = Pauses();
    printf("%s: %d\n", what, call());
    printf("# %s: %llu calls, %ld pauses, %d held\n", what, Calls(name) - calls, Pauses() - pauses,
           held ? 1 : 0);
    simFailNever();
  };
  for (const char* what : {"event", "event again"}) {
    fails(what, "cuEventCreate", [] {
      CUevent event = nullptr;
      return Number(cuEventCreate(&event, 0));
    });
  }
  fails("page-locked", "cuMemHostAlloc", [] {
    void* pointer = nullptr;
    return Number(cuMemHostAlloc(&pointer, 4096, 0));
  });
  go_on = true;
  while (held) Sleep(1000);
  simOnCall("cuMemFreeAsync", SIM_BEFORE_CALL, nullptr, nullptr);
}

// ---- Captures

struct Capture {
  explicit Capture(cudaStreamCaptureMode mode) {
    MUST(cudaStreamBeginCapture(stream, mode));
    MUST(program::Launch(stream, SimWork{}));
  }
  void End() {
    cudaGraph_t graph = nullptr;
    const int launched = Launch(stream);
    const int ended = Number(cudaStreamEndCapture(stream, &graph));
    printf("  launch %d, end %d, graph %s\n", launched, ended, graph == nullptr ? "none" : "made");
    cudaGetLastError();
  }
  const cudaStream_t stream = program::NonBlockingStream();
};

// A call of another thread while this one captures.
void DuringCapture(const std::string& what, int mode) {
  static const std::map<std::string, std::function<int(cudaStream_t)>> calls = {
      {"physical", [](cudaStream_t) { return Number(CreatePhysical(600 * kMiB)); }},
      {"array", [](cudaStream_t) { return Number(CreateArray(600 * kMiB)); }},
      {"async",
       [](cudaStream_t stream) {
         void* pointer = nullptr;
         return Number(cudaMallocAsync(&pointer, 600 * kMiB, stream));
       }},
      {"module", [](cudaStream_t) { return Number(LoadModule(600 * kMiB)); }},
      {"launch",
       [](cudaStream_t stream) {
         Need({"cuLaunchKernel"});
         const int launched = Launch(stream);
         simFailNever();
         return launched;
       }},
  };
  const cudaStream_t stream = program::NonBlockingStream();
  FillAndFree();
  Capture capture(static_cast<cudaStreamCaptureMode>(mode));
  std::thread([&] {
    MUST(cudaSetDevice(0));
    printf("%s: %d, ", what.c_str(), calls.at(what)(stream));
    printf("last error %d\n", Number(cudaGetLastError()));
  }).join();
  capture.End();
}

// Of the capturing thread itself, and into its capture.
void IntoCaptures() {
  const auto tried = [](const char* what, const char* name,
                        const std::function<int(cudaStream_t)>& call) {
    FillAndFree();
    Capture capture(cudaStreamCaptureModeRelaxed);
    simFailFrom(name, 1, kOutOfMemory);
    const unsigned long long before = Calls(name);
    if (strcmp(what, "of its own thread") == 0) {
      printf("%s: %d\n", what, call(capture.stream));
    } else {
      std::thread([&] {
        MUST(cudaSetDevice(0));
        printf("%s: %d\n", what, call(capture.stream));
      }).join();
    }
    printf("# %s: tried %llu times\n", what, Calls(name) - before);
    simFailNever();
    cudaGetLastError();
    capture.End();
  };
  static const cudaGraph_t graph = CapturedGraph();
  tried("of its own thread", "cuMemCreate",
        [](cudaStream_t) { return Number(CreatePhysical(600 * kMiB)); });
  tried("into it", "cuLaunchKernel", Launch);
  tried("uploaded into it", "cuGraphInstantiateWithParams", [](cudaStream_t stream) {
    CUDA_GRAPH_INSTANTIATE_PARAMS parameters = {};
    parameters.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
    parameters.hUploadStream = stream;
    CUgraphExec executable = nullptr;
    return Number(cuGraphInstantiateWithParams(&executable, graph, &parameters));
  });
}

// ---- Devices, contexts, threads

// REQUIRES: two devices
void Devices() {
  MUST(cudaSetDevice(1));
  FillAndFree();
  MUST(cudaSetDevice(0));
  MUST(cudaFree(program::Allocate(32 * kMiB)));
  printf("on the other device: %d\n", Number(CreatePhysical(900 * kMiB, 1)));
  MUST(cudaFree(program::Allocate(32 * kMiB)));
  printf("on this one: %d\n", Number(CreatePhysical(1000 * kMiB, 0)));
}

// A call lacks memory while another thread gives up the last reference to the context of another
// device, which has idle memory: by then it is gone.
void LastReference() {
  CUcontext context = nullptr;
  CUdeviceptr block = 0;
  MUST(static_cast<cudaError_t>(cuDevicePrimaryCtxRetain(&context, 1)));
  MUST(static_cast<cudaError_t>(cuCtxPushCurrent(context)));
  MUST(static_cast<cudaError_t>(cuMemAlloc(&block, 32 * kMiB)));
  MUST(static_cast<cudaError_t>(cuMemFree(block)));
  MUST(static_cast<cudaError_t>(cuCtxPopCurrent(&context)));
  FillAndFree();
  simOnCall(
      "cuDevicePrimaryCtxRelease_v2", SIM_AFTER_CALL,
      [](void*) {
        const unsigned long long pushes = Calls("cuCtxPushCurrent_v2");
        std::thread([] {
          MUST(cudaSetDevice(0));
          printf("module: %d\n", Number(LoadModule(5000 * kMiB)));
          printf("module: %d\n", Number(LoadModule(600 * kMiB)));
        }).join();
        printf("# pushed: %llu\n", Calls("cuCtxPushCurrent_v2") - pushes);
      },
      nullptr);
  MUST(static_cast<cudaError_t>(cuDevicePrimaryCtxRelease(1)));
  simOnCall("cuDevicePrimaryCtxRelease_v2", SIM_AFTER_CALL, nullptr, nullptr);
}

// A launch that fails for ever, beside idle memory, and beside contexts of the other devices.
void GraphLaunches() {
  int devices = 0;
  MUST(cudaGetDeviceCount(&devices));
  for (int device = devices - 1; device >= 0; --device) {
    MUST(cudaSetDevice(device));
    FillAndFree();
  }
  cudaGraphExec_t executable = nullptr;
  MUST(cudaGraphInstantiate(&executable, CapturedGraph(), 0));
  simFailFrom("cuGraphLaunch", 1, kOutOfMemory);
  printf("graph launch: %d\n", Number(cudaGraphLaunch(executable, nullptr)));
  printf("# with %d devices: %llu calls\n", devices, Calls("cuGraphLaunch"));
  simFailNever();
}

// The last reference to another device's context is given up while its idle memory is released for
// a call that lacks it: neither waits for the other. REQUIRES: two devices
void ReferenceMeanwhile() {
  static const pthread_t program = pthread_self();
  static std::thread other;
  static long pauses = 0;
  long least = 1'000'000;
  for (int round = 0; round < 5; ++round) {
    CUcontext context = nullptr;
    std::vector<CUdeviceptr> blocks(448);
    MUST(static_cast<cudaError_t>(cuDevicePrimaryCtxRetain(&context, 1)));
    MUST(static_cast<cudaError_t>(cuCtxPushCurrent(context)));
    for (CUdeviceptr& block : blocks) {
      MUST(static_cast<cudaError_t>(cuMemAlloc(&block, 2 * kMiB)));
    }
    for (const CUdeviceptr block : blocks) MUST(static_cast<cudaError_t>(cuMemFree(block)));
    MUST(static_cast<cudaError_t>(cuCtxPopCurrent(&context)));
    simOnCall(
        "cuMemFreeAsync", SIM_AFTER_CALL,
        [](void*) {
          if (pthread_equal(pthread_self(), program) == 0) return;
          if (!other.joinable()) {
            other = std::thread([] {
              const long before = Pauses();
              MUST(static_cast<cudaError_t>(cuDevicePrimaryCtxRelease(1)));
              pauses = Pauses() - before;
            });
          }
          Sleep(200);
        },
        nullptr);
    const CUmemAllocationProp properties = OnDevice(1);
    CUmemGenericAllocationHandle handle = 0;
    const CUresult created = cuMemCreate(&handle, 900 * kMiB, &properties, 0);
    if (created == CUDA_SUCCESS) MUST(static_cast<cudaError_t>(cuMemRelease(handle)));
    if (!other.joinable()) return;
    other.join();
    simOnCall("cuMemFreeAsync", SIM_AFTER_CALL, nullptr, nullptr);
    least = std::min(least, pauses);
  }
  printf("# pauses: %ld at least\n", least);
}

// Memory of device 1 is wanted while the context there, which has freed some behind pending work,
// may go: another thread gives the last reference up just when a call about it is made. With no
// `call` it stays. REQUIRES: two devices
void ReferenceDuring(const std::string& call) {
  static const pthread_t program = pthread_self();
  static std::thread other;
  MUST(cudaFree(program::Allocate(1000)));
  CUcontext context = nullptr;
  CUstream stream = nullptr;
  CUdeviceptr blocks[3] = {};
  MUST(static_cast<cudaError_t>(cuDevicePrimaryCtxRetain(&context, 1)));
  MUST(static_cast<cudaError_t>(cuCtxPushCurrent(context)));
  MUST(static_cast<cudaError_t>(cuMemAlloc(&blocks[0], 1000)));
  MUST(static_cast<cudaError_t>(cuMemFree(blocks[0])));
  for (CUdeviceptr& block : blocks) {
    MUST(static_cast<cudaError_t>(cuMemAlloc(&block, 200 * kMiB)));
  }
  for (int i : {1, 2}) MUST(static_cast<cudaError_t>(cuMemFree(blocks[i])));
  MUST(static_cast<cudaError_t>(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING)));
  SimWork work{};
  work.duration_ns = 300'000;
  MUST(program::Launch(stream, work));
  MUST(static_cast<cudaError_t>(cuMemFree(blocks[0])));
  MUST(static_cast<cudaError_t>(cuCtxPopCurrent(&context)));
  if (!call.empty()) {
    simOnCall(
        call.c_str(), SIM_BEFORE_CALL,
        [](void*) {
          if (pthread_equal(pthread_self(), program) == 0 || other.joinable()) return;
          other = std::thread([] { cuDevicePrimaryCtxRelease(1); });
          Sleep(20'000);  // who gives it up may wait for the call, but not for ever
        },
        nullptr);
  }
  printf("%d\n", Number(CreatePhysical(900 * kMiB, 1)));
  if (call.empty()) return;
  simOnCall(call.c_str(), SIM_BEFORE_CALL, nullptr, nullptr);
  printf("# met: %s\n", other.joinable() ? "yes" : "no");
  if (other.joinable()) other.join();
}

void WithoutContext() {
  FillAndFree();
  Need({"cuCtxCreate_v2", "cuCtxCreate_v4"});
  std::thread([] { printf("new context: %d\n", Number(NewContext())); }).join();
}

// Several threads run out of memory at the same time; all that they want fits.
void Threads() {
  FillAndFree();
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      MUST(cudaSetDevice(0));
      if (LoadModule(100 * kMiB) != CUDA_SUCCESS) ++failed;
      if (CreatePhysical(20 * kMiB) != CUDA_SUCCESS) ++failed;
    });
  }
  for (std::thread& thread : threads) thread.join();
  printf("failed: %d\n", failed.load());
}

}  // namespace

int main(int count, char** arguments) {
  const std::string scenario = count > 1 ? arguments[1] : "";
  MUST(cudaFree(nullptr));
  if (scenario == "ways") {
    for (const auto& [name, call] : Ways()) printf("%s\n", name.c_str());
    return 0;
  }
  const std::map<std::string, void (*)(char**)> scenarios = {
      {"room", [](char** more) { Room(more[0]); }},
      {"refused", [](char** more) { Refused(atoi(more[0])); }},
      {"enough", [](char**) { Enough(); }},
      {"in-vain", [](char**) { InVain(); }},
      {"elsewhere-in-vain", [](char**) { ElsewhereInVain(); }},
      {"exactly", [](char**) { Exactly(); }},
      {"in-hand", [](char**) { InHand(); }},
      {"freed-meanwhile", [](char**) { FreedMeanwhile(); }},
      {"beside-staying",
       [](char** more) {
         BesideStaying(more[0], atoi(more[1]) != 0, more[2] == nullptr ? "" : more[2]);
       }},
      {"beside-thread", [](char** more) { BesideAnotherThread(more[0], more[1]); }},
      {"options", [](char**) { Options(); }},
      {"impossible", [](char**) { Impossible(); }},
      {"impossible-shapes", [](char** more) { ImpossibleShapes(atoi(more[0]) != 0); }},
      {"graph-in-vain", [](char**) { GraphInVain(); }},
      {"own-reasons", [](char**) { OwnReasons(); }},
      {"reference-meanwhile", [](char**) { ReferenceMeanwhile(); }},
      {"during-capture", [](char** more) { DuringCapture(more[0], atoi(more[1])); }},
      {"into-captures", [](char**) { IntoCaptures(); }},
      {"devices", [](char**) { Devices(); }},
      {"graph-launches", [](char**) { GraphLaunches(); }},
      {"reference-during", [](char** more) { ReferenceDuring(more[0] == nullptr ? "" : more[0]); }},
      {"last-reference", [](char**) { LastReference(); }},
      {"without-context", [](char**) { WithoutContext(); }},
      {"threads", [](char**) { Threads(); }},
  };
  const auto found = scenarios.find(scenario);
  if (found == scenarios.end()) return 2;
  found->second(arguments + 2);
  program::SayHazards();
  return 0;
}
