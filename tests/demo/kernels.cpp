#include "kernels.h"

#include <cuda.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "../sim/sim.h"

namespace cmp::demo {

namespace {

// A grid-stride loop over the words in the first two; the third is launched as one thread.
constexpr char kPtx[] = R"(
.version 6.0
.target sm_50
.address_size 64

.visible .entry fill(.param .u64 words, .param .u32 count, .param .u32 pattern)
{
  .reg .pred %p;
  .reg .u32 %i, %n, %s, %v, %a, %b, %c;
  .reg .u64 %base, %at;
  ld.param.u64 %base, [words];
  cvta.to.global.u64 %base, %base;
  ld.param.u32 %n, [count];
  ld.param.u32 %v, [pattern];
  mov.u32 %a, %ctaid.x;
  mov.u32 %b, %ntid.x;
  mov.u32 %c, %tid.x;
  mad.lo.u32 %i, %a, %b, %c;
  mov.u32 %c, %nctaid.x;
  mul.lo.u32 %s, %b, %c;
again:
  setp.ge.u32 %p, %i, %n;
  @%p bra done;
  mul.wide.u32 %at, %i, 4;
  add.u64 %at, %base, %at;
  add.u32 %a, %v, %i;
  st.global.u32 [%at], %a;
  add.u32 %i, %i, %s;
  bra again;
done:
  ret;
}

.visible .entry check(.param .u64 words, .param .u32 count, .param .u32 pattern,
                      .param .u64 findings)
{
  .reg .pred %p;
  .reg .u32 %i, %n, %s, %v, %a, %b, %c;
  .reg .u64 %base, %at, %found, %wrong, %sum, %word;
  ld.param.u64 %base, [words];
  cvta.to.global.u64 %base, %base;
  ld.param.u64 %found, [findings];
  cvta.to.global.u64 %found, %found;
  ld.param.u32 %n, [count];
  ld.param.u32 %v, [pattern];
  mov.u32 %a, %ctaid.x;
  mov.u32 %b, %ntid.x;
  mov.u32 %c, %tid.x;
  mad.lo.u32 %i, %a, %b, %c;
  mov.u32 %c, %nctaid.x;
  mul.lo.u32 %s, %b, %c;
  mov.u64 %wrong, 0;
  mov.u64 %sum, 0;
again:
  setp.ge.u32 %p, %i, %n;
  @%p bra done;
  mul.wide.u32 %at, %i, 4;
  add.u64 %at, %base, %at;
  ld.global.u32 %a, [%at];
  cvt.u64.u32 %word, %a;
  add.u64 %sum, %sum, %word;
  add.u32 %b, %v, %i;
  setp.ne.u32 %p, %a, %b;
  @%p add.u64 %wrong, %wrong, 1;
  add.u32 %i, %i, %s;
  bra again;
done:
  red.global.add.u64 [%found], %wrong;
  red.global.add.u64 [%found+8], %sum;
  ret;
}

.visible .entry delay(.param .u64 nanoseconds)
{
  .reg .pred %p;
  .reg .u64 %begin, %now, %length;
  ld.param.u64 %length, [nanoseconds];
  mov.u64 %begin, %globaltimer;
again:
  mov.u64 %now, %globaltimer;
  sub.u64 %now, %now, %begin;
  setp.lt.u64 %p, %now, %length;
  @%p bra again;
  ret;
}
)";

constexpr unsigned kThreads = 256;
constexpr unsigned kMostBlocks = 64;

// The simulated forms. One of these travels with each work item and is freed by its effect.
struct SimulatedWork {
  uint32_t* words;
  uint32_t count;
  uint32_t pattern;
  Findings* findings;
};

void SimulatedFill(void* data) {
  auto* work = static_cast<SimulatedWork*>(data);
  for (uint32_t i = 0; i < work->count; ++i) work->words[i] = work->pattern + i;
  delete work;
}

void SimulatedCheck(void* data) {
  auto* work = static_cast<SimulatedWork*>(data);
  for (uint32_t i = 0; i < work->count; ++i) {
    work->findings->sum += work->words[i];
    work->findings->wrong_words += work->words[i] != work->pattern + i ? 1 : 0;
  }
  delete work;
}

void Require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "%s failed\n", what);
  std::exit(1);
}

template <typename Function>
Function* Find(void* library, const char* name) {
  auto* function = reinterpret_cast<Function*>(dlsym(library, name));
  Require(function != nullptr, name);
  return function;
}

void Launch(void* launch, void* kernel, cudaStream_t stream, uint32_t count, void** parameters) {
  const unsigned wanted = (count + kThreads - 1) / kThreads;
  const unsigned blocks = wanted < kMostBlocks ? wanted : kMostBlocks;
  const unsigned threads = count < kThreads ? 1 : kThreads;
  const CUresult status = reinterpret_cast<decltype(&cuLaunchKernel)>(launch)(
      static_cast<CUfunction>(kernel), blocks, 1, 1, threads, 1, 1, 0, stream, parameters, nullptr);
  Require(status == CUDA_SUCCESS, "cuLaunchKernel");
}

void LaunchSimulated(void* launch, cudaStream_t stream, SimulatedWork* data, bool writes,
                     void (*effect)(void*)) {
  const SimRange words = {data->words, size_t{data->count} * 4};
  const SimRange findings = {data->findings, sizeof(Findings)};
  SimWork work = {};
  work.id = data->pattern;
  work.duration_ns = 2000 + data->count / 64;
  work.reads = writes ? nullptr : &words;
  work.read_count = writes ? 0 : 1;
  work.writes = writes ? &words : &findings;
  work.write_count = 1;
  work.effect = effect;
  work.data = data;
  Require(reinterpret_cast<decltype(&simLaunch)>(launch)(stream, &work) == CUDA_SUCCESS,
          "simLaunch");
}

}  // namespace

Kernels::Kernels() {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  Require(driver != nullptr, "finding libcuda.so.1");
  simulated_launch_ = dlsym(driver, "simLaunch");
  if (simulated()) return;
  launch_ = reinterpret_cast<void*>(Find<decltype(cuLaunchKernel)>(driver, "cuLaunchKernel"));
  CUmodule module = nullptr;
  Require(
      Find<decltype(cuModuleLoadData)>(driver, "cuModuleLoadData")(&module, kPtx) == CUDA_SUCCESS,
      "cuModuleLoadData");
  auto* get = Find<decltype(cuModuleGetFunction)>(driver, "cuModuleGetFunction");
  CUfunction fill = nullptr;
  CUfunction check = nullptr;
  Require(get(&fill, module, "fill") == CUDA_SUCCESS, "finding the kernel fill");
  Require(get(&check, module, "check") == CUDA_SUCCESS, "finding the kernel check");
  CUfunction delay = nullptr;
  Require(get(&delay, module, "delay") == CUDA_SUCCESS, "finding the kernel delay");
  delay_ = delay;
  fill_ = fill;
  check_ = check;
}

void Kernels::Fill(cudaStream_t stream, void* words, uint32_t count, uint32_t pattern) const {
  if (simulated()) {
    LaunchSimulated(simulated_launch_, stream,
                    new SimulatedWork{static_cast<uint32_t*>(words), count, pattern, nullptr}, true,
                    &SimulatedFill);
    return;
  }
  void* parameters[] = {&words, &count, &pattern};
  Launch(launch_, fill_, stream, count, parameters);
}

void Kernels::Delay(cudaStream_t stream, uint64_t nanoseconds) const {
  if (simulated()) {
    SimWork work = {};
    work.id = 1;
    work.duration_ns = nanoseconds;
    Require(
        reinterpret_cast<decltype(&simLaunch)>(simulated_launch_)(stream, &work) == CUDA_SUCCESS,
        "simLaunch");
    return;
  }
  void* parameters[] = {&nanoseconds};
  Launch(launch_, delay_, stream, 1, parameters);
}

void Kernels::Check(cudaStream_t stream, const void* words, uint32_t count, uint32_t pattern,
                    Findings* findings) const {
  if (simulated()) {
    auto* data = new SimulatedWork{static_cast<uint32_t*>(const_cast<void*>(words)), count, pattern,
                                   findings};
    LaunchSimulated(simulated_launch_, stream, data, false, &SimulatedCheck);
    return;
  }
  void* parameters[] = {&words, &count, &pattern, &findings};
  Launch(launch_, check_, stream, count, parameters);
}

}  // namespace cmp::demo
