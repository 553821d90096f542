// Libraries loaded with RTLD_DEEPBIND. They, and what is loaded with them, find the driver's own
// functions and the C library's dlsym before ours: what they submit is not seen, so no block of the
// pool's may be handed out again once they can have used it.
//
// dlopen, interposed as dlsym is (dlopen_tail.S), says that one is about to come. It cannot say
// that it has: the real one returns to the caller. So hits are barred until the thread that loads
// it is known to be back: it looks something up, loads another library, frees something, or ends.
// Then what came meanwhile is looked at, and by frees of other threads before. If it asks the
// driver for anything, the next free steps aside.
#ifndef CMP_SHIM_STATE_DEEP_LOADS_H_
#define CMP_SHIM_STATE_DEEP_LOADS_H_

#include <atomic>

namespace cmp {

// How many threads may be loading one. Relaxed: who frees a block that such a library used has
// heard so from a thread that came after the load.
inline constinit std::atomic<int> g_deep_loaders{0};
// Is this thread one of them?
inline thread_local constinit bool t_loads_deep = false;

void LookForDeepLoadsSlow();
// Steps aside if such a library has come. To be called before a block is retired, with no lock
// held.
inline void LookForDeepLoads() {
  if (g_deep_loaders.load(std::memory_order_relaxed) != 0) [[unlikely]]
    LookForDeepLoadsSlow();
}

void DeepLoaderLooksUpSlow();
// This thread looks something up: it is back if anything has been loaded.
inline void DeepLoaderLooksUp() {
  if (t_loads_deep) [[unlikely]]
    DeepLoaderLooksUpSlow();
}

// In a forked child, once no hits are barred any more: of the other threads none comes back.
void ForgetDeepLoads();

}  // namespace cmp

#endif  // CMP_SHIM_STATE_DEEP_LOADS_H_
