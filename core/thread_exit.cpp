#include "core/thread_exit.h"

#include <pthread.h>

#include <atomic>
#include <cstdint>

namespace cmp {

namespace {

// The key plus one; 0 while there is none.
constinit std::atomic<uint64_t> g_key{0};
constinit std::atomic<void (*)()> g_function{nullptr};

void Destructor(void*) { g_function.load(std::memory_order_relaxed)(); }

}  // namespace

bool CallAtThreadExit(void (*function)()) {
  uint64_t key = g_key.load(std::memory_order_acquire);
  if (key == 0) {
    g_function.store(function, std::memory_order_relaxed);
    pthread_key_t fresh;
    if (pthread_key_create(&fresh, &Destructor) != 0) return false;
    // release publishes g_function with the key.
    if (g_key.compare_exchange_strong(key, uint64_t{fresh} + 1, std::memory_order_acq_rel)) {
      key = uint64_t{fresh} + 1;
    } else {
      pthread_key_delete(fresh);
    }
  }
  return pthread_setspecific(static_cast<pthread_key_t>(key - 1), &g_key) == 0;
}

}  // namespace cmp
