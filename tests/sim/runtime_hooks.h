// What the simulated runtime asks the simulated driver for besides CUDA: its calls are counted and
// made to fail by the same rules. Found through cuGetExportTable, as the real runtime finds the
// real driver's private tables, so that nothing else of the driver is reached past an interposer.
#ifndef CMP_TESTS_SIM_RUNTIME_HOOKS_H_
#define CMP_TESTS_SIM_RUNTIME_HOOKS_H_

#include <cuda.h>

namespace cmp::sim {

struct RuntimeHooks {
  // Counts a call of a runtime entry point; not 0: the error that it must return.
  int (*begin_call)(const char* name);
};

inline constexpr CUuuid kRuntimeHooksId = {
    {'c', 'm', 'p', '-', 's', 'i', 'm', '-', 'r', 'u', 'n', 't', 'i', 'm', 'e', '1'}};

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_RUNTIME_HOOKS_H_
