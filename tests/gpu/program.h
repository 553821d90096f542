// What the programs of this folder share: a check of every call, an end to hangs, medians.
#ifndef CMP_TESTS_GPU_PROGRAM_H_
#define CMP_TESTS_GPU_PROGRAM_H_

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace cmp::gpu {

using Clock = std::chrono::steady_clock;

constexpr size_t kKiB = size_t{1} << 10;
constexpr size_t kMiB = size_t{1} << 20;
constexpr int kNoDevice = 77;  // the exit code of a skipped test

inline double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// From any thread, also while others are inside CUDA: no exit handlers.
[[noreturn]] inline void Fail(const char* what, int error, const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s:%d: %s: error %d\n", program_invocation_short_name, file, line, what,
               error);
  _exit(1);
}

inline void Check(cudaError_t status, const char* call, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  if (status != cudaSuccess) Fail(call, static_cast<int>(status), file, line);
}
#define CHECK(call) ::cmp::gpu::Check(call, #call)

// More hardware queues than the default 8, so that streams run side by side. Before CUDA starts.
inline void StartCudaOrSkip() {
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  const cudaError_t status = cudaFree(nullptr);
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s: no CUDA device: %s\n", program_invocation_short_name,
               cudaGetErrorName(status));
  std::exit(kNoDevice);
}

// Keeps what cudaFreeAsync gets, as programs that use it set it up. False: that cannot be set.
inline bool KeepAsyncPool() {
  cudaMemPool_t pool = nullptr;
  uint64_t threshold = ~uint64_t{0};
  CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
  return cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold) == cudaSuccess;
}

template <typename T>
T* Allocate(size_t count) {
  void* pointer = nullptr;
  CHECK(cudaMalloc(&pointer, count * sizeof(T)));
  return static_cast<T*>(pointer);
}

// Device memory that holds zeros before anything else runs.
template <typename T>
T* AllocateZeros(size_t count) {
  T* pointer = Allocate<T>(count);
  CHECK(cudaMemset(pointer, 0, count * sizeof(T)));
  CHECK(cudaDeviceSynchronize());
  return pointer;
}

template <typename T>
T ReadBack(const T* pointer) {
  T value = {};
  CHECK(cudaMemcpy(&value, pointer, sizeof(T), cudaMemcpyDeviceToHost));
  return value;
}

inline cudaStream_t MakeStream(unsigned flags) {
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, flags));
  return stream;
}

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Ends the process with a message when nobody has called Progress() for so long.
class Watchdog {
 public:
  explicit Watchdog(int seconds) {
    std::thread([state = state_, seconds] {
      uint64_t seen = ~uint64_t{0};
      for (auto since = Clock::now(); SecondsSince(since) < seconds;) {
        const uint64_t now = state->steps.load(std::memory_order_relaxed);
        if (now != seen) since = Clock::now();
        seen = now;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
      std::fflush(stdout);
      std::fprintf(stderr, "%s: HANG: no progress for %d s in: %s\n", program_invocation_short_name,
                   seconds, state->what.load());
      _exit(1);
    }).detach();
  }
  // `what` outlives the process's work: what is done next.
  void Progress(const char* what) {
    state_->what.store(what, std::memory_order_relaxed);
    state_->steps.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  struct State {
    std::atomic<const char*> what{"start"};
    std::atomic<uint64_t> steps{0};
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();  // the thread outlives main()
};

// The value behind `--name`, or `otherwise`.
inline const char* Argument(int argc, char** argv, const char* name, const char* otherwise) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  }
  return otherwise;
}

inline bool HasFlag(int argc, char** argv, const char* name) {
  return std::any_of(argv + 1, argv + argc,
                     [name](const char* word) { return std::strcmp(word, name) == 0; });
}

}  // namespace cmp::gpu

#endif  // CMP_TESTS_GPU_PROGRAM_H_
