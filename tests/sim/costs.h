// The host time that the real calls take, for demonstrations without a GPU.
//
// CMPSIM_COSTS=h200 makes a call spin until it has taken what it took on an H200; the time that the
// simulator itself needed counts towards it. Spent under the simulator's lock, since the real
// driver's calls serialise, too.
#ifndef CMP_TESTS_SIM_COSTS_H_
#define CMP_TESTS_SIM_COSTS_H_

#include <cstddef>
#include <cstdint>

namespace cmp::sim {

class Stopwatch {
 public:
  Stopwatch();
  void Spend(const char* name) const;

 private:
  uint64_t begun_ns_ = 0;
};

// The block that the call under way on this thread allocates or frees; `last_of_chunk`: its 2 MiB
// chunk goes back with it.
void NoteAllocationCost(size_t bytes);
void NoteFreeCost(size_t bytes, bool last_of_chunk);
// Memory that it brings into a pool of the stream-ordered allocator, or out of it.
void NotePoolCost(size_t bytes);
// The same of page-locked memory.
void NoteHostAllocationCost(size_t bytes);
void NoteHostFreeCost(size_t bytes);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_COSTS_H_
