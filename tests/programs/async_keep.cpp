// What stream-ordered pools keep. What they reserve of the device without the pool's view is told
// as notes: simUsedBytes.
#include <cuda.h>
#include <sys/wait.h>

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "helper.h"
#include "program.h"

namespace {

constexpr size_t kMiB = size_t{1} << 20;

void* AllocateAsync(size_t bytes, cudaStream_t stream) {
  void* pointer = nullptr;
  MUST(cudaMallocAsync(&pointer, bytes, stream));
  return pointer;
}

void Round(size_t bytes, cudaStream_t stream = nullptr, bool synchronise = true) {
  void* pointer = AllocateAsync(bytes, stream);
  program::LaunchWrite(stream, pointer, 64, 1, 1000);
  MUST(cudaFreeAsync(pointer, stream));
  if (synchronise) MUST(cudaStreamSynchronize(stream));
}

void RoundOf(cudaMemPool_t pool, size_t bytes) {
  void* pointer = nullptr;
  MUST(cudaMallocFromPoolAsync(&pointer, bytes, pool, nullptr));
  MUST(cudaFreeAsync(pointer, nullptr));
  MUST(cudaStreamSynchronize(nullptr));
}

cudaMemPool_t DefaultPool(int device = 0) {
  cudaMemPool_t pool = nullptr;
  MUST(cudaDeviceGetDefaultMemPool(&pool, device));
  return pool;
}

cudaMemPool_t MakePool(cudaMemAllocationHandleType handles = cudaMemHandleTypeNone,
                       size_t most = 0) {
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.handleTypes = handles;
  properties.maxSize = most;
  cudaMemPool_t pool = nullptr;
  MUST(cudaMemPoolCreate(&pool, &properties));
  return pool;
}

uint64_t Ask(cudaMemPool_t pool, cudaMemPoolAttr attribute) {
  uint64_t value = 0;
  MUST(cudaMemPoolGetAttribute(pool, attribute, &value));
  return value;
}

void SetThreshold(cudaMemPool_t pool, uint64_t bytes) {
  MUST(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &bytes));
}

size_t FreeMiB() {
  size_t free = 0;
  size_t total = 0;
  MUST(cudaMemGetInfo(&free, &total));
  return free / kMiB;
}

// What it says of itself.
void SayPool(const char* when, cudaMemPool_t pool) {
  printf("%s: threshold %llu, used %llu, reserved %llu, used at most %llu\n", when,
         static_cast<unsigned long long>(Ask(pool, cudaMemPoolAttrReleaseThreshold)),
         static_cast<unsigned long long>(Ask(pool, cudaMemPoolAttrUsedMemCurrent)),
         static_cast<unsigned long long>(Ask(pool, cudaMemPoolAttrReservedMemCurrent)),
         static_cast<unsigned long long>(Ask(pool, cudaMemPoolAttrUsedMemHigh)));
}

// MiB of the device that are really in use.
void Note(const char* what, int device = 0) {
  printf("# %s: %llu\n", what, static_cast<unsigned long long>(simUsedBytes(device) / kMiB));
}

void Rounds() {
  for (const size_t mib : {1, 64, 100}) {
    for (int i = 0; i < 5; ++i) Round(mib * kMiB);
    Note(("kept after " + std::to_string(mib)).c_str());
    SayPool("after rounds", DefaultPool());
  }
  printf("free %zu\n", FreeMiB());
  Note("asked");
  for (int i = 0; i < 5; ++i) Round(8 * kMiB, program::NonBlockingStream());
  Note("another stream");
  for (int i = 0; i < 5; ++i) Round(16 * kMiB, cudaStreamPerThread);
  Note("the thread's");
  void* block = AllocateAsync(4 * kMiB, nullptr);
  MUST(cudaFree(block));
  MUST(cudaDeviceSynchronize());
  Note("by cudaFree");
}

void Loop(int rounds) {
  for (int i = 0; i < rounds; ++i) Round(kMiB);
  printf("%d rounds\n", rounds);
}

void Calls() {
  const auto count = [] {
    return simCallCount("cuMemPoolGetAttribute") + simCallCount("cuMemPoolSetAttribute") +
           simCallCount("cuMemPoolTrimTo") + simCallCount("cuDeviceGetMemPool") +
           simCallCount("cuDeviceGetDefaultMemPool");
  };
  for (int i = 0; i < 20; ++i) {
    program::Warm(kMiB);
    FreeMiB();
    MUST(cudaDeviceSynchronize());
  }
  printf("# calls without: %llu\n", static_cast<unsigned long long>(count()));
  for (int i = 0; i < 1000; ++i) Round(kMiB);
  printf("# calls within: %llu\n", static_cast<unsigned long long>(count()));
}

void Programs() {
  const cudaMemPool_t own = MakePool();
  const cudaMemPool_t zero = MakePool();
  const cudaMemPool_t set = MakePool();
  SetThreshold(zero, 0);
  SetThreshold(set, 10 * kMiB);
  for (const auto& [name, pool] : std::map<std::string, cudaMemPool_t>{
           {"own", own},
           {"set to 0", zero},
           {"set to 10 MiB", set},
           {"shareable", MakePool(cudaMemHandleTypePosixFileDescriptor)},
           {"limited", MakePool(cudaMemHandleTypeNone, 512 * kMiB)}}) {
    for (int i = 0; i < 3; ++i) RoundOf(pool, 8 * kMiB);
    for (int i = 0; i < 3; ++i) RoundOf(pool, 16 * kMiB);
    Note(name.c_str());
    SayPool(name.c_str(), pool);
    MUST(cudaMemPoolTrimTo(pool, 0));
    Note((name + ", trimmed").c_str());
    RoundOf(pool, 8 * kMiB);
    MUST(cudaMemPoolDestroy(pool));
    Note((name + ", gone").c_str());
  }
  // One that is set afterwards.
  Round(32 * kMiB);
  Note("before it is set");
  SetThreshold(DefaultPool(), 4 * kMiB);
  printf("threshold %llu\n",
         static_cast<unsigned long long>(Ask(DefaultPool(), cudaMemPoolAttrReleaseThreshold)));
  Round(32 * kMiB);
  Note("set to 4 MiB");
}

// What it keeps is gone when the program sets what it may keep, or asks anew for the most.
void Sets() {
  for (const bool device : {false, true}) {
    for (const uint64_t threshold : {uint64_t{0}, uint64_t{100 * kMiB}}) {
      const cudaMemPool_t pool = MakePool();
      for (int i = 0; i < 2; ++i) RoundOf(pool, 32 * kMiB);
      Note("before it is set");
      SetThreshold(pool, threshold);
      if (device) {
        printf("free %zu\n", FreeMiB());
      } else {
        SayPool("set", pool);
      }
      Note("after it was set");
      MUST(cudaMemPoolDestroy(pool));
    }
  }
  const cudaMemPool_t pool = MakePool();
  for (int i = 0; i < 2; ++i) RoundOf(pool, 32 * kMiB);
  uint64_t none = 0;
  MUST(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReservedMemHigh, &none));
  printf("reserved at most %llu\n",
         static_cast<unsigned long long>(Ask(pool, cudaMemPoolAttrReservedMemHigh)));
  MUST(cudaMemPoolDestroy(pool));
}

// One that ends while something of it is in use keeps nothing else: nobody could give that back.
void InUse() {
  const cudaMemPool_t pool = MakePool();
  void* block = nullptr;
  MUST(cudaMallocFromPoolAsync(&block, 8 * kMiB, pool, nullptr));
  for (int i = 0; i < 2; ++i) RoundOf(pool, 32 * kMiB);
  Note("before");
  simOnCall(
      "cuMemPoolDestroy", SIM_BEFORE_CALL, [](void*) { Note("when it ends"); }, nullptr);
  MUST(cudaMemPoolDestroy(pool));
  simOnCall("cuMemPoolDestroy", SIM_BEFORE_CALL, nullptr, nullptr);
  MUST(cudaFreeAsync(block, nullptr));
  MUST(cudaDeviceSynchronize());
  Note("after");
}

// Streams of one device and the other, one after the other: handles are used again.
void Streams() {
  for (int i = 0; i < 3; ++i) {
    for (const int device : {0, 1}) {
      MUST(cudaSetDevice(device));
      cudaStream_t stream = nullptr;
      MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      Round((device + 1) * 8 * kMiB, stream);
      MUST(cudaStreamDestroy(stream));
    }
  }
  Note("first", 0);
  Note("second", 1);
  for (const int device : {0, 1}) {
    MUST(cudaSetDevice(device));
    printf("free %zu\n", FreeMiB());
    Note("asked", device);
  }
}

void Current() {
  const cudaMemPool_t own = MakePool();
  Round(8 * kMiB);
  Note("the default one");
  MUST(cudaDeviceSetMemPool(0, own));
  Round(16 * kMiB);
  Note("the other one");
  SayPool("the other one", own);
  MUST(cudaDeviceSetMemPool(0, DefaultPool()));
  MUST(cudaMemPoolDestroy(own));
  Note("without it");
}

void Reset() {
  const cudaMemPool_t own = MakePool();
  for (int i = 0; i < 3; ++i) {
    Round(8 * kMiB);
    RoundOf(own, 16 * kMiB);
    Note(("before reset " + std::to_string(i)).c_str());
    MUST(cudaDeviceReset());
    MUST(cudaSetDevice(0));
    Note(("after reset " + std::to_string(i)).c_str());
    printf("free %zu\n", FreeMiB());
  }
  SetThreshold(DefaultPool(), 4 * kMiB);
  Round(8 * kMiB);
  Note("set");
  SayPool("set", DefaultPool());
  // (That a reset leaves a program's own pool as it was is the simulated CUDA's.)
  SetThreshold(own, 4 * kMiB);
  MUST(cudaDeviceReset());
  MUST(cudaSetDevice(0));
  RoundOf(own, 8 * kMiB);
  Note("still set");
}

void Devices() {
  for (const int device : {0, 1}) {
    MUST(cudaSetDevice(device));
    for (int i = 0; i < 3; ++i) Round((device + 1) * 8 * kMiB);
    Note(("device " + std::to_string(device)).c_str(), device);
  }
  printf("free of the second %zu\n", FreeMiB());
  Note("first", 0);
  Note("second", 1);
  // A stream of another device than the current one.
  cudaStream_t stream = nullptr;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  MUST(cudaSetDevice(0));
  Round(4 * kMiB, stream);
  Note("by a stream of the second", 1);
}

// Fills the device and frees: other calls find room.
void Full() {
  const std::map<std::string, std::function<int()>> calls = {
      {"cudaMalloc",
       [] {
         void* pointer = nullptr;
         const cudaError_t result = cudaMalloc(&pointer, 900 * kMiB);
         cudaFree(pointer);
         return static_cast<int>(result);
       }},
      {"cuMemCreate",
       [] {
         CUmemAllocationProp properties = {};
         properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
         properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
         CUmemGenericAllocationHandle handle = 0;
         const CUresult result = cuMemCreate(&handle, 900 * kMiB, &properties, 0);
         if (result == CUDA_SUCCESS) cuMemRelease(handle);
         return static_cast<int>(result);
       }},
      {"from another pool",
       [] {
         const cudaMemPool_t pool = MakePool();
         void* pointer = nullptr;
         const cudaError_t result = cudaMallocFromPoolAsync(&pointer, 900 * kMiB, pool, nullptr);
         if (result == cudaSuccess) MUST(cudaFreeAsync(pointer, nullptr));
         MUST(cudaDeviceSynchronize());
         MUST(cudaMemPoolDestroy(pool));
         return static_cast<int>(result);
       }},
      {"cudaStreamCreate", [] {
         simNeed("cuStreamCreate", 700 * kMiB, 2);
         cudaStream_t stream = nullptr;
         const cudaError_t result = cudaStreamCreate(&stream);
         simFailNever();
         return static_cast<int>(result);
       }}};
  for (const auto& [name, call] : calls) {
    // Of several sizes, and all of them in use at once: so it is the most that was in use.
    std::vector<void*> blocks;
    for (int i = 0; i < 6; ++i) blocks.push_back(AllocateAsync(100 * kMiB, nullptr));
    for (void* block : blocks) MUST(cudaFreeAsync(block, nullptr));
    MUST(cudaDeviceSynchronize());
    Note(("before " + name).c_str());
    printf("%s: %d\n", name.c_str(), call());
    MUST(cudaDeviceSynchronize());
  }
  void* pointer = nullptr;
  program::Say("more than there is", cudaMallocAsync(&pointer, 2048 * kMiB, nullptr));
  printf("last error %d\n", static_cast<int>(cudaGetLastError()));
}

// While little is free nothing is kept.
void Scarce() {
  void* large = program::Allocate(960 * kMiB);
  for (int i = 0; i < 3; ++i) Round(8 * kMiB);
  Note("kept");
  MUST(cudaFree(large));
  MUST(cudaDeviceSynchronize());
  FreeMiB();
}

void Managed() {
  for (int i = 0; i < 3; ++i) Round(8 * kMiB);
  Note("before");
  void* managed = nullptr;
  MUST(cudaMallocManaged(&managed, 1000 * kMiB, cudaMemAttachGlobal));
  Note("beside");
  for (int i = 0; i < 3; ++i) Round(100 * kMiB);
  Note("kept beside");
  MUST(cudaFree(managed));
}

void Ages(int milliseconds, const std::string& way) {
  if (way == "part") {  // a part of what was used once is used on
    std::vector<void*> blocks;
    for (int i = 0; i < 10; ++i) blocks.push_back(AllocateAsync(16 * kMiB, nullptr));
    for (void* block : blocks) MUST(cudaFreeAsync(block, nullptr));
    MUST(cudaDeviceSynchronize());
  }
  Round(16 * kMiB);
  Note("idle");
  if (way == "sleeps") {
    program::LetTimePass(milliseconds);
  } else {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    while (std::chrono::steady_clock::now() < end) {
      Round(16 * kMiB);
      program::LetTimePass(1);
    }
  }
  Note("aged");
  Round(16 * kMiB);
  SayPool("then", DefaultPool());
}

void Captures() {
  const cudaStream_t stream = program::NonBlockingStream();
  const cudaStream_t other = program::NonBlockingStream();
  char* block = program::Allocate(64);
  for (const cudaStreamCaptureMode mode :
       {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
        cudaStreamCaptureModeRelaxed}) {
    MUST(cudaStreamBeginCapture(stream, mode));
    program::LaunchWrite(stream, block, 64, 1, 1000);
    // By another thread, which may.
    std::thread([&] {
      cudaStreamCaptureMode relaxed = cudaStreamCaptureModeRelaxed;
      MUST(cudaThreadExchangeStreamCaptureMode(&relaxed));
      Round(100 * kMiB, other, false);
      Round(100 * kMiB, other, false);
    }).join();
    printf("free %s\n", FreeMiB() > 0 ? "told" : "none");
    cudaGraph_t graph = nullptr;
    program::Say("end of the capture", cudaStreamEndCapture(stream, &graph));
    MUST(cudaDeviceSynchronize());
    MUST(cudaGraphDestroy(graph));
    Round(100 * kMiB, other);
    Note("kept");
  }
}

void Threads(int milliseconds) {
  const cudaMemPool_t own = MakePool();
  std::vector<std::thread> threads;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([=] {
      program::Random random(static_cast<uint64_t>(i) + 1);
      const cudaStream_t stream = program::NonBlockingStream();
      while (std::chrono::steady_clock::now() < end) {
        switch (random.Below(12)) {
          case 0:
            RoundOf(own, (1 + random.Below(40)) * kMiB);
            break;
          case 1: {
            const cudaMemPool_t pool = MakePool();
            RoundOf(pool, (1 + random.Below(40)) * kMiB);
            MUST(cudaMemPoolDestroy(pool));
            break;
          }
          case 2:
            if (Ask(own, cudaMemPoolAttrReleaseThreshold) != 0) printf("a threshold\n");
            break;
          case 3:
            FreeMiB();
            break;
          case 4:
            MUST(cudaMemPoolTrimTo(own, 0));
            break;
          default:
            Round((1 + random.Below(40)) * kMiB, stream);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// 80 MiB in use at most, of two sizes in turn.
void Sizes() {
  for (int i = 0; i < 20; ++i) {
    void* blocks[] = {AllocateAsync(40 * kMiB, nullptr), AllocateAsync(40 * kMiB, nullptr)};
    for (void* block : blocks) MUST(cudaFreeAsync(block, nullptr));
    MUST(cudaDeviceSynchronize());
    Round(60 * kMiB);
    Round(20 * kMiB);
  }
  Note("kept");
}

// The program sets a threshold at the moment at which the shim would.
void Race() {
  program::Helper helper;
  program::AtPlace at{std::this_thread::get_id(), helper,
                      [] { SetThreshold(DefaultPool(), 4 * kMiB); }, false};
  simOnCall("cuMemPoolGetAttribute", SIM_AFTER_CALL, &program::AtPlace::Called, &at);
  Round(32 * kMiB);
  helper.Wait();
  simOnCall("cuMemPoolGetAttribute", SIM_AFTER_CALL, nullptr, nullptr);
  if (!at.done) SetThreshold(DefaultPool(), 4 * kMiB);  // nobody asked
  Round(32 * kMiB);
  Note("kept");
  SayPool("set by another thread", DefaultPool());
}

// Another thread asks what is free while the shim's looks after the pools.
void Ticks() {
  program::Helper helper;
  const auto ask = [] { printf("free %zu\n", FreeMiB()); };
  struct Place {
    std::thread::id program;
    std::function<void()> task;
    std::atomic<bool> done;
  } place{std::this_thread::get_id(), [&] { helper.Do(ask); }, {false}};
  const auto called = [](void* data) {
    auto* at = static_cast<Place*>(data);
    const bool is_program = std::this_thread::get_id() == at->program;
    if (!is_program && !at->done.exchange(true)) at->task();
  };
  Round(32 * kMiB);
  Note("kept");
  simOnCall("cuMemPoolGetAttribute", SIM_BEFORE_CALL, called, &place);
  for (int i = 0; i < 100 && !place.done; ++i) program::LetTimePass(10);
  if (!place.done.exchange(true)) place.task();  // there is no such thread
  helper.Wait();
  simOnCall("cuMemPoolGetAttribute", SIM_BEFORE_CALL, nullptr, nullptr);
  Note("asked");
}

// The driver's own functions, by their symbols.
void DriverCalls() {
  CUmemoryPool pool = nullptr;
  CUstream stream = nullptr;
  cuDeviceGetDefaultMemPool(&pool, 0);
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  CUdeviceptr block = 0;
  for (int i = 0; i < 4; ++i) {
    printf("%d", cuMemAllocFromPoolAsync(&block, 8 * kMiB, pool, stream));
    printf("%d", cuMemFreeAsync(block, stream));
    printf("%d\n", cuStreamSynchronize(stream));
    Note("from the pool");
    printf("%d", cuMemAllocAsync(&block, 16 * kMiB, stream));
    printf("%d", cuMemFreeAsync(block, stream));
    printf("%d\n", cuCtxSynchronize());
    Note("from the current one");
    cuuint64_t value = 1;
    cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &value);
    printf("threshold %llu\n", static_cast<unsigned long long>(value));
    size_t free = 0;
    size_t total = 0;
    cuMemGetInfo(&free, &total);
    printf("free %zu\n", free / kMiB);
    Note("asked");
  }
  cuuint64_t value = 1 << 20;
  cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &value);
  printf("%d %d\n", cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, nullptr),
         cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, nullptr));
  printf("%d\n", cuMemPoolDestroy(pool));
  cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &value);
  printf("threshold %llu\n", static_cast<unsigned long long>(value));
}

// The shim steps aside.
void Aside() {
  Round(8 * kMiB);
  Note("before");
  CUcontext context = nullptr;
  printf("%d\n", cuCtxFromGreenCtx(&context, nullptr));
  for (int i = 0; i < 20; ++i) Round(8 * kMiB);
  Note("aside");
  SayPool("aside", DefaultPool());
}

// Another thread begins a capture at the moment at which the shim asks about a pool.
void Begins() {
  const cudaStream_t stream = program::NonBlockingStream();
  program::Helper helper;
  program::AtPlace at{std::this_thread::get_id(), helper,
                      [=] { MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal)); },
                      false};
  simOnCall("cuMemPoolGetAttribute", SIM_BEFORE_CALL, &program::AtPlace::Called, &at);
  const cudaStream_t other = program::NonBlockingStream();
  void* block = AllocateAsync(8 * kMiB, other);
  helper.Wait();
  simOnCall("cuMemPoolGetAttribute", SIM_BEFORE_CALL, nullptr, nullptr);
  printf("# began: %d\n", at.done ? 1 : 0);
  helper.Do([=, done = at.done] {
    if (!done) MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    cudaGraph_t graph = nullptr;
    program::Say("end of the capture", cudaStreamEndCapture(stream, &graph));
    if (graph != nullptr) MUST(cudaGraphDestroy(graph));
  });
  helper.Wait();
  MUST(cudaFreeAsync(block, other));
  MUST(cudaDeviceSynchronize());
}

int Ends(const std::string& way) {
  Round(64 * kMiB);
  if (way == "fork") {
    const pid_t child = fork();
    if (child == 0) {
      void* pointer = nullptr;
      _exit(cudaMallocAsync(&pointer, 100, nullptr) == cudaSuccess ? 1 : 4);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
  } else if (way == "exit") {
    atexit([] {
      void* pointer = nullptr;
      cudaMallocAsync(&pointer, 100, nullptr);
    });
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  const std::string scenario = arguments[1];
  const std::string more = count > 2 ? arguments[2] : "";
  int code = 0;
  MUST(cudaSetDevice(0));
  if (scenario == "loop") {
    Loop(atoi(more.c_str()));
  } else if (scenario == "ages") {
    Ages(atoi(more.c_str()), count > 3 ? arguments[3] : "sleeps");
  } else if (scenario == "threads") {
    Threads(atoi(more.c_str()));
  } else if (scenario == "ends") {
    code = Ends(more);
  } else {
    const std::map<std::string, void (*)()> scenarios = {
        {"rounds", Rounds},      {"sizes", Sizes},       {"calls", Calls},
        {"programs", Programs},  {"current", Current},   {"reset", Reset},
        {"devices", Devices},    {"full", Full},         {"scarce", Scarce},
        {"managed", Managed},    {"captures", Captures}, {"race", Race},
        {"driver", DriverCalls}, {"aside", Aside},       {"begins", Begins},
        {"sets", Sets},          {"streams", Streams},   {"ticks", Ticks},
        {"in_use", InUse}};
    const auto found = scenarios.find(scenario);
    if (found == scenarios.end()) return 2;
    found->second();
  }
  program::SayHazards();
  return code;
}
