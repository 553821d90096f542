#include "core/base/thread_exit.h"

#include <dlfcn.h>
#include <pthread.h>

#include "core/base/dynamic_symbols.h"

namespace cmp {

namespace {

// The hooks that this thread has armed without a key; more than there are.
thread_local constinit ThreadExitHook* t_armed[6] = {};
// One of them was called. Whatever this thread still runs may be too late to have it called again.
thread_local constinit bool t_called = false;

// How C++ has the destructors of thread-local objects called. Looked up: it is newer than the
// oldest C library that we start on.
using AtThreadExit = int (*)(void (*function)(void*), void* argument, void* in_library);
AtThreadExit FindAtThreadExit() {
  static constinit std::atomic<void*> g_found{nullptr};
  void* found = g_found.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = FindSymbol(RTLD_DEFAULT, "__cxa_thread_atexit_impl");
    g_found.store(found, std::memory_order_relaxed);
  }
  return reinterpret_cast<AtThreadExit>(found);
}

}  // namespace

bool ThreadExitHook::ArmByKey() {
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

bool ThreadExitHook::ArmAmongDestructors() {
  if (t_called) return false;
  ThreadExitHook** place = nullptr;
  for (ThreadExitHook*& armed : t_armed) {
    if (armed == this) return true;
    if (armed == nullptr) place = &armed;
  }
  const AtThreadExit at_thread_exit = FindAtThreadExit();
  const auto call = [](void* hook) {
    t_called = true;
    static_cast<ThreadExitHook*>(hook)->function_();
  };
  if (place == nullptr || at_thread_exit == nullptr || at_thread_exit(call, this, this) != 0) {
    return false;
  }
  *place = this;
  return true;
}

bool ThreadExitHook::Arm() { return ArmByKey() || ArmAmongDestructors(); }

}  // namespace cmp
