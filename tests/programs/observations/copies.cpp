// Copies and sets of page-locked memory: what they wrote is there, and what they read may be
// overwritten, when a free has returned.
#include <dlfcn.h>

#include "create_context.h"
#include "scene.h"

// What programs built for per-thread default streams are linked to.
extern "C" CUresult cuMemcpyDtoHAsync_v2_ptsz(void* to, CUdeviceptr from, size_t bytes, CUstream);
extern "C" CUresult cuMemcpyHtoDAsync_v2_ptsz(CUdeviceptr to, const void* from, size_t bytes,
                                              CUstream);

namespace observations {
namespace {

constexpr size_t kRows = 3;
constexpr size_t kPitch = 64;
constexpr size_t kBytes = 4096;

struct Sides {
  bool to_host;
  char* host;
  char* device;
  cudaStream_t stream;

  char* to() const { return to_host ? host : device; }
  char* from() const { return to_host ? device : host; }
};

template <typename Box>
Box BoxOf(const Sides& sides) {
  Box box = {};
  box.srcMemoryType = sides.to_host ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
  box.dstMemoryType = sides.to_host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
  box.srcHost = box.dstHost = sides.host;
  box.srcDevice = box.dstDevice = Address(sides.device);
  box.srcPitch = box.dstPitch = kPitch;
  box.WidthInBytes = 8;
  box.Height = kRows;
  return box;
}

// Rows that begin somewhere inside the memory.
void Copy2D(const Sides& sides) {
  CUDA_MEMCPY2D box = BoxOf<CUDA_MEMCPY2D>(sides);
  MUST_DRIVER(cuMemcpy2DAsync_v2(&box, sides.stream));
}

// Unified addresses do not tell by their type where they are.
void Copy2DUnified(const Sides& sides) {
  CUDA_MEMCPY2D box = BoxOf<CUDA_MEMCPY2D>(sides);
  box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
  box.srcDevice = Address(sides.from());
  box.dstDevice = Address(sides.to());
  MUST_DRIVER(cuMemcpy2DAsync_v2(&box, sides.stream));
}

// The box begins far from the address that its offsets count from, which is in other memory.
void Copy2DFrom(const Sides& sides) {
  constexpr size_t kOffset = 16 * kPitch + 8;
  CUDA_MEMCPY2D box = BoxOf<CUDA_MEMCPY2D>(sides);
  size_t& x = sides.to_host ? box.dstXInBytes : box.srcXInBytes;
  size_t& y = sides.to_host ? box.dstY : box.srcY;
  y = kOffset / kPitch;
  x = kOffset % kPitch;
  box.srcHost = box.dstHost = sides.host - kOffset;
  MUST_DRIVER(cuMemcpy2DAsync_v2(&box, sides.stream));
}

void Copy3D(const Sides& sides) {
  CUDA_MEMCPY3D box = BoxOf<CUDA_MEMCPY3D>(sides);
  box.srcHeight = box.dstHeight = kRows;
  box.Depth = 2;
  MUST_DRIVER(cuMemcpy3DAsync_v2(&box, sides.stream));
}

void Copy3DPeer(const Sides& sides) {
  CUDA_MEMCPY3D_PEER box = BoxOf<CUDA_MEMCPY3D_PEER>(sides);
  box.srcHeight = box.dstHeight = kRows;
  box.Depth = 1;
  CUcontext context = nullptr;
  MUST_DRIVER(cuCtxGetCurrent(&context));
  box.srcContext = box.dstContext = context;
  MUST_DRIVER(cuMemcpy3DPeerAsync(&box, sides.stream));
}

#if CUDA_VERSION >= 13000
// The second of two copies is the one that can be seen.
void CopyBatch(const Sides& sides) {
  CUdeviceptr to[] = {Address(sides.device + 2048), Address(sides.to())};
  CUdeviceptr from[] = {Address(sides.device + 1024), Address(sides.from())};
  size_t bytes[] = {8, 8};
  CUmemcpyAttributes attributes = {};
  attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t first = 0;
  MUST_DRIVER(cuMemcpyBatchAsync(to, from, bytes, 2, &attributes, &first, 1, sides.stream));
}
#endif

#if CUDA_VERSION >= 12080
// As programs built with CUDA 12.8 call it.
void CopyBatchOf12(const Sides& sides) {
  using Batch = CUresult (*)(CUdeviceptr*, CUdeviceptr*, size_t*, size_t, CUmemcpyAttributes*,
                             size_t*, size_t, size_t*, CUstream);
  static const auto batch = reinterpret_cast<Batch>(dlsym(RTLD_DEFAULT, "cuMemcpyBatchAsync"));
  CUdeviceptr to[] = {Address(sides.to())};
  CUdeviceptr from[] = {Address(sides.from())};
  size_t bytes[] = {8};
  CUmemcpyAttributes attributes = {};
  attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
  size_t first = 0;
  size_t failed = 0;
  MUST_DRIVER(batch(to, from, bytes, 1, &attributes, &first, 1, &failed, sides.stream));
}
#endif

struct Way {
  const char* name;
  std::function<void(const Sides&)> copy;
  bool takes_legacy = true;
};

std::vector<Way> Ways() {
  return {
    {"runtime",
     [](const Sides& s) {
       MUST(cudaMemcpyAsync(s.to(), s.from(), 8,
                            s.to_host ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, s.stream));
     }},
        {"runtime-default",
         [](const Sides& s) {
           MUST(cudaMemcpyAsync(s.to(), s.from(), 8, cudaMemcpyDefault, s.stream));
         }},
        {"driver",
         [](const Sides& s) {
           MUST_DRIVER(s.to_host ? cuMemcpyDtoHAsync_v2(s.host, Address(s.device), 8, s.stream)
                                 : cuMemcpyHtoDAsync_v2(Address(s.device), s.host, 8, s.stream));
         }},
        {"driver-per-thread",
         [](const Sides& s) {
           MUST_DRIVER(s.to_host
                           ? cuMemcpyDtoHAsync_v2_ptsz(s.host, Address(s.device), 8, s.stream)
                           : cuMemcpyHtoDAsync_v2_ptsz(Address(s.device), s.host, 8, s.stream));
         },
         false},
        {"driver-unified",
         [](const Sides& s) {
           MUST_DRIVER(cuMemcpyAsync(Address(s.to()), Address(s.from()), 8, s.stream));
         }},
        // The device's own address of page-locked memory is the host's: unified addressing.
        {"driver-between-addresses",
         [](const Sides& s) {
           MUST_DRIVER(cuMemcpyDtoDAsync_v2(Address(s.to()), Address(s.from()), 8, s.stream));
         }},
        {"2d", Copy2D}, {"2d-unified", Copy2DUnified}, {"2d-at-offset", Copy2DFrom}, {"3d", Copy3D},
        {"3d-peer", Copy3DPeer},
#if CUDA_VERSION >= 12080
        {"batch-of-12", CopyBatchOf12, false},
#endif
#if CUDA_VERSION >= 13000
        {"batch", CopyBatch, false},
#endif
  };
}

std::vector<Way> Sets() {
  return {
      {"runtime", [](const Sides& s) { MUST(cudaMemsetAsync(s.host, 7, 8, s.stream)); }},
      {"driver-words",
       [](const Sides& s) {
         MUST_DRIVER(cuMemsetD32Async(Address(s.host), 0x07070707, 2, s.stream));
       }},
      {"driver-rows",
       [](const Sides& s) {
         MUST_DRIVER(cuMemsetD2D8Async(Address(s.host), kPitch, 7, 8, kRows, s.stream));
       }},
  };
}
constexpr uint64_t kSet = 0x0707070707070707;

// All kinds of page-locked memory, as words somewhere inside it.
std::vector<std::pair<std::string, char*>> PageLockedWords() {
  void* made = nullptr;
  MUST_DRIVER(cuMemAllocHost_v2(&made, kBytes));
  static std::vector<char> memory(5 * kBytes);
  char* registered = memory.data() + kBytes;
  MUST(cudaHostRegister(registered, 3 * kBytes, cudaHostRegisterDefault));
  return {{"cudaHostAlloc", PageLocked(kBytes) + 512},
          {"cuMemAllocHost", static_cast<char*>(made)},
          {"cudaHostRegister", registered + 24}};
}

std::vector<std::pair<std::string, cudaStream_t>> Streams(bool with_legacy) {
  cudaStream_t blocking = nullptr;
  MUST(cudaStreamCreate(&blocking));
  std::vector<std::pair<std::string, cudaStream_t>> streams = {
      {"non-blocking", NonBlockingStream()},
      {"blocking", blocking},
      {"per-thread", cudaStreamPerThread}};
  if (with_legacy) streams.push_back({"legacy", nullptr});
  return streams;
}

template <typename Function>
void ForEachPlace(bool with_legacy, Function function) {
  char* device = DeviceWord();
  for (const auto& [memory, host] : PageLockedWords()) {
    for (const auto& [name, stream] : Streams(with_legacy)) {
      function(std::string(memory) + ", " + name, host, device, stream);
    }
  }
}

void ToHost(const Way& way) {
  ForEachPlace(way.takes_legacy,
               [&](const std::string& what, char* host, char* device, cudaStream_t stream) {
                 const uint64_t value = NextValue();
                 SetHostWord(host, 0);
                 WriteWord(stream, device, value, kLong);
                 way.copy({true, host, device, stream});
                 FreeUnrelated();
                 See(what, HostWord(host), value);
                 MUST(cudaDeviceSynchronize());
               });
}

void FromHost(const Way& way) {
  ForEachPlace(way.takes_legacy,
               [&](const std::string& what, char* host, char* device, cudaStream_t stream) {
                 const uint64_t value = NextValue();
                 SetHostWord(host, value);
                 WriteWord(stream, device, 1, kLong);
                 way.copy({false, host, device, stream});
                 FreeUnrelated();
                 SetHostWord(host, 0);  // the host has other plans for it
                 MUST(cudaDeviceSynchronize());
                 See(what, WordOf(device), value);
               });
}

void Set(const Way& way) {
  ForEachPlace(true, [&](const std::string& what, char* host, char* device, cudaStream_t stream) {
    SetHostWord(host, 0);
    WriteWord(stream, device, 1, kLong);
    way.copy({true, host, device, stream});
    FreeUnrelated();
    See(what, HostWord(host), kSet);
    MUST(cudaDeviceSynchronize());
  });
}

// A hundred frees after one copy: the first one waits.
void HundredFrees() {
  char* device = DeviceWord();
  char* host = PageLocked();
  const cudaStream_t stream = NonBlockingStream();
  const cudaStream_t other = NonBlockingStream();
  WriteWord(stream, device, 17, kLong);
  MUST(cudaMemcpyAsync(host, device, 8, cudaMemcpyDeviceToHost, stream));
  for (int i = 0; i < 100; ++i) {
    FreeUnrelated();
    if (HostWord(host) != 17) See("after a free", HostWord(host), 17);
    WriteWord(other, device + 64, 1, kLong);
  }
  See("after all", HostWord(host), 17);
  MUST(cudaDeviceSynchronize());
}

// The copy is another thread's, and so is the free.
void OtherThreads() {
  char* device = DeviceWord();
  char* host = PageLocked();
  Helper copies;
  Helper frees;
  copies.Do([&] {
    WriteWord(cudaStreamPerThread, device, 17, kLong);
    MUST(cudaMemcpyAsync(host, device, 8, cudaMemcpyDeviceToHost, cudaStreamPerThread));
  });
  copies.Wait();
  frees.Do(FreeUnrelated);
  frees.Wait();
  See("after another thread's free", HostWord(host), 17);
  MUST(cudaDeviceSynchronize());
}

// While a free marks what it waits for, another thread goes on with the same stream.
void GoesOnDuringFree() {
  char* device = DeviceWord();
  char* host = PageLocked();
  const cudaStream_t stream = NonBlockingStream();
  Helper helper;
  for (int round = 0; round < 3; ++round) {
    AtPlace at{std::this_thread::get_id(), helper,
               [&] { MUST(cudaMemsetAsync(host + 64, 1, 8, stream)); }, false};
    const uint64_t value = NextValue();
    WriteWord(stream, device, value, kLong);
    MUST(cudaMemcpyAsync(host, device, 8, cudaMemcpyDeviceToHost, stream));
    char* unrelated = Allocate(1000);
    simOnCall("cuCtxRecordEvent", SIM_AFTER_CALL, &AtPlace::Called, &at);
    MUST(cudaFree(unrelated));
    simOnCall("cuCtxRecordEvent", SIM_AFTER_CALL, nullptr, nullptr);
    See("copied before the free", HostWord(host), value);
    helper.Wait();
    MUST(cudaDeviceSynchronize());
  }
}

// More streams than anybody counts with, the longest work on the first or on the last.
void ManyStreams() {
  constexpr int kCount = 48;
  char* device = DeviceWord();
  char* host = PageLocked();
  std::vector<cudaStream_t> streams(kCount);
  for (cudaStream_t& stream : streams) stream = NonBlockingStream();
  for (const bool first_is_longest : {false, true}) {
    memset(host, 0, 4096);
    for (int i = 0; i < kCount; ++i) {
      const int place = first_is_longest ? kCount - i : i + 1;
      WriteWord(streams[i], device + i * 64, 17, kLong * place);
      MUST(cudaMemcpyAsync(host + i * 8, device + i * 64, 8, cudaMemcpyDefault, streams[i]));
    }
    MUST(cudaStreamSynchronize(streams[20]));
    if (first_is_longest) {  // some are gone, and so is what their handles meant
      for (int i = 0; i < kCount; i += 3) MUST(cudaStreamDestroy(streams[i]));
    }
    FreeUnrelated();
    uint64_t missing = 0;
    for (int i = 0; i < kCount; ++i) missing += HostWord(host + i * 8) == 17 ? 0 : 1;
    See("copies that are missing", missing, 0);
    MUST(cudaDeviceSynchronize());
  }
}

// The free of a block of another context waits for that one's work.
void OtherContext() {
  CUcontext primary = nullptr;
  MUST_DRIVER(cuCtxGetCurrent(&primary));
  CUcontext context = nullptr;
  MUST_DRIVER(CreateContext(&context));
  char* device = DeviceWord();
  char* unrelated = Allocate(1000);
  char* host = PageLocked();
  const cudaStream_t stream = NonBlockingStream();
  WriteWord(stream, device, 17, kLong);
  MUST(cudaMemcpyAsync(host, device, 8, cudaMemcpyDefault, stream));
  MUST_DRIVER(cuCtxSetCurrent(primary));
  FreeUnrelated();  // of this context, which does not wait for the other one
  MUST(cudaDeviceSynchronize());
  Check("after what concerns this context", HostWord(host), 0);
  MUST(cudaFree(unrelated));
  See("after the free of the other one's block", HostWord(host), 17);
  MUST_DRIVER(cuCtxDestroy(context));
}

// One thread resets the device, another one already makes memory of the next context, which may
// have the same handle.
void PageLockedDuringReset() {
  const char* const names[] = {"cuDevicePrimaryCtxReset", "cuDevicePrimaryCtxReset_v2"};
  char* host = nullptr;
  Helper helper;
  AtPlace at{std::this_thread::get_id(), helper,
             [&] {
               MUST(cudaSetDevice(0));
               host = PageLocked();
             },
             false};
  for (const char* name : names) simOnCall(name, SIM_AFTER_CALL, &AtPlace::Called, &at);
  MUST(cudaDeviceReset());
  for (const char* name : names) simOnCall(name, SIM_AFTER_CALL, nullptr, nullptr);
  helper.Wait();
  char* device = DeviceWord();
  Settle();
  const cudaStream_t stream = NonBlockingStream();
  WriteWord(stream, device, 17, kLong);
  MUST(cudaMemcpyAsync(host, device, 8, cudaMemcpyDeviceToHost, stream));
  FreeUnrelated();
  See("after a free in the next context", HostWord(host), 17);
  MUST(cudaDeviceSynchronize());
}

// Submitted before the process has its first block.
void BeforeFirstBlock() {
  char* host = PageLocked();
  const cudaStream_t stream = NonBlockingStream();
  SimWork work = {};
  work.duration_ns = kLong;
  MUST(program::Launch(stream, work));
  MUST(cudaMemsetAsync(host, 7, 8, stream));
  FreeUnrelated();
  See("after the first free", HostWord(host), kSet);
}

}  // namespace

std::vector<Scenario> CopyScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const std::string& name, const std::function<void()>& run) {
    scenarios.push_back({Expect::kVisible, "visible_copies", name, run});
  };
  for (const Way& way : Ways()) {
    add(std::string("copy-to-host-") + way.name, [way] { ToHost(way); });
    add(std::string("copy-from-host-") + way.name, [way] { FromHost(way); });
  }
  for (const Way& way : Sets()) add(std::string("set-") + way.name, [way] { Set(way); });
  add("copies-of-other-threads", OtherThreads);
  add("copies-on-during-free", GoesOnDuringFree);
  add("copies-on-many-streams", ManyStreams);
  add("copies-of-another-context", OtherContext);
  add("page-locked-during-reset", PageLockedDuringReset);
  scenarios.push_back({Expect::kOneWait, "visible_copies", "hundred-frees", HundredFrees});
  // Of work from before the pool nothing is known, by no rule.
  scenarios.push_back({Expect::kVisible, "-", "copy-before-first-block", BeforeFirstBlock, true});
  return scenarios;
}

}  // namespace observations
