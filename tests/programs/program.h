// What the programs share: results in words, and kernels that write and check memory.
//
// A program prints its results on stdout, the same without and with the preload. A line that starts
// with "# " is a note for the test (counts of real calls) and is not compared. Addresses are never
// printed. A program knows nothing of the preload.
#ifndef CMP_TESTS_PROGRAMS_PROGRAM_H_
#define CMP_TESTS_PROGRAMS_PROGRAM_H_

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <errno.h>
#include <sim.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace program {

// One call's result and the thread's last error after it, which stays as it is.
inline void Say(const char* what, cudaError_t result) {
  printf("%s: %d, last error %d\n", what, static_cast<int>(result),
         static_cast<int>(cudaPeekAtLastError()));
}

// For calls that must succeed before anything is tested. `file` and `line`: of the caller.
inline void Must(cudaError_t result, const char* what, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE()) {
  if (result == cudaSuccess) return;
  const char* seed = getenv("CMPSIM_SEED");
  printf("%s:%d: %s failed unexpectedly: %d (%s, CMPSIM_SEED=%s)\n", file, line, what,
         static_cast<int>(result), program_invocation_short_name, seed == nullptr ? "0" : seed);
  fflush(stdout);
  _Exit(3);
}
#define MUST(call) program::Must(call, #call)

inline char* Allocate(size_t bytes) {
  void* pointer = nullptr;
  MUST(cudaMalloc(&pointer, bytes));
  return static_cast<char*>(pointer);
}

inline uint64_t RealAllocations() { return simCallCount("cuMemAlloc_v2"); }
inline uint64_t RealFrees() {
  return simCallCount("cuMemFree_v2") + simCallCount("cuMemFreeAsync");
}

// Waits until the pool knows that it has freed something without a wait: it synchronises its stream
// then. REQUIRES: there is idle memory, and the program synchronises no stream
inline void AwaitQuietFree() {
  for (int i = 0; i < 10000 && simCallCount("cuStreamSynchronize") == 0; ++i) usleep(1000);
}

// A sleep; with patient_clock.so preloaded the only time that the monotonic clock goes on.
inline void LetTimePass(int milliseconds) {
  const long nanoseconds = milliseconds * 1'000'000L;
  auto* const pass = reinterpret_cast<void (*)(long)>(dlsym(RTLD_DEFAULT, "cmpTestLetTimePass"));
  if (pass != nullptr) return pass(nanoseconds);
  const timespec time = {nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  nanosleep(&time, nullptr);
}

// Memory of the process's own. (statm counts roughly: each thread some pages late.)
inline size_t AnonymousBytes() {
  FILE* file = fopen("/proc/self/smaps_rollup", "r");
  char line[128];
  unsigned long kilobytes = 0;
  while (file != nullptr && fgets(line, sizeof(line), file) != nullptr) {
    if (sscanf(line, "Anonymous: %lu kB", &kilobytes) == 1) break;
  }
  if (file != nullptr) fclose(file);
  return kilobytes << 10;
}

// What is wrong according to the simulator; a good program prints zeros.
inline void SayHazards() {
  printf("hazards %llu, misuse %llu\n", static_cast<unsigned long long>(simHazardCount()),
         static_cast<unsigned long long>(simMisuseCount()));
  printf("%s", simHazardReport());  // each report is valid until the next is asked for
  printf("%s", simMisuseReport());
}

inline uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(Mix(seed + 1)) {}
  uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15); }
  uint64_t Below(uint64_t limit) { return Next() % limit; }

 private:
  uint64_t state_;
};

// ---- Kernels

// A launch as a program's <<<>>> makes it: through the runtime.
inline cudaError_t Launch(cudaStream_t stream, const SimWork& work) {
  const SimWork* pointer = &work;
  void* arguments[] = {&pointer};
  return cudaLaunchKernel(reinterpret_cast<const void*>(simFunction()), dim3(1), dim3(1), arguments,
                          0, stream);
}

// The first and last words of a block, enough to find another owner's writes.
template <typename Function>
void ForEdges(void* pointer, size_t bytes, Function function) {
  constexpr size_t kEdge = 128;
  auto* words = static_cast<uint64_t*>(pointer);
  const size_t count = bytes / sizeof(uint64_t);
  for (size_t i = 0; i < count; ++i) {
    if (i >= kEdge && i + kEdge < count) i = count - kEdge;
    function(i, words[i]);
  }
}

struct Pattern {
  void* pointer;
  size_t bytes;
  uint64_t seed;
  std::atomic<uint64_t>* wrong;  // counts words that are not the pattern
};

inline void WritePattern(void* data) {
  auto* pattern = static_cast<Pattern*>(data);
  ForEdges(pattern->pointer, pattern->bytes,
           [&](size_t i, uint64_t& word) { word = Mix(pattern->seed + i); });
  delete pattern;
}

inline void CheckPattern(void* data) {
  auto* pattern = static_cast<Pattern*>(data);
  ForEdges(pattern->pointer, pattern->bytes, [&](size_t i, uint64_t& word) {
    if (word != Mix(pattern->seed + i)) pattern->wrong->fetch_add(1);
  });
  delete pattern;
}

inline void LaunchWrite(cudaStream_t stream, void* pointer, size_t bytes, uint64_t seed,
                        uint64_t duration_ns) {
  const SimRange range = {pointer, bytes};
  SimWork work = {};
  work.duration_ns = duration_ns;
  work.writes = &range;
  work.write_count = 1;
  work.effect = &WritePattern;
  work.data = new Pattern{pointer, bytes, seed, nullptr};
  MUST(Launch(stream, work));
}

inline void LaunchCheck(cudaStream_t stream, void* pointer, size_t bytes, uint64_t seed,
                        std::atomic<uint64_t>* wrong, uint64_t duration_ns) {
  const SimRange range = {pointer, bytes};
  SimWork work = {};
  work.duration_ns = duration_ns;
  work.reads = &range;
  work.read_count = 1;
  work.effect = &CheckPattern;
  work.data = new Pattern{pointer, bytes, seed, wrong};
  MUST(Launch(stream, work));
}

inline cudaStream_t NonBlockingStream() {
  cudaStream_t stream = nullptr;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

// Allocates and frees `count` blocks of `bytes` at once: afterwards the pool has them.
inline void Warm(size_t bytes, int count = 8) {
  void* pointers[64] = {};
  for (int i = 0; i < count; ++i) pointers[i] = Allocate(bytes);
  for (int i = 0; i < count; ++i) MUST(cudaFree(pointers[i]));
}

// How many of `count` pairs of cudaMalloc and cudaFree made no real allocation: a note.
inline void NoteServed(const char* when, size_t bytes, int count = 20) {
  const uint64_t before = RealAllocations();
  for (int i = 0; i < count; ++i) MUST(cudaFree(Allocate(bytes)));
  const uint64_t real = RealAllocations() - before;
  printf("# served %s: %lld of %d\n", when,
         static_cast<long long>(count) - static_cast<long long>(real), count);
}

}  // namespace program

#endif  // CMP_TESTS_PROGRAMS_PROGRAM_H_
