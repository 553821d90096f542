// What the program does at the very moment at which idle memory goes back to the driver.
//
//   ageing_moments reference     the last reference to the context is given up
//   ageing_moments second-free   a block is freed a second time while its real free is under way
//   ageing_moments stays         a kernel stays on device 1 while memory of device 0 is freed
//   ageing_moments portions      many small blocks are due: what the frees of the program pay
//   ageing_moments put-back      a rescue has all that is idle in hand, and then cannot free it
//   ageing_moments memory        the program asks how much is free
//   ageing_moments asks          the same while one such free does not come to an end
//   ageing_moments first         the first free of the context without a wait is not paid yet
//   ageing_moments exit          the process exits, with many small blocks due
#include <cuda.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "program.h"

namespace {

using program::Allocate;
using program::Must;

constexpr size_t kMiB = size_t{1} << 20;
constexpr int kPatienceMs = 10000;

void Sleep(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}

// Until `holds`, or nothing came of it.
template <typename Condition>
bool Await(Condition holds) {
  for (int i = 0; i < kPatienceMs && !holds(); ++i) Sleep(1);
  return holds();
}

void Driver(CUresult status, int line = __builtin_LINE()) {
  Must(static_cast<cudaError_t>(status), "a call of the driver's", __builtin_FILE(), line);
}

void Idle(size_t bytes, int count) {
  std::vector<char*> blocks;
  for (int i = 0; i < count; ++i) blocks.push_back(Allocate(bytes));
  for (char* block : blocks) MUST(cudaFree(block));
}

// What was done before is known to be done.
void Begin() {
  MUST(cudaFree(Allocate(1000)));
  MUST(cudaDeviceSynchronize());
}

uint64_t QuietFrees() { return simCallCount("cuMemFreeAsync"); }

void Reference() {
  CUcontext context = nullptr;
  CUstream stream = nullptr;
  Driver(cuInit(0));
  Driver(cuDevicePrimaryCtxRetain(&context, 0));
  Driver(cuCtxSetCurrent(context));
  Driver(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  std::vector<CUdeviceptr> blocks(8);
  for (CUdeviceptr& block : blocks) Driver(cuMemAlloc(&block, 4 * kMiB));
  Driver(cuMemFree(blocks.back()));
  blocks.pop_back();
  SimWork work{};
  work.duration_ns = 1000000;
  MUST(program::Launch(stream, work));
  for (const CUdeviceptr block : blocks) Driver(cuMemFree(block));
  // It has gone, and the call has yet to return.
  simOnCall(
      "cuDevicePrimaryCtxRelease_v2", SIM_AFTER_CALL, [](void*) { Sleep(60); }, nullptr);
  Driver(cuDevicePrimaryCtxRelease(0));
  Sleep(60);
}

std::atomic<bool> g_there{false};
std::atomic<bool> g_go_on{false};

// Once.
void HoldOneUp(void*) {
  if (g_there.exchange(true)) return;
  Await([] { return g_go_on.load(); });
}

void SecondFree() {
  Begin();
  program::AwaitQuietFree();
  std::vector<char*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(Allocate(32 * kMiB));
  simOnCall("cuMemFreeAsync", SIM_BEFORE_CALL, HoldOneUp, nullptr);
  for (char* block : blocks) MUST(cudaFree(block));
  Await([] { return g_there.load(); });
  for (char* block : blocks) program::Say("the second free", cudaFree(block));
  program::Say("the last error", cudaGetLastError());
  g_go_on = true;
  Await([] { return simUsedBytes(0) < 32 * kMiB; });
  char* block = Allocate(32 * kMiB);
  program::LaunchWrite(nullptr, block, 64, 1, 1000);
  MUST(cudaDeviceSynchronize());
}

void Stays() {
  MUST(cudaSetDevice(1));
  Begin();
  Idle(40 * kMiB, 2);
  const cudaStream_t staying = program::NonBlockingStream();
  const cudaStream_t ending = program::NonBlockingStream();
  MUST(cudaSetDevice(0));
  Begin();
  MUST(cudaSetDevice(1));
  SimWork kernel{};
  kernel.id = 2;
  kernel.spin_until_id = 3;
  MUST(program::Launch(staying, kernel));
  MUST(cudaSetDevice(0));
  for (int i = 0; i < 60; ++i) {
    MUST(cudaFree(Allocate(5 * kMiB)));
    Sleep(2);
  }
  MUST(cudaSetDevice(1));
  SimWork end{};
  end.id = 3;
  MUST(program::Launch(ending, end));
  MUST(cudaDeviceSynchronize());
}

void Portions() {
  Begin();
  Idle(4096, 5000);
  Idle(8 * kMiB, 60);
  const uint64_t before = program::RealFrees();
  uint64_t most = 0;
  for (int i = 0; i < 400; ++i) {
    char* block = Allocate(20 * kMiB);
    const uint64_t frees = program::RealFrees();
    MUST(cudaFree(block));
    most = std::max(most, program::RealFrees() - frees);
    Sleep(1);
  }
  printf("# frees: at most %llu real ones in one, %llu in all\n",
         static_cast<unsigned long long>(most),
         static_cast<unsigned long long>(program::RealFrees() - before));
}

void PutBack() {
  Begin();
  program::AwaitQuietFree();
  Idle(32 * kMiB, 8);
  static std::atomic<bool> first{true};
  simOnCall(
      "cuMemFreeAsync", SIM_BEFORE_CALL,
      [](void*) {
        if (!first.exchange(false)) return;
        Sleep(200);  // the pool's thread finds nothing meanwhile
        simFailFrom("cuMemFreeAsync", 1, CUDA_ERROR_OUT_OF_MEMORY);
        simFailFrom("cuMemFree_v2", 1, CUDA_ERROR_NOT_PERMITTED);
      },
      nullptr);
  CUmodule module = nullptr;  // of 9000 MiB
  const CUresult loaded = cuModuleLoadData(&module, "global x 9437184000");
  program::Say("the module", static_cast<cudaError_t>(loaded));
  simFailNever();
  simOnCall("cuMemFreeAsync", SIM_BEFORE_CALL, nullptr, nullptr);
  const bool aged = Await([] { return simUsedBytes(0) < 32 * kMiB; });
  printf("all went back later: %s\n", aged ? "yes" : "no");
}

size_t FreeMiB() {
  size_t free = 0;
  size_t total = 0;
  MUST(cudaMemGetInfo(&free, &total));
  return free / kMiB;
}

void Memory() {
  Begin();
  Idle(1000, 3000);
  Idle(32 * kMiB, 8);
  const size_t before = FreeMiB();
  size_t least = before;
  size_t most = before;
  const uint64_t frees = QuietFrees();
  while (QuietFrees() < frees + 2000) {
    const size_t now = FreeMiB();
    least = std::min(least, now);
    most = std::max(most, now);
  }
  printf("free memory was always the same: %s\n", least == before && most == before ? "yes" : "no");
  printf("# free memory: %zu MiB at first, then %zu to %zu\n", before, least, most);
}

// How often the driver is asked, too, beside a thread that frees blocks of device 0 and comes to no
// end. REQUIRES: two devices
void Asks() {
  static const pthread_t program = pthread_self();
  static std::atomic<int> frees{0};
  static std::atomic<bool> go_on{false};
  MUST(cudaSetDevice(1));
  Allocate(32 * kMiB);
  MUST(cudaSetDevice(0));
  Begin();
  program::AwaitQuietFree();
  Await([] { return simUsedBytes(0) == 0; });
  const size_t before = FreeMiB();
  simOnCall(
      "cuMemFreeAsync", SIM_BEFORE_CALL,
      [](void*) {
        if (pthread_equal(pthread_self(), program) != 0) return;
        ++frees;
        while (!go_on) Sleep(1);
      },
      nullptr);
  Idle(32 * kMiB, 8);
  printf("held up: %s\n", Await([] { return frees != 0; }) ? "yes" : "no");
  const size_t now = FreeMiB();
  printf("free memory is the same: %s\n", now == before ? "yes" : "no");
  printf("# free memory: %zu MiB, then %zu\n", before, now);
  MUST(cudaSetDevice(1));
  const unsigned long long calls = simCallCount("cuMemGetInfo_v2");
  FreeMiB();
  printf("# of the other device: asked %llu times, %d held up\n",
         simCallCount("cuMemGetInfo_v2") - calls, go_on ? 0 : 1);
  go_on = true;
  simOnCall("cuMemFreeAsync", SIM_BEFORE_CALL, nullptr, nullptr);
}

std::atomic<uint64_t> g_frees{0};
std::atomic<uint64_t> g_frees_at_exit{0};
struct Last {  // made before CUDA began: after every other exit handler
  ~Last() {
    const uint64_t before = g_frees;
    Sleep(50);
    printf("calls after the exit handlers: %llu\n",
           static_cast<unsigned long long>(g_frees - before));
    printf("# calls after the exit began: %llu\n",
           static_cast<unsigned long long>(before - g_frees_at_exit));
  }
};

// The frees of 40 pairs, each of another size, that keep the bound.
void SayFrees(const char* when) {
  const uint64_t quiet = QuietFrees();
  const uint64_t all = program::RealFrees();
  for (size_t i = 0; i < 40; ++i) MUST(cudaFree(Allocate((33 + i) * kMiB)));
  printf("# %s: %llu of %llu frees wait for nothing\n", when,
         static_cast<unsigned long long>(QuietFrees() - quiet),
         static_cast<unsigned long long>(program::RealFrees() - all));
}

void First() {
  static const pthread_t program = pthread_self();
  simOnCall(
      "cuMemAlloc_v2", SIM_BEFORE_CALL,
      [](void*) {
        if (pthread_equal(pthread_self(), program) == 0) HoldOneUp(nullptr);
      },
      nullptr);
  Begin();
  SayFrees("at first");
  g_go_on = true;
  program::AwaitQuietFree();
  SayFrees("then");
}

void Exit() {
  static Last last;
  Begin();
  program::AwaitQuietFree();
  Idle(512, 60000);
  const auto count = [](void*) {
    ++g_frees;
    Sleep(0.01);
  };
  simOnCall("cuMemFreeAsync", SIM_BEFORE_CALL, count, nullptr);
  Await([] { return g_frees != 0; });
  atexit([] { g_frees_at_exit = g_frees.load(); });  // before every other
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  const struct {
    const char* name;
    void (*run)();
  } scenarios[] = {{"reference", Reference},
                   {"second-free", SecondFree},
                   {"stays", Stays},
                   {"portions", Portions},
                   {"put-back", PutBack},
                   {"memory", Memory},
                   {"asks", Asks},
                   {"first", First},
                   {"exit", Exit}};
  for (const auto& one : scenarios) {
    if (strcmp(scenario, one.name) != 0) continue;
    one.run();
    program::SayHazards();
    return 0;
  }
  return 2;
}
