// Calls a function when a thread that asked for it exits.
#ifndef CMP_CORE_THREAD_EXIT_H_
#define CMP_CORE_THREAD_EXIT_H_

namespace cmp {

// `function` is called once when the calling thread exits, after its C++ thread-local objects were
// destroyed; a later call from another such destructor asks anew and is served. There is one
// function per process. False: the system has no thread-specific key left.
bool CallAtThreadExit(void (*function)());

}  // namespace cmp

#endif  // CMP_CORE_THREAD_EXIT_H_
