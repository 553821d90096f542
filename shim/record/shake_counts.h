// What CMP_SHAKE did, for the statistics.
#ifndef CMP_SHIM_RECORD_SHAKE_COUNTS_H_
#define CMP_SHIM_RECORD_SHAKE_COUNTS_H_

#include "core/base/statistics.h"

namespace cmp {

struct ShakeCounts {
  std::atomic<bool> on{false};
  Counter sites;
  Counter executions;  // of those sites
  Counter holds;
  Counter effective;        // during which what was to come later came first
  Counter let_go_by_timer;  // that lasted as long as one may
  Counter held_ns;
};
inline constinit ShakeCounts g_shake_counts;

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_SHAKE_COUNTS_H_
