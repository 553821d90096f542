// Where the calling thread's new memory goes, on machines with several NUMA nodes.
#ifndef CMP_CORE_DRIVER_NUMA_POLICY_H_
#define CMP_CORE_DRIVER_NUMA_POLICY_H_

#include <sys/syscall.h>
#include <unistd.h>

namespace cmp {

// Has the calling thread a policy of its own (set_mempolicy, numactl)? Its new memory goes where
// that says, and a recycled block would not. A system call; false where the system has none. (To
// see policies being set would take less: but numactl sets them before the program begins, and
// libnuma and others make that system call themselves, past whatever can be interposed.)
inline bool HasNumaPolicy() {
#ifdef SYS_get_mempolicy
  int mode = 0;  // MPOL_DEFAULT
  return syscall(SYS_get_mempolicy, &mode, nullptr, 0UL, nullptr, 0UL) == 0 && mode != 0;
#else
  return false;
#endif
}

}  // namespace cmp

#endif  // CMP_CORE_DRIVER_NUMA_POLICY_H_
