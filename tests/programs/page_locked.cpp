// Page-locked memory of the host: page_locked PART [WAY]. WAY: which calls allocate and free it.
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <thread>
#include <vector>

#include "create_context.h"
#include "program.h"

namespace {

const char* g_way = "runtime";
unsigned g_flags = 0;

int Alloc(void** pointer, size_t bytes) {
  if (strcmp(g_way, "driver") == 0) return cuMemHostAlloc(pointer, bytes, g_flags);
  if (strcmp(g_way, "allochost") == 0) return cuMemAllocHost(pointer, bytes);
  if (strcmp(g_way, "flags") == 0) return cudaHostAlloc(pointer, bytes, g_flags);
  return cudaMallocHost(pointer, bytes);
}
int Free(void* pointer) {
  return g_way[0] == 'd' || g_way[0] == 'a' ? int{cuMemFreeHost(pointer)}
                                            : int{cudaFreeHost(pointer)};
}

char* Host(size_t bytes) {
  void* pointer = nullptr;
  const int status = Alloc(&pointer, bytes);
  if (status != 0) {
    printf("no page-locked memory: %d\n", status);
    fflush(stdout);
    _Exit(3);
  }
  simNoteAlloc(pointer, bytes);
  return static_cast<char*>(pointer);
}
void FreeHost(void* pointer) {
  simNoteFree(pointer);
  const int status = Free(pointer);
  if (status != 0) printf("free: %d\n", status);
}

uint64_t RealAllocs() { return simCallCount("cuMemHostAlloc") + simCallCount("cuMemAllocHost_v2"); }
uint64_t RealFreeHosts() { return simCallCount("cuMemFreeHost"); }

void Fill(char* pointer, size_t bytes, uint64_t seed) {
  program::ForEdges(pointer, bytes,
                    [&](size_t i, uint64_t& word) { word = program::Mix(seed + i); });
}
uint64_t Wrong(char* pointer, size_t bytes, uint64_t seed) {
  uint64_t wrong = 0;
  program::ForEdges(pointer, bytes, [&](size_t i, uint64_t& word) {
    wrong += word != program::Mix(seed + i) ? 1 : 0;
  });
  return wrong;
}

// A kernel that does nothing, for so long.
void Busy(cudaStream_t stream, uint64_t nanoseconds) {
  SimWork work = {};
  work.duration_ns = nanoseconds;
  MUST(program::Launch(stream, work));
}

constexpr uint64_t kLong = 50'000'000;
constexpr size_t kBytes = 256 << 10;

// ---- Parts

void Pairs() {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{5000}, size_t{1} << 20,
                             (size_t{2} << 20) + 1, size_t{16} << 20, size_t{64} << 20}) {
    uint64_t wrong = 0;
    const uint64_t before = RealAllocs();
    for (int i = 0; i < 20; ++i) {
      char* one = Host(bytes);
      char* other = Host(bytes);
      Fill(one, bytes, bytes);
      Fill(other, bytes, bytes + 1);
      wrong += Wrong(one, bytes, bytes) + Wrong(other, bytes, bytes + 1);
      FreeHost(one);
      FreeHost(other);
    }
    printf("%zu bytes: wrong %llu\n", bytes, static_cast<unsigned long long>(wrong));
    printf("# real of 40 at %zu: %llu\n", bytes,
           static_cast<unsigned long long>(RealAllocs() - before));
  }
  void* pointer = &pointer;
  printf("nothing: %d", Alloc(&pointer, 0));
  printf(", %s\n", pointer == nullptr ? "null" : "something");
  printf("nowhere: %d\n", Alloc(nullptr, 16));
  pointer = &pointer;
  printf("too much: %d\n", Alloc(&pointer, size_t{1} << 50) != 0);
  printf("free nothing: %d\n", Free(nullptr));
  printf("last error %d\n", static_cast<int>(cudaGetLastError()));
}

// Copies of both directions are pending when their buffer is freed, and the next owner writes it.
void Copies() {
  char* device = program::Allocate(kBytes);
  cudaStream_t stream = program::NonBlockingStream();
  std::atomic<uint64_t> wrong{0};
  for (uint64_t round = 1; round <= 30; ++round) {
    const size_t bytes = round % 3 == 0 ? kBytes : 8192;
    char* from = Host(bytes);
    Fill(from, bytes, round);
    Busy(stream, 300'000);
    MUST(cudaMemcpyAsync(device, from, bytes, cudaMemcpyHostToDevice, stream));
    program::LaunchCheck(stream, device, bytes, round, &wrong, 1000);
    FreeHost(from);
    char* to = Host(bytes);
    Fill(to, bytes, ~round);  // where it is `from` again, the copy must have read that
    MUST(cudaMemcpyAsync(to, device, bytes, cudaMemcpyDeviceToHost, stream));
    char* unrelated = Host(4096);
    FreeHost(unrelated);
    FreeHost(to);
    char* next = Host(bytes);
    Fill(next, bytes, 1000 + round);
    if (round % 5 == 0) MUST(cudaStreamSynchronize(stream));
    wrong += Wrong(next, bytes, 1000 + round);
    FreeHost(next);
  }
  MUST(cudaDeviceSynchronize());
  printf("wrong %llu\n", static_cast<unsigned long long>(wrong));
  MUST(cudaFree(device));
}

// What the host can see when cudaFreeHost of something else has returned, and what a copy reads.
void Visible() {
  char* device = program::Allocate(kBytes);
  cudaStream_t stream = program::NonBlockingStream();
  FreeHost(Host(4096));
  for (uint64_t round = 1; round <= 5; ++round) {
    char* seen = Host(kBytes);
    memset(seen, 0, kBytes);
    char* other = Host(4096);
    program::LaunchWrite(stream, device, kBytes, round, kLong);
    MUST(cudaMemcpyAsync(seen, device, kBytes, cudaMemcpyDeviceToHost, stream));
    FreeHost(other);
    printf("seen: wrong %llu\n", static_cast<unsigned long long>(Wrong(seen, kBytes, round)));
    // Order: a later synchronous copy on another stream.
    program::LaunchWrite(stream, device, kBytes, 100 + round, kLong);
    FreeHost(Host(4096));
    std::vector<char> copied(kBytes);
    MUST(cudaMemcpy(copied.data(), device, kBytes, cudaMemcpyDeviceToHost));
    printf("copied: wrong %llu\n",
           static_cast<unsigned long long>(Wrong(copied.data(), kBytes, 100 + round)));
    FreeHost(seen);
  }
  MUST(cudaFree(device));
}

// Current from now on.
CUcontext NewContext() {
  CUcontext made = nullptr;
  CreateContext(&made);
  return made;
}

// Work of another context, or of another device, is pending on a buffer that its own context has
// finished with.
void SecondContext(bool other_device) {
  int devices = 0;
  MUST(cudaGetDeviceCount(&devices));
  CUcontext first = nullptr;
  CUcontext second = nullptr;
  FreeHost(Host(kBytes));
  cuCtxGetCurrent(&first);
  if (other_device) {
    MUST(cudaSetDevice(1));
    MUST(cudaFree(nullptr));
    cuCtxGetCurrent(&second);
  } else {
    second = NewContext();
  }
  CUstream there = nullptr;
  cuCtxSetCurrent(second);
  cuStreamCreate(&there, CU_STREAM_NON_BLOCKING);
  CUdeviceptr device = 0;
  cuMemAlloc(&device, kBytes);
  uint64_t wrong = 0;
  for (uint64_t round = 1; round <= 10; ++round) {
    cuCtxSetCurrent(first);
    char* buffer = Host(kBytes);
    Fill(buffer, kBytes, round);
    cuCtxSetCurrent(second);
    const SimRange range = {buffer, kBytes};
    SimWork work = {};
    work.id = round;
    work.duration_ns = 400'000;
    work.writes = &range;
    work.write_count = 1;
    work.effect = [](void* data) { memset(data, 0xEE, kBytes); };
    work.data = buffer;
    simLaunch(there, &work);
    cuCtxSetCurrent(first);
    // Here the real free would be a mistake of the program's: its context has nothing to wait for.
    // So the buffer is freed once that work is done for the program, as far as it can know.
    if (round % 2 == 0) {
      cuCtxSetCurrent(second);
      cuMemcpyDtoHAsync(buffer, device, kBytes, there);
      cuStreamSynchronize(there);
      simLaunch(there, &work);
      cuStreamSynchronize(there);
      cuCtxSetCurrent(first);
      FreeHost(buffer);
    } else {
      // Without a wait: the program may not look at it any more, and the next owner must not see
      // the write.
      simNoteFree(buffer);
      const int status = Free(buffer);
      if (status != 0) printf("free: %d\n", status);
    }
    char* next = Host(kBytes);
    Fill(next, kBytes, 100 + round);
    cuCtxSetCurrent(second);
    cuStreamSynchronize(there);
    cuCtxSetCurrent(first);
    wrong += Wrong(next, kBytes, 100 + round);
    FreeHost(next);
  }
  printf("wrong %llu\n", static_cast<unsigned long long>(wrong));
}

void SayAttributes(const char* what, void* pointer, const void* base) {
  cudaPointerAttributes attributes = {};
  const int status = cudaPointerGetAttributes(&attributes, pointer);
  printf("%s: %d, type %d, device %d, host %td, device pointer %td\n", what, status,
         static_cast<int>(attributes.type), attributes.device,
         attributes.hostPointer == nullptr
             ? -1
             : static_cast<char*>(attributes.hostPointer) - static_cast<const char*>(base),
         attributes.devicePointer == nullptr
             ? -1
             : static_cast<char*>(attributes.devicePointer) - static_cast<const char*>(base));
  unsigned flags = 77;
  const int of_flags = cudaHostGetFlags(&flags, pointer);
  printf("  flags %d: %u\n", of_flags, of_flags == 0 ? flags : 0);
  void* mapped = nullptr;
  const int of_mapped = cudaHostGetDevicePointer(&mapped, pointer, 0);
  printf("  device pointer %d, %s\n", of_mapped, mapped == pointer ? "the same" : "another");
  CUdeviceptr start = 0;
  size_t bytes = 0;
  const int range = cuMemGetAddressRange(&start, &bytes, reinterpret_cast<CUdeviceptr>(pointer));
  printf("  range %d, %zu bytes\n", range, range == 0 ? bytes : 0);
  size_t size = 0;
  const int of_size = cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE,
                                            reinterpret_cast<CUdeviceptr>(pointer));
  printf("  range size %d, %zu\n", of_size, of_size == 0 ? size : 0);
  cudaGetLastError();
}

unsigned long long BufferId(void* pointer) {
  unsigned long long id = 0;
  cuPointerGetAttribute(&id, CU_POINTER_ATTRIBUTE_BUFFER_ID,
                        reinterpret_cast<CUdeviceptr>(pointer));
  return id;
}

void Questions() {
  for (const size_t bytes : {size_t{5000}, (size_t{2} << 20) + 12345}) {
    FreeHost(Host(bytes + 100));
    std::vector<unsigned long long> ids;
    for (int round = 0; round < 3; ++round) {
      char* one = Host(bytes);
      SayAttributes("base", one, one);
      SayAttributes("inside", one + bytes - 1, one);
      ids.push_back(BufferId(one));
      printf("register inside: %d\n",
             static_cast<int>(cudaHostRegister(one, 4096, cudaHostRegisterDefault)));
      printf("unregister: %d\n", static_cast<int>(cudaHostUnregister(one)));
      printf("free as device memory: %d\n", static_cast<int>(cudaFree(one)));
      printf("free inside: %d\n", Free(one + 256));
      printf("last error %d\n", static_cast<int>(cudaGetLastError()));
      FreeHost(one);
      printf("again: %d", Free(one));
      printf(", last error %d\n", static_cast<int>(cudaGetLastError()));
      SayAttributes("freed", one, one);
    }
    bool differ = true;
    for (size_t i = 0; i < ids.size(); ++i) {
      for (size_t j = 0; j < i; ++j) differ &= ids[i] != ids[j];
    }
    printf("ids %s\n", differ ? "differ" : "repeat");
  }
  // An attribute that stays with the memory.
  char* sticky = Host(4096);
  unsigned on = 1;
  printf("set: %d\n",
         static_cast<int>(cuPointerSetAttribute(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
                                                reinterpret_cast<CUdeviceptr>(sticky))));
  const uint64_t freed = RealFreeHosts();
  FreeHost(sticky);
  printf("# really freed: %llu\n", static_cast<unsigned long long>(RealFreeHosts() - freed));
  char* next = Host(4096);
  unsigned is_on = 7;
  const int status = cuPointerGetAttribute(&is_on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
                                           reinterpret_cast<CUdeviceptr>(next));
  printf("sticky %d: %u\n", status, is_on);
  FreeHost(next);
}

// Memory that kernels use, too: while there is any, frees wait; not any more when it was freed.
void Mapped() {
  cudaStream_t stream = program::NonBlockingStream();
  program::Warm(4096);
  const auto waits = [&](const char* when) {
    void* block = program::Allocate(4096);
    Busy(stream, kLong);
    const uint64_t begin = simNow();
    MUST(cudaFree(block));
    printf("# %s: %s\n", when, simNow() - begin > kLong / 2 ? "waits" : "does not wait");
    MUST(cudaDeviceSynchronize());
  };
  for (int round = 0; round < 2; ++round) {
    void* mapped = nullptr;
    MUST(cudaHostAlloc(&mapped, 4096, cudaHostAllocMapped));
    waits(round == 0 ? "mapped" : "mapped again");
    MUST(cudaFreeHost(mapped));
    waits(round == 0 ? "mapped and freed" : "mapped and freed again");
    void* plain = nullptr;
    MUST(cudaMallocHost(&plain, 4096));
    waits(round == 0 ? "plain" : "plain again");
    void* pointer = nullptr;
    MUST(cudaHostGetDevicePointer(&pointer, plain, 0));
    waits(round == 0 ? "asked for" : "asked for again");
    MUST(cudaFreeHost(plain));
    waits(round == 0 ? "asked for and freed" : "asked for and freed again");
  }
}

// What NVIDIA's libraries map for themselves is theirs: no free waits for it, and nobody else gets
// it.
void Library() {
  void* opened = dlopen("libcudnn_maps.so", RTLD_NOW);
  if (opened == nullptr) printf("%s\n", dlerror());
  auto map = reinterpret_cast<char* (*)()>(dlsym(opened, "MapPageLocked"));
  cudaStream_t stream = program::NonBlockingStream();
  program::Warm(4096);
  const uint64_t before = RealAllocs();
  for (int i = 0; i < 2; ++i) Free(map());
  printf("# real of the library's: %llu\n", static_cast<unsigned long long>(RealAllocs() - before));
  map();
  void* block = program::Allocate(4096);
  Busy(stream, kLong);
  const uint64_t begin = simNow();
  MUST(cudaFree(block));
  printf("# beside the library's: %s\n", simNow() - begin > kLong / 2 ? "waits" : "does not wait");
  MUST(cudaDeviceSynchronize());
}

// Kept apart by flags: what was made with one is not given for others.
void Flags() {
  std::vector<void*> freed[8];
  for (unsigned flags = 0; flags < 8; ++flags) {
    for (int i = 0; i < 4; ++i) {
      void* pointer = nullptr;
      MUST(cudaHostAlloc(&pointer, 8192, flags));
      freed[flags].push_back(pointer);
    }
    for (void* pointer : freed[flags]) MUST(cudaFreeHost(pointer));
  }
  int foreign = 0;
  uint64_t before = RealAllocs();
  for (unsigned flags = 0; flags < 8; ++flags) {
    for (int i = 0; i < 4; ++i) {
      void* pointer = nullptr;
      MUST(cudaHostAlloc(&pointer, 8192, flags));
      for (unsigned other = 0; other < 8; ++other) {
        for (void* one : freed[other]) foreign += other != flags && one == pointer ? 1 : 0;
      }
    }
  }
  printf("# foreign: %d\n# real: %llu\n", foreign,
         static_cast<unsigned long long>(RealAllocs() - before));
  void* pointer = nullptr;
  printf("unknown flag: %d\n", static_cast<int>(cudaHostAlloc(&pointer, 4096, 64)));
  printf("of the driver: %d\n", static_cast<int>(cuMemHostAlloc(&pointer, 4096, 64)));
}

// What page-locked memory is there when the program has none is idle.
void Bound() {
  program::Random random(7);
  std::vector<char*> live;
  size_t peak = 0;
  for (int i = 0; i < 6000; ++i) {
    if (live.size() < 40 && random.Below(2) == 0) {
      live.push_back(Host(1 + random.Below(size_t{1} << (10 + random.Below(14)))));
    } else if (!live.empty()) {
      const size_t at = random.Below(live.size());
      FreeHost(live[at]);
      live[at] = live.back();
      live.pop_back();
    }
    if (i % 50 != 0) continue;
    for (char* pointer : live) FreeHost(pointer);
    live.clear();
    if (simHostBytes() > peak) peak = simHostBytes();
  }
  printf("# idle at most: %zu\n", peak);
}

// What is idle with other flags makes room, as far as it is of the same context.
void Room() {
  std::vector<char*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(Host(1 << 20));
  for (char* block : blocks) FreeHost(block);
  const uint64_t before = RealAllocs();
  for (int i = 0; i < 20; ++i) {
    void* pointer = nullptr;
    MUST(cudaHostAlloc(&pointer, 4 << 20, cudaHostAllocPortable));
    MUST(cudaFreeHost(pointer));
  }
  printf("# real of 20: %llu\n", static_cast<unsigned long long>(RealAllocs() - before));
}

// That of a device whose kernel waits for what the program does next stays: its real free would
// wait.
void RoomElsewhere() {
  MUST(cudaSetDevice(1));
  std::vector<char*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(Host(1 << 20));
  for (char* block : blocks) FreeHost(block);
  cudaStream_t stream = program::NonBlockingStream();
  SimWork work = {};
  work.id = 1;
  work.spin_until_id = 2;
  MUST(program::Launch(stream, work));
  MUST(cudaSetDevice(0));
  for (int i = 0; i < 5; ++i) FreeHost(Host(4 << 20));
  MUST(cudaSetDevice(1));
  SimWork last = {};
  last.id = 2;
  MUST(program::Launch(program::NonBlockingStream(), last));
  MUST(cudaDeviceSynchronize());
}

void Ageing() {
  void* pointers[8];
  for (void*& pointer : pointers) pointer = Host(1 << 20);
  for (void* pointer : pointers) FreeHost(pointer);
  const uint64_t before = RealFreeHosts();
  printf("# freed at once: %llu\n", static_cast<unsigned long long>(before));
  for (int i = 0; i < 1000 && simHostBytes() != 0; ++i) usleep(20000);
  printf("# freed later: %llu\n", static_cast<unsigned long long>(RealFreeHosts() - before));
  FreeHost(Host(1 << 20));
}

// Work is done, as the program knows by its streams: nothing tells of the context.
void AgeingStreams() {
  const auto await = [] {
    MUST(cudaStreamSynchronize(program::NonBlockingStream()));
    for (int i = 0; i < 1000 && simHostBytes() != 0; ++i) usleep(20000);
    printf("left: %zu\n", simHostBytes());
  };
  FreeHost(Host(1 << 20));
  for (int i = 0; i < 2; ++i) {
    cudaStream_t stream = program::NonBlockingStream();
    Busy(stream, 1000);
    MUST(cudaStreamSynchronize(stream));
    Busy(stream, 1000);
  }
  await();
  char* beside_work = Host(1 << 20);
  Busy(program::NonBlockingStream(), 10'000);
  FreeHost(beside_work);
  await();
}

// Nor during a capture.
void AgeingCapture() {
  FreeHost(Host(1 << 20));
  cudaStream_t stream = program::NonBlockingStream();
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  const uint64_t before = RealFreeHosts();
  for (int i = 0; i < 30 && simHostBytes() != 0; ++i) usleep(100'000);
  printf("# freed beside a capture: %llu\n",
         static_cast<unsigned long long>(RealFreeHosts() - before));
  cudaGraph_t graph = nullptr;
  MUST(cudaStreamEndCapture(stream, &graph));
  for (int i = 0; i < 1000 && simHostBytes() != 0; ++i) usleep(20000);
  printf("# freed later: %llu\n", static_cast<unsigned long long>(RealFreeHosts() - before));
}

// Idle memory is not freed while work is unfinished: that would wait, and hold up launches.
void AgeingBusy() {
  cudaStream_t stream = program::NonBlockingStream();
  char* buffer = Host(1 << 20);
  char* device = program::Allocate(4096);
  FreeHost(buffer);
  SimWork work = {};
  work.id = 1;
  work.spin_until_id = 2;
  MUST(program::Launch(stream, work));
  const uint64_t before = RealFreeHosts();
  for (int i = 0; i < 30 && simHostBytes() != 0; ++i) usleep(100'000);
  printf("# freed beside a kernel: %llu\n",
         static_cast<unsigned long long>(RealFreeHosts() - before));
  SimWork last = {};
  last.id = 2;
  MUST(program::Launch(program::NonBlockingStream(), last));
  MUST(cudaDeviceSynchronize());
  for (int i = 0; i < 1000 && simHostBytes() != 0; ++i) usleep(20000);
  printf("# freed later: %llu\n", static_cast<unsigned long long>(RealFreeHosts() - before));
  MUST(cudaFree(device));
}

void Reset() {
  char* live = Host(kBytes);
  FreeHost(Host(kBytes));
  simNoteFree(live);
  MUST(cudaDeviceReset());
  MUST(cudaFree(nullptr));
  printf("of before: %d\n", Free(live));
  cudaGetLastError();
  char* next = Host(kBytes);
  Fill(next, kBytes, 3);
  printf("wrong %llu\n", static_cast<unsigned long long>(Wrong(next, kBytes, 3)));
  FreeHost(next);
  for (int i = 0; i < 10; ++i) FreeHost(Host(kBytes));
}

void OtherContexts() {
  FreeHost(Host(4096));
  CUcontext first = nullptr;
  cuCtxGetCurrent(&first);
  CUcontext second = NewContext();
  cuCtxSetCurrent(first);
  char* one = Host(kBytes);
  cuCtxSetCurrent(second);
  FreeHost(one);  // from another context
  char* other = Host(kBytes);
  printf("# while freed elsewhere: %s\n", one == other ? "shared" : "apart");
  cuCtxSetCurrent(first);
  FreeHost(other);
  char* again = Host(kBytes);
  printf("# of another context: %s\n", again == other ? "shared" : "apart");
  FreeHost(again);
  cuCtxSetCurrent(second);
  char* of_second = Host(kBytes);
  FreeHost(Host(8192));
  simNoteFree(of_second);
  cuCtxSetCurrent(first);
  cuCtxDestroy(second);
  printf("of a context that has ended: %d\n", Free(of_second));
  cudaGetLastError();
  cuCtxSetCurrent(nullptr);
  char* last = Host(kBytes);  // the runtime makes its context current; the driver's call has none
  FreeHost(last);
}

// More contexts, one after the other, than there are places for them.
void ManyContexts() {
  FreeHost(Host(4096));
  CUcontext first = nullptr;
  cuCtxGetCurrent(&first);
  const uint64_t before = RealAllocs();
  for (int i = 0; i < 300; ++i) {
    CUcontext context = NewContext();
    for (int j = 0; j < 2; ++j) FreeHost(Host(4096));
    cuCtxDestroy(context);
    cuCtxSetCurrent(first);
  }
  printf("# real of 600: %llu\n", static_cast<unsigned long long>(RealAllocs() - before));
}

void Fork() {
  char* live = Host(4096);
  FreeHost(Host(4096));
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    void* pointer = nullptr;
    printf("child: %d", Alloc(&pointer, 4096));
    printf(", %d\n", Free(live));
    fflush(stdout);
    _Exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  printf("child ended with %d\n", status);
  FreeHost(live);
  for (int i = 0; i < 10; ++i) FreeHost(Host(4096));
}

void* g_at_exit = nullptr;
void Exit() {
  FreeHost(Host(4096));
  g_at_exit = Host(4096);
  atexit([] {
    simNoteFree(g_at_exit);
    printf("at exit: %d\n", Free(g_at_exit));
    fflush(stdout);
  });
}

void Callback() {
  FreeHost(Host(4096));
  static char* in_callback = Host(4096);
  cudaStream_t stream = program::NonBlockingStream();
  MUST(cudaLaunchHostFunc(
      stream,
      [](void*) {
        void* pointer = nullptr;
        printf("in a callback: %d", Alloc(&pointer, 4096));
        printf(", %d\n", Free(in_callback));
      },
      nullptr));
  MUST(cudaStreamSynchronize(stream));
  FreeHost(in_callback);
}

void Capture() {
  for (int i = 0; i < 4; ++i) FreeHost(Host(4096));
  for (const cudaStreamCaptureMode mode :
       {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
        cudaStreamCaptureModeRelaxed}) {
    char* before = Host(4096);
    FreeHost(Host(4096));  // one is idle
    cudaStream_t stream = program::NonBlockingStream();
    MUST(cudaStreamBeginCapture(stream, mode));
    void* pointer = nullptr;
    printf("mode %d: alloc %d", static_cast<int>(mode), Alloc(&pointer, 4096));
    cudaGraph_t graph = nullptr;
    printf(", end %d\n", static_cast<int>(cudaStreamEndCapture(stream, &graph)));
    MUST(cudaStreamBeginCapture(stream, mode));
    simNoteFree(before);
    const int status = Free(before);
    printf("  free %d", status);
    printf(", end %d\n", static_cast<int>(cudaStreamEndCapture(stream, &graph)));
    if (status != 0) printf("  later %d\n", Free(before));
    cudaGetLastError();
    if (pointer != nullptr) printf("  the other %d\n", Free(pointer));
  }
  for (int i = 0; i < 4; ++i) FreeHost(Host(4096));
}

// The nth real call fails: CMPSIM_FAIL.
void Failures() {
  char* kept[6];
  for (char*& one : kept) one = Host(1 << 20);
  for (char* one : kept) FreeHost(one);
  const uint64_t freed = RealFreeHosts();
  simFailFrom("cuMemHostAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY);
  simFailFrom("cuMemAllocHost_v2", 1, CUDA_ERROR_OUT_OF_MEMORY);
  void* pointer = nullptr;
  printf("fails: %d", Alloc(&pointer, 3 << 20));
  printf(", last error %d\n", static_cast<int>(cudaGetLastError()));
  printf("# released: %llu\n", static_cast<unsigned long long>(RealFreeHosts() - freed));
  simFailNever();
  FreeHost(Host(3 << 20));
  for (char*& one : kept) one = Host(1 << 20);
  for (char* one : kept) FreeHost(one);
  simFailNext("cuMemHostAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY);
  const int status = Alloc(&pointer, 5 << 20);
  printf("# once: %d\n", status);
  if (status == 0) Free(pointer);
  cudaGetLastError();
}

// What else lacks page-locked memory.
void FailuresOfOthers() {
  const auto keep = [] {
    char* kept[6];
    for (char*& one : kept) one = Host(1 << 20);
    for (char* one : kept) FreeHost(one);
  };
  std::vector<char> memory(3 << 20);
  keep();
  const uint64_t freed = RealFreeHosts();
  simFailNext("cuMemHostRegister_v2", 1, CUDA_ERROR_OUT_OF_MEMORY);
  const int status = cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterDefault);
  printf("# registered: %d\n", status);
  printf("# released for it: %llu\n", static_cast<unsigned long long>(RealFreeHosts() - freed));
  if (status == 0) MUST(cudaHostUnregister(memory.data()));
  simFailFrom("cuMemHostRegister_v2", 1, CUDA_ERROR_OUT_OF_MEMORY);
  printf("not registered: %d\n",
         static_cast<int>(cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterDefault)));
  simFailNever();
  printf("# released in vain: %llu\n", static_cast<unsigned long long>(RealFreeHosts() - freed));
  // More than may be idle is not the pool's.
  keep();
  void* large = nullptr;
  simFailNext("cuMemHostAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY);
  simFailNext("cuMemAllocHost_v2", 1, CUDA_ERROR_OUT_OF_MEMORY);
  const int of_large = Alloc(&large, 20 << 20);
  printf("# large: %d\n", of_large);
  if (of_large == 0) Free(large);
  simFailNever();
  cudaGetLastError();
}

// A call fails while another thread has all that is idle in hand, and is really freeing it.
void FailuresBesideARelease() {
  static constexpr int kKept = 6;
  static std::atomic<int> freeing{0};
  static std::atomic<uint64_t> calls_until_failed{~uint64_t{0}};
  char* kept[kKept];
  for (char*& one : kept) one = Host(1 << 20);
  for (char* one : kept) FreeHost(one);
  simOnCall(
      "cuMemFreeHost", SIM_BEFORE_CALL,
      [](void*) {
        ++freeing;
        for (int i = 0; i < 20'000 && RealAllocs() < calls_until_failed; ++i) usleep(1000);
        if (freeing == kKept) simFailNever();  // now there is room
      },
      nullptr);
  simFailFrom("cuMemHostRegister_v2", 1, CUDA_ERROR_OUT_OF_MEMORY);
  std::thread other([] {
    MUST(cudaSetDevice(0));
    std::vector<char> memory(kKept << 20);  // for which all of it goes at once
    const cudaError_t status =
        cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterDefault);
    if (status == cudaSuccess) MUST(cudaHostUnregister(memory.data()));
  });
  for (int i = 0; i < 10'000 && freeing == 0; ++i) usleep(1000);
  simFailFrom("cuMemHostAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY);
  calls_until_failed = RealAllocs() + 2;  // the pool's own, then the program's
  void* pointer = nullptr;
  const int status = cuMemHostAlloc(&pointer, 3 << 20, 0);
  calls_until_failed = 0;
  other.join();
  simFailNever();
  simOnCall("cuMemFreeHost", SIM_BEFORE_CALL, nullptr, nullptr);
  printf("# beside a release: %d, freed %d\n", status, freeing.load());
  if (status == 0) MUST(static_cast<cudaError_t>(cuMemFreeHost(pointer)));
}

// A call that fails for want of memory waits for no work that waits for what the program does next.
void FailuresBusy() {
  for (int i = 0; i < 2; ++i) FreeHost(Host(1 << 20));
  cudaStream_t stream = program::NonBlockingStream();
  cudaStream_t other = program::NonBlockingStream();
  SimWork work = {};
  work.id = 1;
  work.spin_until_id = 2;
  MUST(program::Launch(stream, work));
  simFailFrom("cuMemHostAlloc", 1, CUDA_ERROR_OUT_OF_MEMORY);
  simFailFrom("cuMemAllocHost_v2", 1, CUDA_ERROR_OUT_OF_MEMORY);
  void* pointer = nullptr;
  printf("fails: %d", Alloc(&pointer, 3 << 20));
  printf(", last error %d\n", static_cast<int>(cudaGetLastError()));
  simFailNever();
  SimWork last = {};
  last.id = 2;
  MUST(program::Launch(other, last));
  MUST(cudaDeviceSynchronize());
}

// The shim steps aside: what is idle goes, what is in use is freed when it is.
void Aside() {
  char* live = Host(1 << 20);
  FreeHost(Host(2 << 20));
  CUcontext context = nullptr;
  printf("%d\n", cuCtxFromGreenCtx(&context, nullptr));
  printf("beside: %zu\n", simHostBytes() >> 20);
  FreeHost(live);
  FreeHost(Host(1 << 20));
  printf("left: %zu\n", simHostBytes() >> 20);
}

void Threads(uint64_t seed, int rounds) {
  char* device = program::Allocate(kBytes);
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t number = 0; number < 6; ++number) {
    threads.emplace_back([&, number] {
      program::Random random(seed * 100 + number);
      cudaStream_t stream = program::NonBlockingStream();
      char* mine = program::Allocate(kBytes);
      struct Held {
        char* pointer;
        size_t bytes;
        uint64_t seed;
      };
      std::vector<Held> held;
      for (int i = 0; i < rounds; ++i) {
        switch (random.Below(5)) {
          case 0:
          case 1:
            if (held.size() < 8) {
              const size_t bytes = size_t{1} << (6 + random.Below(13));
              const Held one = {Host(bytes), bytes, random.Next()};
              Fill(one.pointer, one.bytes, one.seed);
              held.push_back(one);
            }
            break;
          case 2:
            if (!held.empty()) {
              const size_t at = random.Below(held.size());
              wrong += Wrong(held[at].pointer, held[at].bytes, held[at].seed);
              FreeHost(held[at].pointer);
              held[at] = held.back();
              held.pop_back();
            }
            break;
          case 3:
            if (!held.empty()) {  // read by a copy that is pending when it is freed
              const Held one = held.back();
              held.pop_back();
              Busy(stream, 20'000);
              MUST(cudaMemcpyAsync(mine, one.pointer, one.bytes, cudaMemcpyHostToDevice, stream));
              program::LaunchCheck(stream, mine, one.bytes, one.seed, &wrong, 1000);
              FreeHost(one.pointer);
            }
            break;
          default:
            if (random.Below(4) == 0) MUST(cudaStreamSynchronize(stream));
        }
      }
      for (const Held& one : held) FreeHost(one.pointer);
      MUST(cudaStreamSynchronize(stream));
      MUST(cudaFree(mine));
    });
  }
  for (std::thread& thread : threads) thread.join();
  MUST(cudaDeviceSynchronize());
  MUST(cudaFree(device));
  printf("wrong %llu\n", static_cast<unsigned long long>(wrong));
}

// A thread that asks for its memory's place.
// `known`: one that had memory before.
void Numa(bool known) {
  FreeHost(Host(4096));
  const unsigned long nodes = 1;
  const long status = syscall(SYS_set_mempolicy, 2 /* MPOL_BIND */, &nodes, 8 * sizeof(nodes));
  printf("# policy: %ld\n", status);
  uint64_t before = RealAllocs();
  const auto allocate = [] {
    for (int i = 0; i < 10; ++i) FreeHost(Host(1 << 19));
  };
  if (known) {
    allocate();
  } else {
    std::thread(allocate).join();
  }
  for (int i = 0; i < 10; ++i) FreeHost(Host(1 << 20));
  printf("# real of 20: %llu\n", static_cast<unsigned long long>(RealAllocs() - before));
}

// Pairs on an idle device, for who counts instructions or calls.
void Loop(int pairs, size_t bytes) {
  for (int i = 0; i < pairs; ++i) {
    void* pointer = nullptr;
    if (Alloc(&pointer, bytes) != 0) printf("failed\n");
    if (Free(pointer) != 0) printf("failed\n");
  }
}

}  // namespace

int main(int count, char** arguments) {
  const char* part = count > 1 ? arguments[1] : "";
  if (count > 2) g_way = arguments[2];
  const auto is = [&](const char* name) { return strcmp(part, name) == 0; };
  if (g_way[0] == 'd' || g_way[0] == 'a') MUST(cudaFree(nullptr));
  if (is("pairs")) Pairs();
  if (is("copies")) Copies();
  if (is("visible")) Visible();
  if (is("second_context")) SecondContext(false);
  if (is("second_device")) SecondContext(true);
  if (is("questions")) Questions();
  if (is("mapped")) Mapped();
  if (is("library")) Library();
  if (is("flags")) Flags();
  if (is("bound")) Bound();
  if (is("room")) Room();
  if (is("room_elsewhere")) RoomElsewhere();
  if (is("ageing")) Ageing();
  if (is("ageing_busy")) AgeingBusy();
  if (is("ageing_streams")) AgeingStreams();
  if (is("ageing_capture")) AgeingCapture();
  if (is("failures_others")) FailuresOfOthers();
  if (is("failures_busy")) FailuresBusy();
  if (is("failures_beside")) FailuresBesideARelease();
  if (is("aside")) Aside();
  if (is("reset")) Reset();
  if (is("contexts")) OtherContexts();
  if (is("many_contexts")) ManyContexts();
  if (is("fork")) Fork();
  if (is("exit")) Exit();
  if (is("callback")) Callback();
  if (is("capture")) Capture();
  if (is("failures")) Failures();
  if (is("threads")) Threads(count > 3 ? strtoull(arguments[3], nullptr, 10) : 1, 300);
  if (is("numa")) Numa(false);
  if (is("numa_known")) Numa(true);
  if (is("loop")) {
    Loop(count > 3 ? atoi(arguments[3]) : 100,
         count > 4 ? strtoull(arguments[4], nullptr, 10) : 4096);
  }
  program::SayHazards();
  return 0;
}
