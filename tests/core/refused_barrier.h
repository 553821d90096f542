// A thread in which the kernel refuses membarrier, as under a filter of system calls that was
// installed after the process began.
#ifndef CMP_TESTS_CORE_REFUSED_BARRIER_H_
#define CMP_TESTS_CORE_REFUSED_BARRIER_H_

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <thread>

namespace cmp::test {

// For the calling thread alone, and for good. False: the kernel allows no filters.
inline bool RefuseBarriers() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Runs `body` where barriers are refused. False: that cannot be had here.
template <typename Body>
bool WithoutBarriers(Body body) {
  bool refused = false;
  std::thread([&] {
    refused = RefuseBarriers();
    if (refused) body();
  }).join();
  return refused;
}

}  // namespace cmp::test

#endif  // CMP_TESTS_CORE_REFUSED_BARRIER_H_
