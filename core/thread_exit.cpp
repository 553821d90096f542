#include "core/thread_exit.h"

#include <pthread.h>

namespace cmp {

bool ThreadExitHook::Arm() {
  uint64_t key = key_.load(std::memory_order_acquire);
  if (key == 0) {
    pthread_key_t fresh;
    const auto call = [](void* hook) { static_cast<ThreadExitHook*>(hook)->function_(); };
    if (pthread_key_create(&fresh, call) != 0) return false;
    if (key_.compare_exchange_strong(key, uint64_t{fresh} + 1, std::memory_order_acq_rel)) {
      key = uint64_t{fresh} + 1;
    } else {
      pthread_key_delete(fresh);
    }
  }
  return pthread_setspecific(static_cast<pthread_key_t>(key - 1), this) == 0;
}

}  // namespace cmp
