// Simulated kernels: from a SimWork to the scheduler's Work.
#ifndef CMP_TESTS_SIM_LAUNCHES_H_
#define CMP_TESTS_SIM_LAUNCHES_H_

#include "sim.h"
#include "streams.h"

namespace cmp::sim {

Work WorkOf(const Simulation& sim, const SimWork& description);
CUresult LaunchWork(Simulation& sim, CUstream stream, DefaultStream null_means,
                    const SimWork* work);
// The launch parameters of simFunction(), or null when they are not.
const SimWork* WorkIn(CUfunction function, void** parameters);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_LAUNCHES_H_
