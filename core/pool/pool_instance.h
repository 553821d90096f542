// The pool of this process: made on first use, left behind by a fork, silent once the process
// exits.
//
// Invariant: the pointers below go from nullptr to a pool once, and back only in a forked child,
// whose only thread then starts anew; the parent's blocks and locks are never touched by the child.
#ifndef CMP_CORE_POOL_POOL_INSTANCE_H_
#define CMP_CORE_POOL_POOL_INSTANCE_H_

#include "core/pool/pool.h"

namespace cmp {

// nullptr where no block is to be pooled: not started, or CMP_MODE says so.
inline constinit OwnLine<Pool*> g_pool{nullptr};

// What the hit paths read: as g_pool, but nullptr in a process whose every call is recorded
// (CMP_TRACE), so that recording costs nothing where it is off.
inline constinit OwnLine<Pool*> g_hit_pool{nullptr};

// That pool's page-locked memory; nullptr where it is not kept. And as g_hit_pool.
inline constinit std::atomic<PageLockedPool*> g_page_locked{nullptr};
inline constinit OwnLine<PageLockedPool*> g_hit_page_locked{nullptr};

// The same object once it was started, in every mode: options and statistics.
inline constinit std::atomic<Pool*> g_started{nullptr};

// True from the moment when the process begins to exit, after CUDA was used: no CUDA call of ours
// any more, g_pool is nullptr again, and what the program still allocates and frees is real. CUDA's
// own exit handlers may have run already.
inline constinit std::atomic<bool> g_exiting{false};

struct PoolStart {
  Options (*read_options)();
  // Called once the pool is made, before anybody finds it; may be nullptr.
  void (*made)(Pool& pool);
  // Called in a forked child, after the pool was left behind; may be nullptr.
  void (*forked)();
  // Called when the process begins to exit, while CUDA can still be called; may be nullptr.
  void (*exiting)();
  const PoolHost* host;
};

// The pool, made if there is none; nullptr when memory is exhausted. Reads the options at most once
// per process. Makes no CUDA call. Thread-safe.
Pool* StartPool(const PoolStart& start);

// Registers the exit handler that sets g_exiting, once. Call it after CUDA was initialised: exit
// handlers run in reverse, so ours runs before CUDA's. Thread-safe.
void WatchExit();

// The name of this program, without its path.
const char* ProgramName();

}  // namespace cmp

#endif  // CMP_CORE_POOL_POOL_INSTANCE_H_
