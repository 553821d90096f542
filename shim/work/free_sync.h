// What a free still owes to the program, and for which fence its block must wait. The one seam
// between the shim's knowledge of streams and the pool, which has none.
//
// The real cudaFree waits for all work of the context that owns the memory. CMP_FREE_SYNC says how
// much of that is kept:
//
//   wait    all of it: the block is ready at once, unless another context has unfinished work
//   auto    order, and a wait where the host could notice that there was none (visible_work.h,
//           visible_memory.h): until the work is done that it could see, or all of it where it
//           shares memory with kernels
//   order   work submitted later runs after work submitted before, on the device: a fence is
//           recorded at once, and work_state.h sees to the rest
//   none    nothing but that the block is not handed out too early
//
// Where nothing was submitted since the last wait, a free owes nothing in any mode. While a capture
// is under way anywhere in the process, nothing can be recorded, and a free is the real one.
#ifndef CMP_SHIM_WORK_FREE_SYNC_H_
#define CMP_SHIM_WORK_FREE_SYNC_H_

#include "core/driver/driver.h"
#include "core/pool/pool.h"

namespace cmp {

// The usual free: no work is unfinished, so `block` is ready and nothing is owed. False says
// nothing (call SettleFree). Loads only. REQUIRES: the caller took the block from the program, and
// will find out whether its context is open. (Whether the process exits, it need not ask as
// SettleFree does: nothing here calls CUDA. While a capture is under way, hits are barred.)
inline bool IsSettled(const ContextPool& owner) { return owner.fences().Settled(); }
// The same where there are several contexts, whose work is looked at, too.
inline bool IsSettledAmongSeveral(Pool& pool, const Block& block) {
  return pool.readiness().StampNow(*block.owner()) == kReady;
}

// Pays what the free of a block of `context` owes. REQUIRES: the caller took it from the program.
Settlement SettleFree(Pool& pool, const Driver& driver, ContextPool& context);
// The same of a free that is asked for without a wait (CudaMemoryPool::FreeWithoutWait), whose
// caller orders what follows: it owes neither a wait nor order in any mode.
Settlement SettleWithoutWait(Pool& pool, const Driver& driver, ContextPool& context);
using Settle = Settlement (*)(Pool& pool, const Driver& driver, ContextPool& context);

}  // namespace cmp

#endif  // CMP_SHIM_WORK_FREE_SYNC_H_
