// What the environment asks of the simulator.
//
// Read once, before the first use of anything else; only the seed changes afterwards.
#ifndef CMP_TESTS_SIM_SETTINGS_H_
#define CMP_TESTS_SIM_SETTINGS_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace cmp::sim {

struct Settings {
  size_t memory = size_t{8} << 30;  // CMPSIM_MEMORY: bytes of each device; K, M, G
  int devices = 1;                  // CMPSIM_DEVICES
  int driver_version = 13000;       // CMPSIM_DRIVER_VERSION
  bool context_events = true;       // CMPSIM_CONTEXT_EVENTS=0: cuCtxRecordEvent is missing
  bool pageable_access = false;     // CMPSIM_PAGEABLE_ACCESS=1: the device reads any host memory
  uint64_t seed = 0;                // CMPSIM_SEED
  uint64_t call_ns = 1000;          // CMPSIM_CALL_NS: virtual host time of every CUDA call
  uint64_t lateness_ns = 200000;    // CMPSIM_LATENESS_NS: extra delay of the lazy policy, at most
  uint64_t patience_ms = 5000;      // CMPSIM_PATIENCE_MS: real time before a wait is a deadlock
  uint64_t hold_ns = 0;             // CMPSIM_HOLD_NS: how long a wait for a value lasts, at most
  bool costs = false;               // CMPSIM_COSTS=h200: allocation calls take their real time
  std::string failures;             // CMPSIM_FAIL=name:nth[+]:error,name:percent%:error
  std::string report;               // CMPSIM_REPORT: file for counters at exit; "-" is stderr
};

const Settings& TheSettings();

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_SETTINGS_H_
