// Contexts that come and go: resets, several devices, the driver's own contexts, threads.
#include <set>
#include <thread>
#include <vector>

#include "create_context.h"
#include "program.h"

using program::Allocate;
using program::Say;

namespace {

constexpr size_t kSizes[] = {256, 5000, size_t{1} << 20, size_t{5} << 20};

// Work as a program would do it: every block written and checked.
void NormalWork(const char* when) {
  static std::atomic<uint64_t> wrong{0};
  const cudaStream_t stream = program::NonBlockingStream();
  for (int round = 0; round < 5; ++round) {
    std::vector<std::pair<char*, size_t>> blocks;
    for (const size_t bytes : kSizes) {
      for (int i = 0; i < 4; ++i) {
        blocks.push_back({Allocate(bytes), bytes});
        simNoteAlloc(blocks.back().first, bytes);
        program::LaunchWrite(stream, blocks.back().first, bytes, bytes + i, 1000);
      }
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      const auto [pointer, bytes] = blocks[i];
      program::LaunchCheck(stream, pointer, bytes, bytes + i % 4, &wrong, 1000);
      simNoteFree(pointer);
      MUST(cudaFree(pointer));
    }
  }
  MUST(cudaStreamDestroy(stream));
  printf("%s: wrong words %llu, last error %d\n", when, static_cast<unsigned long long>(wrong),
         static_cast<int>(cudaPeekAtLastError()));
}

void Reset() {
  NormalWork("before");
  std::vector<char*> stale;
  for (const size_t bytes : kSizes) {
    stale.push_back(Allocate(bytes));
    stale.push_back(Allocate(bytes));
    MUST(cudaFree(stale.back()));
  }
  // Another thread has a cache from before the reset and uses it after.
  std::atomic<int> step{0};
  std::thread other([&] {
    NormalWork("other thread, before");
    step = 1;
    while (step != 2) std::this_thread::yield();
    NormalWork("other thread, after");
  });
  while (step != 1) std::this_thread::yield();
  Say("reset", cudaDeviceReset());
  for (char* pointer : stale) {
    Say("stale free", cudaFree(pointer));
    Say("stale free again", cudaFree(pointer));
    cudaGetLastError();
  }
  step = 2;
  other.join();
  NormalWork("after");
  program::NoteServed("after the reset", 5000);
  for (int i = 0; i < 5; ++i) {
    Say("reset", cudaDeviceReset());
    NormalWork("after");
  }
  program::NoteServed("after many resets", 5000);
  Say("last reset", cudaDeviceReset());
  printf("live %llu\n", static_cast<unsigned long long>(simLiveAllocations(0)));
}

int DeviceOf(const void* pointer) {
  cudaPointerAttributes attributes = {};
  MUST(cudaPointerGetAttributes(&attributes, pointer));
  return attributes.device;
}

void CheckDevice(const char* what, void* pointer, int device) {
  if (DeviceOf(pointer) != device) printf("%s is on device %d\n", what, DeviceOf(pointer));
}

void Devices() {
  for (int round = 0; round < 20; ++round) {
    for (const size_t bytes : kSizes) {
      MUST(cudaSetDevice(0));
      char* first = Allocate(bytes);
      MUST(cudaSetDevice(1));
      char* second = Allocate(bytes);
      CheckDevice("first", first, 0);
      CheckDevice("second", second, 1);
      // Each is freed under the other's device, from this thread and another.
      MUST(cudaFree(first));
      std::thread([&] {
        MUST(cudaSetDevice(0));
        MUST(cudaFree(second));
        char* third = Allocate(bytes);
        CheckDevice("third", third, 0);
        MUST(cudaFree(third));
      }).join();
    }
  }
  // The free waits for the block's own device, whichever is current.
  for (int owner = 0; owner < 2; ++owner) {
    MUST(cudaSetDevice(owner));
    char* block = Allocate(4096);
    SimWork work = {};
    work.duration_ns = 1000000;
    MUST(program::Launch(program::NonBlockingStream(), work));
    MUST(cudaSetDevice(1 - owner));
    MUST(cudaFree(block));
    printf("after the free: pending %zu\n", simPendingCount(nullptr));
  }
  MUST(cudaSetDevice(0));
  NormalWork("device 0");
  program::NoteServed("device 0", 5000);
  MUST(cudaSetDevice(1));
  NormalWork("device 1");
  program::NoteServed("device 1", 5000);
  // A reset of one device leaves the other's blocks alone.
  char* kept = Allocate(5000);
  MUST(cudaSetDevice(0));
  char* gone = Allocate(5000);
  Say("reset of device 0", cudaDeviceReset());
  Say("free of what is gone", cudaFree(gone));
  cudaGetLastError();
  Say("free of what was kept", cudaFree(kept));
  MUST(cudaSetDevice(1));
  program::NoteServed("device 1 after the reset of device 0", 5000);
  printf("last error %d\n", static_cast<int>(cudaPeekAtLastError()));
}

// Short-lived threads: what one frees the next gets.
void Threads() {
  program::Warm(5000, 16);
  for (int i = 0; i < 200; ++i) {
    std::thread([] {
      std::vector<char*> blocks;
      for (int j = 0; j < 8; ++j) blocks.push_back(Allocate(5000));
      for (char* block : blocks) MUST(cudaFree(block));
    }).join();
  }
  printf("done, last error %d\n", static_cast<int>(cudaPeekAtLastError()));
  printf("# real %llu\n", static_cast<unsigned long long>(program::RealAllocations()));
}

void MustDriver(CUresult result, const char* what, const char* file = __builtin_FILE(),
                int line = __builtin_LINE()) {
  program::Must(static_cast<cudaError_t>(result), what, file, line);
}

CUcontext MakeContext() {
  CUcontext context = nullptr;
  MustDriver(CreateContext(&context), "cuCtxCreate");
  return context;
}

// Contexts made by the driver API are current while the runtime's calls are used.
void DriverContexts() {
  MustDriver(cuInit(0), "cuInit");
  for (int round = 0; round < 5; ++round) {
    const CUcontext context = MakeContext();
    NormalWork("own context");
    program::NoteServed("own context", 5000);
    char* stale = Allocate(5000);
    char* freed = Allocate(5000);
    char* elsewhere = Allocate(5000);
    MUST(cudaFree(freed));
    CUcontext popped = nullptr;
    MustDriver(cuCtxPopCurrent(&popped), "cuCtxPopCurrent");
    MUST(cudaSetDevice(0));
    NormalWork("primary context");
    Say("free of the other context's block", cudaFree(elsewhere));
    MustDriver(cuCtxDestroy(context), "cuCtxDestroy");
    Say("stale free", cudaFree(stale));
    Say("stale double free", cudaFree(freed));
    cudaGetLastError();
    program::NoteServed("primary context", 5000);
    MustDriver(cuCtxSetCurrent(nullptr), "cuCtxSetCurrent");
  }
  MUST(cudaSetDevice(0));
  NormalWork("primary context");
  Say("reset", cudaDeviceReset());
  printf("live %llu\n", static_cast<unsigned long long>(simLiveAllocations(0)));
}

// A context that ends with its last detach, without a cuCtxDestroy.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
void Detached() {
  constexpr size_t kLarge = size_t{32} << 20;
  static std::atomic<uint64_t> wrong{0};
  MustDriver(cuInit(0), "cuInit");
  MUST(cudaFree(nullptr));
  CUcontext primary = nullptr;
  MustDriver(cuCtxGetCurrent(&primary), "cuCtxGetCurrent");
  for (int round = 0; round < 3; ++round) {
    const CUcontext context = MakeContext();
    CUcontext attached = nullptr;
    MustDriver(cuCtxAttach(&attached, 0), "cuCtxAttach");
    NormalWork("own context");
    char* stale = Allocate(5000);
    char* freed = Allocate(5000);
    MUST(cudaFree(freed));
    program::Warm(kLarge);  // idle in a context that is about to end
    printf("detach %d\n", static_cast<int>(cuCtxDetach(context)));
    NormalWork("still there");
    printf("last detach %d\n", static_cast<int>(cuCtxDetach(context)));
    MustDriver(cuCtxSetCurrent(primary), "cuCtxSetCurrent");
    Say("stale free", cudaFree(stale));
    Say("stale double free", cudaFree(freed));
    cudaGetLastError();
    NormalWork("primary context");
    // The same addresses again; and a request that makes the pool give up what is idle.
    std::vector<char*> blocks;
    for (int i = 0; i < 8; ++i) blocks.push_back(Allocate(kLarge));
    const cudaStream_t stream = program::NonBlockingStream();
    for (char* block : blocks) {
      simNoteAlloc(block, kLarge);
      program::LaunchWrite(stream, block, kLarge, 7, 1000);
    }
    void* impossible = nullptr;
    Say("too much", cudaMalloc(&impossible, size_t{1} << 40));
    Say("too much for the device", cudaMalloc(&impossible, size_t{900} << 20));
    cudaGetLastError();
    for (char* block : blocks) {
      program::LaunchCheck(stream, block, kLarge, 7, &wrong, 1000);
      simNoteFree(block);
      Say("free", cudaFree(block));
    }
    MUST(cudaStreamDestroy(stream));
  }
  program::Warm(5000);
  program::NoteServed("primary context", 5000);
  printf("wrong words %llu\n", static_cast<unsigned long long>(wrong));
}
CUresult Detach(CUcontext context) { return cuCtxDetach(context); }
#pragma GCC diagnostic pop

// A context is destroyed while threads have caches of it, and the next one has its handle.
void SameHandle() {
  MustDriver(cuInit(0), "cuInit");
  int reused = 0;
  CUcontext last = nullptr;
  for (int round = 0; round < 20; ++round) {
    const CUcontext context = MakeContext();
    if (context == last) ++reused;
    last = context;
    NormalWork("context");
    MustDriver(cuCtxDestroy(context), "cuCtxDestroy");
  }
  printf("# handles reused %d\n", reused);
  printf("live %llu\n", static_cast<unsigned long long>(simLiveAllocations(0)));
}

// Contexts one after the other, `at_once` of them at a time, each with work and frees behind it. In
// the first rounds the process is warmed up.
void Many(int rounds, int at_once) {
  MustDriver(cuInit(0), "cuInit");
  static std::atomic<uint64_t> wrong{0};
  size_t warm = 0;
  std::vector<CUcontext> contexts;
  for (int round = -rounds / 4; round < rounds; ++round) {
    if (round == 0) warm = program::AnonymousBytes();
    for (int i = 0; i < at_once; ++i) {
      contexts.push_back(MakeContext());
      CUstream stream = nullptr;
      MustDriver(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
      for (int j = 0; j < 3; ++j) {
        char* block = Allocate(5000);
        program::LaunchWrite(stream, block, 5000, 3, 1000);
        program::LaunchCheck(stream, block, 5000, 3, &wrong, 1000);
        MUST(cudaFree(block));
      }
      MUST(cudaFree(Allocate(3 << 20)));
      MustDriver(cuCtxPopCurrent(nullptr), "cuCtxPopCurrent");
    }
    for (const CUcontext context : contexts) MustDriver(cuCtxDestroy(context), "cuCtxDestroy");
    contexts.clear();
  }
  printf("wrong words %llu\n", static_cast<unsigned long long>(wrong));
  printf("# grew by: %lld\n", static_cast<long long>(program::AnonymousBytes() - warm));
  printf("live %llu\n", static_cast<unsigned long long>(simLiveAllocations(0)));
}

// A context in which nothing was allocated is destroyed while one of its streams captures.
void AbandonedCapture() {
  program::Warm(5000);
  CUcontext primary = nullptr;
  MustDriver(cuCtxGetCurrent(&primary), "cuCtxGetCurrent");
  const CUcontext context = MakeContext();
  CUstream stream = nullptr;
  MustDriver(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
  printf("begin %d\n",
         static_cast<int>(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED)));
  printf("destroy %d\n", static_cast<int>(cuCtxDestroy(context)));
  MustDriver(cuCtxSetCurrent(primary), "cuCtxSetCurrent");
  program::NoteServed("afterwards", 5000);
}

// A block made during a capture goes with a reset, and other calls get its address.
void ResetAfterCapture() {
  constexpr size_t kMiB = size_t{1} << 20;
  program::Warm(1000);
  const cudaStream_t stream = program::NonBlockingStream();
  cudaGraph_t graph = nullptr;
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  void* const stale = Allocate(3 * kMiB);
  MUST(cudaStreamEndCapture(stream, &graph));
  MUST(cudaDeviceReset());
  bool met = false;
  for (size_t i = 0; i < 64 && !met; ++i) {
    void* pointer = nullptr;
    size_t pitch = 0;
    MUST(cudaMallocPitch(&pointer, &pitch, 8 << 10, (1 << 10) + i));
    met = pointer == stale;
    for (const size_t offset : {size_t{0}, 2 * kMiB, 5 * kMiB}) {
      const auto address = reinterpret_cast<CUdeviceptr>(pointer);
      CUdeviceptr base = 0;
      size_t bytes = 0;
      const CUresult result = cuMemGetAddressRange(&base, &bytes, address + offset);
      if (result != CUDA_SUCCESS || base != address || bytes < 8 * kMiB) {
        printf("range at %zu: %d, %s, %zu bytes\n", offset, static_cast<int>(result),
               base == address ? "same base" : "another base", bytes);
      }
    }
  }
  printf("# met: %s\n", met ? "yes" : "no");
  program::NoteServed("after the reset", 5000);
}

// While one thread ends a context, another one works in its own, whose memory the driver puts where
// idle blocks of the dying context were. `how`: of all ways to end it.
struct OtherThread {
  CUcontext context = nullptr;
  std::set<CUdeviceptr> dead;  // addresses of idle blocks of the context that ends
  CUstream stream = nullptr;
  CUdeviceptr memory = 0;

  void Work() {
    cuCtxSetCurrent(context);
    cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    for (int i = 0; i < 8 && dead.count(memory) == 0; ++i) {
      cuMemAllocAsync(&memory, 4 << 20, stream);
    }
    cuStreamSynchronize(stream);
    printf("# at the address of a dead block: %s\n", dead.count(memory) != 0 ? "yes" : "no");
    unsigned type = 0;
    const CUresult result = cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory);
    printf("its attribute: %d, %u\n", static_cast<int>(result), type);
    CUdeviceptr too_much = 0;
    printf("too much: %d\n", static_cast<int>(cuMemAlloc(&too_much, size_t{1} << 30)));
    const CUresult set = cuMemsetD8Async(memory, 1, 4 << 20, stream);
    printf("use: %d, %d\n", static_cast<int>(set), static_cast<int>(cuStreamSynchronize(stream)));
    printf("its free: %d\n", static_cast<int>(cuMemFreeAsync(memory, stream)));
    cuStreamSynchronize(stream);
  }
};

void EndBeside(const char* how) {
  static OtherThread other;
  cuInit(0);
  CUdeviceptr block = 0;
  other.context = MakeContext();
  cuMemAlloc(&block, 1 << 20);
  cuMemFree(block);
  CUcontext ending = nullptr;
  const bool primary = strcmp(how, "release") == 0 || strcmp(how, "reset") == 0;
  if (primary) {
    cuDevicePrimaryCtxRetain(&ending, 0);
    cuCtxSetCurrent(ending);
  } else {
    ending = MakeContext();
  }
  for (int i = 0; i < 4; ++i) {
    cuMemAlloc(&block, 4 << 20);
    other.dead.insert(block);
    cuMemFree(block);
  }
  const auto beside = [](void*) { std::thread([] { other.Work(); }).join(); };
  if (strcmp(how, "release") == 0) {
    simOnCall("cuDevicePrimaryCtxRelease_v2", SIM_AFTER_CALL, beside, nullptr);
    printf("end: %d\n", static_cast<int>(cuDevicePrimaryCtxRelease(0)));
  } else if (strcmp(how, "reset") == 0) {
    simOnCall("cuDevicePrimaryCtxReset_v2", SIM_AFTER_CALL, beside, nullptr);
    printf("end: %d\n", static_cast<int>(cuDevicePrimaryCtxReset(0)));
  } else if (strcmp(how, "detach") == 0) {
    simOnCall("cuCtxDetach", SIM_AFTER_CALL, beside, nullptr);
    printf("end: %d\n", static_cast<int>(Detach(ending)));
  } else {
    simOnCall("cuCtxDestroy_v2", SIM_AFTER_CALL, beside, nullptr);
    printf("end: %d\n", static_cast<int>(cuCtxDestroy(ending)));
  }
  printf("used: %llu\n", static_cast<unsigned long long>(simUsedBytes(0) >> 21));
}

// While one thread ends the primary context, another one, which has idle blocks of it, makes the
// device's next one, of the same handle, and allocates there.
struct NextUser {
  static constexpr size_t kBytes[] = {4096, size_t{3} << 19, size_t{4} << 20};

  std::atomic<int> step{0};
  CUcontext first = nullptr;

  void Await(int wanted) const {
    while (step != wanted) std::this_thread::yield();
  }
  static CUcontext Retain() {
    CUcontext context = nullptr;
    MustDriver(cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
    MustDriver(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    return context;
  }
  void Run() {
    first = Retain();
    for (const size_t bytes : kBytes) {
      CUdeviceptr blocks[4];
      for (CUdeviceptr& block : blocks) MustDriver(cuMemAlloc(&block, bytes), "cuMemAlloc");
      for (const CUdeviceptr block : blocks) MustDriver(cuMemFree(block), "cuMemFree");
    }
    MustDriver(cuDevicePrimaryCtxRelease(0), "cuDevicePrimaryCtxRelease");
    step = 1;
    Await(2);
    printf("# the same handle: %s\n", Retain() == first ? "yes" : "no");
    for (const size_t bytes : kBytes) {
      CUdeviceptr block = 0;
      MustDriver(cuMemAlloc(&block, bytes), "cuMemAlloc");
      printf("use: %d\n", static_cast<int>(cuMemsetD8(block, 1, bytes)));
      printf("free: %d\n", static_cast<int>(cuMemFree(block)));
    }
    step = 3;
  }
};

void MadeAgainBeside(const char* how) {
  static NextUser next;
  cuInit(0);
  NextUser::Retain();
  std::thread other([] { next.Run(); });
  next.Await(1);
  const auto beside = [](void*) {
    if (next.step != 1) return;  // a release of the pool's own
    next.step = 2;
    next.Await(3);
  };
  const bool release = strcmp(how, "release") == 0;
  simOnCall(release ? "cuDevicePrimaryCtxRelease_v2" : "cuDevicePrimaryCtxReset_v2", SIM_AFTER_CALL,
            beside, nullptr);
  printf("end: %d\n",
         static_cast<int>(release ? cuDevicePrimaryCtxRelease(0) : cuDevicePrimaryCtxReset(0)));
  other.join();
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  if (strcmp(scenario, "reset") == 0) {
    Reset();
  } else if (strcmp(scenario, "devices") == 0) {
    Devices();
  } else if (strcmp(scenario, "threads") == 0) {
    Threads();
  } else if (strcmp(scenario, "driver") == 0) {
    DriverContexts();
  } else if (strcmp(scenario, "detached") == 0) {
    Detached();
  } else if (strcmp(scenario, "same-handle") == 0) {
    SameHandle();
  } else if (strcmp(scenario, "many") == 0) {
    Many(atoi(arguments[2]), atoi(arguments[3]));
  } else if (strcmp(scenario, "abandoned-capture") == 0) {
    AbandonedCapture();
  } else if (strcmp(scenario, "reset-after-capture") == 0) {
    ResetAfterCapture();
  } else if (strcmp(scenario, "end-beside") == 0) {
    EndBeside(arguments[2]);
  } else if (strcmp(scenario, "made-again-beside") == 0) {
    MadeAgainBeside(arguments[2]);
  } else if (strcmp(scenario, "work") == 0) {
    NormalWork("work");
    program::NoteServed("work", 5000);
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
