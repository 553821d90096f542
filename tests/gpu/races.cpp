// The corpus for CMP_SHAKE: small programs with one planted race each, and some without, that print
// a checksum. They rely on what the real cudaFree gives beyond its memory, and so are right with
// it, and nearly always without: between the two sides of a race the host takes its time. The
// checksum changes where the earlier side is held back.
//
//   races --list                   name, the value of CMP_FREE_SYNC that it is for, race or right
//   races NAME [--iterations N]    128, if nothing else is said
//
// Programs for `none` race on the device, those for `order` with the host.
#include <cuda.h>

#include "../demo/kernels.h"
#include "program.h"

namespace {

using cmp::demo::Kernels;
using namespace cmp::gpu;

constexpr uint64_t kShort = 1000;  // ns that a kernel takes
constexpr uint32_t kMost = 4096;   // iterations

// One thing that work reads or writes, for each iteration, so that iterations do not meet.
template <typename T>
T* Words(T* memory, int which) {
  return memory + size_t{kMost} * static_cast<size_t>(which);
}

struct Lab {
  explicit Lab(const Kernels& k) : kernels(k) {
    for (cudaStream_t& stream : streams) stream = MakeStream(cudaStreamNonBlocking);
    a = streams[0];
    b = streams[1];
    c = streams[2];
    for (cudaEvent_t& event : events) {
      CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    }
    memory = AllocateZeros<uint32_t>(size_t{kMost} * 4);
    x = Words(memory, 0);
    y = Words(memory, 1);
    z = Words(memory, 2);
    CHECK(cudaHostAlloc(reinterpret_cast<void**>(&page_locked), size_t{kMost} * 4 * 4,
                        cudaHostAllocDefault));
    std::memset(page_locked, 0, size_t{kMost} * 4 * 4);
    h = Words(page_locked, 0);
    g = Words(page_locked, 1);
  }

  // The host computes something: far longer than the work takes that is under way.
  void Compute(double seconds = 60e-6) const {
    int device = 0;
    for (int i = 0; i < 40; ++i) CHECK(cudaGetDevice(&device));
    if (kernels.simulated()) return;
    for (const auto begin = Clock::now(); SecondsSince(begin) < seconds;) {
    }
  }
  // A temporary buffer that some library takes and gives back.
  static void UseTemporary() { CHECK(cudaFree(Allocate<char>(1000))); }
  void UseTemporaryAndCompute() const {
    UseTemporary();
    Compute();
  }

  void Write(cudaStream_t stream, uint32_t* word, uint32_t value) const {
    kernels.WriteLate(stream, word, value, kShort);
  }
  static void Copy(cudaStream_t stream, const void* from, void* to, cudaMemcpyKind kind) {
    CHECK(cudaMemcpyAsync(to, from, sizeof(uint32_t), kind, stream));
  }
  // By the driver's own interface, for a row of a picture.
  static void CopyRow(cudaStream_t stream, const void* from, void* to) {
    CUDA_MEMCPY2D box = {};
    box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    box.srcDevice = reinterpret_cast<CUdeviceptr>(from);
    box.dstDevice = reinterpret_cast<CUdeviceptr>(to);
    box.WidthInBytes = sizeof(uint32_t);
    box.Height = 1;
    if (const CUresult status = cuMemcpy2DAsync(&box, stream)) Fail("cuMemcpy2DAsync", status);
  }
  static void Order(cudaStream_t before, cudaEvent_t event, cudaStream_t after) {
    CHECK(cudaEventRecord(event, before));
    CHECK(cudaStreamWaitEvent(after, event, 0));
  }

  // What work() submits to `stream`, as a graph.
  template <typename Work>
  static cudaGraphExec_t Graph(cudaStream_t stream, Work work) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t made = nullptr;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiateWithFlags(&made, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    return made;
  }

  static uint64_t Checksum(const uint32_t* words, uint32_t count) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; ++i) sum = sum * 1099511628211u + words[i];
    return sum;
  }

  const Kernels& kernels;
  cudaStream_t streams[4] = {};
  cudaStream_t a, b, c;
  cudaEvent_t events[4] = {};
  uint32_t* memory;
  uint32_t *x, *y, *z;  // on the device; z has the results
  uint32_t* page_locked;
  uint32_t *h, *g;
  uint32_t seen[kMost] = {};  // by the host
  cudaGraphExec_t graph = nullptr;
  cudaGraphExec_t other_graph = nullptr;
};

volatile uint32_t& AsHostSees(uint32_t* word) { return *word; }

void SetTo(void* word) { *static_cast<volatile uint32_t*>(word) = 77; }

// Work that is ordered rightly, from places of its own.
template <int kWhich>
[[gnu::noinline]] void ExchangeRightly(Lab& lab, uint32_t i) {
  asm volatile("" ::"i"(kWhich));  // no two are one
  lab.Write(lab.a, lab.y + i, i + kWhich);
  Lab::Order(lab.a, lab.events[3], lab.b);
  Lab::UseTemporary();
  lab.kernels.CopyWord(lab.b, lab.y + i, lab.memory + size_t{kMost} * 3 + i);
  Lab::Order(lab.b, lab.events[2], lab.a);
}

// As a library stages what it sends: the word of g for that of h.
void CopyToSecondPart(void* word) {
  auto* from = static_cast<volatile uint32_t*>(word);
  from[kMost] = *from;
}

struct Program {
  const char* name;
  const char* free_sync;
  bool races;
  void (*run)(Lab& lab, uint32_t i);
  void (*prepare)(Lab& lab) = nullptr;
};

constexpr auto kOnDevice = cudaMemcpyDeviceToDevice;
constexpr auto kToHost = cudaMemcpyDeviceToHost;
constexpr auto kToDevice = cudaMemcpyHostToDevice;
constexpr bool kRace = true;
constexpr bool kRight = false;

// A graph that writes the one word x[0], and one that copies it to y[0].
void MakeDeviceGraphs(Lab& lab) {
  lab.graph = Lab::Graph(lab.a, [&] { lab.Write(lab.a, lab.x, 5); });
  lab.other_graph = Lab::Graph(lab.b, [&] { lab.kernels.CopyWord(lab.b, lab.x, lab.y); });
}
// A graph that copies x[0] to h[0], and one that copies h[0] to x[0].
void MakeHostGraphs(Lab& lab) {
  lab.graph = Lab::Graph(lab.a, [&] { Lab::Copy(lab.a, lab.x, lab.h, kToHost); });
  lab.other_graph = Lab::Graph(lab.a, [&] { Lab::Copy(lab.a, lab.h, lab.x, kToDevice); });
}
// Before the next launch of a graph: everything as it was.
void Restart(Lab& lab) {
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaMemsetAsync(lab.x, 0, 4, lab.a));
  CHECK(cudaMemsetAsync(lab.y, 0, 4, lab.a));
  CHECK(cudaDeviceSynchronize());
  lab.h[0] = 0;
}

const Program kPrograms[] = {
    // ---- An event is missing between streams
    {"missing-event-recorded-early", "none", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaEventRecord(lab.events[0], lab.a));
       lab.Write(lab.a, lab.x + i, i + 1);
       lab.UseTemporaryAndCompute();
       CHECK(cudaStreamWaitEvent(lab.b, lab.events[0], 0));
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},
    {"missing-event-of-another-stream", "none", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.c, lab.y + i, i + 1);
       lab.Write(lab.a, lab.x + i, i + 1);
       Lab::Order(lab.c, lab.events[0], lab.b);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},
    {"missing-event-of-the-last-round", "none", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaMemsetAsync(lab.x + i, 17, 4, lab.a));
       lab.UseTemporaryAndCompute();
       CHECK(cudaStreamWaitEvent(lab.b, lab.events[0], 0));
       Lab::Copy(lab.b, lab.x + i, lab.z + i, kOnDevice);
       CHECK(cudaEventRecord(lab.events[0], lab.a));
     }},
    {"missing-event-in-a-chain", "none", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaEventRecord(lab.events[1], lab.c));
       lab.Write(lab.a, lab.x + i, i + 1);
       Lab::Order(lab.a, lab.events[0], lab.c);
       lab.UseTemporaryAndCompute();
       CHECK(cudaStreamWaitEvent(lab.b, lab.events[1], 0));
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},
    {"missing-event-the-wrong-way-round", "none", kRace,
     [](Lab& lab, uint32_t i) {
       Lab::Order(lab.b, lab.events[0], lab.a);
       lab.Write(lab.a, lab.x + i, i + 1);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},

    {"missing-event-several-kernels", "none", kRace,
     [](Lab& lab, uint32_t i) {
       // What is read is not what was written last.
       lab.Write(lab.a, lab.x + i, i + 1);
       for (int more = 0; more < 3; ++more) lab.Write(lab.a, lab.y + i, i + 1);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},

    {"missing-event-among-many", "none", kRace,
     [](Lab& lab, uint32_t i) {
       ExchangeRightly<1>(lab, i);
       ExchangeRightly<2>(lab, i);
       ExchangeRightly<3>(lab, i);
       ExchangeRightly<4>(lab, i);
       lab.Write(lab.a, lab.x + i, i + 1);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
       ExchangeRightly<5>(lab, i);
       ExchangeRightly<6>(lab, i);
       ExchangeRightly<7>(lab, i);
       ExchangeRightly<8>(lab, i);
     }},

    // ---- cudaFree is all the order that there is
    {"free-alone-kernels", "none", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x + i, i + 1);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},
    {"free-alone-synchronous-copy", "none", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x + i, i + 1);
       lab.UseTemporaryAndCompute();
       CHECK(cudaMemcpy(lab.seen + i, lab.x + i, 4, kToHost));
     }},
    {"free-alone-set-and-copy", "none", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaMemsetAsync(lab.x + i, 3, 4, lab.a));
       lab.UseTemporaryAndCompute();
       Lab::Copy(lab.b, lab.x + i, lab.z + i, kOnDevice);
     }},
    {"free-alone-legacy-stream", "none", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(nullptr, lab.x + i, i + 1);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},
    {"free-alone-per-thread-stream", "none", kRace,
     [](Lab& lab, uint32_t i) {
       Lab::Copy(lab.a, lab.memory + size_t{kMost} * 3 + i, lab.y + i, kOnDevice);
       lab.Write(lab.a, lab.x + i, i + 1);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(cudaStreamPerThread, lab.x + i, lab.z + i);
     }},

    // ---- Another stream uses a buffer again
    {"reuse-kernels", "none", kRace,
     [](Lab& lab, uint32_t i) {
       lab.kernels.CopyWord(lab.a, lab.x + i, lab.z + i);
       lab.UseTemporaryAndCompute();
       lab.Write(lab.b, lab.x + i, i + 1);
     }},
    {"reuse-copy-and-set", "none", kRace,
     [](Lab& lab, uint32_t i) {
       Lab::Copy(lab.a, lab.x + i, lab.z + i, kOnDevice);
       lab.UseTemporaryAndCompute();
       CHECK(cudaMemsetAsync(lab.x + i, 9, 4, lab.b));
     }},
    {"reuse-of-own-pool", "none", kRace,
     [](Lab& lab, uint32_t i) {
       // Buffers go round among the streams.
       const cudaStream_t one = lab.streams[i % 4];
       const cudaStream_t next = lab.streams[(i + 1) % 4];
       lab.Write(one, lab.x + i % 4, i + 1);
       lab.kernels.CopyWord(one, lab.x + i % 4, lab.z + i);
       lab.UseTemporaryAndCompute();
       lab.Write(next, lab.x + i % 4, 1000);
       lab.Compute();
       CHECK(cudaStreamSynchronize(next));
     }},
    {"reuse-by-legacy-copy", "none", kRace,
     [](Lab& lab, uint32_t i) {
       lab.kernels.CopyWord(lab.a, lab.x + i, lab.z + i);
       lab.UseTemporaryAndCompute();
       const uint32_t value = i + 1;
       CHECK(cudaMemcpy(lab.x + i, &value, 4, kToDevice));
     }},
    {"reuse-written-twice", "none", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.z + i, 1);
       lab.UseTemporaryAndCompute();
       lab.Write(lab.b, lab.z + i, 2);
     }},

    // ---- A graph
    {"graph-then-kernel", "none", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaGraphLaunch(lab.graph, lab.a));
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x, lab.z + i);
       Restart(lab);
     },
     &MakeDeviceGraphs},
    {"graph-after-kernel", "none", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x, i + 1);
       lab.UseTemporaryAndCompute();
       CHECK(cudaGraphLaunch(lab.other_graph, lab.b));
       CHECK(cudaStreamSynchronize(lab.b));
       lab.seen[i] = ReadBack(lab.y);
       Restart(lab);
     },
     &MakeDeviceGraphs},
    {"graph-and-graph", "none", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaGraphLaunch(lab.graph, lab.a));
       lab.UseTemporaryAndCompute();
       CHECK(cudaGraphLaunch(lab.other_graph, lab.b));
       CHECK(cudaStreamSynchronize(lab.b));
       lab.seen[i] = ReadBack(lab.y);
       Restart(lab);
     },
     &MakeDeviceGraphs},
    {"graph-and-set", "none", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaGraphLaunch(lab.graph, lab.a));
       lab.UseTemporaryAndCompute();
       CHECK(cudaMemsetAsync(lab.x, 1, 4, lab.b));
       CHECK(cudaDeviceSynchronize());
       lab.seen[i] = ReadBack(lab.x);
       Restart(lab);
     },
     &MakeDeviceGraphs},
    {"graph-and-synchronous-copy", "none", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaGraphLaunch(lab.graph, lab.a));
       lab.UseTemporaryAndCompute();
       lab.seen[i] = ReadBack(lab.x);
       Restart(lab);
     },
     &MakeDeviceGraphs},
    {"graph-to-host", "order", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x, i + 1);
       CHECK(cudaGraphLaunch(lab.graph, lab.a));
       lab.UseTemporaryAndCompute();
       lab.seen[i] = AsHostSees(lab.h);
       Restart(lab);
     },
     &MakeHostGraphs},
    {"graph-from-host", "order", kRace,
     [](Lab& lab, uint32_t i) {
       AsHostSees(lab.h) = i + 1;
       CHECK(cudaGraphLaunch(lab.other_graph, lab.a));
       lab.UseTemporaryAndCompute();
       AsHostSees(lab.h) = 1000;
       lab.Compute();
       CHECK(cudaStreamSynchronize(lab.a));
       lab.seen[i] = ReadBack(lab.x);
       Restart(lab);
     },
     &MakeHostGraphs},

    // ---- The host reads without a synchronisation
    {"host-reads-copy", "order", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x + i, i + 1);
       Lab::Copy(lab.a, lab.x + i, lab.h + i, kToHost);
       lab.UseTemporaryAndCompute();
       lab.seen[i] = AsHostSees(lab.h + i);
     }},
    {"host-reads-copy-of-rows", "order", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x + i, i + 1);
       Lab::CopyRow(lab.a, lab.x + i, lab.h + i);
       lab.UseTemporaryAndCompute();
       lab.seen[i] = AsHostSees(lab.h + i);
     }},
    {"host-reads-what-a-function-set", "order", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaLaunchHostFunc(lab.a, &SetTo, lab.h + i));
       lab.UseTemporaryAndCompute();
       lab.seen[i] = AsHostSees(lab.h + i);
     }},
    {"host-reads-copy-of-legacy-stream", "order", kRace,
     [](Lab& lab, uint32_t i) {
       lab.Write(nullptr, lab.x + i, i + 1);
       Lab::Copy(nullptr, lab.x + i, lab.h + i, kToHost);
       lab.UseTemporaryAndCompute();
       lab.seen[i] = AsHostSees(lab.h + i);
     }},
    {"host-reads-set", "order", kRace,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaMemsetAsync(lab.h + i, 4, 4, lab.a));
       lab.UseTemporaryAndCompute();
       lab.seen[i] = AsHostSees(lab.h + i);
     }},

    // ---- A copy comes late
    {"late-copy-of-changed-source", "order", kRace,
     [](Lab& lab, uint32_t i) {
       AsHostSees(lab.h + i) = i + 1;
       Lab::Copy(lab.a, lab.h + i, lab.z + i, kToDevice);
       lab.UseTemporaryAndCompute();
       AsHostSees(lab.h + i) = 1000;
     }},
    {"late-copy-over-new-contents", "order", kRace,
     [](Lab& lab, uint32_t i) {
       Lab::Copy(lab.a, lab.x + i, lab.h + i, kToHost);
       lab.UseTemporaryAndCompute();
       AsHostSees(lab.h + i) = i + 1;
       lab.Compute();
       CHECK(cudaStreamSynchronize(lab.a));
       lab.seen[i] = AsHostSees(lab.h + i);
     }},
    {"late-copy-of-rows", "order", kRace,
     [](Lab& lab, uint32_t i) {
       AsHostSees(lab.h + i) = i + 1;
       Lab::CopyRow(lab.a, lab.h + i, lab.z + i);
       lab.UseTemporaryAndCompute();
       AsHostSees(lab.h + i) = 1000;
     }},
    {"late-copy-of-one-staging-buffer", "order", kRace,
     [](Lab& lab, uint32_t i) {
       AsHostSees(lab.g) = i + 1;
       Lab::Copy(lab.a, lab.g, lab.z + i, kToDevice);
       lab.UseTemporaryAndCompute();
     }},
    {"late-copy-by-a-function", "order", kRace,
     [](Lab& lab, uint32_t i) {
       AsHostSees(lab.h + i) = i + 1;
       CHECK(cudaLaunchHostFunc(lab.a, &CopyToSecondPart, lab.h + i));
       Lab::UseTemporary();
       lab.Compute(3e-3);  // the function's thread must wake up (60 us were too short, H200)
       AsHostSees(lab.h + i) = 1000;
       lab.Compute();
       CHECK(cudaStreamSynchronize(lab.a));
       lab.seen[i] = AsHostSees(lab.g + i);
     }},

    // ---- Nothing is wrong
    {"right-event", "none", kRight,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x + i, i + 1);
       Lab::Order(lab.a, lab.events[0], lab.b);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},
    {"right-events-in-a-chain", "none", kRight,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x + i, i + 1);
       Lab::Order(lab.a, lab.events[0], lab.c);
       Lab::Order(lab.c, lab.events[1], lab.b);
       lab.UseTemporaryAndCompute();
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},
    {"right-synchronised-stream", "none", kRight,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x + i, i + 1);
       Lab::UseTemporary();
       CHECK(cudaStreamSynchronize(lab.a));
       lab.kernels.CopyWord(lab.b, lab.x + i, lab.z + i);
     }},
    {"right-blocking-streams", "none", kRight,
     [](Lab& lab, uint32_t i) {
       static const cudaStream_t blocking = MakeStream(cudaStreamDefault);
       lab.Write(blocking, lab.x + i, i + 1);
       Lab::UseTemporary();
       lab.kernels.CopyWord(nullptr, lab.x + i, lab.z + i);
     }},
    {"right-streams-apart", "none", kRight,
     [](Lab& lab, uint32_t i) {
       const cudaStream_t stream = lab.streams[i % 4];
       lab.Write(stream, lab.x + i, i + 1);
       Lab::UseTemporary();
       lab.kernels.CopyWord(stream, lab.x + i, lab.z + i);
     }},
    {"right-graphs", "none", kRight,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaGraphLaunch(lab.graph, lab.a));
       Lab::Order(lab.a, lab.events[0], lab.b);
       Lab::UseTemporary();
       CHECK(cudaGraphLaunch(lab.other_graph, lab.b));
       CHECK(cudaStreamSynchronize(lab.b));
       lab.seen[i] = ReadBack(lab.y);
       Restart(lab);
     },
     &MakeDeviceGraphs},
    {"right-host-waits", "order", kRight,
     [](Lab& lab, uint32_t i) {
       lab.Write(lab.a, lab.x + i, i + 1);
       Lab::Copy(lab.a, lab.x + i, lab.h + i, kToHost);
       Lab::UseTemporary();
       CHECK(cudaStreamSynchronize(lab.a));
       lab.seen[i] = AsHostSees(lab.h + i);
     }},
    {"right-host-waits-for-event", "order", kRight,
     [](Lab& lab, uint32_t i) {
       AsHostSees(lab.g) = i + 1;
       Lab::Copy(lab.a, lab.g, lab.z + i, kToDevice);
       CHECK(cudaEventRecord(lab.events[0], lab.a));
       Lab::UseTemporary();
       CHECK(cudaEventSynchronize(lab.events[0]));
     }},
    {"right-host-asks-until-done", "order", kRight,
     [](Lab& lab, uint32_t i) {
       CHECK(cudaLaunchHostFunc(lab.a, &SetTo, lab.h + i));
       Lab::UseTemporary();
       while (cudaStreamQuery(lab.a) == cudaErrorNotReady) {
       }
       lab.seen[i] = AsHostSees(lab.h + i);
     }},
};

int List() {
  for (const Program& program : kPrograms) {
    std::printf("%s %s %s\n", program.name, program.free_sync, program.races ? "race" : "right");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (HasFlag(argc, argv, "--list")) return List();
  const char* name = argc > 1 ? argv[1] : "";
  const auto iterations =
      static_cast<uint32_t>(std::atoi(Argument(argc, argv, "--iterations", "128")));
  const auto* program =
      std::find_if(std::begin(kPrograms), std::end(kPrograms),
                   [=](const Program& p) { return std::strcmp(p.name, name) == 0; });
  if (program == std::end(kPrograms) || iterations >= kMost) {
    std::fprintf(stderr, "usage: races --list | NAME [--iterations N]\n");
    return 2;
  }
  StartCudaOrSkip();
  Watchdog watchdog(60);
  const Kernels kernels;
  static Lab lab(kernels);
  if (program->prepare != nullptr) program->prepare(lab);
  // What happens for the first time takes its time: the result of that does not count. In the same
  // loop, so that it has the same places in the program.
  std::vector<uint32_t> rounds(1, kMost - 1);
  for (uint32_t i = 0; i < iterations; ++i) rounds.push_back(i);
  for (const uint32_t i : rounds) {
    watchdog.Progress(name);
    program->run(lab, i);
    if (i == kMost - 1) CHECK(cudaDeviceSynchronize());
  }
  CHECK(cudaDeviceSynchronize());
  static uint32_t results[kMost];
  CHECK(cudaMemcpy(results, lab.z, sizeof(results), cudaMemcpyDeviceToHost));
  std::printf("%s: %016llx\n", name,
              static_cast<unsigned long long>(Lab::Checksum(results, iterations) ^
                                              Lab::Checksum(lab.seen, iterations) << 1));
  return 0;
}
