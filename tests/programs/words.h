// Kernels of one word: enough to see whether, and in which order, they ran.
#ifndef CMP_TESTS_PROGRAMS_WORDS_H_
#define CMP_TESTS_PROGRAMS_WORDS_H_

#include "program.h"

namespace program {

// A kernel that writes `value`, or copies a word, late.
struct WordKernel {
  uint64_t value;
  const char* from;  // null: the value
  char* to;
};
inline void RunWordKernel(void* data) {
  const auto* kernel = static_cast<WordKernel*>(data);
  if (kernel->from == nullptr) {
    memcpy(kernel->to, &kernel->value, sizeof kernel->value);
  } else {
    memcpy(kernel->to, kernel->from, sizeof kernel->value);
  }
  delete kernel;
}
inline void LaunchWord(cudaStream_t stream, const WordKernel& kernel, uint64_t duration_ns) {
  const SimRange read = {kernel.from, 8};
  const SimRange write = {kernel.to, 8};
  SimWork work = {};
  work.duration_ns = duration_ns;
  work.reads = &read;
  work.read_count = kernel.from == nullptr ? 0 : 1;
  work.writes = &write;
  work.write_count = 1;
  work.effect = &RunWordKernel;
  work.data = new WordKernel(kernel);
  MUST(program::Launch(stream, work));
}
inline void WriteWord(cudaStream_t stream, char* to, uint64_t value, uint64_t duration_ns) {
  LaunchWord(stream, {value, nullptr, to}, duration_ns);
}

inline uint64_t WordOf(const char* device) {
  uint64_t word = 0;
  MUST(cudaMemcpy(&word, device, sizeof word, cudaMemcpyDeviceToHost));
  return word;
}

}  // namespace program

#endif  // CMP_TESTS_PROGRAMS_WORDS_H_
