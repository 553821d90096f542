// CMP_STATS: what happened, told at exit: a summary on stderr, or a JSON file. While the process
// runs with a file, its counters are in FILE.live (live.h), which is removed when the JSON is
// written.
#ifndef CMP_SHIM_RECORD_REPORT_H_
#define CMP_SHIM_RECORD_REPORT_H_

#include "core/pool/pool.h"

namespace cmp {

// Begins FILE.live, if CMP_STATS names a file and it can be made.
void BeginReport(Pool& pool);

// In a forked child: the parent's report is not the child's.
void ForgetReport();

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_REPORT_H_
