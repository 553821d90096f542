// What cudaFree waits for, and that cudaMalloc waits for nothing. In virtual time: simNow.
#include <thread>
#include <vector>

#include "program.h"

using program::Allocate;
using program::Launch;
using program::Say;

namespace {

constexpr uint64_t kMillisecond = 1000000;

void Raise(void* data) { ++*static_cast<int*>(data); }

SimWork Kernel(uint64_t duration_ns, int* flag) {
  SimWork work = {};
  work.duration_ns = duration_ns;
  work.effect = flag == nullptr ? nullptr : &Raise;
  work.data = flag;
  return work;
}

// A free waits for pending work on `stream`, whatever it frees.
void FreeWaits(const char* name, cudaStream_t stream, size_t bytes, bool warm) {
  if (warm) program::Warm(bytes);
  char* block = Allocate(bytes);
  MUST(cudaDeviceSynchronize());
  int flag = 0;
  const uint64_t begin = simNow();
  MUST(Launch(stream, Kernel(15 * kMillisecond, &flag)));
  const size_t pending = simPendingCount(nullptr);
  Say("free", cudaFree(block));
  printf("%s, %zu bytes: pending %zu then %zu, flag %d, waited %s\n", name, bytes, pending,
         simPendingCount(nullptr), flag, simNow() - begin >= 15 * kMillisecond ? "yes" : "no");
}

void Frees() {
  const cudaStream_t non_blocking = program::NonBlockingStream();
  cudaStream_t blocking = nullptr;
  MUST(cudaStreamCreate(&blocking));
  const struct {
    const char* name;
    cudaStream_t stream;
  } streams[] = {{"non-blocking", non_blocking},
                 {"blocking", blocking},
                 {"legacy", nullptr},
                 {"legacy by name", cudaStreamLegacy},
                 {"per-thread", cudaStreamPerThread}};
  for (const auto& [name, stream] : streams) {
    for (const size_t bytes : {size_t{256}, size_t{100000}, size_t{5} << 20, size_t{40} << 20}) {
      FreeWaits(name, stream, bytes, false);
      FreeWaits(name, stream, bytes, true);
    }
  }
  // Another thread's per-thread stream.
  char* block = Allocate(256);
  int flag = 0;
  std::thread([&] { MUST(Launch(cudaStreamPerThread, Kernel(kMillisecond, &flag))); }).join();
  MUST(cudaFree(block));
  printf("another thread's per-thread stream: flag %d\n", flag);
  // A destroyed stream's work.
  block = Allocate(256);
  flag = 0;
  MUST(Launch(non_blocking, Kernel(kMillisecond, &flag)));
  MUST(cudaStreamDestroy(non_blocking));
  MUST(cudaFree(block));
  printf("a destroyed stream: flag %d\n", flag);
  // Frees that wait for nothing.
  MUST(Launch(blocking, Kernel(kMillisecond, &flag)));
  Say("cudaFree(NULL)", cudaFree(nullptr));
  printf("pending %zu\n", simPendingCount(nullptr));
  Say("cudaFree(wild)", cudaFree(reinterpret_cast<void*>(0x123000)));
  printf("pending %zu\n", simPendingCount(nullptr));
  char* double_freed = Allocate(256);
  MUST(cudaFree(double_freed));
  MUST(Launch(blocking, Kernel(kMillisecond, &flag)));
  Say("double free", cudaFree(double_freed));
  printf("pending %zu\n", simPendingCount(nullptr));
}

// A device-to-host copy on a non-blocking stream, and a kernel that writes page-locked memory: what
// they wrote is there when cudaFree returns.
void HostSees() {
  const cudaStream_t stream = program::NonBlockingStream();
  for (int round = 0; round < 200; ++round) {
    int* host = nullptr;
    MUST(cudaMallocHost(reinterpret_cast<void**>(&host), sizeof(int) * 64));
    host[0] = -1;
    char* block = Allocate(4096);
    char* source = Allocate(sizeof(int));
    MUST(cudaMemsetAsync(source, round % 100, sizeof(int), stream));
    MUST(cudaMemcpyAsync(host, source, sizeof(int), cudaMemcpyDeviceToHost, stream));
    MUST(Launch(stream, Kernel(kMillisecond, host + 1)));
    host[1] = 41;
    MUST(cudaFree(block));
    if (host[0] != round % 100 * 0x01010101 || host[1] != 42) {
      printf("round %d: the host sees %x and %d\n", round, host[0], host[1]);
    }
    MUST(cudaFree(source));
    MUST(cudaFreeHost(host));
  }
  printf("done\n");
}

// A kernel that runs until a later one is launched: whatever waits for it in between hangs.
void Spin() {
  program::Warm(4096);
  program::Warm(3 << 20);
  char* first = Allocate(256);
  const cudaStream_t spinning = program::NonBlockingStream();
  const cudaStream_t other = program::NonBlockingStream();
  SimWork spinner = {};
  spinner.spin_until_id = 99;
  MUST(Launch(spinning, spinner));
  void* blocks[70] = {};
  for (int i = 0; i < 20; ++i) blocks[i] = Allocate(4096);
  for (int i = 20; i < 30; ++i) blocks[i] = Allocate(3 << 20);
  for (int i = 30; i < 60; ++i) blocks[i] = Allocate(size_t{1000} * i);
  for (int i = 60; i < 70; ++i) blocks[i] = Allocate(size_t{9} << 20);
  std::thread([&] { blocks[0] = (MUST(cudaSetDevice(0)), Allocate(777)); }).join();
  printf("still spinning: %s\n", simPendingCount(nullptr) >= 1 ? "yes" : "no");
  SimWork released = {};
  released.id = 99;
  MUST(Launch(other, released));
  MUST(cudaFree(first));
  printf("after the free: %zu pending\n", simPendingCount(nullptr));
  for (void* block : blocks) MUST(cudaFree(block));
}

// A kernel that spins is launched while another thread's cudaMalloc crosses the bound on what the
// pool holds: whatever that call waits for, it is not the kernel.
void SpinMeanwhile() {
  std::vector<void*> blocks(20000);
  for (void*& block : blocks) block = Allocate(4096);
  for (void* block : blocks) MUST(cudaFree(block));
  const cudaStream_t spinning = program::NonBlockingStream();
  const cudaStream_t other = program::NonBlockingStream();
  MUST(cudaDeviceSynchronize());
  std::atomic<bool> stop{false};
  const uint64_t frees = program::RealFrees();
  std::thread launcher([&] {
    while (program::RealFrees() < frees + 50 && !stop) std::this_thread::yield();
    SimWork spinner = {};
    spinner.spin_until_id = 99;
    MUST(Launch(spinning, spinner));
  });
  Allocate(size_t{64} << 20);
  stop = true;
  launcher.join();
  SimWork released = {};
  released.id = 99;
  MUST(Launch(other, released));
  MUST(cudaDeviceSynchronize());
  printf("done\n");
}

// A kernel that fails ends the context: every call says so, for ever, and cudaFree first.
void Trap(const char* when) {
  program::Warm(4096);
  char* blocks[4];
  for (char*& block : blocks) block = Allocate(4096);
  char* idle = Allocate(4096);
  MUST(cudaFree(idle));
  SimWork work = {};
  work.duration_ns = kMillisecond;
  work.flags = SIM_WORK_TRAP;
  MUST(Launch(program::NonBlockingStream(), work));
  if (strcmp(when, "known") == 0) Say("synchronize", cudaDeviceSynchronize());
  Say("free", cudaFree(blocks[0]));
  Say("free again", cudaFree(blocks[0]));
  void* pointer = nullptr;
  Say("malloc", cudaMalloc(&pointer, 4096));
  printf("p %s\n", pointer == nullptr ? "NULL" : "set");
  Say("large malloc", cudaMalloc(&pointer, 10 << 20));
  Say("free another", cudaFree(blocks[1]));
  Say("free what was freed before", cudaFree(idle));
  Say("synchronize", cudaDeviceSynchronize());
  Say("clear", cudaGetLastError());
  Say("malloc", cudaMalloc(&pointer, 4096));
  std::thread([&] {
    void* other = nullptr;
    Say("malloc of another thread", cudaMalloc(&other, 4096));
    Say("free of another thread", cudaFree(blocks[2]));
  }).join();
  if (strcmp(when, "reset") != 0) return;
  Say("reset", cudaDeviceReset());
  cudaGetLastError();
  Say("malloc", cudaMalloc(&pointer, 4096));
  Say("free", cudaFree(pointer));
  Say("stale free", cudaFree(blocks[3]));
  cudaGetLastError();
  program::NoteServed("after the reset", 4096);
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  MUST(cudaFree(nullptr));
  if (strcmp(scenario, "frees") == 0) {
    Frees();
  } else if (strcmp(scenario, "host") == 0) {
    HostSees();
  } else if (strcmp(scenario, "spin") == 0) {
    Spin();
  } else if (strcmp(scenario, "spin-meanwhile") == 0) {
    SpinMeanwhile();
  } else if (strcmp(scenario, "trap") == 0) {
    Trap(count > 2 ? arguments[2] : "");
    return 0;
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
