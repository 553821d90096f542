// What the pools of the stream-ordered allocator reserve of a device's memory.
//
// A pool has what was allocated from it, and keeps what was freed for the next allocation of that
// size. At every synchronisation with a stream, an event or a context each pool gives back what it
// keeps until it reserves no more than its threshold, which is 0 at first (measured on an H200).
// Simpler than there: blocks are not merged, and each goes back by itself, where the real driver
// reserves in chunks. Pools of the host keep nothing. The caller holds the lock.
#ifndef CMP_TESTS_SIM_MEMORY_POOLS_H_
#define CMP_TESTS_SIM_MEMORY_POOLS_H_

#include "simulation.h"

namespace cmp::sim {

CUmemoryPool DefaultPool(Simulation& sim, CUdevice device);
CUmemoryPool CurrentPool(Simulation& sim, CUdevice device);
MemoryPool* FindPool(Simulation& sim, CUmemoryPool handle);  // null: no pool's handle

// On the stream's device, if not of the host's, whichever the pool was made for. Null: it has no
// more.
Allocation* AllocateFrom(Simulation& sim, const Context& context, CUmemoryPool handle,
                         size_t bytes);
// What was allocated from a pool goes back to it, or, if that is gone, to the device. Others really
// end.
void FreeInPool(Simulation& sim, Allocation& allocation);
// Gives back what is kept until no more than `least` bytes are reserved.
void TrimPool(Simulation& sim, MemoryPool& pool, size_t least);
// The same of all that the device's pools keep, for an allocation that lacks memory, of whatever
// pool or none (measured, H200, of cudaMalloc and of other pools). False: there was nothing.
bool TrimPoolsOf(Simulation& sim, CUdevice device);
// A synchronisation that ended with `status`, which it returns.
CUresult PoolsSynchronised(Simulation& sim, CUresult status);
// What they had in the context, which ends. The default pool of a device keeps its threshold, and
// what it may keep by that, beyond its primary context (measured, H200).
void EndPoolsIn(Simulation& sim, const Context& context);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_MEMORY_POOLS_H_
