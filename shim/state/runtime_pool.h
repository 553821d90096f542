// For which callers of cudaMalloc the first look into the pool may come before all questions.
//
// A runtime is served at its own entry points if it is version 12 or later (an older one remembers
// cudaSetDevice until its next call, so the current context does not tell the device) and the shim
// is seen to stand between it and the driver. Which runtime a caller means takes the dynamic
// linker's lock to find out. So a hit goes without: it is allowed once one such runtime was found,
// and forbidden for good once the process has another that must not be served so.
#ifndef CMP_SHIM_STATE_RUNTIME_POOL_H_
#define CMP_SHIM_STATE_RUNTIME_POOL_H_

#include <atomic>

#include "core/pool/pool_instance.h"

namespace cmp {

class alignas(kCacheLine) RuntimePool {
 public:
  constexpr RuntimePool() = default;

  // As g_hit_pool, or nullptr where the caller must be looked at first. acquire: the pool's fields.
  Pool* Get() const { return pool_.load(std::memory_order_acquire); }
  // REQUIRES: the driver is loaded (KnownDriver)
  void Allow() {
    pool_.store(g_hit_pool.load(std::memory_order_acquire), std::memory_order_seq_cst);
    // Of who allows and who forbids at once, one sees the other.
    if (forbidden_.load(std::memory_order_seq_cst)) Forget();
  }
  void Forbid() {
    forbidden_.store(true, std::memory_order_seq_cst);
    Forget();
  }
  bool forbidden() const { return forbidden_.load(std::memory_order_acquire); }
  // In a forked child, and when the process exits.
  void Forget() { pool_.store(nullptr, std::memory_order_seq_cst); }

 private:
  std::atomic<Pool*> pool_{nullptr};  // every hit reads it: nobody writes beside it
  std::atomic<bool> forbidden_{false};
};

inline constinit RuntimePool g_runtime_pool;

}  // namespace cmp

#endif  // CMP_SHIM_STATE_RUNTIME_POOL_H_
