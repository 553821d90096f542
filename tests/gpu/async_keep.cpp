// Stream-ordered pools that keep memory (CMP_ASYNC_KEEP): what a round costs, what the program and
// others see, and what the driver answers about its pools.
//
//   async_keep rounds [--mib N] [--rounds N] [--threshold most]
//   async_keep threads [--threads N] [--pairs N] [--threshold most]
//   async_keep checks [--rest S]
//   async_keep probe
//
// rounds: cudaMallocAsync, a short kernel, cudaFreeAsync, cudaStreamSynchronize, each of N MiB (1),
// and with --threshold most under the largest release threshold, which the program sets. threads:
// N threads (16) with pairs of cudaMallocAsync and cudaFreeAsync of 1 MiB, each on its own stream,
// synchronised every 100. Both print a line of JSON: microseconds of a round, or of a pair in each
// thread.
//
// checks: what must be the same without and with the pool goes to stdout; on stderr `kept`, what
// the device holds after rounds of 64 MiB, `aged`, after S seconds (3), and `asked`, after a
// question about free memory: in MiB beyond what it held before.
//
// probe: on stdout what the driver says and takes, for what is only documented. Without the pool.
#include <cuda.h>

#include <functional>
#include <map>
#include <string>

#include "../demo/kernels.h"
#include "used_memory.h"

namespace {

using namespace cmp::gpu;
using cmp::demo::Kernels;

cudaMemPool_t DefaultPool() {
  cudaMemPool_t pool = nullptr;
  CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
  return pool;
}

unsigned long long Ask(cudaMemPool_t pool, cudaMemPoolAttr attribute) {
  uint64_t value = 0;
  CHECK(cudaMemPoolGetAttribute(pool, attribute, &value));
  return value;
}

void SetThreshold(cudaMemPool_t pool, uint64_t bytes) {
  CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &bytes));
}

void* AllocateAsync(size_t bytes, cudaStream_t stream) {
  void* pointer = nullptr;
  CHECK(cudaMallocAsync(&pointer, bytes, stream));
  return pointer;
}

void Round(const Kernels& kernels, cudaStream_t stream, size_t bytes) {
  void* block = AllocateAsync(bytes, stream);
  kernels.Fill(stream, block, 1024, 7);
  CHECK(cudaFreeAsync(block, stream));
  CHECK(cudaStreamSynchronize(stream));
}

double At(std::vector<double>& sorted, double part) {
  return sorted[static_cast<size_t>(part * static_cast<double>(sorted.size() - 1))];
}

int Rounds(int argc, char** argv) {
  const auto mib = static_cast<size_t>(std::atoi(Argument(argc, argv, "--mib", "1")));
  const int rounds = std::atoi(Argument(argc, argv, "--rounds", "5000"));
  const Kernels kernels;
  const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
  for (int i = 0; i < 20; ++i) Round(kernels, stream, mib * kMiB);
  std::vector<double> microseconds;
  const auto begin = Clock::now();
  for (int i = 0; i < rounds; ++i) {
    const auto round = Clock::now();
    Round(kernels, stream, mib * kMiB);
    microseconds.push_back(SecondsSince(round) * 1e6);
  }
  const double mean = SecondsSince(begin) * 1e6 / rounds;
  std::sort(microseconds.begin(), microseconds.end());
  std::printf("{\"mib\": %zu, \"round_us\": %.2f, \"p99_us\": %.2f, \"mean_us\": %.2f}\n", mib,
              At(microseconds, 0.5), At(microseconds, 0.99), mean);
  return 0;
}

int Threads(int argc, char** argv) {
  const int count = std::atoi(Argument(argc, argv, "--threads", "16"));
  const int pairs = std::atoi(Argument(argc, argv, "--pairs", "5000"));
  std::vector<double> microseconds(static_cast<size_t>(count));
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (double& of_thread : microseconds) {
    threads.emplace_back([&] {
      const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
      for (ready.fetch_add(1); ready.load() < count;) std::this_thread::yield();
      const auto begin = Clock::now();
      for (int i = 0; i < pairs; ++i) {
        CHECK(cudaFreeAsync(AllocateAsync(kMiB, stream), stream));
        if (i % 100 == 99) CHECK(cudaStreamSynchronize(stream));
      }
      of_thread = SecondsSince(begin) * 1e6 / pairs;
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("{\"threads\": %d, \"pair_us\": %.2f}\n", count, Median(microseconds));
  return 0;
}

size_t FreeMemory() {
  size_t free = 0;
  size_t total = 0;
  CHECK(cudaMemGetInfo(&free, &total));
  return free;
}

void SayPool(const char* when, cudaMemPool_t pool) {
  std::printf("%s: threshold %llu, used %llu, reserved %llu\n", when,
              Ask(pool, cudaMemPoolAttrReleaseThreshold), Ask(pool, cudaMemPoolAttrUsedMemCurrent),
              Ask(pool, cudaMemPoolAttrReservedMemCurrent));
}

cudaMemPool_t MakePool() {
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  cudaMemPool_t pool = nullptr;
  CHECK(cudaMemPoolCreate(&pool, &properties));
  return pool;
}

// Blocks of a sixteenth of what is free, three quarters of it, freed again.
void FillAndFree(cudaStream_t stream) {
  const size_t bytes = FreeMemory() / 16 / (2 * kMiB) * 2 * kMiB;
  std::vector<void*> blocks;
  for (int i = 0; i < 12; ++i) blocks.push_back(AllocateAsync(bytes, stream));
  for (void* block : blocks) CHECK(cudaFreeAsync(block, stream));
  CHECK(cudaStreamSynchronize(stream));
}

int Checks(int argc, char** argv) {
  const double rest = std::atof(Argument(argc, argv, "--rest", "3"));
  const Kernels kernels;
  const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
  const cudaMemPool_t pool = DefaultPool();
  Round(kernels, stream, kMiB);
  const size_t free = FreeMemory();
  const double before = UsedMiB();
  const auto tell = [&](const char* when) {
    std::fprintf(stderr, "%s %.0f\n", when, UsedMiB() - before);
  };
  for (int i = 0; i < 50; ++i) Round(kernels, stream, 64 * kMiB);
  tell("kept");
  std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(rest * 1000)));
  tell("aged");
  for (int i = 0; i < 50; ++i) Round(kernels, stream, 64 * kMiB);
  // A question: what it answers beyond what was free before is the driver's and other programs'.
  std::fprintf(stderr, "# free memory: %.0f MiB less\n",
               (static_cast<double>(free) - static_cast<double>(FreeMemory())) / kMiB);
  tell("asked");
  for (int i = 0; i < 50; ++i) Round(kernels, stream, 64 * kMiB);
  SayPool("the default pool", pool);
  void* live = AllocateAsync(3 * kMiB, stream);
  for (int i = 0; i < 50; ++i) Round(kernels, stream, 64 * kMiB);
  SayPool("beside 3 MiB", pool);
  CHECK(cudaFreeAsync(live, stream));
  CHECK(cudaStreamSynchronize(stream));
  CHECK(cudaMemPoolTrimTo(pool, 0));
  SayPool("trimmed", pool);

  const cudaMemPool_t own = MakePool();
  SetThreshold(own, 100 * kMiB);
  void* block = nullptr;
  CHECK(cudaMallocFromPoolAsync(&block, 64 * kMiB, own, stream));
  CHECK(cudaFreeAsync(block, stream));
  CHECK(cudaStreamSynchronize(stream));
  SayPool("a threshold of 100 MiB", own);
  CHECK(cudaMemPoolDestroy(own));

  FillAndFree(stream);
  const size_t most = FreeMemory() / 10 * 9;
  FillAndFree(stream);
  std::printf("cudaMalloc of nine tenths: %d\n", static_cast<int>(cudaMalloc(&block, most)));
  CHECK(cudaFree(block));
  FillAndFree(stream);
  CHECK(cudaMallocAsync(&block, most, stream));
  CHECK(cudaFreeAsync(block, stream));
  CHECK(cudaStreamSynchronize(stream));
  std::printf("and of cudaMallocAsync: 0\n");

  CHECK(cudaDeviceReset());
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(nullptr));
  SayPool("after a reset", DefaultPool());
  return 0;
}

// ---- What the driver says

double NanosecondsOf(int count, const std::function<void()>& call) {
  const auto begin = Clock::now();
  for (int i = 0; i < count; ++i) call();
  return SecondsSince(begin) * 1e9 / count;
}

void SayCosts(cudaMemPool_t pool) {
  cuuint64_t value = 0;
  const auto say = [](const char* name, double nanoseconds) {
    std::printf("%s: %.0f ns\n", name, nanoseconds);
  };
  say("cuMemPoolGetAttribute used", NanosecondsOf(10000, [&] {
        cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value);
      }));
  say("cuMemPoolGetAttribute reserved", NanosecondsOf(10000, [&] {
        cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &value);
      }));
  value = 0;
  say("cuMemPoolSetAttribute threshold", NanosecondsOf(10000, [&] {
        cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &value);
      }));
  say("cuMemPoolTrimTo, nothing to do", NanosecondsOf(10000, [&] { cuMemPoolTrimTo(pool, 0); }));
  say("cuDeviceGetMemPool", NanosecondsOf(10000, [&] { cuDeviceGetMemPool(&pool, 0); }));
}

// How the pool takes memory, and what a trim leaves beside a block in use.
void SayChunks(const Kernels& kernels, cudaStream_t stream, cudaMemPool_t pool) {
  KeepAsyncPool();
  void* live = AllocateAsync(kMiB, stream);
  SayPool("1 MiB in use", pool);
  for (const size_t mib : {1, 16, 64, 100}) {
    Round(kernels, stream, mib * kMiB);
    SayPool((std::to_string(mib) + " MiB more, freed").c_str(), pool);
    const auto begin = Clock::now();
    CHECK(cudaMemPoolTrimTo(pool, Ask(pool, cudaMemPoolAttrUsedMemCurrent)));
    std::printf("trimmed to what is used in %.1f us\n", SecondsSince(begin) * 1e6);
    SayPool("then", pool);
  }
  CHECK(cudaFreeAsync(live, stream));
  CHECK(cudaStreamSynchronize(stream));
  CHECK(cudaMemPoolTrimTo(pool, 0));
}

// Does a trim wait for a kernel, or hold up another thread's launch? And what was freed, but not
// synchronised since?
void SayWaits(const Kernels& kernels, cudaStream_t stream, cudaMemPool_t pool) {
  KeepAsyncPool();
  const cudaStream_t other = MakeStream(cudaStreamNonBlocking);
  Round(kernels, stream, 64 * kMiB);
  kernels.Delay(other, 20'000'000);
  auto begin = Clock::now();
  CHECK(cudaMemPoolTrimTo(pool, 0));
  std::printf("trim beside a kernel of 20 ms: %s\n",
              SecondsSince(begin) < 0.01 ? "at once" : "waits");
  CHECK(cudaDeviceSynchronize());
  void* block = AllocateAsync(64 * kMiB, stream);
  kernels.Delay(stream, 20'000'000);
  CHECK(cudaFreeAsync(block, stream));
  SayPool("freed behind a kernel", pool);
  begin = Clock::now();
  CHECK(cudaMemPoolTrimTo(pool, 0));
  std::printf("trim: %s\n", SecondsSince(begin) < 0.01 ? "at once" : "waits");
  SayPool("then", pool);
  while (cudaStreamQuery(stream) == cudaErrorNotReady) std::this_thread::yield();
  SayPool("done, and asked", pool);
  CHECK(cudaMemPoolTrimTo(pool, 0));
  SayPool("trimmed", pool);
}

void SayWithoutContext(cudaMemPool_t pool) {
  std::thread([&] {
    cuuint64_t value = 0;
    CUcontext context = nullptr;
    cuCtxGetCurrent(&context);
    std::printf("a thread %s a context: get %d", context == nullptr ? "without" : "with",
                cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value));
    value = 0;
    std::printf(", set %d", cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &value));
    std::printf(", trim %d\n", cuMemPoolTrimTo(pool, 0));
  }).join();
}

// What each call answers while a stream captures, and whether the capture lives.
void SayCaptures(cudaStream_t stream, cudaMemPool_t pool) {
  const std::map<std::string, std::function<int()>> calls = {
      {"get",
       [=] {
         cuuint64_t value = 0;
         return cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value);
       }},
      {"set",
       [=] {
         cuuint64_t value = 0;
         return cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &value);
       }},
      {"trim", [=] { return cuMemPoolTrimTo(pool, 0); }}};
  const auto relaxed = [](const std::function<int()>& call) {
    auto mode = cudaStreamCaptureModeRelaxed;
    CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
    const int status = call();
    CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
    return status;
  };
  const auto elsewhere = [](const std::function<int()>& call) {
    int status = -1;
    std::thread([&] { status = call(); }).join();
    return status;
  };
  using Way = std::function<int(const std::function<int()>&)>;
  const std::map<std::string, Way> ways = {
      {"the same thread", [](const auto& call) { return call(); }},
      {"the same thread, relaxed", relaxed},
      {"another thread", elsewhere},
      {"another thread, relaxed",
       [=](const auto& call) { return elsewhere([&] { return relaxed(call); }); }}};
  for (const auto mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                          cudaStreamCaptureModeRelaxed}) {
    for (const auto& [name, call] : calls) {
      for (const auto& [who, way] : ways) {
        CHECK(cudaStreamBeginCapture(stream, mode));
        const int status = way(call);
        cudaGraph_t graph = nullptr;
        const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
        std::printf("capture %d, %s by %s: %d, its end: %d\n", static_cast<int>(mode), name.c_str(),
                    who.c_str(), status, static_cast<int>(ended));
        cudaGetLastError();
        if (graph != nullptr) CHECK(cudaGraphDestroy(graph));
      }
    }
  }
}

// Whom what a pool keeps is denied, and what a reset does.
void SayOthers(cudaStream_t stream) {
  KeepAsyncPool();
  const size_t most = FreeMemory() / 10 * 9;
  FillAndFree(stream);
  void* block = nullptr;
  std::printf("cudaMalloc beside what a pool keeps: %d\n",
              static_cast<int>(cudaMalloc(&block, most)));
  cudaFree(block);
  cudaGetLastError();
  const cudaMemPool_t own = MakePool();
  std::printf("from another pool: %d\n",
              static_cast<int>(cudaMallocFromPoolAsync(&block, most, own, stream)));
  cudaGetLastError();
  CHECK(cudaDeviceReset());
  CHECK(cudaSetDevice(0));
  CHECK(cudaFree(nullptr));
  SayPool("after a reset", DefaultPool());
}

int Probe() {
  const Kernels kernels;
  const cudaStream_t stream = MakeStream(cudaStreamNonBlocking);
  const cudaMemPool_t pool = DefaultPool();
  SayCosts(pool);
  SayChunks(kernels, stream, pool);
  SayWaits(kernels, stream, pool);
  SayWithoutContext(pool);
  SayCaptures(stream, pool);
  SayOthers(stream);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  StartCudaOrSkip();
  if (std::strcmp(Argument(argc, argv, "--threshold", ""), "most") == 0) {
    KeepAsyncPool();
  }
  if (what == "rounds") return Rounds(argc, argv);
  if (what == "threads") return Threads(argc, argv);
  if (what == "checks") return Checks(argc, argv);
  return what == "probe" ? Probe() : 2;
}
