// Records of events: by calls of their own, and by attributes of launches.
#ifndef CMP_TESTS_SIM_EVENTS_H_
#define CMP_TESTS_SIM_EVENTS_H_

#include "simulation.h"
#include "streams.h"

namespace cmp::sim {

// Behind the stream's earlier work, or into its capture.
CUresult RecordEvent(Simulation& sim, CUevent event, CUstream stream, DefaultStream null_means,
                     unsigned flags = CU_EVENT_RECORD_DEFAULT);
// May an attribute of a launch record it? CUDA documents: without timing, and of this process.
CUresult CheckLaunchEvent(Simulation& sim, CUevent event, int flags);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_EVENTS_H_
