#include "simulation.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "contexts.h"
#include "settings.h"

namespace cmp::sim {

extern thread_local bool t_in_program_function;  // scheduler.cpp

namespace {

std::atomic<bool> g_initialised{false};
std::atomic<bool> g_forked{false};
std::atomic<bool> g_exiting{false};
std::atomic<uint64_t> g_late_calls{0};  // after the driver's exit handler

void WriteReport(Simulation& sim, std::FILE* file) {
  std::fprintf(file, "hazards %llu\n%smisuse %llu\n%spending %zu\nlate calls %llu\nnow %llu\n",
               static_cast<unsigned long long>(sim.hazards.report().count()),
               sim.hazards.report().text().c_str(),
               static_cast<unsigned long long>(sim.misuse.count()), sim.misuse.text().c_str(),
               sim.scheduler.PendingCount(nullptr),
               static_cast<unsigned long long>(g_late_calls.load()),
               static_cast<unsigned long long>(sim.scheduler.now()));
  for (const CallSite* site : AllCallSites()) {
    const uint64_t count = site->count.load(std::memory_order_relaxed);
    if (count > 0) {
      std::fprintf(file, "call %s %llu\n", site->name.c_str(),
                   static_cast<unsigned long long>(count));
    }
  }
}

// The very end of the process: what the program called too late is known by now.
__attribute__((destructor)) void WriteReportAtEnd() {
  if (g_forked.load()) return;
  const std::string& path = TheSettings().report;
  if (path.empty()) return;
  std::FILE* file = path == "-" ? stderr : std::fopen(path.c_str(), "w");
  if (file == nullptr) return;
  WriteReport(TheSimulation(), file);
  if (file != stderr) std::fclose(file);
}

}  // namespace

Simulation::Simulation() : scheduler(hazards, allocations) {
  devices.resize(static_cast<size_t>(TheSettings().devices));
  for (size_t i = 0; i < devices.size(); ++i) {
    devices[i].default_pool.location = {CU_MEM_LOCATION_TYPE_DEVICE, {static_cast<int>(i)}};
  }
}

Simulation& TheSimulation() {
  static Simulation* simulation = [] {
    auto* created = new Simulation;
    pthread_atfork(nullptr, nullptr, [] {
      if (g_initialised.load()) g_forked.store(true);
    });
    return created;
  }();
  return *simulation;
}

uint64_t ThisThread() {
  static std::atomic<uint64_t> last{0};
  thread_local uint64_t id = 0;
  if (id == 0) id = ++last;
  return id;
}

// The handler runs before those that were registered earlier, static destructors of the program
// among them: what they call meets a driver that is gone, as with the real one. What kernels that
// are done printed is shown; what is pending will not happen.
void NoteInitialised() {
  if (g_initialised.exchange(true)) return;
  std::atexit([] {
    g_exiting.store(true);
    if (InForkedChild()) return;
    Simulation& sim = TheSimulation();
    const std::lock_guard<std::mutex> guard(sim.lock);
    for (const auto& [handle, context] : sim.contexts.all()) ShowPrinted(sim, *context);
  });
}

bool InForkedChild() { return g_forked.load(std::memory_order_relaxed); }

CUresult MayEnter(const char* name, Needs needs) {
  if (g_exiting.load(std::memory_order_relaxed)) {
    g_late_calls.fetch_add(1);
    return CUDA_ERROR_DEINITIALIZED;
  }
  if (t_in_program_function && needs != Needs::kOnlyInitialisation) {
    Simulation& sim = TheSimulation();
    const std::lock_guard<std::mutex> guard(sim.lock);
    sim.misuse.Add(std::string(name) + " was called from a host function or a work item");
    return CUDA_ERROR_NOT_PERMITTED;
  }
  if (needs != Needs::kNothing && !g_initialised.load(std::memory_order_acquire)) {
    return CUDA_ERROR_NOT_INITIALIZED;
  }
  return CUDA_SUCCESS;
}

int ShortOfMemory(Simulation& sim, const CallSite& site) {
  const uint64_t need = site.need_bytes.load(std::memory_order_acquire);
  if (need == 0) return 0;
  const Context* context = sim.contexts.Find(CurrentHandle());
  const DeviceMemory& memory = sim.allocations.device(context == nullptr ? 0 : context->device);
  const bool is_short = memory.capacity() - memory.used() < need;
  return is_short ? site.need_error.load(std::memory_order_relaxed) : 0;
}

void LetPollPass(Simulation& sim, Lock& lock) {
  constexpr uint64_t kCallsInBetween = 4;  // the capture mode may be exchanged around the question
  constexpr uint64_t kMostNs = 50000;
  thread_local uint64_t t_last = 0;
  thread_local uint64_t t_pause_ns = 0;
  const bool again = t_calls - t_last <= kCallsInBetween;
  t_pause_ns = again ? std::min(2 * t_pause_ns, kMostNs) : TheSettings().call_ns;
  t_last = t_calls;
  sim.scheduler.Advance(lock, t_pause_ns);
}

}  // namespace cmp::sim
