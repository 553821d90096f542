// What an allocation asks for, and what it comes to.
#ifndef CMP_CORE_POOL_ALLOCATION_H_
#define CMP_CORE_POOL_ALLOCATION_H_

#include <cstddef>
#include <cstdint>

#include "core/base/types.h"

namespace cmp {

// What served an allocation: a real call for it alone, one for the pool, or an idle block, which is
// counted and handed out already.
enum class Served : uint8_t { kReal, kRefill, kThreadCache, kGlobalPool };

// What is asked of a real call: `bytes` for a program that wants `requested`, counted in `tier`.
struct Request {
  size_t requested;
  size_t bytes;
  unsigned tier;
  BlockState state;  // of the block that it becomes; kIdle: the caller's, who lists it
};

// What an allocation came to. `bytes`, those of its block, are 0 with a set `address` when the
// allocation is real and not entered in the side table (no bookkeeping memory, an address outside
// its range, a context that has just ended): such memory is the program's own affair, as without
// the pool. No pointer to a block that the program has: another thread may end its context at any
// time, and then the record becomes another block's.
struct Allocation {
  int status = kSuccess;
  DeviceAddress address = 0;
  size_t bytes = 0;
  Served served = Served::kReal;
  Block* idle = nullptr;  // where kIdle was asked for

  bool pooled() const { return bytes != 0; }
};

}  // namespace cmp

#endif  // CMP_CORE_POOL_ALLOCATION_H_
