// Pending work that the host sees: copies and sets of page-locked memory, functions on the host,
// graphs, single values written by the stream.
#include "visible.h"

namespace cmp::gpu {

namespace {

constexpr size_t kRow = 1024;  // bytes, of the copies in two and three dimensions

struct Copied {
  uint32_t* device;  // the late kernel writes the first word
  uint32_t* host;    // zeros
};

Copied Buffers() { return {AllocateZeros<uint32_t>(kWords), PageLocked(kWords)}; }

void CopyToHost(const Copied& copied, cudaStream_t stream) {
  CHECK(cudaMemcpyAsync(copied.host, copied.device, kBytes, cudaMemcpyDeviceToHost, stream));
}

bool CopyToHost(Stage& stage) {
  const Copied copied = Buffers();
  stage.WriteLate(copied.device);
  CopyToHost(copied, stage.busy);
  stage.Free();
  return Seen(copied.host) == stage.value;
}

bool CopyOfDefaultKind(Stage& stage) {
  const Copied copied = Buffers();
  stage.WriteLate(copied.device);
  CHECK(cudaMemcpyAsync(copied.host, copied.device, kBytes, cudaMemcpyDefault, stage.busy));
  stage.Free();
  return Seen(copied.host) == stage.value;
}

// The host may use the source again once the copy is done.
bool CopyToDevice(Stage& stage) {
  const Copied copied = Buffers();
  std::fill_n(copied.host, kWords, stage.value);
  stage.KeepBusy();
  CHECK(cudaMemcpyAsync(copied.device, copied.host, kBytes, cudaMemcpyHostToDevice, stage.busy));
  stage.Free();
  std::fill_n(copied.host, kWords, 1);
  CHECK(cudaDeviceSynchronize());
  return ReadBack(copied.device) == stage.value &&
         ReadBack(copied.device + kWords - 1) == stage.value;
}

// At an address inside what was registered.
bool CopyToRegistered(Stage& stage) {
  constexpr size_t kPage = 65536;
  void* const memory = std::aligned_alloc(kPage, kBytes + kPage);
  std::memset(memory, 0, kBytes + kPage);
  CHECK(cudaHostRegister(memory, kBytes + kPage, cudaHostRegisterDefault));
  const Copied copied = {AllocateZeros<uint32_t>(kWords), static_cast<uint32_t*>(memory) + 1026};
  stage.WriteLate(copied.device);
  CopyToHost(copied, stage.busy);
  stage.Free();
  return Seen(copied.host) == stage.value;
}

bool CopyOnLegacyStream(Stage& stage) {
  const Copied copied = Buffers();
  stage.kernels.WriteLate(cudaStreamLegacy, copied.device, stage.value, kLateNs);
  CopyToHost(copied, cudaStreamLegacy);
  stage.Free();
  return Seen(copied.host) == stage.value;
}

bool CopyOnPerThreadStream(Stage& stage) {
  const Copied copied = Buffers();
  stage.kernels.WriteLate(cudaStreamPerThread, copied.device, stage.value, kLateNs);
  CopyToHost(copied, cudaStreamPerThread);
  stage.Free();
  return Seen(copied.host) == stage.value;
}

// Its work goes on without it.
bool CopyOnDestroyedStream(Stage& stage) {
  const Copied copied = Buffers();
  stage.WriteLate(copied.device);
  CopyToHost(copied, stage.busy);
  CHECK(cudaStreamDestroy(stage.busy));
  stage.Free();
  return Seen(copied.host) == stage.value;
}

bool CopyFreedByAnotherThread(Stage& stage) {
  const Copied copied = Buffers();
  stage.WriteLate(copied.device);
  CopyToHost(copied, stage.busy);
  std::atomic<bool> freed{false};
  std::atomic<bool> seen{false};
  std::thread frees([&] {
    stage.Free();
    freed = true;
    while (!seen) std::this_thread::yield();
  });
  while (!freed) std::this_thread::yield();
  const bool right = Seen(copied.host) == stage.value;
  seen = true;
  frees.join();
  return right;
}

bool CopyThenFreeLarge(Stage& stage) {
  const Copied copied = Buffers();
  char* const block = Allocate<char>(40 * kMiB);
  stage.WriteLate(copied.device);
  CopyToHost(copied, stage.busy);
  stage.Free([block] { CHECK(cudaFree(block)); });
  return Seen(copied.host) == stage.value;
}

bool CopyThenFreeByDriver(Stage& stage) {
  const Copied copied = Buffers();
  CUdeviceptr block = 0;
  MUST(DRIVER(stage, cuMemAlloc)(&block, 20000));
  auto* const free = DRIVER(stage, cuMemFree);
  stage.WriteLate(copied.device);
  CopyToHost(copied, stage.busy);
  stage.Free([=] { MUST(free(block)); });
  return Seen(copied.host) == stage.value;
}

// Only what was submitted before a synchronisation began is finished by it.
bool CopyDuringSynchronisation(Stage& stage) {
  if (stage.kernels.simulated()) stage.Skip("a wait in another thread takes no real time");
  const Copied copied = Buffers();
  stage.KeepBusy();
  std::thread waits([&stage] { CHECK(cudaStreamSynchronize(stage.busy)); });
  std::this_thread::sleep_for(std::chrono::nanoseconds(kLateNs / 4));
  stage.WriteLate(copied.device);
  CopyToHost(copied, stage.busy);
  waits.join();
  stage.Free();
  return Seen(copied.host) == stage.value;
}

bool CopyInTwoDimensions(Stage& stage) {
  const Copied copied = Buffers();
  CUDA_MEMCPY2D copy = {};
  copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = Address(copied.device);
  copy.srcPitch = kRow;
  copy.dstMemoryType = CU_MEMORYTYPE_HOST;
  copy.dstHost = copied.host;
  copy.dstPitch = kRow;
  copy.WidthInBytes = kRow / 2;
  copy.Height = kBytes / kRow;
  auto* const submit = DRIVER(stage, cuMemcpy2DAsync);
  stage.WriteLate(copied.device);
  MUST(submit(&copy, stage.busy));
  stage.Free();
  return Seen(copied.host) == stage.value;
}

bool CopyInThreeDimensions(Stage& stage) {
  const Copied copied = Buffers();
  CUDA_MEMCPY3D copy = {};
  copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.srcDevice = Address(copied.device);
  copy.srcPitch = kRow;
  copy.srcHeight = 16;
  copy.dstMemoryType = CU_MEMORYTYPE_HOST;
  copy.dstHost = copied.host;
  copy.dstPitch = kRow;
  copy.dstHeight = 16;
  copy.WidthInBytes = kRow / 2;
  copy.Height = 8;
  copy.Depth = kBytes / kRow / 16;
  auto* const submit = DRIVER(stage, cuMemcpy3DAsync);
  stage.WriteLate(copied.device);
  MUST(submit(&copy, stage.busy));
  stage.Free();
  return Seen(copied.host) == stage.value;
}

bool CopyInBatch(Stage& stage) {
#if CUDA_VERSION >= 13000
  const Copied copied = Buffers();
  CUdeviceptr to[] = {Address(copied.host), Address(copied.host + kWords / 2)};
  CUdeviceptr from[] = {Address(copied.device), Address(copied.device + kWords / 2)};
  size_t bytes[] = {kBytes / 2, kBytes / 2};
  CUmemcpyAttributes attributes = {};
  attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t first = 0;
  auto* const submit = DRIVER(stage, cuMemcpyBatchAsync);
  stage.WriteLate(copied.device);
  MUST(submit(to, from, bytes, 2, &attributes, &first, 1, stage.busy));
  stage.Free();
  return Seen(copied.host) == stage.value;
#else
  stage.Skip("batches of copies as CUDA 13 declares them");
#endif
}

bool SetOfPageLocked(Stage& stage) {
  const Copied copied = Buffers();
  stage.KeepBusy();
  CHECK(cudaMemsetAsync(copied.host, 0xAB, kBytes, stage.busy));
  stage.Free();
  return Seen(copied.host) == 0xABABABAB;
}

std::atomic<uint32_t> g_called;  // by functions on the host

void CUDART_CB Called(void*) { g_called.store(1); }
void CUDART_CB CalledBack(cudaStream_t, cudaError_t, void*) { g_called.store(1); }

bool HostFunction(Stage& stage) {
  stage.KeepBusy();
  CHECK(cudaLaunchHostFunc(stage.busy, &Called, nullptr));
  stage.Free();
  return g_called.load() == 1;
}

bool StreamCallback(Stage& stage) {
  stage.KeepBusy();
  CHECK(cudaStreamAddCallback(stage.busy, &CalledBack, nullptr, 0));
  stage.Free();
  return g_called.load() == 1;
}

template <typename Submit>
cudaGraphExec_t Graph(const Stage& stage, const Submit& submit) {
  CHECK(cudaStreamBeginCapture(stage.other, cudaStreamCaptureModeThreadLocal));
  submit(stage.other);
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stage.other, &graph));
  cudaGraphExec_t exec = nullptr;
  CHECK(cudaGraphInstantiate(&exec, graph, 0));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaGraphUpload(exec, stage.other));
  CHECK(cudaDeviceSynchronize());
  return exec;
}

bool GraphWithCopy(Stage& stage) {
  const Copied copied = Buffers();
  const cudaGraphExec_t graph = Graph(stage, [&](cudaStream_t s) { CopyToHost(copied, s); });
  stage.WriteLate(copied.device);
  CHECK(cudaGraphLaunch(graph, stage.busy));
  stage.Free();
  return Seen(copied.host) == stage.value;
}

bool GraphWithHostFunction(Stage& stage) {
  const cudaGraphExec_t graph =
      Graph(stage, [](cudaStream_t s) { CHECK(cudaLaunchHostFunc(s, &Called, nullptr)); });
  stage.KeepBusy();
  CHECK(cudaGraphLaunch(graph, stage.busy));
  stage.Free();
  return g_called.load() == 1;
}

bool ValueWrittenByStream(Stage& stage) {
  uint32_t* const host = PageLocked(1);
  auto* const write = DRIVER(stage, cuStreamWriteValue32);
  stage.KeepBusy();
  MUST(write(stage.busy, Address(host), stage.value, CU_STREAM_WRITE_VALUE_DEFAULT));
  stage.Free();
  return Seen(host) == stage.value;
}

}  // namespace

std::vector<Scenario> PendingWork() {
  constexpr auto kWrong = WithoutWait::kWrong;
  constexpr const char* kCopies = "visible_copies";
  return {
      {"copy to page-locked memory", kWrong, kCopies, &CopyToHost},
      {"copy of default kind", kWrong, kCopies, &CopyOfDefaultKind},
      {"copy from page-locked memory", kWrong, kCopies, &CopyToDevice},
      {"copy into registered memory", kWrong, kCopies, &CopyToRegistered},
      {"copy on the legacy stream", kWrong, kCopies, &CopyOnLegacyStream},
      {"copy on the thread's own stream", kWrong, kCopies, &CopyOnPerThreadStream},
      {"copy on a stream since destroyed", kWrong, kCopies, &CopyOnDestroyedStream},
      {"copy, another thread frees", kWrong, kCopies, &CopyFreedByAnotherThread},
      {"copy, a large block is freed", kWrong, kCopies, &CopyThenFreeLarge},
      {"copy, cuMemFree", kWrong, kCopies, &CopyThenFreeByDriver},
      {"copy during a synchronisation", WithoutWait::kUnknown, "finished_if_begun_after",
       &CopyDuringSynchronisation},
      {"copy in two dimensions", kWrong, kCopies, &CopyInTwoDimensions},
      {"copy in three dimensions", kWrong, kCopies, &CopyInThreeDimensions},
      {"copies in a batch", kWrong, kCopies, &CopyInBatch},
      {"set of page-locked memory", kWrong, kCopies, &SetOfPageLocked},
      {"host function", kWrong, "visible_host_functions", &HostFunction},
      {"stream callback", kWrong, "visible_host_functions", &StreamCallback},
      {"graph with a copy", kWrong, "visible_graphs", &GraphWithCopy},
      {"graph with a host function", kWrong, "visible_graphs", &GraphWithHostFunction},
      {"value written by the stream", kWrong, "visible_stream_memory", &ValueWrittenByStream},
  };
}

}  // namespace cmp::gpu
