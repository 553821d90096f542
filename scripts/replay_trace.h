// The calls of a trace (shim/record/trace_format.h) as cmp-replay makes them again: each free knows
// which allocation it frees.
//
// Invariant: an object is allocated by one call and freed by at most one, which comes later.
#ifndef CMP_SCRIPTS_REPLAY_TRACE_H_
#define CMP_SCRIPTS_REPLAY_TRACE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cmp::replay {

// In place of an address: the allocation was not made yet; it failed.
inline constexpr uint64_t kNotYet = 0;
inline constexpr uint64_t kFailed = 1;

// An allocation of the trace while it is played again.
struct Object {
  std::atomic<uint64_t> address{kNotYet};
  size_t bytes = 0;
  unsigned device = 0;
};

struct Call {
  uint64_t moment;  // when the pointer changed hands: the end of an allocation, the begin of a free
  unsigned thread;
  bool allocates;
  uint32_t object;
};

struct Trace {
  std::vector<Call> calls;                       // in order
  std::vector<std::vector<uint32_t>> of_thread;  // indices of its calls, in order
  std::unique_ptr<Object[]> objects;
  uint32_t object_count = 0;
  unsigned devices = 1;
  uint64_t skipped = 0;  // failed allocations; frees of what the trace did not see allocated
};

// What is wrong with a trace, in a few words; empty: nothing. (No std::string: what libstdc++ keeps
// of it out of line since GCC 13 takes a newer C library with it.)
struct Wrong {
  char text[80] = "";
  bool empty() const { return text[0] == 0; }
};

// Reads the trace in these bytes, which may be those of a file that grows.
Wrong ReadTrace(const void* data, size_t size, Trace* trace);

}  // namespace cmp::replay

#endif  // CMP_SCRIPTS_REPLAY_TRACE_H_
