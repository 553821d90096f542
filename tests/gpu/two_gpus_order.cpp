// order.cpp across GPUs. A kernel of one device writes x late, on a non-blocking stream; something
// else of that device is freed; whoever reads x afterwards must see the new value, also when it is
// another device that reads: the real cudaFree waits for the kernel. Likewise for a late copy that
// another device's stream makes of x: the free waits for it, and a kernel that overwrites x comes
// after it.
//
//   two_gpus_order [--devices N] [--rounds N] [--no-access] [--green]
//                  [--expect-stale | --stale-allowed]
//
// With --no-access no device may use another one's memory: only copies read it. With --green the
// late kernels run on streams of green contexts (all multiprocessors), whose work is their primary
// context's.
// Prints `READER, freed under ...: reads N stale N` for each way. Exit code 1 if there was a stale
// read; with --expect-stale if there was none; with --stale-allowed never.
#include <cuda.h>

#include <functional>
#include <thread>

#include "two_gpus.h"

namespace {

using cmp::demo::Kernels;
using namespace cmp::gpu;

constexpr uint64_t kLateNs = 300000;

// Of a pair of devices: the one that writes, and the one that reads.
struct Stage {
  const std::vector<Kernels>& kernels;
  int writer;
  int reader;
  cudaStream_t written;  // the writer's
  cudaStream_t reading;  // the reader's
  uint32_t* x;           // the writer's
  uint32_t* y;           // the reader's
  uint32_t* page_locked;
  cudaGraphExec_t copy;  // from x to y

  const Kernels& of(int device) const { return kernels[static_cast<size_t>(device)]; }
};

uint32_t CopiedBy(const Stage& stage, cudaStream_t stream) {
  CHECK(cudaStreamSynchronize(stream));
  return ReadBack(stage.y);
}

// What it saw of x. The reader's device is current.
struct Reader {
  const char* name;
  bool needs_access;
  std::function<uint32_t(const Stage&)> read;
};

const std::vector<Reader>& Readers() {
  static const std::vector<Reader> readers = {
      {"kernel", true,
       [](const Stage& s) {
         s.of(s.reader).CopyWord(s.reading, s.x, s.y);
         return CopiedBy(s, s.reading);
       }},
      {"kernel on the legacy stream", true,
       [](const Stage& s) {
         s.of(s.reader).CopyWord(nullptr, s.x, s.y);
         return CopiedBy(s, nullptr);
       }},
      {"cudaMemcpyPeerAsync", false,
       [](const Stage& s) {
         CHECK(cudaMemcpyPeerAsync(s.y, s.reader, s.x, s.writer, sizeof(uint32_t), s.reading));
         return CopiedBy(s, s.reading);
       }},
      {"cudaMemcpyPeer", false,
       [](const Stage& s) {
         CHECK(cudaMemcpyPeer(s.y, s.reader, s.x, s.writer, sizeof(uint32_t)));
         return ReadBack(s.y);
       }},
      {"copy in a graph", false,
       [](const Stage& s) {
         CHECK(cudaGraphLaunch(s.copy, s.reading));
         return CopiedBy(s, s.reading);
       }},
      {"cudaMemcpyAsync to page-locked memory", false,
       [](const Stage& s) {
         CHECK(cudaMemcpyAsync(s.page_locked, s.x, sizeof(uint32_t), cudaMemcpyDeviceToHost,
                               s.reading));
         CHECK(cudaStreamSynchronize(s.reading));
         return *s.page_locked;
       }},
      {"cudaMemcpy to the host", false, [](const Stage& s) { return ReadBack(s.x); }},
      {"second free, of the reader's memory, then kernel", true,
       [](const Stage& s) {
         CHECK(cudaFree(Allocate<char>(3000)));
         s.of(s.reader).CopyWord(s.reading, s.x, s.y);
         return CopiedBy(s, s.reading);
       }},
  };
  return readers;
}

enum class Freed { kUnderOwn, kUnderOther, kByThread };
constexpr Freed kFrees[] = {Freed::kUnderOwn, Freed::kUnderOther, Freed::kByThread};
constexpr const char* kFreedWords[] = {"its own device", "the other device",
                                       "its own by another thread"};

// The writer's device is current.
void Free(const Stage& stage, void* block, Freed how) {
  if (how == Freed::kByThread) {
    std::thread([&] {
      Use(stage.writer);
      CHECK(cudaFree(block));
    }).join();
    return;
  }
  if (how == Freed::kUnderOther) Use(stage.reader);
  CHECK(cudaFree(block));
}

void Settle(const Stage& stage) {
  for (const int device : {stage.reader, stage.writer}) {
    Use(device);
    CHECK(cudaDeviceSynchronize());
  }
}

// Also names the work on the simulated CUDA.
uint32_t NextValue() {
  static uint32_t value = 1000;
  return ++value;
}

bool IsStale(const Stage& stage, const Reader& reader, Freed how, size_t freed_bytes) {
  const uint32_t value = NextValue();
  Use(stage.writer);
  void* freed = Allocate<char>(freed_bytes);
  stage.of(stage.writer).WriteLate(stage.written, stage.x, value, kLateNs);
  Free(stage, freed, how);
  Use(stage.reader);
  const uint32_t seen = reader.read(stage);
  Settle(stage);
  return seen != value;
}

bool IsOverwritten(const Stage& stage, Freed how, size_t freed_bytes) {
  const uint32_t value = NextValue();
  Use(stage.writer);
  void* freed = Allocate<char>(freed_bytes);
  stage.of(stage.writer).WriteLate(stage.written, stage.x, value, 1000);
  Settle(stage);
  Use(stage.reader);
  stage.of(stage.reader).Delay(stage.reading, kLateNs);
  CHECK(cudaMemcpyPeerAsync(stage.y, stage.reader, stage.x, stage.writer, sizeof(uint32_t),
                            stage.reading));
  Use(stage.writer);
  Free(stage, freed, how);
  Use(stage.writer);
  stage.of(stage.writer).WriteLate(stage.written, stage.x, NextValue(), 1000);
  Settle(stage);
  Use(stage.reader);
  return ReadBack(stage.y) != value;
}

cudaGraphExec_t CopyInGraph(cudaStream_t stream, const uint32_t* from, uint32_t* to) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t copy = nullptr;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  CHECK(cudaMemcpyAsync(to, from, sizeof(uint32_t), cudaMemcpyDefault, stream));
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiateWithFlags(&copy, graph, 0));
  CHECK(cudaGraphDestroy(graph));
  return copy;
}

void CheckDriver(CUresult status, const char* call) {
  if (status != CUDA_SUCCESS) Fail(call, static_cast<int>(status));
}

cudaStream_t MakeGreenStreamOn(int device) {
  CUdevResource resource = {};
  CUdevResourceDesc description = nullptr;
  CUgreenCtx green = nullptr;
  CUstream stream = nullptr;
  CheckDriver(cuDeviceGetDevResource(device, &resource, CU_DEV_RESOURCE_TYPE_SM), "resource");
  CheckDriver(cuDevResourceGenerateDesc(&description, &resource, 1), "description");
  CheckDriver(cuGreenCtxCreate(&green, description, device, CU_GREEN_CTX_DEFAULT_STREAM),
              "green context");
#if CUDA_VERSION >= 12050
  CheckDriver(cuGreenCtxStreamCreate(&stream, green, CU_STREAM_NON_BLOCKING, 0), "stream");
#else
  std::fprintf(stderr, "two_gpus_order: built without streams of green contexts\n");
  std::exit(kNoDevice);
#endif
  return stream;
}

}  // namespace

int main(int argc, char** argv) {
  const int devices = DevicesOrSkip(std::atoi(Argument(argc, argv, "--devices", "64")));
  const int rounds = std::atoi(Argument(argc, argv, "--rounds", "20"));
  Watchdog watchdog(20);
  const std::vector<Kernels> kernels = LoadKernels(devices);
  const bool access = !HasFlag(argc, argv, "--no-access") && EnableAllAccess(devices);
  const bool green = HasFlag(argc, argv, "--green");
  void* page_locked = nullptr;
  CHECK(cudaMallocHost(&page_locked, sizeof(uint32_t)));
  std::vector<Stage> stages;
  for (int writer = 0; writer < devices; ++writer) {
    for (int reader = 0; reader < devices; ++reader) {
      if (writer == reader) continue;
      Stage stage{kernels, writer,  reader,  nullptr,
                  nullptr, nullptr, nullptr, static_cast<uint32_t*>(page_locked),
                  nullptr};
      stage.written = MakeStreamOn(writer, cudaStreamNonBlocking);
      if (green) stage.written = MakeGreenStreamOn(writer);
      stage.x = AllocateZeros<uint32_t>(64);
      stage.reading = MakeStreamOn(reader, cudaStreamNonBlocking);
      stage.y = AllocateZeros<uint32_t>(64);
      stage.copy = CopyInGraph(stage.reading, stage.x, stage.y);
      stages.push_back(stage);
    }
  }
  unsigned long long all_stale = 0;
  const auto look = [&](const char* name, Freed how, const auto& is_stale) {
    watchdog.Progress(name);
    unsigned long long reads = 0;
    unsigned long long stale = 0;
    for (int round = 0; round < rounds; ++round) {
      for (const Stage& stage : stages) {
        for (const size_t bytes : {size_t{4096}, 4 * kMiB}) {
          ++reads;
          stale += is_stale(stage, bytes) ? 1 : 0;
        }
      }
    }
    std::printf("%s, freed under %s: reads %llu stale %llu\n", name,
                kFreedWords[static_cast<size_t>(how)], reads, stale);
    all_stale += stale;
  };
  for (const Freed how : kFrees) {
    for (const Reader& reader : Readers()) {
      if (reader.needs_access && !access) continue;
      look(reader.name, how,
           [&](const Stage& stage, size_t bytes) { return IsStale(stage, reader, how, bytes); });
    }
    look("late copy, overwritten", how,
         [&](const Stage& stage, size_t bytes) { return IsOverwritten(stage, how, bytes); });
  }
  if (HasFlag(argc, argv, "--stale-allowed")) return 0;
  return (all_stale != 0) == HasFlag(argc, argv, "--expect-stale") ? 0 : 1;
}
