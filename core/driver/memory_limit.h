// How much memory the process may have: by its control groups, and where page-locked memory counts
// as locked memory, by RLIMIT_MEMLOCK.
#ifndef CMP_CORE_DRIVER_MEMORY_LIMIT_H_
#define CMP_CORE_DRIVER_MEMORY_LIMIT_H_

#include <cstddef>

namespace cmp {

inline constexpr size_t kNoMemoryLimit = ~size_t{0};

// The tightest limit of the process's memory control groups, version 1 or 2, and those above them;
// kNoMemoryLimit where there is none. Reads files. `groups`: what is in /proc/self/cgroup; `root`:
// where control groups are mounted, usually /sys/fs/cgroup.
size_t ControlGroupLimit(const char* groups = "/proc/self/cgroup",
                         const char* root = "/sys/fs/cgroup");

// RLIMIT_MEMLOCK, kNoMemoryLimit where there is none, or the process is exempt from it
// (CAP_IPC_LOCK).
size_t LockedMemoryLimit();
// What counts against that: VmLck of /proc/self/status; 0 where it cannot be read.
size_t LockedMemory();

}  // namespace cmp

#endif  // CMP_CORE_DRIVER_MEMORY_LIMIT_H_
