// Allocations and frees while a stream capture is under way.
#include <dlfcn.h>

#include <chrono>
#include <condition_variable>
#include <thread>
#include <vector>

#include "program.h"

using program::Allocate;
using program::Say;

namespace {

const struct {
  const char* name;
  cudaStreamCaptureMode mode;
} kModes[] = {{"global", cudaStreamCaptureModeGlobal},
              {"thread-local", cudaStreamCaptureModeThreadLocal},
              {"relaxed", cudaStreamCaptureModeRelaxed}};

void Count(void* data) { ++*static_cast<int*>(data); }

SimWork Counting(int* counter) {
  SimWork work = {};
  work.duration_ns = 1000;
  work.effect = &Count;
  work.data = counter;
  return work;
}

// A capture of two kernels with something in between.
template <typename Between>
void Capture(const char* what, cudaStreamCaptureMode mode, Between between) {
  static int counter;
  counter = 0;
  const cudaStream_t stream = program::NonBlockingStream();
  MUST(cudaStreamBeginCapture(stream, mode));
  MUST(program::Launch(stream, Counting(&counter)));
  printf("%s\n", what);
  between();
  const cudaError_t launched = program::Launch(stream, Counting(&counter));
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  cudaGetLastError();
  printf("  launch %d, end %d, graph %s\n", static_cast<int>(launched), static_cast<int>(ended),
         graph == nullptr ? "none" : "made");
  if (graph != nullptr) {
    cudaGraphExec_t executable = nullptr;
    MUST(cudaGraphInstantiate(&executable, graph, 0));
    for (int i = 0; i < 3; ++i) MUST(cudaGraphLaunch(executable, stream));
    MUST(cudaStreamSynchronize(stream));
    printf("  kernels run %d\n", counter);
    MUST(cudaGraphExecDestroy(executable));
    MUST(cudaGraphDestroy(graph));
  }
  MUST(cudaStreamDestroy(stream));
  MUST(cudaDeviceSynchronize());
}

template <typename Function>
void InThread(Function function) {
  std::thread([&] {
    MUST(cudaSetDevice(0));
    function();
  }).join();
}

void Result(const char* what, cudaError_t result) {
  printf("  %s: ", what);
  Say("result", result);
  cudaGetLastError();
}

// Calls of the thread that captures.
void OwnThread() {
  for (const auto& [name, mode] : kModes) {
    printf("== %s\n", name);
    for (const size_t bytes : {size_t{4096}, size_t{3} << 20}) {
      program::Warm(bytes);
      void* made = nullptr;
      Capture("alloc", mode, [&] { Result("cudaMalloc", cudaMalloc(&made, bytes)); });
      printf("  p %s\n", made == nullptr ? "NULL" : "set");
      if (made != nullptr) Result("its free", cudaFree(made));
      char* block = Allocate(bytes);
      Capture("free", mode, [&] { Result("cudaFree", cudaFree(block)); });
      Result("free afterwards", cudaFree(block));
      char* freed = Allocate(bytes);
      MUST(cudaFree(freed));
      Capture("double free", mode, [&] { Result("cudaFree", cudaFree(freed)); });
      block = Allocate(bytes);
      Capture("free twice", mode, [&] {
        Result("cudaFree", cudaFree(block));
        Result("cudaFree", cudaFree(block));
      });
      Result("free afterwards", cudaFree(block));
      Capture("wild free", mode,
              [&] { Result("cudaFree", cudaFree(reinterpret_cast<void*>(0x123000))); });
      Capture("odd calls", mode, [&] {
        void* pointer = nullptr;
        Result("cudaMalloc of 0", cudaMalloc(&pointer, 0));
        Result("cudaMalloc(NULL)", cudaMalloc(nullptr, 1));
        Result("cudaFree(NULL)", cudaFree(nullptr));
      });
      Capture("alloc within a relaxed exchange", mode, [&] {
        cudaStreamCaptureMode exchanged = cudaStreamCaptureModeRelaxed;
        MUST(cudaThreadExchangeStreamCaptureMode(&exchanged));
        void* pointer = nullptr;
        Result("cudaMalloc", cudaMalloc(&pointer, bytes));
        Result("cudaFree", cudaFree(pointer));
        MUST(cudaThreadExchangeStreamCaptureMode(&exchanged));
      });
    }
  }
  program::NoteServed("afterwards", 4096);
}

// Calls of another thread. Blocks that are ready in a pool may be handed out during a global
// capture, where the real call fails: `warm` says whether there are any.
void OtherThread(bool warm) {
  size_t bytes = 5000;
  for (const auto& [name, mode] : kModes) {
    printf("== %s\n", name);
    for (int large = 0; large < 2; ++large) {
      bytes += large != 0 ? size_t{3} << 20 : 4096;  // a tier of its own: nothing is idle there
      if (warm) InThread([&] { program::Warm(bytes); });  // they go to where all threads find them
      Capture("alloc", mode, [&] {
        InThread([&] {
          void* made = nullptr;
          Result("cudaMalloc", cudaMalloc(&made, bytes));
        });
      });
      if (warm) continue;
      char* block = Allocate(bytes);
      Capture("free", mode, [&] { InThread([&] { Result("cudaFree", cudaFree(block)); }); });
      Result("free afterwards", cudaFree(block));
      char* freed = Allocate(bytes);
      MUST(cudaFree(freed));
      Capture("double free", mode, [&] { InThread([&] { Result("cudaFree", cudaFree(freed)); }); });
    }
  }
  program::NoteServed("afterwards", 4096);
}

// Ways in which a capture ends, or does not begin; afterwards the pool serves again.
void Endings() {
  cudaGraph_t graph = nullptr;
  cudaStream_t stream = program::NonBlockingStream();
  program::Warm(4096);
  program::NoteServed("before", 4096);

  Result("begin on the legacy stream", cudaStreamBeginCapture(nullptr, kModes[0].mode));
  program::NoteServed("after a begin that failed", 4096);

  MUST(cudaStreamBeginCapture(stream, kModes[2].mode));
  Result("begin again", cudaStreamBeginCapture(stream, kModes[2].mode));
  Result("end", cudaStreamEndCapture(stream, &graph));
  program::NoteServed("after a double begin", 4096);

  Result("end without begin", cudaStreamEndCapture(stream, &graph));
  MUST(cudaStreamBeginCapture(stream, kModes[1].mode));
  InThread([&] { Result("end by another thread", cudaStreamEndCapture(stream, &graph)); });
  void* during = nullptr;
  Result("alloc meanwhile", cudaMalloc(&during, 4096));
  Result("end", cudaStreamEndCapture(stream, &graph));
  program::NoteServed("after an end by the wrong thread", 4096);

  MUST(cudaStreamBeginCapture(stream, kModes[2].mode));
  InThread([&] { Result("relaxed, end by another thread", cudaStreamEndCapture(stream, &graph)); });
  program::NoteServed("after an end by another thread", 4096);

  MUST(cudaStreamBeginCapture(stream, kModes[0].mode));
  Result("synchronize", cudaDeviceSynchronize());
  Result("end", cudaStreamEndCapture(stream, &graph));
  program::NoteServed("after an invalidated capture", 4096);

  MUST(cudaStreamBeginCapture(stream, kModes[0].mode));
  Result("end without a graph", cudaStreamEndCapture(stream, nullptr));
  program::NoteServed("after an end without a graph", 4096);

  MUST(cudaStreamBeginCapture(stream, kModes[0].mode));
  Result("destroy", cudaStreamDestroy(stream));
  program::NoteServed("after the stream was destroyed", 4096);

  InThread([&] {
    MUST(cudaStreamBeginCapture(cudaStreamPerThread, kModes[2].mode));
    Result("end of a per-thread stream", cudaStreamEndCapture(cudaStreamPerThread, &graph));
  });
  program::NoteServed("after a per-thread stream", 4096);

  stream = program::NonBlockingStream();
  MUST(cudaGraphCreate(&graph, 0));
  MUST(cudaStreamBeginCaptureToGraph(stream, graph, nullptr, nullptr, 0, kModes[2].mode));
  Result("end of a capture to a graph", cudaStreamEndCapture(stream, &graph));
  program::NoteServed("after a capture to a graph", 4096);

  InThread([&] { MUST(cudaStreamBeginCapture(stream, kModes[1].mode)); });
  void* pointer = nullptr;
  Result("alloc, the capturing thread is gone", cudaMalloc(&pointer, 4096));
  Result("free", cudaFree(pointer));
  Result("destroy", cudaStreamDestroy(stream));
  program::NoteServed("after the thread was gone", 4096);
}

// A capture into a graph that was captured before. By name: headers before CUDA 13.3 lack it.
void Recapture() {
  using Begin = CUresult (*)(CUstream, CUstreamCaptureMode, CUgraph, void* callback, void* data);
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY);
  const char* names[] = {"cuStreamBeginRecaptureToGraph", "cuStreamBeginRecaptureToGraph_ptsz"};
  const cudaStream_t streams[] = {program::NonBlockingStream(), cudaStreamPerThread};
  const cudaStream_t other = program::NonBlockingStream();
  static int counter;
  program::Warm(1 << 16);
  for (int i = 0; i < 2; ++i) {
    counter = 0;
    cudaGraph_t graph = nullptr;
    MUST(cudaStreamBeginCapture(streams[i], cudaStreamCaptureModeRelaxed));
    MUST(program::Launch(streams[i], Counting(&counter)));
    MUST(cudaStreamEndCapture(streams[i], &graph));

    char* block = Allocate(1 << 16);
    program::LaunchWrite(other, block, 1 << 16, 1, 50000);
    const auto begin = reinterpret_cast<Begin>(dlsym(driver, names[i]));
    Say("begin",
        static_cast<cudaError_t>(begin(i == 0 ? streams[i] : nullptr,
                                       CU_STREAM_CAPTURE_MODE_RELAXED, graph, nullptr, nullptr)));
    MUST(cudaFree(block));
    MUST(program::Launch(streams[i], Counting(&counter)));
    Say("end", cudaStreamEndCapture(streams[i], &graph));

    cudaGraphExec_t executable = nullptr;
    MUST(cudaGraphInstantiate(&executable, graph, 0));
    MUST(cudaGraphLaunch(executable, streams[i]));
    MUST(cudaDeviceSynchronize());
    printf("kernels run %d\n", counter);
    program::NoteServed("after the recapture", 4096);
  }
}

// A reset ends every capture of the device.
void Reset() {
  program::Warm(4096);
  MUST(cudaStreamBeginCapture(program::NonBlockingStream(), cudaStreamCaptureModeRelaxed));
  Say("reset", cudaDeviceReset());
  program::Warm(4096);
  program::NoteServed("after the reset", 4096);
}

// More captures at once than anyone would expect.
void Many() {
  program::Warm(4096);
  std::vector<cudaStream_t> streams(100);
  for (cudaStream_t& stream : streams) {
    stream = program::NonBlockingStream();
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  }
  void* pointer = nullptr;
  Result("alloc", cudaMalloc(&pointer, 4096));
  int ended = 0;
  for (const cudaStream_t stream : streams) {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated) ++ended;
    MUST(cudaStreamDestroy(stream));
  }
  printf("invalidated: %d\n", ended);
  cudaGetLastError();
  program::Warm(4096);
  program::NoteServed("after many captures", 4096);
}

// The kernels of a graph work on pool memory that lives as long as the graph.
void Graphs() {
  program::Warm(1 << 16);
  const cudaStream_t stream = program::NonBlockingStream();
  std::vector<char*> blocks(6);
  for (char*& block : blocks) {
    block = Allocate(1 << 16);
    simNoteAlloc(block, 1 << 16);
    MUST(cudaMemset(block, 0, 1 << 16));
  }
  MUST(cudaDeviceSynchronize());
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (size_t i = 0; i < blocks.size(); ++i) {
    const SimRange read = {blocks[(i + 1) % blocks.size()], 1 << 16};
    const SimRange write = {blocks[i], 1 << 16};
    SimWork work = {};
    work.id = 1 + i;
    work.duration_ns = 5000;
    work.reads = &read;
    work.read_count = 1;
    work.writes = &write;
    work.write_count = 1;
    MUST(program::Launch(stream, work));
  }
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  MUST(cudaStreamEndCapture(stream, &graph));
  MUST(cudaGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < 10; ++i) {
    MUST(cudaGraphLaunch(executable, stream));
    char* other = Allocate(1 << 16);
    program::LaunchWrite(stream, other, 1 << 16, i, 5000);
    MUST(cudaFree(other));
  }
  MUST(cudaDeviceSynchronize());
  printf("contents %016llx\n", static_cast<unsigned long long>(simFingerprint()));
  for (char* block : blocks) {
    simNoteFree(block);
    MUST(cudaFree(block));
  }
}

// One thread captures again and again, others allocate and free: no capture may die of it.
void Storm(cudaStreamCaptureMode mode, int captures, int threads) {
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::atomic<int> calls{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&, i] {
      program::Random random(static_cast<uint64_t>(i));
      const cudaStream_t stream = program::NonBlockingStream();
      std::vector<void*> blocks(8, nullptr);
      while (!stop) {
        ++calls;
        void*& block = blocks[random.Below(blocks.size())];
        const size_t bytes = size_t{1} << (8 + random.Below(14));
        if (block == nullptr) {
          if (cudaMalloc(&block, bytes) != cudaSuccess) ++failures;
          simNoteAlloc(block, bytes);
          program::LaunchWrite(stream, block, 256, random.Next(), 2000);
        } else {
          simNoteFree(block);
          if (cudaFree(block) != cudaSuccess) ++failures;
          block = nullptr;
        }
      }
      for (void* block : blocks) {
        if (block == nullptr) continue;
        simNoteFree(block);
        if (cudaFree(block) != cudaSuccess) ++failures;
      }
    });
  }
  const cudaStream_t stream = program::NonBlockingStream();
  int died = 0;
  int counter = 0;
  for (int i = 0; i < captures || calls < 400; ++i) {
    MUST(cudaStreamBeginCapture(stream, mode));
    if (program::Launch(stream, Counting(&counter)) != cudaSuccess) ++died;
    if (i % 4 == 0) std::this_thread::yield();
    if (program::Launch(stream, Counting(&counter)) != cudaSuccess) ++died;
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream, &graph) != cudaSuccess) ++died;
    if (graph != nullptr) MUST(cudaGraphDestroy(graph));
  }
  stop = true;
  for (std::thread& worker : workers) worker.join();
  printf("captures that died %d, calls that failed %d, last error %d\n", died, failures.load(),
         static_cast<int>(cudaGetLastError()));
  program::Warm(4096);
  program::NoteServed("afterwards", 4096);
}

// A capture begins while another thread's free waits for what the host does afterwards.
// (Not for a launch: real frees hold those of other threads up.)
void BeginWhileFreeWaits() {
  program::Warm(1000);
  char* block = Allocate(1000);
  const cudaStream_t waiting = program::NonBlockingStream();
  const cudaStream_t stream = program::NonBlockingStream();
  void* memory = nullptr;
  MUST(cudaMallocHost(&memory, sizeof(uint32_t)));
  auto* word = static_cast<uint32_t*>(memory);
  *word = 0;
  MUST(static_cast<cudaError_t>(cuStreamWaitValue32(waiting, reinterpret_cast<CUdeviceptr>(word), 1,
                                                    CU_STREAM_WAIT_VALUE_GEQ)));
  std::atomic<bool> started{false};
  std::atomic<int> freed{-1};
  std::thread thread([&] {
    started = true;
    freed = cudaFree(block);
  });
  while (!started) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // it waits by now
  printf("the free has returned: %s\n", freed == -1 ? "no" : "yes");
  cudaGraph_t graph = nullptr;
  Result("begin", cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  Result("end", cudaStreamEndCapture(stream, &graph));
  std::atomic_ref<uint32_t>(*word).store(1);
  thread.join();
  printf("free %d\n", freed.load());
  program::NoteServed("afterwards", 4096);
}

}  // namespace

int main(int count, char** arguments) {
  const char* scenario = count > 1 ? arguments[1] : "";
  MUST(cudaFree(nullptr));
  if (strcmp(scenario, "own") == 0) {
    OwnThread();
  } else if (strcmp(scenario, "other") == 0) {
    OtherThread(false);
  } else if (strcmp(scenario, "other-warm") == 0) {
    OtherThread(true);
  } else if (strcmp(scenario, "endings") == 0) {
    Endings();
  } else if (strcmp(scenario, "recapture") == 0) {
    Recapture();
  } else if (strcmp(scenario, "reset") == 0) {
    Reset();
  } else if (strcmp(scenario, "many") == 0) {
    Many();
  } else if (strcmp(scenario, "graphs") == 0) {
    Graphs();
  } else if (strcmp(scenario, "begin-while-free-waits") == 0) {
    BeginWhileFreeWaits();
  } else if (strcmp(scenario, "storm") == 0 && count == 5) {
    Storm(kModes[atoi(arguments[2])].mode, atoi(arguments[3]), atoi(arguments[4]));
  } else {
    return 2;
  }
  program::SayHazards();
  return 0;
}
