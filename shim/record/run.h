// Which run statistics and traces are of: what ran, where, when, with which settings.
//
// Found once, in a process that leaves statistics; nothing of it is on the path of a call.
#ifndef CMP_SHIM_RECORD_RUN_H_
#define CMP_SHIM_RECORD_RUN_H_

#include "core/base/statistics.h"
#include "core/driver/driver.h"

namespace cmp {

// The time of the day, in nanoseconds since 1970.
uint64_t UnixNs();

// Nanoseconds since the process began (its fork: an exec keeps it), to a hundredth of a second, as
// the kernel counts; 0 if that cannot be told.
uint64_t ProcessAgeNs();

// The CMP_ variables of the process, each with a newline; "..." in place of those that have no
// room.
void CopySettings(char* settings, size_t room);

// Where the process runs, which rank of a launcher's it is (empty: none), and its command as a
// shell takes it; a longer one ends with "...".
void CopyNames(char (&host)[80], char (&rank)[16], char (&command)[1024]);

// All that is known without CUDA. REQUIRES: `run` is zeroed
void DescribeRun(StatisticsRun& run);

// The rest, once CUDA is initialised: its version, the devices that the process sees. No call to
// CUDA where the process leaves no statistics.
void NameGpus(const Driver& driver);

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_RUN_H_
