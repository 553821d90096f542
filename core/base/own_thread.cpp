#include "core/base/own_thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/types.h"

namespace cmp {

bool StartOwnThread(void* (*run)(void* of), void* of) {
  constexpr size_t kStackBytes = 512 * kKiB;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int status = pthread_create(&thread, &attributes, run, of);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return status == 0;
}

void BeginOwnThread(const char* name) {
  prctl(PR_SET_NAME, name);
  // Who made it may be bound to a processor that a real-time thread never leaves; so may the main
  // thread.
  cpu_set_t own;
  cpu_set_t main;
  if (sched_getaffinity(0, sizeof(own), &own) == 0 &&
      sched_getaffinity(getpid(), sizeof(main), &main) == 0) {
    CPU_OR(&own, &own, &main);
    sched_setaffinity(0, sizeof(own), &own);
  }
}

// The kernel forgets the list of locks of a thread that is over; asking for it opens no file, whose
// number the program could be about to count on.
bool TellWhetherMainThreadIsOver(bool* over) {
  const void* locks = nullptr;
  size_t bytes = 0;
  const bool told = syscall(SYS_get_robust_list, getpid(), &locks, &bytes) == 0;
  *over = told && locks == nullptr;
  return told;
}

}  // namespace cmp
