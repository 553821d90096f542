// The shim in its process: whether this program is served, the first use, fork, exit.
//
// Invariants: a process that makes no CUDA call gets nothing from the shim but the mapped library:
// no thread, no file, no output. The constructor does nothing.
#ifndef CMP_SHIM_ENTRY_PROCESS_H_
#define CMP_SHIM_ENTRY_PROCESS_H_

#include "core/driver/driver.h"
#include "core/pool/pool_instance.h"

namespace cmp {

// The started pool object of this process, made at its first use, in any mode; nullptr when memory
// is exhausted. Warns of wrong settings, once per process. Makes no CUDA call.
Pool* StartedPool();

// The started pool for an allocation that it has something to say to, made by the driver's call;
// nullptr: the real call. `odd`: with nothing to allocate, or nowhere to say where.
Pool* PoolForAlloc(bool odd);

// Call once CUDA is initialised in this process: from then on its exit is watched, and CMP_VERBOSE
// gets its line. Cheap after the first time.
void CudaIsInitialised(const Driver& driver);
// The runtime that a call came through, for that line: as cudaRuntimeGetVersion, 13000 for 13.0.
inline constinit std::atomic<int> g_runtime_version{0};

}  // namespace cmp

#endif  // CMP_SHIM_ENTRY_PROCESS_H_
