// Threads of the pool's own, for what no call of the program's does.
#ifndef CMP_CORE_BASE_OWN_THREAD_H_
#define CMP_CORE_BASE_OWN_THREAD_H_

namespace cmp {

// Runs run(of) in a thread that nobody joins: all signals blocked, scheduled as an ordinary one
// whoever starts it, with a small stack. False: none can be made. Thread-safe.
bool StartOwnThread(void* (*run)(void* of), void* of);

// What such a thread calls first: its name (15 characters) for those who list threads, and the
// processors that it may run on.
void BeginOwnThread(const char* name);

// A process whose main thread has called pthread_exit ends with the last of the others, so none of
// ours may stay then: *over. False: it cannot be told here.
bool TellWhetherMainThreadIsOver(bool* over);

}  // namespace cmp

#endif  // CMP_CORE_BASE_OWN_THREAD_H_
