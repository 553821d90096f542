// What every scenario of `observations` is made of: long work, the free of a block that has nothing
// to do with it, and a look at what the host can then see.
#ifndef CMP_TESTS_PROGRAMS_OBSERVATIONS_SCENE_H_
#define CMP_TESTS_PROGRAMS_OBSERVATIONS_SCENE_H_

#include <functional>
#include <string>
#include <vector>

#include "../helper.h"
#include "../words.h"

namespace observations {

using program::Allocate;
using program::AtPlace;
using program::Helper;
using program::NonBlockingStream;
using program::WordOf;
using program::WriteWord;

enum class Expect {
  kVisible,  // the host can see whether the free waited
  kOneWait,  // likewise, and one wait is enough
  kQuiet,    // it cannot: there is no need to wait
};

struct Scenario {
  Expect expect;
  const char* rule;  // of the pool's: without it the scenario fails; "-": none
  std::string name;
  std::function<void()> run;
  // From the very beginning: before the process has a pool.
  bool from_start = false;
};

std::vector<Scenario> CopyScenarios();
std::vector<Scenario> CopyAttributeScenarios();
std::vector<Scenario> WorkScenarios();
std::vector<Scenario> MemoryScenarios();
std::vector<Scenario> FinishedScenarios();
std::vector<Scenario> QueryScenarios();
std::vector<Scenario> EndScenarios();
std::vector<Scenario> QuietScenarios();
// The other process of a scenario with two.
int BePeer();

constexpr uint64_t kLong = 50 * 1000 * 1000;  // ns: longer than all calls of a scenario
constexpr uint64_t kShort = 1000;

inline int g_seen = 0;
inline int g_wrong = 0;

inline void Check(const std::string& what, uint64_t seen, uint64_t expected) {
  const bool wrong = seen != expected;
  if (wrong) ++g_wrong;
  printf("%s: %llu%s\n", what.c_str(), static_cast<unsigned long long>(seen),
         wrong ? ", wrong" : "");
}
// What a host sees that trusts cudaFree: wrong wherever a free does not wait.
inline void See(const std::string& what, uint64_t seen, uint64_t expected) {
  ++g_seen;
  Check(what, seen, expected);
}

inline void MustDriver(CUresult result, const char* what, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
  program::Must(static_cast<cudaError_t>(result), what, file, line);
}
#define MUST_DRIVER(call) observations::MustDriver(call, #call)

inline CUdeviceptr Address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

// A new value each time, so that nothing old is taken for it.
inline uint64_t NextValue() {
  static uint64_t value = 1000;
  return ++value;
}

inline char* PageLocked(size_t bytes = 4096, unsigned flags = cudaHostAllocDefault) {
  void* memory = nullptr;
  MUST(cudaHostAlloc(&memory, bytes, flags));
  memset(memory, 0, bytes);
  return static_cast<char*>(memory);
}

// A block of the program's that holds one word, known to be 0.
inline char* DeviceWord() {
  char* block = Allocate(4096);
  MUST(cudaMemset(block, 0, 4096));
  MUST(cudaDeviceSynchronize());
  return block;
}

inline uint64_t HostWord(const char* at) {
  uint64_t word = 0;
  memcpy(&word, at, sizeof word);
  return word;
}
inline void SetHostWord(char* at, uint64_t word) { memcpy(at, &word, sizeof word); }

// The pool of the context exists, and everything from before it is known to be done.
inline void Settle() {
  char* block = Allocate(1000);
  MUST(cudaDeviceSynchronize());
  MUST(cudaFree(block));
}

inline void FreeUnrelated() { MUST(cudaFree(Allocate(1000))); }

// For work that is to be still running when a free has returned: with the real one it is not.
inline void NoteRunning() {
  printf("# still running: %s\n", simPendingCount(nullptr) > 0 ? "yes" : "no");
}

}  // namespace observations

#endif  // CMP_TESTS_PROGRAMS_OBSERVATIONS_SCENE_H_
