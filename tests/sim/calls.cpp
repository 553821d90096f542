#include "calls.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

#include "settings.h"

namespace cmp::sim {
namespace {

// Where every tool sees that nobody wrote to it before its first use, also in a build that it does
// not look into.
constinit std::mutex g_registry_lock;

struct Registry {
  std::map<std::string, CallSite*> sites;
  bool environment_read = false;
};

Registry& TheRegistry() {
  static Registry* registry = new Registry;
  return *registry;
}

void AddFailure(CallSite& site, const PlannedFailure& failure, uint64_t seed) {
  const std::lock_guard<std::mutex> guard(site.lock);
  site.failures.push_back(failure);
  site.random.seed(seed);
  site.may_fail.store(true, std::memory_order_release);
}

CallSite& FindLocked(Registry& registry, const std::string& name) {
  CallSite*& site = registry.sites[name];
  if (site == nullptr) site = new CallSite(name);
  return *site;
}

// CMPSIM_FAIL: name:nth:error, name:nth+:error, name:percent%:error, separated by commas.
void ReadEnvironment(Registry& registry) {
  registry.environment_read = true;
  std::istringstream list(TheSettings().failures);
  std::string entry;
  while (std::getline(list, entry, ',')) {
    const size_t first = entry.find(':');
    const size_t second = first == std::string::npos ? first : entry.find(':', first + 1);
    if (second == std::string::npos) {
      std::fprintf(stderr, "cmp sim: CMPSIM_FAIL entry '%s' is not name:when:error; ignored\n",
                   entry.c_str());
      continue;
    }
    const std::string when = entry.substr(first + 1, second - first - 1);
    PlannedFailure failure;
    failure.error = std::atoi(entry.c_str() + second + 1);
    if (!when.empty() && when.back() == '%') {
      failure.probability = std::atof(when.c_str()) / 100;
    } else {
      failure.at = std::strtoull(when.c_str(), nullptr, 0);
      failure.once = when.empty() || when.back() != '+';
    }
    AddFailure(FindLocked(registry, entry.substr(0, first)), failure, TheSettings().seed);
  }
}

}  // namespace

CallSite& FindCallSite(const char* name) {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> guard(g_registry_lock);
  if (!registry.environment_read) ReadEnvironment(registry);
  return FindLocked(registry, name);
}

std::vector<CallSite*> AllCallSites() {
  Registry& registry = TheRegistry();
  const std::lock_guard<std::mutex> guard(g_registry_lock);
  std::vector<CallSite*> all;
  for (const auto& [name, site] : registry.sites) all.push_back(site);
  return all;
}

int BeginCall(CallSite& site) {
  const uint64_t number = site.count.fetch_add(1, std::memory_order_relaxed) + 1;
  if (!site.may_fail.load(std::memory_order_acquire)) return 0;
  const std::lock_guard<std::mutex> guard(site.lock);
  for (const PlannedFailure& failure : site.failures) {
    if (failure.at != 0) {
      if (failure.once ? number == failure.at : number >= failure.at) return failure.error;
    } else if (std::uniform_real_distribution<double>(0, 1)(site.random) < failure.probability) {
      return failure.error;
    }
  }
  return 0;
}

void RunHook(CallSite& site, HookWhen when) {
  thread_local bool t_in_hook = false;
  if (t_in_hook) return;
  Hook hook;
  {
    const std::lock_guard<std::mutex> guard(site.lock);
    hook = site.hooks[static_cast<size_t>(when)];
  }
  if (hook.function == nullptr) return;
  t_in_hook = true;
  hook.function(hook.data);
  t_in_hook = false;
}

void PlanHook(const char* name, HookWhen when, const Hook& hook) {
  CallSite& site = FindCallSite(name);
  const std::lock_guard<std::mutex> guard(site.lock);
  site.hooks[static_cast<size_t>(when)] = hook;
  site.hooked.store(site.hooks[0].function != nullptr || site.hooks[1].function != nullptr,
                    std::memory_order_release);
}

void ForgetHooks() {
  for (CallSite* site : AllCallSites()) {
    const std::lock_guard<std::mutex> guard(site->lock);
    site->hooks[0] = site->hooks[1] = Hook{};
    site->hooked.store(false, std::memory_order_release);
  }
}

void PlanFailure(const char* name, const PlannedFailure& failure, uint64_t seed) {
  CallSite& site = FindCallSite(name);
  PlannedFailure planned = failure;
  if (planned.at != 0) planned.at += site.count.load(std::memory_order_relaxed);
  AddFailure(site, planned, seed);
}

void PlanNeed(const char* name, uint64_t bytes, int error) {
  CallSite& site = FindCallSite(name);
  site.need_error.store(error, std::memory_order_relaxed);
  site.need_bytes.store(bytes, std::memory_order_release);
}

void ForgetFailures() {
  for (CallSite* site : AllCallSites()) {
    site->need_bytes.store(0, std::memory_order_release);
    const std::lock_guard<std::mutex> guard(site->lock);
    site->failures.clear();
    site->may_fail.store(false, std::memory_order_release);
  }
}

void ResetCallCounts() {
  for (CallSite* site : AllCallSites()) site->count.store(0, std::memory_order_relaxed);
}

}  // namespace cmp::sim
