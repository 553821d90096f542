#include "kernels.h"

#include <cuda.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>

#include "../sim/sim.h"
#include "kernels_ptx.h"

namespace cmp::demo {

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kMostBlocks = 64;

// The simulated forms. One of these travels with each work item and is freed by its effect.
struct SimulatedWork {
  uint32_t* words;
  uint32_t count;
  uint32_t pattern;
  Findings* findings;
};

// The first, the last, and every so many between: a page that nobody touches costs the host
// nothing.
template <typename Function>
void ForSomeWords(uint32_t count, Function function) {
  const uint32_t step = count / 128 + 1;
  for (uint32_t i = 0; i + 1 < count; i += step) function(i);
  if (count != 0) function(count - 1);
}

void SimulatedFill(void* data) {
  auto* work = static_cast<SimulatedWork*>(data);
  ForSomeWords(work->count, [&](uint32_t i) { work->words[i] = work->pattern + i; });
  delete work;
}

void SimulatedCheck(void* data) {
  auto* work = static_cast<SimulatedWork*>(data);
  ForSomeWords(work->count, [&](uint32_t i) {
    work->findings->sum += work->words[i];
    work->findings->wrong_words += work->words[i] != work->pattern + i ? 1 : 0;
  });
  delete work;
}

struct SimulatedStamp {
  uint32_t* words;
  uint32_t count;
  uint32_t id;
  bool expects;
  bool last;  // of the two items of one Stamp: frees this
  Corruptions* corruptions;
};

void SimulatedStampWords(void* data) {
  auto* stamp = static_cast<SimulatedStamp*>(data);
  ForSomeWords(stamp->count, [&](uint32_t i) {
    uint32_t& word = stamp->words[i];
    if (stamp->expects && word != stamp->id &&
        __atomic_fetch_add(&stamp->corruptions->words, 1, __ATOMIC_RELAXED) == 0) {
      stamp->corruptions->expected = stamp->id;
      stamp->corruptions->found = word;
    }
    word = stamp->id;
  });
  if (stamp->last) {
    delete stamp;
    return;
  }
  stamp->expects = true;
  stamp->last = true;
}

struct SimulatedWord {
  const uint32_t* from;  // or nullptr: `value`
  uint32_t value;
  uint32_t* to;
};

void SimulatedWrite(void* data) {
  const auto* word = static_cast<const SimulatedWord*>(data);
  *word->to = word->from != nullptr ? *word->from : word->value;
}

void Nothing(void*) {}

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

void Launch(void* launch, void* kernel, cudaStream_t stream, unsigned blocks, unsigned threads,
            void** parameters) {
  const CUresult status = reinterpret_cast<decltype(&cuLaunchKernel)>(launch)(
      static_cast<CUfunction>(kernel), blocks, 1, 1, threads, 1, 1, 0, stream, parameters, nullptr);
  Require(status == CUDA_SUCCESS, "cuLaunchKernel");
}

void LaunchOverWords(void* launch, void* kernel, cudaStream_t stream, uint32_t count,
                     void** parameters) {
  const unsigned wanted = (count + kThreads - 1) / kThreads;
  Launch(launch, kernel, stream, wanted < kMostBlocks ? wanted : kMostBlocks,
         count < kThreads ? 1 : kThreads, parameters);
}

void Submit(void* launch, cudaStream_t stream, const SimWork& work) {
  Require(reinterpret_cast<decltype(&simLaunch)>(launch)(stream, &work) == CUDA_SUCCESS,
          "simLaunch");
}

// The data of a captured item is used as often as the graph is launched: it stays for ever.
SimulatedWord* Kept(const SimulatedWord& word) {
  static std::mutex mutex;
  static auto* const words = new std::deque<SimulatedWord>;
  const std::lock_guard<std::mutex> lock(mutex);
  return &words->emplace_back(word);
}

void SubmitWord(void* launch, cudaStream_t stream, uint64_t nanoseconds,
                const SimulatedWord& word) {
  const SimRange from = {word.from, sizeof(uint32_t)};
  const SimRange to = {word.to, sizeof(uint32_t)};
  SimWork work = {};
  work.id = word.value;
  work.duration_ns = nanoseconds;
  work.reads = &from;
  work.read_count = word.from != nullptr ? 1 : 0;
  work.writes = &to;
  work.write_count = 1;
  work.effect = &SimulatedWrite;
  work.data = Kept(word);
  Submit(launch, stream, work);
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
  Submit(launch, stream, work);
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
  const struct {
    void** function;
    const char* name;
  } functions[] = {{&fill_, "fill"},
                   {&check_, "check"},
                   {&delay_, "delay"},
                   {&stamp_, "stamp"},
                   {&write_late_, "write_late"},
                   {&copy_word_, "copy_word"},
                   {&spin_until_, "spin_until"},
                   {&empty_, "empty"}};
  for (const auto& [function, name] : functions) {
    CUfunction found = nullptr;
    Require(get(&found, module, name) == CUDA_SUCCESS, name);
    *function = found;
  }
}

void Kernels::Fill(cudaStream_t stream, void* words, uint32_t count, uint32_t pattern) const {
  if (simulated()) {
    LaunchSimulated(simulated_launch_, stream,
                    new SimulatedWork{static_cast<uint32_t*>(words), count, pattern, nullptr}, true,
                    &SimulatedFill);
    return;
  }
  void* parameters[] = {&words, &count, &pattern};
  LaunchOverWords(launch_, fill_, stream, count, parameters);
}

void Kernels::Delay(cudaStream_t stream, uint64_t nanoseconds) const {
  if (simulated()) {
    SimWork work = {};
    work.id = 1;
    work.duration_ns = nanoseconds;
    Submit(simulated_launch_, stream, work);
    return;
  }
  void* parameters[] = {&nanoseconds};
  Launch(launch_, delay_, stream, 1, 1, parameters);
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
  LaunchOverWords(launch_, check_, stream, count, parameters);
}

void Kernels::Stamp(cudaStream_t stream, void* words, uint32_t count, uint32_t id, bool fresh,
                    uint64_t nanoseconds, Corruptions* corruptions) const {
  if (simulated()) {  // in two items, since one takes effect at its end alone
    auto* data =
        new SimulatedStamp{static_cast<uint32_t*>(words), count, id, !fresh, false, corruptions};
    const SimRange block = {words, size_t{count} * 4};
    SimWork work = {};
    work.id = id;
    work.reads = &block;
    work.read_count = fresh ? 0 : 1;
    work.writes = &block;
    work.write_count = 1;
    work.effect = &SimulatedStampWords;
    work.data = data;
    Submit(simulated_launch_, stream, work);
    work.read_count = 1;
    work.duration_ns = nanoseconds;
    Submit(simulated_launch_, stream, work);
    return;
  }
  uint32_t is_fresh = fresh ? 1 : 0;
  void* parameters[] = {&words, &count, &id, &is_fresh, &nanoseconds, &corruptions};
  Launch(launch_, stamp_, stream, 1, 32, parameters);
}

void Kernels::WriteLate(cudaStream_t stream, uint32_t* word, uint32_t value,
                        uint64_t nanoseconds) const {
  if (simulated()) {
    SubmitWord(simulated_launch_, stream, nanoseconds, {nullptr, value, word});
    return;
  }
  void* parameters[] = {&word, &value, &nanoseconds};
  Launch(launch_, write_late_, stream, 1, 1, parameters);
}

void Kernels::CopyWord(cudaStream_t stream, const uint32_t* from, uint32_t* to) const {
  if (simulated()) {
    SubmitWord(simulated_launch_, stream, 1000, {from, 0, to});
    return;
  }
  void* parameters[] = {&from, &to};
  Launch(launch_, copy_word_, stream, 1, 1, parameters);
}

void Kernels::SpinUntil(cudaStream_t stream, const uint32_t* word, uint32_t value,
                        uint32_t* gave_up) const {
  if (simulated()) {
    SimWork work = {};
    work.spin_until_id = value;
    work.effect = &Nothing;
    Submit(simulated_launch_, stream, work);
    return;
  }
  uint64_t nanoseconds = 3000000000;
  void* parameters[] = {&word, &value, &nanoseconds, &gave_up};
  Launch(launch_, spin_until_, stream, 1, 1, parameters);
}

void Kernels::Empty(cudaStream_t stream) const {
  if (simulated()) {
    SimWork work = {};
    work.duration_ns = 1000;
    work.effect = &Nothing;
    Submit(simulated_launch_, stream, work);
    return;
  }
  Launch(launch_, empty_, stream, 1, 1, nullptr);
}

}  // namespace cmp::demo
