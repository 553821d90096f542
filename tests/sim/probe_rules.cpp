// The probe's questions about waiting frees beside other threads, events of launch attributes,
// copies with attributes, and answers that are left alone. (`probe rules`)
#include <memory>
#include <tuple>

#include "probe.h"

namespace cmp::sim {
namespace {

// ---- What a call that waits for the device holds up

struct OtherThread {
  std::atomic<bool> waits{false};   // the call that waits is about to be made
  std::atomic<bool> wanted{false};  // the other thread's turn
  std::atomic<bool> returned{false};
  std::atomic<int> returned_meanwhile{-1};
};

// The device is busy until the other thread's call has returned, or has not for a while.
void SayHeldUp(const std::string& what, const std::function<CUresult()>& call,
               const std::function<CUresult()>& wait) {
  static CUstream busy = nullptr;
  if (busy == nullptr) cuStreamCreate(&busy, CU_STREAM_NON_BLOCKING);
  auto state = std::make_unique<OtherThread>();
  CUresult result = CUDA_ERROR_UNKNOWN;
  std::thread thread([&] {
    cuCtxSetCurrent(g_context);
    while (!state->wanted) std::this_thread::yield();
    result = call();
    state->returned = true;
  });
  Busy(busy);
  cuLaunchHostFunc(
      busy,
      [](void* data) {
        auto* other = static_cast<OtherThread*>(data);
        while (!other->waits) std::this_thread::yield();
        usleep(20000);
        other->wanted = true;
        // Where tests run many at a time, a thread may have to wait for its turn.
        const int most_ms = g_simulated ? 1000 : 100;
        for (int i = 0; i < most_ms && !other->returned; ++i) usleep(1000);
        other->returned_meanwhile = other->returned ? 1 : 0;
      },
      state.get());
  state->waits = true;
  const CUresult waited = wait();
  thread.join();
  Say(what, std::string(Name(waited)) + " and " + Name(result) +
                (state->returned_meanwhile == 1 ? ", meanwhile" : ", afterwards"));
  cuCtxSynchronize();
}

void ProbeHeldUp() {
  CUdeviceptr block = 0;
  CUdeviceptr made = 0;
  cuMemAlloc(&block, 4096);
  CUstream stream = nullptr;
  CUstream made_stream = nullptr;
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  CUevent event = nullptr;
  CUevent old = nullptr;
  cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
  cuEventCreate(&old, CU_EVENT_DISABLE_TIMING);
  cuEventRecord(old, stream);
  cuCtxSynchronize();
  size_t bytes = 0;
  void* locked = nullptr;
  static char host[64];
  CUstreamCaptureStatus status{};
  struct Call {
    const char* name;
    std::function<CUresult()> call;
  };
  const std::vector<Call> calls = {
      {"cuLaunchHostFunc",
       [&] {
         return cuLaunchHostFunc(
             stream, [](void*) {}, nullptr);
       }},
      {"cuMemsetD8Async", [&] { return cuMemsetD8Async(block, 1, 8, stream); }},
      {"cuMemcpyHtoD pageable", [&] { return cuMemcpyHtoD(block, host, 8); }},
      {"cuEventRecord", [&] { return cuEventRecord(event, stream); }},
      {"cuStreamWaitEvent", [&] { return cuStreamWaitEvent(stream, old, 0); }},
      {"cuCtxRecordEvent", [&] { return cuCtxRecordEvent(g_context, event); }},
      {"cuCtxWaitEvent", [&] { return cuCtxWaitEvent(g_context, old); }},
      {"cuMemAlloc 4 KiB", [&] { return cuMemAlloc(&made, 4096); }},
      {"cuMemAlloc 64 MiB", [&] { return cuMemAlloc(&made, size_t{64} << 20); }},
      {"cuMemFree NULL", [&] { return cuMemFree(0); }},
      {"cuMemAllocAsync", [&] { return cuMemAllocAsync(&made, 4096, stream); }},
      {"cuMemHostAlloc", [&] { return cuMemHostAlloc(&locked, 4096, 0); }},
      {"cuMemGetInfo", [&] { return cuMemGetInfo(&bytes, &bytes); }},
      {"cuMemGetAddressRange", [&] { return cuMemGetAddressRange(&made, &bytes, block); }},
      {"cuStreamCreate", [&] { return cuStreamCreate(&made_stream, 0); }},
      {"cuStreamQuery", [&] { return cuStreamQuery(stream); }},
      {"cuStreamSynchronize", [&] { return cuStreamSynchronize(stream); }},
      {"cuStreamIsCapturing", [&] { return cuStreamIsCapturing(stream, &status); }},
      {"cuEventQuery", [&] { return cuEventQuery(old); }},
      {"cuEventSynchronize", [&] { return cuEventSynchronize(old); }},
  };
  for (const Call& each : calls) {
    CUdeviceptr freed = 0;
    cuMemAlloc(&freed, 4096);
    SayHeldUp(std::string("beside cuMemFree: ") + each.name, each.call,
              [=] { return cuMemFree(freed); });
  }
  const std::vector<Call> waits = {
      {"cuMemFree 64 MiB",
       [] {
         CUdeviceptr freed = 0;
         cuMemAlloc(&freed, size_t{64} << 20);
         return cuMemFree(freed);
       }},
      {"cuMemFree managed",
       [] {
         CUdeviceptr freed = 0;
         cuMemAllocManaged(&freed, 4096, CU_MEM_ATTACH_GLOBAL);
         return cuMemFree(freed);
       }},
      {"cuMemFreeHost",
       [] {
         void* freed = nullptr;
         cuMemHostAlloc(&freed, 4096, 0);
         return cuMemFreeHost(freed);
       }},
      {"cuMemHostUnregister",
       [] {
         cuMemHostRegister(host, sizeof host, 0);
         return cuMemHostUnregister(host);
       }},
      {"cuCtxSynchronize", [] { return cuCtxSynchronize(); }},
  };
  for (const Call& each : waits) {
    SayHeldUp(
        std::string("cuMemsetD8Async beside ") + each.name,
        [&] { return cuMemsetD8Async(block, 1, 8, stream); }, each.call);
  }
}

// ---- Events of launch attributes

CUlaunchAttribute Completion(CUevent event, int flags) {
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT;
  attribute.value.launchCompletionEvent = {event, flags};
  return attribute;
}
CUlaunchAttribute Programmatic(CUevent event, int flags) {
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT;
  attribute.value.programmaticEvent = {event, flags, 1};
  return attribute;
}

CUresult LaunchWith(CUstream stream, CUlaunchAttribute attribute) {
  CUlaunchConfig config{};
  config.gridDimX = config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = config.blockDimY = config.blockDimZ = 1;
  config.hStream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  if (!g_simulated) return cuLaunchKernelEx(&config, KernelFromPtx(""), nullptr, nullptr);
  const auto function =
      reinterpret_cast<decltype(&simFunction)>(dlsym(RTLD_DEFAULT, "simFunction"));
  SimWork work{};
  const SimWork* pointer = &work;
  void* parameters[] = {&pointer};
  return cuLaunchKernelEx(&config, function(), parameters, nullptr);
}

void ProbeLaunchEvents() {
  CUstream busy = nullptr;
  CUstream idle = nullptr;
  cuStreamCreate(&busy, CU_STREAM_NON_BLOCKING);
  cuStreamCreate(&idle, CU_STREAM_NON_BLOCKING);
  CUevent first = nullptr;
  cuEventCreate(&first, CU_EVENT_DISABLE_TIMING);
  LaunchWith(idle, Completion(first, 0));  // loads the kernel
  cuCtxSynchronize();
  struct Way {
    const char* name;
    CUlaunchAttribute (*attribute)(CUevent, int);
  };
  for (const Way& way :
       {Way{"launch completion event", Completion}, Way{"programmatic event", Programmatic}}) {
    const std::string what = way.name;
    CUevent event = nullptr;
    cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
    SayWaits(what + " recorded again beside the busy stream", busy, [&] {
      cuEventRecord(event, busy);
      const CUresult launched = LaunchWith(idle, way.attribute(event, 0));
      return launched != CUDA_SUCCESS ? launched : cuEventSynchronize(event);
    });
    SayWaits(what + " of the busy stream", busy, [&] {
      const CUresult launched = LaunchWith(busy, way.attribute(event, 0));
      return launched != CUDA_SUCCESS ? launched : cuEventQuery(event);
    });
    Say(what + " afterwards", cuEventQuery(event));
    CUevent timing = nullptr;
    cuEventCreate(&timing, 0);
    Say(what + " with timing", LaunchWith(idle, way.attribute(timing, 0)));
    CUevent shared = nullptr;
    cuEventCreate(&shared, CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS);
    Say(what + " of other processes, too", LaunchWith(idle, way.attribute(shared, 0)));
    Say(what + ", external", LaunchWith(idle, way.attribute(event, CU_EVENT_RECORD_EXTERNAL)));
    cuCtxSynchronize();
    CUgraph graph = nullptr;
    cuStreamBeginCapture(idle, CU_STREAM_CAPTURE_MODE_RELAXED);
    Say(what + ", captured", LaunchWith(idle, way.attribute(event, 0)));
    Say(what + ", captured, asked for", cuEventQuery(event));
    Say(what + ", end of that capture", cuStreamEndCapture(idle, &graph));
  }
}

// ---- Copies with attributes

#if CUDA_VERSION >= 13000

using AttributedCopy = CUresult (*)(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                    CUmemcpySrcAccessOrder order, CUstream stream);

CUresult CopyOne(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUmemcpySrcAccessOrder order,
                 CUstream stream) {
  CUmemcpyAttributes attributes{};
  attributes.srcAccessOrder = order;
  size_t first = 0;
  return cuMemcpyBatchAsync(&to, &from, &bytes, 1, &attributes, &first, 1, stream);
}

CUresult CopyBox(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUmemcpySrcAccessOrder order,
                 CUstream stream) {
  CUDA_MEMCPY3D_BATCH_OP box{};
  box.src.type = box.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
  box.src.op.ptr.ptr = from;
  box.dst.op.ptr.ptr = to;
  box.extent = {bytes, 1, 1};
  box.srcAccessOrder = order;
  return cuMemcpy3DBatchAsync(1, &box, 0, stream);
}

// The source holds 1 at the call and 2 from its return on.
void SayRead(const std::string& what, CUstream stream, CUdeviceptr block, void* source,
             size_t bytes, CUmemcpySrcAccessOrder order, AttributedCopy copy) {
  std::memset(source, 1, bytes);
  Busy(stream);
  const CUresult result = copy(block, reinterpret_cast<CUdeviceptr>(source), bytes, order, stream);
  const bool waited = g_done;
  std::memset(source, 2, bytes);
  cuCtxSynchronize();
  unsigned char arrived = 0;
  cuMemcpyDtoH(&arrived, block + bytes - 1, 1);
  Say(what, std::string(Name(result)) + (waited ? ", waited" : ", did not wait") +
                (arrived == 1 ? ", read before" : ", read afterwards"));
}

void ProbeAttributes() {
  constexpr size_t kMost = size_t{1} << 20;
  CUstream stream = nullptr;
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  CUdeviceptr block = 0;
  cuMemAlloc(&block, kMost);
  std::vector<unsigned char> pageable(kMost);
  void* locked = nullptr;
  cuMemHostAlloc(&locked, kMost, 0);
  const char* const orders[] = {"", "stream", "during the call", "any"};
  for (int order = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM; order <= CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
       ++order) {
    const auto read = static_cast<CUmemcpySrcAccessOrder>(order);
    for (const bool box : {false, true}) {
      const AttributedCopy copy = box ? CopyBox : CopyOne;
      const std::string what = std::string(box ? "batch of boxes, " : "batch, ") + orders[order];
      for (const size_t bytes : {size_t{64}, kMost}) {
        std::string size = " ";
        size += std::to_string(bytes);
        SayRead(what + ", from pageable" + size, stream, block, pageable.data(), bytes, read, copy);
        SayRead(what + ", from locked" + size, stream, block, locked, bytes, read, copy);
        SayWaits(what + ", to pageable" + size, stream, [&] {
          return copy(reinterpret_cast<CUdeviceptr>(pageable.data()), block, bytes, read, stream);
        });
        SayWaits(what + ", to locked" + size, stream, [&] {
          return copy(reinterpret_cast<CUdeviceptr>(locked), block, bytes, read, stream);
        });
      }
      SayWaits(what + ", on the device", stream,
               [&] { return copy(block, block + 64, 64, read, stream); });
      SayWaits(what + ", locked to pageable", stream, [&] {
        return copy(reinterpret_cast<CUdeviceptr>(pageable.data()),
                    reinterpret_cast<CUdeviceptr>(locked), 64, read, stream);
      });
    }
  }
  Say("batch, no order",
      CopyOne(block, block + 64, 64, CU_MEMCPY_SRC_ACCESS_ORDER_INVALID, stream));
  Say("batch, legacy stream",
      CopyOne(block, block + 64, 64, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM, nullptr));
}

#else
void ProbeAttributes() {}
#endif

// ---- Pools, and answers that are left alone

void ProbePools() {
  CUmemoryPool pool = nullptr;
  cuDeviceGetDefaultMemPool(&pool, 0);
  CUmemAccessDesc access{};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
  Say("cuMemPoolSetAccess, none to its own", cuMemPoolSetAccess(pool, &access, 1));
  Say("cuMemPoolSetAccess, of nobody", cuMemPoolSetAccess(pool, &access, 0));
  access.location.id = 99;
  Say("cuMemPoolSetAccess, device 99", cuMemPoolSetAccess(pool, &access, 1));
  access.location.id = 0;
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_HOST;
  const CUresult created = cuMemPoolCreate(&pool, &properties);
  Say("pool of the host", created);
  if (created != CUDA_SUCCESS) return;
  CUstream stream = nullptr;
  cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  CUdeviceptr block = 0;
  Say("its memory", cuMemAllocFromPoolAsync(&block, 4096, pool, stream));
  for (const auto flags : {CU_MEM_ACCESS_FLAGS_PROT_READWRITE, CU_MEM_ACCESS_FLAGS_PROT_READ,
                           CU_MEM_ACCESS_FLAGS_PROT_NONE}) {
    access.flags = flags;
    SayWaits("the device's access to it " + std::to_string(flags), stream,
             [&] { return cuMemPoolSetAccess(pool, &access, 1); });
  }
}

void ProbeRows() {
  void* const before = &g_context;
  const auto say = [&](const char* what, cudaError_t result, const void* pointer, size_t pitch) {
    Say(what, std::string(cudaGetErrorName(result)) +
                  (pointer == before ? ", pointer left alone" : "") +
                  (pitch == 7 ? ", pitch left alone" : ""));
    cudaGetLastError();
  };
  for (const auto& [name, width, height] : {std::tuple{"no width", size_t{0}, size_t{3}},
                                            std::tuple{"no height", size_t{100}, size_t{0}},
                                            std::tuple{"too much", size_t{100}, size_t{1} << 50}}) {
    void* pointer = before;
    size_t pitch = 7;
    const cudaError_t result = cudaMallocPitch(&pointer, &pitch, width, height);
    say((std::string("cudaMallocPitch, ") + name).c_str(), result, pointer, pitch);
    cudaPitchedPtr pitched{before, 7, 8, 9};
    const cudaError_t result_3d = cudaMalloc3D(&pitched, cudaExtent{width, height, 1});
    say((std::string("cudaMalloc3D, ") + name).c_str(), result_3d, pitched.ptr, pitched.pitch);
    auto address = reinterpret_cast<CUdeviceptr>(before);
    const CUresult driver = cuMemAllocPitch(&address, &pitch, width, height, 4);
    say((std::string("cuMemAllocPitch, ") + name).c_str(), static_cast<cudaError_t>(driver),
        reinterpret_cast<void*>(address), pitch);
  }
}

}  // namespace

void ProbeRules() {
  ProbeRows();
  ProbePools();
  ProbeAttributes();
  ProbeLaunchEvents();
  ProbeHeldUp();
}

}  // namespace cmp::sim
