// Work that shows by itself when it is done: host functions, graphs, stream memory operations.
#include "scene.h"

namespace observations {
namespace {

struct Run {
  uint64_t count = 0;
};
void CUDART_CB CountRun(void* data) { ++static_cast<Run*>(data)->count; }
void CUDART_CB CountCallback(cudaStream_t, cudaError_t status, void* data) {
  if (status == cudaSuccess) CountRun(data);
}
void CUDA_CB CountDriverCallback(CUstream, CUresult status, void* data) {
  if (status == CUDA_SUCCESS) CountRun(data);
}

const cudaStream_t kStreams[] = {cudaStreamPerThread, nullptr};

// `submit` makes the run's function part of the stream's work.
void HostFunction(const std::function<void(cudaStream_t, Run*)>& submit) {
  char* device = DeviceWord();
  std::vector<cudaStream_t> streams(std::begin(kStreams), std::end(kStreams));
  streams.push_back(NonBlockingStream());
  for (const cudaStream_t stream : streams) {
    Run run;
    WriteWord(stream, device, 1, kLong);
    submit(stream, &run);
    FreeUnrelated();
    See("runs", run.count, 1);
    MUST(cudaDeviceSynchronize());
  }
}

// What `record` does, as a graph that is launched behind long work.
void Graph(const std::function<void(cudaStream_t)>& record, const std::function<bool()>& is_done,
           const std::function<void()>& again) {
  const cudaStream_t stream = NonBlockingStream();
  char* device = DeviceWord();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  record(stream);
  MUST(cudaStreamEndCapture(stream, &graph));
  MUST(cudaGraphInstantiate(&executable, graph, 0));
  MUST(cudaGraphDestroy(graph));
  for (const cudaStream_t launched : {stream, cudaStream_t{cudaStreamPerThread}}) {
    again();
    WriteWord(launched, device, 1, kLong);
    MUST(cudaGraphLaunch(executable, launched));
    FreeUnrelated();
    See("done", is_done() ? 1 : 0, 1);
    MUST(cudaDeviceSynchronize());
  }
}

void GraphOfHostFunction() {
  Run run;
  Graph([&](cudaStream_t stream) { MUST(cudaLaunchHostFunc(stream, &CountRun, &run)); },
        [&] { return run.count == 1; }, [&] { run.count = 0; });
}

void GraphOfCopy() {
  char* device = DeviceWord();
  char* host = PageLocked();
  Graph(
      [&](cudaStream_t stream) {
        MUST(cudaMemsetAsync(device, 7, 8, stream));
        MUST(cudaMemcpyAsync(host, device, 8, cudaMemcpyDeviceToHost, stream));
      },
      [&] { return HostWord(host) == 0x0707070707070707; }, [&] { SetHostWord(host, 0); });
}

void GraphOfSet() {
  char* host = PageLocked();
  Graph([&](cudaStream_t stream) { MUST(cudaMemsetAsync(host, 7, 8, stream)); },
        [&] { return HostWord(host) == 0x0707070707070707; }, [&] { SetHostWord(host, 0); });
}

// `write` a value into page-locked memory.
void WriteValue(const std::function<void(cudaStream_t, char*, uint64_t)>& write) {
  char* device = DeviceWord();
  char* host = PageLocked();
  for (const cudaStream_t stream : {NonBlockingStream(), cudaStream_t{cudaStreamPerThread}}) {
    const uint64_t value = NextValue();
    WriteWord(stream, device, 1, kLong);
    write(stream, host + 64, value);
    FreeUnrelated();
    See("value", HostWord(host + 64), value);
    MUST(cudaDeviceSynchronize());
  }
}

CUstreamBatchMemOpParams WriteOf(char* to, uint64_t value) {
  CUstreamBatchMemOpParams write = {};
  write.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
  write.writeValue.address = Address(to);
  write.writeValue.value64 = value;
  return write;
}

// The stream waits for a value that is there. After the free the host takes it for passed, and uses
// the word for something else.
void WaitValue(const std::function<void(cudaStream_t, char*)>& wait) {
  char* device = DeviceWord();
  char* host = PageLocked();
  for (const cudaStream_t stream : {NonBlockingStream(), cudaStream_t{cudaStreamPerThread}}) {
    SetHostWord(host, 5);
    WriteWord(stream, device, 1, kLong);
    wait(stream, host);
    WriteWord(stream, device, 2, kShort);
    FreeUnrelated();
    SetHostWord(host, 0);
    simAdvance(100 * kLong);
    See("stuck", simPendingCount(nullptr), 0);
    SetHostWord(host, 5);
    MUST(cudaDeviceSynchronize());
  }
}

// Before the process has its first block.
void FunctionBeforeFirstBlock() {
  Run run;
  const cudaStream_t stream = NonBlockingStream();
  SimWork work = {};
  work.duration_ns = kLong;
  MUST(program::Launch(stream, work));
  MUST(cudaLaunchHostFunc(stream, &CountRun, &run));
  FreeUnrelated();
  See("runs", run.count, 1);
  MUST(cudaDeviceSynchronize());  // until then the function may still count in it
}

}  // namespace

std::vector<Scenario> WorkScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const char* rule, const char* name, const std::function<void()>& run) {
    scenarios.push_back({Expect::kVisible, rule, name, run});
  };
  constexpr const char* kHostFunctions = "visible_host_functions";
  add(kHostFunctions, "host-function", [] {
    HostFunction([](cudaStream_t s, Run* run) { MUST(cudaLaunchHostFunc(s, &CountRun, run)); });
  });
  add(kHostFunctions, "host-function-driver", [] {
    HostFunction(
        [](cudaStream_t s, Run* run) { MUST_DRIVER(cuLaunchHostFunc(s, &CountRun, run)); });
  });
  add(kHostFunctions, "callback", [] {
    HostFunction(
        [](cudaStream_t s, Run* run) { MUST(cudaStreamAddCallback(s, &CountCallback, run, 0)); });
  });
  add(kHostFunctions, "callback-driver", [] {
    HostFunction([](cudaStream_t s, Run* run) {
      MUST_DRIVER(cuStreamAddCallback(s, &CountDriverCallback, run, 0));
    });
  });
  scenarios.push_back(
      {Expect::kVisible, "-", "host-function-before-first-block", FunctionBeforeFirstBlock, true});

  add("visible_graphs", "graph-of-host-function", GraphOfHostFunction);
  add("visible_graphs", "graph-of-copy", GraphOfCopy);
  add("visible_graphs", "graph-of-set", GraphOfSet);

  constexpr const char* kStreamMemory = "visible_stream_memory";
  add(kStreamMemory, "write-value-32", [] {
    WriteValue([](cudaStream_t stream, char* to, uint64_t value) {
      MUST_DRIVER(cuStreamWriteValue32(stream, Address(to), static_cast<uint32_t>(value), 0));
    });
  });
  add(kStreamMemory, "write-value-64", [] {
    WriteValue([](cudaStream_t stream, char* to, uint64_t value) {
      MUST_DRIVER(cuStreamWriteValue64(stream, Address(to), value, 0));
    });
  });
  add(kStreamMemory, "write-value-batch", [] {
    WriteValue([](cudaStream_t stream, char* to, uint64_t value) {
      CUstreamBatchMemOpParams writes[] = {WriteOf(to + 64, 1), WriteOf(to, value)};
      MUST_DRIVER(cuStreamBatchMemOp(stream, 2, writes, 0));
    });
  });
  add(kStreamMemory, "wait-value-32", [] {
    WaitValue([](cudaStream_t stream, char* at) {
      MUST_DRIVER(cuStreamWaitValue32(stream, Address(at), 5, CU_STREAM_WAIT_VALUE_EQ));
    });
  });
  add(kStreamMemory, "wait-value-64", [] {
    WaitValue([](cudaStream_t stream, char* at) {
      MUST_DRIVER(cuStreamWaitValue64(stream, Address(at), 5, CU_STREAM_WAIT_VALUE_GEQ));
    });
  });
  return scenarios;
}

}  // namespace observations
