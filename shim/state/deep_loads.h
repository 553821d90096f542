// Libraries loaded with RTLD_DEEPBIND. They, and what is loaded with them, find the driver's own
// functions and the C library's dlsym before ours: what they submit is not seen, so no block of the
// pool's may be handed out again once they can have used it.
//
// dlopen, interposed as dlsym is (dlopen_tail.S), says that one is about to come. It cannot say
// that it has: the real one returns to the caller. So hits are barred, and frees look, until the
// thread that loads it is known to be back. What came is looked at, and if it asks the driver for
// anything, every call is real from then on.
#ifndef CMP_SHIM_LOOKUP_DEEP_LOADS_H_
#define CMP_SHIM_LOOKUP_DEEP_LOADS_H_

#include <atomic>

namespace cmp {

// How many threads may be loading some: since the first of them, until they free something.
// Relaxed: who frees a block that such a library used has heard so from a thread that came after
// the load.
inline constinit std::atomic<int> g_deep_loaders{0};

void LookForDeepLoadsSlow();
// Steps aside if such a library has come. To be called before a block is taken back from the
// program, with no lock held.
inline void LookForDeepLoads() {
  if (g_deep_loaders.load(std::memory_order_relaxed) != 0) [[unlikely]]
    LookForDeepLoadsSlow();
}

// In a forked child: of the other threads none comes back.
void ForgetDeepLoads();

}  // namespace cmp

#endif  // CMP_SHIM_LOOKUP_DEEP_LOADS_H_
