// Every CUDA entry point of the simulator has one call site: its counter and its planned failures.
//
// Invariant: a call is counted before anything can make it fail. Nothing here takes the
// simulator's lock, so the counters can be read at any time.
#ifndef CMP_TESTS_SIM_CALLS_H_
#define CMP_TESTS_SIM_CALLS_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace cmp::sim {

struct PlannedFailure {
  uint64_t at = 0;         // the call number from which it fails; 0: by probability
  bool once = true;        // at that number only
  double probability = 0;  // of each call
  int error = 0;
};

// A test's function at a place in every call of an entry point.
struct Hook {
  void (*function)(void* data) = nullptr;
  void* data = nullptr;
};
enum class HookWhen { kBefore, kAfter };

struct CallSite {
  explicit CallSite(std::string site_name) : name(std::move(site_name)) {}

  const std::string name;
  std::atomic<uint64_t> count{0};
  std::atomic<bool> may_fail{false};
  std::atomic<bool> hooked{false};
  // Fails with need_error where the device has less than so many bytes free. 0: it never does.
  std::atomic<uint64_t> need_bytes{0};
  std::atomic<int> need_error{0};
  // Guarded by `lock`.
  std::mutex lock;
  std::vector<PlannedFailure> failures;
  std::mt19937_64 random;
  Hook hooks[2];
};

// Never destroyed; the same object for the same name.
CallSite& FindCallSite(const char* name);
std::vector<CallSite*> AllCallSites();

// Counts a call; not 0: the error that it must return without doing anything.
int BeginCall(CallSite& site);

// Calls the site's hook. REQUIRES: the caller holds no lock of the simulator's
void RunHook(CallSite& site, HookWhen when);

void PlanHook(const char* name, HookWhen when, const Hook& hook);
void ForgetHooks();
void PlanNeed(const char* name, uint64_t bytes, int error);
void PlanFailure(const char* name, const PlannedFailure& failure, uint64_t seed);
void ForgetFailures();
void ResetCallCounts();

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_CALLS_H_
