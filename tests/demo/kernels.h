// Kernels for programs that must run on a GPU and on the simulated CUDA alike: fill a buffer with a
// pattern, check that the pattern is there, take time, notice who else writes. On a GPU they are
// PTX that the driver compiles, so no nvcc is needed; on the simulated CUDA they are simulated work
// items, which touch some words of a large buffer alone.
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

// What Stamp finds, in device memory: 16 bytes, zero at first.
struct Corruptions {
  uint64_t words;
  uint32_t expected;  // of the first word found
  uint32_t found;
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

  // One warp that owns the block for about `nanoseconds`: writes `id` into up to 128 of its words
  // (the first, the last and some that the id chooses), or expects it there unless `fresh`; at the
  // end expects it still there, and writes it again. Two of these that overlap in time on the same
  // block find each other. Not for captures.
  void Stamp(cudaStream_t stream, void* words, uint32_t count, uint32_t id, bool fresh,
             uint64_t nanoseconds, Corruptions* corruptions) const;

  // One thread: *word = value, after about `nanoseconds`.
  void WriteLate(cudaStream_t stream, uint32_t* word, uint32_t value, uint64_t nanoseconds) const;
  // One thread: *to = *from.
  void CopyWord(cudaStream_t stream, const uint32_t* from, uint32_t* to) const;
  // One thread that runs until *word == value, which WriteLate brings about. After three seconds it
  // gives up and sets *gave_up = value; on the simulated CUDA a wait that cannot end aborts.
  void SpinUntil(cudaStream_t stream, const uint32_t* word, uint32_t value,
                 uint32_t* gave_up) const;
  // One thread that does nothing.
  void Empty(cudaStream_t stream) const;

  bool simulated() const { return simulated_launch_ != nullptr; }

 private:
  void* fill_ = nullptr;
  void* check_ = nullptr;
  void* delay_ = nullptr;
  void* stamp_ = nullptr;
  void* write_late_ = nullptr;
  void* copy_word_ = nullptr;
  void* spin_until_ = nullptr;
  void* empty_ = nullptr;
  void* launch_ = nullptr;
  void* simulated_launch_ = nullptr;
};

}  // namespace cmp::demo

#endif  // CMP_TESTS_DEMO_KERNELS_H_
