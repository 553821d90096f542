// Copies and sets of blocks by many threads, each of memory that it has at that moment: none
// may be refused, whoever frees, allocates or resets beside it.
//
//   named own SEED THREADS STEPS     memory of every kind, at addresses that others had before
//   named resets SEED THREADS STEPS  beside a thread that makes, uses and destroys contexts
//   named past                       what was freed past the shim is others' now
//   named wrong SEED THREADS STEPS   the same as `own`, beside threads that use what they freed
#include <cuda.h>
#include <dlfcn.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "create_context.h"
#include "libc_dlsym.h"
#include "program.h"

namespace {

using program::Random;

constexpr size_t kSizes[] = {1,
                             700,
                             4096,
                             70001,
                             size_t{1} << 20,
                             (size_t{2} << 20) - 512,
                             (size_t{2} << 20) + 1,
                             size_t{5} << 20};

// A whole block, or of most large ones some, often up to the end: the host does what is asked for.
struct Part {
  size_t at;
  size_t bytes;
};
Part DrawPart(Random& random, size_t whole) {
  constexpr size_t kMost = 100000;
  const size_t bytes = random.Below(16) == 0 ? whole : std::min(whole, kMost);
  return {random.Below(2) == 0 ? whole - bytes : random.Below(whole - bytes + 1), bytes};
}

struct Own {
  char* memory = nullptr;
  size_t bytes = 0;
  int kind = 0;
};

Own Make(Random& random) {
  Own own;
  own.bytes = kSizes[random.Below(std::size(kSizes))];
  own.kind = static_cast<int>(random.Below(8));
  void* pointer = nullptr;
  if (own.kind == 0) {
    MUST(cudaMallocManaged(&pointer, own.bytes));
  } else if (own.kind == 1) {
    MUST(cudaMallocAsync(&pointer, own.bytes, cudaStreamPerThread));
  } else if (own.kind == 2) {
    MUST(cudaMallocHost(&pointer, own.bytes));
  } else {
    MUST(cudaMalloc(&pointer, own.bytes));
  }
  own.memory = static_cast<char*>(pointer);
  return own;
}

void Free(const Own& own) {
  if (own.kind == 1) {
    MUST(cudaFreeAsync(own.memory, cudaStreamPerThread));
  } else if (own.kind == 2) {
    MUST(cudaFreeHost(own.memory));
  } else {
    MUST(cudaFree(own.memory));
  }
}

void Thread(uint64_t seed, int steps, std::atomic<uint64_t>& calls) {
  Random random(seed);
  std::vector<Own> all;
  std::vector<char> host(size_t{5} << 20);
  uint64_t made = 0;
  for (int step = 0; step < steps; ++step) {
    if (all.size() < 2 || random.Below(3) == 0) all.push_back(Make(random));
    Own& own = all[random.Below(all.size())];
    const Own& other = all[random.Below(all.size())];
    const Part part = DrawPart(random, own.bytes);
    MUST(cudaMemsetAsync(own.memory + part.at, 1, part.bytes, cudaStreamPerThread));
    const Part to = DrawPart(random, std::min(own.bytes, other.bytes));
    MUST(cudaMemcpyAsync(own.memory + to.at, other.memory + to.at, to.bytes, cudaMemcpyDefault,
                         cudaStreamPerThread));
    const Part from = DrawPart(random, own.bytes);
    MUST(cudaMemcpy(host.data(), own.memory + from.at, from.bytes, cudaMemcpyDefault));
    made += 3;
    if (all.size() > 4 || random.Below(3) == 0) {
      const size_t at = random.Below(all.size());
      Free(all[at]);
      all[at] = all.back();
      all.pop_back();
    }
  }
  for (const Own& own : all) Free(own);
  calls += made;
}

// In contexts of its own.
void Resets(uint64_t seed, const std::atomic<bool>& ends) {
  Random random(seed);
  do {
    CUcontext context = nullptr;
    if (CreateContext(&context) != CUDA_SUCCESS) _Exit(4);
    std::vector<CUdeviceptr> blocks(20);
    for (CUdeviceptr& block : blocks) {
      const size_t bytes = kSizes[random.Below(std::size(kSizes))];
      if (cuMemAlloc(&block, bytes) != CUDA_SUCCESS) _Exit(5);
      const Part part = DrawPart(random, bytes);
      if (cuMemsetD8(block + part.at, 1, part.bytes) != CUDA_SUCCESS) _Exit(6);
    }
    for (size_t i = 0; i < blocks.size(); i += 2) {
      if (cuMemFree(blocks[i]) != CUDA_SUCCESS) _Exit(7);
    }
    if (cuCtxDestroy(context) != CUDA_SUCCESS) _Exit(8);
  } while (!ends);
}

// Refused or not: it must only do no harm to others. Memory that was freed may be another thread's.
void Wrong(uint64_t seed, const std::atomic<bool>& ends) {
  Random random(seed);
  uint64_t refused = 0;
  do {
    const size_t bytes = kSizes[random.Below(std::size(kSizes))];
    char* block = program::Allocate(bytes);
    if (cudaMemsetAsync(block, 0, bytes + 1, cudaStreamPerThread) != cudaSuccess) ++refused;
    MUST(cudaFree(block));
    (void)cudaGetLastError();
  } while (!ends);
  if (refused == 0) printf("nothing was refused\n");
}

// The driver gives the address out again, as larger memory of another kind.
void Past() {
  // By the C library's dlopen: what comes by ours ends the serving (shim/state/deep_loads.h).
  using Dlopen = void* (*)(const char* file, int mode);
  const auto open = reinterpret_cast<Dlopen>(LibcFunction("dlopen"));
  void* library = open("libpast_the_shim.so", RTLD_NOW | RTLD_DEEPBIND);
  if (library == nullptr) _Exit(9);
  const auto free_past = reinterpret_cast<int (*)(CUdeviceptr)>(dlsym(library, "FreePastTheShim"));
  for (const bool idle : {false, true}) {
    char* block = program::Allocate(1000);
    if (idle) MUST(cudaFree(block));
    printf("freed: %d\n", free_past(reinterpret_cast<CUdeviceptr>(block)));
    void* other = nullptr;
    constexpr size_t kBytes = size_t{1} << 20;
    MUST(cudaMallocAsync(&other, kBytes, nullptr));
    MUST(cudaStreamSynchronize(nullptr));
    printf("set: %d, copied: %d\n", cudaMemset(other, 1, kBytes),
           cudaMemcpy(static_cast<char*>(other) + kBytes / 2, other, kBytes / 2,
                      cudaMemcpyDeviceToDevice));
    MUST(cudaFreeAsync(other, nullptr));
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && strcmp(arguments[1], "past") == 0) {
    Past();
    return 0;
  }
  if (count < 5) return 2;
  const char* scenario = arguments[1];
  const auto seed = static_cast<uint64_t>(atoll(arguments[2]));
  const int threads = atoi(arguments[3]);
  const int steps = atoi(arguments[4]);
  MUST(cudaFree(nullptr));
  std::atomic<bool> ends{false};
  std::atomic<uint64_t> calls{0};
  std::vector<std::thread> beside;
  for (uint64_t i = 0; i < 2; ++i) {
    if (strcmp(scenario, "resets") == 0) {
      beside.emplace_back([&, i] { Resets(seed + i, ends); });
    } else if (strcmp(scenario, "wrong") == 0) {
      beside.emplace_back([&, i] { Wrong(seed + i, ends); });
    }
  }
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i) {
    all.emplace_back([&, i] { Thread(seed * 100 + static_cast<uint64_t>(i), steps, calls); });
  }
  for (std::thread& thread : all) thread.join();
  ends = true;
  for (std::thread& thread : beside) thread.join();
  MUST(cudaDeviceSynchronize());
  printf("%s, last error %d\n", calls > 0 ? "copied" : "nothing copied",
         static_cast<int>(cudaPeekAtLastError()));
  program::SayHazards();
  return 0;
}
