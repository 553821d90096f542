// What is asked, destroyed or ended after cudaFree: it must find the device as after a real one.
#include "../demo/kernels_ptx.h"
#include "../sim/sim.h"
#include "visible.h"
#include "visible_ptx.h"

namespace cmp::gpu {

namespace {

// ---- Questions whose answer tells

bool StreamQuery(Stage& stage) {
  stage.KeepBusy();
  stage.Free();
  return cudaStreamQuery(stage.busy) == cudaSuccess;
}

cudaEvent_t RecordedEvent(const Stage& stage) {
  cudaEvent_t event = nullptr;
  CHECK(cudaEventCreate(&event));
  CHECK(cudaEventRecord(event, stage.busy));
  return event;
}

bool EventQuery(Stage& stage) {
  stage.KeepBusy();
  const cudaEvent_t event = RecordedEvent(stage);
  stage.Free();
  return cudaEventQuery(event) == cudaSuccess;
}

bool EventElapsedTime(Stage& stage) {
  const cudaEvent_t begin = RecordedEvent(stage);
  stage.KeepBusy();
  const cudaEvent_t end = RecordedEvent(stage);
  stage.Free();
  float milliseconds = 0;
  return cudaEventElapsedTime(&milliseconds, begin, end) == cudaSuccess &&
         milliseconds > 0.2e-6 * kLateNs;
}

// ---- What the real calls destroy without a wait, while a kernel may use it

bool Finished(uint32_t expected, const uint32_t* word) {
  uint32_t value = 0;
  return cudaDeviceSynchronize() == cudaSuccess &&
         cudaMemcpy(&value, word, sizeof(value), cudaMemcpyDeviceToHost) == cudaSuccess &&
         value == expected;
}

// The simulated CUDA tells of work that uses what is gone.
bool IsHazard(const Stage& stage) {
  return stage.kernels.simulated() && DRIVER(stage, simHazardCount)() != 0;
}

// The kernel would fault, or write nowhere.
bool Unmapped(Stage& stage) {
  const Mapping mapping = Map(stage, CU_MEM_LOCATION_TYPE_DEVICE);
  const Mapping again = MapAgain(stage, mapping);
  auto* const unmap = DRIVER(stage, cuMemUnmap);
  stage.WriteLate(mapping.words());
  stage.Free();
  MUST(unmap(mapping.start, mapping.bytes));
  return Finished(stage.value, again.words());
}

// The memory may go to somebody else at once, whom the kernel would then overwrite.
bool StreamOrderedFreed(Stage& stage) {
  void* memory = nullptr;
  void* next = nullptr;
  CHECK(cudaMallocAsync(&memory, 4096, stage.busy));
  stage.WriteLate(static_cast<uint32_t*>(memory));
  stage.Free();
  CHECK(cudaFree(memory));
  CHECK(cudaMallocAsync(&next, 4096, stage.other));
  CHECK(cudaMemsetAsync(next, 0xAB, 4096, stage.other));
  return Finished(0xABABABAB, static_cast<uint32_t*>(next)) && !IsHazard(stage);
}

bool LibraryUnloaded(Stage& stage) {
  if (stage.kernels.simulated()) stage.Skip("no libraries");
  CUlibrary library = nullptr;
  CUkernel kernel = nullptr;
  MUST(DRIVER(stage, cuLibraryLoadData)(&library, demo::kPtx, nullptr, nullptr, 0, nullptr, nullptr,
                                        0));
  MUST(DRIVER(stage, cuLibraryGetKernel)(&kernel, library, "write_late"));
  auto* const launch = DRIVER(stage, cuLaunchKernel);
  auto* const unload = DRIVER(stage, cuLibraryUnload);
  uint32_t* word = stage.word;
  uint32_t value = 0;
  uint64_t nanoseconds = 0;
  void* parameters[] = {&word, &value, &nanoseconds};
  const auto run = [&] {
    MUST(launch(reinterpret_cast<CUfunction>(kernel), 1, 1, 1, 1, 1, 1, 0, stage.busy, parameters,
                nullptr));
  };
  run();  // loads it
  CHECK(cudaDeviceSynchronize());
  value = stage.value;
  nanoseconds = kLateNs;
  run();
  stage.Free();
  MUST(unload(library));
  return Finished(stage.value, stage.word);
}

CUfunction LateKernel(const Stage& stage, const char* name) {
  CUmodule module = nullptr;
  CUfunction kernel = nullptr;
  MUST(DRIVER(stage, cuModuleLoadData)(&module, kLatePtx));
  MUST(DRIVER(stage, cuModuleGetFunction)(&kernel, module, name));
  return kernel;
}

CUtexObject Texture(const Stage& stage, const uint32_t* words, size_t bytes) {
  CUDA_RESOURCE_DESC memory = {};
  memory.resType = CU_RESOURCE_TYPE_LINEAR;
  memory.res.linear.devPtr = Address(words);
  memory.res.linear.format = CU_AD_FORMAT_UNSIGNED_INT32;
  memory.res.linear.numChannels = 1;
  memory.res.linear.sizeInBytes = bytes;
  CUDA_TEXTURE_DESC reading = {};
  reading.flags = CU_TRSF_READ_AS_INTEGER;
  CUtexObject texture = 0;
  MUST(DRIVER(stage, cuTexObjectCreate)(&texture, &memory, &reading, nullptr));
  return texture;
}

bool SimulatedTextureDestroyed(Stage& stage, CUtexObject texture) {
  SimWork work = {};
  work.duration_ns = kLateNs;
  work.objects = &texture;
  work.object_count = 1;
  MUST(DRIVER(stage, simLaunch)(stage.busy, &work));
  stage.Free();
  MUST(DRIVER(stage, cuTexObjectDestroy)(texture));
  CHECK(cudaDeviceSynchronize());
  return !IsHazard(stage);
}

// The next texture may take its place, and the kernel then read that.
bool TextureDestroyed(Stage& stage) {
  constexpr size_t kPageBytes = 4096;
  uint32_t* const memory = AllocateZeros<uint32_t>(kPageBytes / 4);
  uint32_t* const others = AllocateZeros<uint32_t>(kPageBytes / 4);
  stage.kernels.WriteLate(stage.busy, memory, stage.value, 0);
  CHECK(cudaDeviceSynchronize());
  auto* const launch = DRIVER(stage, cuLaunchKernel);
  auto* const destroy = DRIVER(stage, cuTexObjectDestroy);
  CUtexObject texture = Texture(stage, memory, kPageBytes);
  if (stage.kernels.simulated()) return SimulatedTextureDestroyed(stage, texture);
  const CUfunction kernel = LateKernel(stage, "fetch_late");
  uint32_t* to = stage.word;
  uint64_t nanoseconds = 0;
  void* parameters[] = {&texture, &to, &nanoseconds};
  const auto run = [&] {
    MUST(launch(kernel, 1, 1, 1, 1, 1, 1, 0, stage.busy, parameters, nullptr));
  };
  run();  // loads it
  CHECK(cudaMemsetAsync(stage.word, 0, sizeof(uint32_t), stage.busy));
  CHECK(cudaDeviceSynchronize());
  nanoseconds = kLateNs;
  run();
  stage.Free();
  MUST(destroy(texture));
  Texture(stage, others, kPageBytes);
  return Finished(stage.value, stage.word);
}

// ---- The end

// The kernel prints "right"; without a wait the process ends before that. Returns by printing that
// alone.
bool PrintedAtExit(Stage& stage) {
  const CUfunction kernel = stage.kernels.simulated() ? nullptr : LateKernel(stage, "print_late");
  std::printf("device printf at exit: ");
  std::fflush(stdout);
  uint64_t nanoseconds = kLateNs;
  void* parameters[] = {&nanoseconds};
  SimWork work = {};
  work.duration_ns = kLateNs;
  work.print = "right\n";
  MUST(kernel != nullptr ? DRIVER(stage, cuLaunchKernel)(kernel, 1, 1, 1, 1, 1, 1, 0, stage.busy,
                                                         parameters, nullptr)
                         : DRIVER(stage, simLaunch)(stage.busy, &work));
  stage.Free();
  stage.ReportFree();
  std::exit(0);
}

}  // namespace

std::vector<Scenario> Afterwards() {
  constexpr auto kWrong = WithoutWait::kWrong;
  constexpr auto kUnknown = WithoutWait::kUnknown;
  constexpr const char* kQueries = "pay_before_queries";
  constexpr const char* kDestruction = "pay_before_destruction";
  return {
      {"cudaStreamQuery", kWrong, kQueries, &StreamQuery},
      {"cudaEventQuery", kWrong, kQueries, &EventQuery},
      {"cudaEventElapsedTime", kWrong, kQueries, &EventElapsedTime},
      {"mapping unmapped", kWrong, kDestruction, &Unmapped},
      {"stream-ordered memory freed", kUnknown, kDestruction, &StreamOrderedFreed},
      {"library unloaded", kUnknown, kDestruction, &LibraryUnloaded},
      {"texture destroyed", kUnknown, kDestruction, &TextureDestroyed},
      {"device printf at exit", kWrong, "pay_at_exit", &PrintedAtExit},
  };
}

}  // namespace cmp::gpu
