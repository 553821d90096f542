// The controls of sim.h, but for those that live with what they control (simFunction,
// simDescribeIpcHandle).
#include <dlfcn.h>

#include <cstring>

#include "driver_entry.h"
#include "launches.h"
#include "sim.h"

using namespace cmp::sim;

namespace {

DeviceMemory::ManagedCounts ManagedCounts(int device) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return IsDevice(sim, device) ? sim.allocations.device(device).managed
                               : DeviceMemory::ManagedCounts{};
}

const char* Keep(const std::string& text) {
  static thread_local std::string kept;
  kept = text;
  return kept.c_str();
}

}  // namespace

extern "C" {

// A lookup in the process's scope, as if the program itself called cuLaunchKernel; a plain call
// would be bound to this library's own function and pass every interposer by.
CUresult simLaunch(CUstream stream, const SimWork* work) {
  using LaunchFunction = decltype(&cuLaunchKernel);
  static const auto launch =
      reinterpret_cast<LaunchFunction>(dlsym(RTLD_DEFAULT, "cuLaunchKernel"));
  void* parameters[] = {&work};
  return launch(simFunction(), 1, 1, 1, 1, 1, 1, 0, stream, parameters, nullptr);
}

CUresult simSubmit(CUstream stream, const SimWork* work) {
  return Enter("simSubmit", [&](Simulation& sim, Lock&) {
    return LaunchWork(sim, stream, DefaultStream::kLegacy, work);
  });
}

uint64_t simNow(void) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return sim.scheduler.now();
}

void simAdvance(uint64_t nanoseconds) {
  Simulation& sim = TheSimulation();
  std::unique_lock<std::mutex> lock(sim.lock);
  sim.scheduler.Advance(lock, nanoseconds);
}

size_t simPendingCount(CUcontext handle) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  const Context* context = sim.contexts.Find(handle);
  return handle != nullptr && context == nullptr ? 0 : sim.scheduler.PendingCount(context);
}

void simSeed(uint64_t seed) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  sim.scheduler.Seed(seed);
}

void simFailNext(const char* name, uint64_t nth, int error) {
  PlanFailure(name, {nth == 0 ? 1 : nth, true, 0, error}, 0);
}

void simFailFrom(const char* name, uint64_t nth, int error) {
  PlanFailure(name, {nth == 0 ? 1 : nth, false, 0, error}, 0);
}

void simFailRandomly(const char* name, double probability, uint64_t seed, int error) {
  PlanFailure(name, {0, false, probability, error}, seed);
}

void simNeed(const char* name, size_t bytes, int error) { PlanNeed(name, bytes, error); }

void simFailNever(void) { ForgetFailures(); }

void simOnCall(const char* name, int when, void (*function)(void* data), void* data) {
  PlanHook(name, when == SIM_AFTER_CALL ? HookWhen::kAfter : HookWhen::kBefore, {function, data});
}

void simNoteAlloc(const void* pointer, size_t bytes) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  sim.hazards.NoteAlloc({AddressOf(pointer), bytes});
}

void simNoteFree(const void* pointer) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  sim.hazards.NoteFree(AddressOf(pointer));
}

void simNoteKept(const void* pointer, size_t bytes) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  sim.hazards.NoteKept({AddressOf(pointer), bytes});
}

uint64_t simHazardCount(void) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return sim.hazards.report().count();
}

const char* simHazardReport(void) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return Keep(sim.hazards.report().text());
}

uint64_t simMisuseCount(void) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return sim.misuse.count();
}

const char* simMisuseReport(void) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return Keep(sim.misuse.text());
}

uint64_t simFingerprint(void) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return sim.hazards.Fingerprint();
}

uint64_t simCallCount(const char* name) {
  return FindCallSite(name).count.load(std::memory_order_relaxed);
}

uint64_t simUsedBytes(int device) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return IsDevice(sim, device) ? sim.allocations.device(device).used() : 0;
}

uint64_t simLiveAllocations(int device) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return sim.allocations.LiveOnDevice(device);
}

uint64_t simHostBytes(void) {
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  return sim.allocations.PageLockedBytes();
}

uint64_t simManagedMigrations(int device) { return ManagedCounts(device).migrations; }
uint64_t simManagedEvictions(int device) { return ManagedCounts(device).evictions; }
uint64_t simManagedRemoteUses(int device) { return ManagedCounts(device).remote_uses; }

void simReset(void) {
  ForgetFailures();
  ForgetHooks();
  ResetCallCounts();
  Simulation& sim = TheSimulation();
  const std::lock_guard<std::mutex> guard(sim.lock);
  sim.hazards.Clear();
  sim.misuse.Clear();
  sim.allocations.ForgetManagedCounts();
  sim.scheduler.Restart();
}

}  // extern "C"
