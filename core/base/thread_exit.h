// Calls a function when a thread that asked for it exits.
#ifndef CMP_CORE_BASE_THREAD_EXIT_H_
#define CMP_CORE_BASE_THREAD_EXIT_H_

#include <atomic>
#include <cstdint>

namespace cmp {

// A function to call when a thread exits that has armed it.
class ThreadExitHook {
 public:
  explicit constexpr ThreadExitHook(void (*function)()) : function_(function) {}

  // The function is called once when the calling thread exits, after its C++ thread-local objects
  // were destroyed; a later call from another such destructor arms it anew and is served. Where the
  // program has used up the system's thread-specific keys: once, among those destructors. False: it
  // will not be called (no keys, and it was called, or the C library is older than 2.18).
  bool Arm();

 private:
  bool ArmByKey();
  bool ArmAmongDestructors();

  void (*function_)();
  std::atomic<uint64_t> key_{0};  // plus one; 0 while there is none
};

}  // namespace cmp

#endif  // CMP_CORE_BASE_THREAD_EXIT_H_
