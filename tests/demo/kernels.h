// Kernels for programs that must run on a GPU and on the simulated CUDA alike: fill a buffer with a
// pattern, check that the pattern is there, take time. On a GPU they are PTX that the driver
// compiles, so no nvcc is needed; on the simulated CUDA they are simulated work items.
#ifndef CMP_TESTS_DEMO_KERNELS_H_
#define CMP_TESTS_DEMO_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace cmp::demo {

// What Check finds, in device memory: 16 bytes.
struct Findings {
  uint64_t wrong_words;
  uint64_t sum;  // of all words read; the same for the same patterns in any order
};

class Kernels {
 public:
  // Loads the kernels into the current context; exits with a message if that fails.
  Kernels();

  // Writes words[i] = pattern + i for `count` 32-bit words, asynchronously on `stream`.
  void Fill(cudaStream_t stream, void* words, uint32_t count, uint32_t pattern) const;
  // Counts the words that are not pattern + i and adds up what was read.
  void Check(cudaStream_t stream, const void* words, uint32_t count, uint32_t pattern,
             Findings* findings) const;

  // Keeps `stream` busy for about `nanoseconds` of the device's time.
  void Delay(cudaStream_t stream, uint64_t nanoseconds) const;

  bool simulated() const { return simulated_launch_ != nullptr; }

 private:
  void* fill_ = nullptr;
  void* check_ = nullptr;
  void* delay_ = nullptr;
  void* launch_ = nullptr;
  void* simulated_launch_ = nullptr;
};

}  // namespace cmp::demo

#endif  // CMP_TESTS_DEMO_KERNELS_H_
