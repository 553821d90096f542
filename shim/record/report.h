// CMP_STATS: what happened, told at exit: a summary on stderr, or a JSON file. While the process
// runs with a file, its counters live in FILE.live (mapped; cmp-preload report reads it), which
// survives a kill and is removed when the JSON is written.
#ifndef CMP_SHIM_RECORD_REPORT_H_
#define CMP_SHIM_RECORD_REPORT_H_

#include <cstddef>

#include "core/base/options.h"

namespace cmp {

// Zeroed memory for the statistics: mapped from FILE.live if CMP_STATS names a file and it can be
// made, else private; nullptr when memory is exhausted.
void* OpenStatisticsPage(const Options& options, size_t bytes);

// More of FILE.live; nullptr if there is none.
void* MoreStatistics(size_t offset, size_t bytes);

// In a forked child: the parent's report is not the child's.
void ForgetReport();

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_REPORT_H_
