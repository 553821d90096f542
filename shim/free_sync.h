// What a free still owes to the GPU's pending work, and when its block is ready. The one seam
// between the shim's knowledge of streams and the pool, which has none.
//
// The real cudaFree waits for all work of the context that owns the memory. CMP_FREE_SYNC=wait
// does the same, and waits for the process's other contexts that have a pool too, so that a freed
// block is ready at once and nothing is owed.
#ifndef CMP_SHIM_FREE_SYNC_H_
#define CMP_SHIM_FREE_SYNC_H_

#include "core/driver.h"
#include "core/pool.h"

namespace cmp {

enum class Settlement {
  kReady,     // nothing is owed any more: the block may be handed out from now on
  kRealFree,  // the free must be the real one: a capture is under way, the context has failed
};

// Pays what the free of `block` owes. REQUIRES: the caller took the block from the program.
Settlement SettleFree(Pool& pool, const Driver& driver, Block* block);

}  // namespace cmp

#endif  // CMP_SHIM_FREE_SYNC_H_
