// A program that knows the driver alone: no runtime, its functions linked as symbols. Allocates in
// contexts of its own and in a primary one, with pitch, from several threads, frees under another
// current context, and checks what it wrote. It knows nothing of the pool: its output must be the
// same without and with the preload.
#include <cuda.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <thread>
#include <vector>

#include "../sim/create_context.h"

namespace {

void Must(CUresult status, const char* what) {
  if (status == CUDA_SUCCESS) return;
  std::fprintf(stderr, "driver_api: %s: %d\n", what, static_cast<int>(status));
  std::exit(1);
}
#define MUST(call) Must(call, #call)

// A sequence that every thread and platform repeats.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  size_t Below(size_t limit) {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return static_cast<size_t>(state_ >> 33) % limit;
  }

 private:
  uint64_t state_;
};

struct Held {
  CUdeviceptr pointer = 0;
  size_t words = 0;
  unsigned value = 0;
};

size_t WrongWords(const Held& held) {
  std::vector<unsigned> words(held.words);
  MUST(cuMemcpyDtoH(words.data(), held.pointer, held.words * 4));
  size_t wrong = 0;
  for (const unsigned word : words) wrong += word == held.value ? 0 : 1;
  return wrong;
}

// Allocates, sets, checks and frees at random. Returns how many words were wrong.
size_t Churn(uint64_t seed, int steps) {
  Random random(seed);
  std::vector<Held> held(24);
  size_t wrong = 0;
  for (int step = 0; step < steps; ++step) {
    Held& one = held[random.Below(held.size())];
    if (one.pointer != 0) {
      wrong += WrongWords(one);
      MUST(cuMemFree(one.pointer));
      one = Held{};
      continue;
    }
    one.words = 64 + random.Below(size_t{1} << (6 + random.Below(14)));
    one.value = static_cast<unsigned>(step);
    MUST(cuMemAlloc(&one.pointer, one.words * 4));
    MUST(cuMemsetD32(one.pointer, one.value, one.words));
  }
  for (const Held& one : held) {
    if (one.pointer != 0) MUST(cuMemFree(one.pointer));
  }
  return wrong;
}

void Pitches() {
  for (const size_t width : {size_t{100}, size_t{1000}, size_t{5000}}) {
    size_t first = 0;
    for (int round = 0; round < 3; ++round) {
      CUdeviceptr pointer = 0;
      size_t pitch = 0;
      MUST(cuMemAllocPitch(&pointer, &pitch, width, 64, 4));
      if (round == 0) first = pitch;
      CUdeviceptr base = 0;
      size_t bytes = 0;
      MUST(cuMemGetAddressRange(&base, &bytes, pointer));
      std::printf("pitch of %zu: %zu, the same again: %s, range %zu\n", width, pitch,
                  pitch == first ? "yes" : "no", bytes);
      MUST(cuMemFree(pointer));
    }
  }
}

}  // namespace

int main() {
  if (cuInit(0) != CUDA_SUCCESS) {
    std::fprintf(stderr, "driver_api: no CUDA device\n");
    return 77;
  }
  CUdevice device = 0;
  CUcontext primary = nullptr;
  MUST(cuDeviceGet(&device, 0));
  MUST(cuDevicePrimaryCtxRetain(&primary, device));
  MUST(cuCtxSetCurrent(primary));
  std::printf("primary context: wrong words %zu\n", Churn(1, 2000));
  Pitches();

  std::vector<std::thread> threads;
  std::vector<size_t> wrong(4);
  for (size_t i = 0; i < wrong.size(); ++i) {
    threads.emplace_back([&, i] {
      MUST(cuCtxSetCurrent(primary));
      wrong[i] = Churn(10 + i, 1000);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("threads: wrong words %zu %zu %zu %zu\n", wrong[0], wrong[1], wrong[2], wrong[3]);

  CUcontext own = nullptr;
  MUST(CreateContext(&own, device));
  std::printf("own context: wrong words %zu\n", Churn(2, 1000));
  CUdeviceptr block = 0;
  MUST(cuMemAlloc(&block, 1 << 20));
  MUST(cuCtxSetCurrent(primary));
  const CUresult first = cuMemFree(block);
  const CUresult again = cuMemFree(block);
  std::printf("free under another context: %d, again: %d\n", static_cast<int>(first),
              static_cast<int>(again));
  MUST(cuCtxDestroy(own));
  std::printf("primary context again: wrong words %zu\n", Churn(3, 1000));
  MUST(cuDevicePrimaryCtxRelease(device));
  return 0;
}
