// All state of the simulated driver in one object, and the way every entry point comes in.
//
// Lock order: Simulation::lock before a call site's lock. No program code (host functions, effects
// of work items) runs under the lock. The object is never destroyed: calls may come until the very
// end of the process.
#ifndef CMP_TESTS_SIM_SIMULATION_H_
#define CMP_TESTS_SIM_SIMULATION_H_

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "allocations.h"
#include "calls.h"
#include "costs.h"
#include "handles.h"
#include "hazards.h"
#include "scheduler.h"
#include "types.h"

namespace cmp::sim {

struct GraphExec {
  GraphPtr graph;
  unsigned long long flags = 0;
};

struct Array {
  uintptr_t base = 0;  // its allocation's
  uint64_t context_id = 0;
  CUDA_ARRAY3D_DESCRIPTOR description{};
};

struct PhysicalHandle {
  std::shared_ptr<PhysicalMemory> memory;
  int references = 1;
};

struct ExternalMemory {
  int file = -1;
  size_t bytes = 0;
};

// A texture or a surface.
struct DeviceObject {
  bool texture = false;
  uint64_t context_id = 0;
  std::shared_ptr<const char> alive = std::make_shared<const char>();  // what work of it looks at
};

// What a module's or a library's image declares, and where that is. A library's variables are made
// when they are asked for: managed ones once, others in each context.
struct Image {
  struct Variable {
    std::string name;
    size_t bytes = 0;
    bool managed = false;
  };
  struct Place {
    uintptr_t base = 0;
    uint64_t buffer_id = 0;  // of its allocation, which may have ended with its context
  };
  std::vector<Variable> variables;
  std::map<std::pair<uint64_t, std::string>, Place> places;  // by the context's id, or 0, and name
};

struct Module {
  Image image;
  uint64_t context_id = 0;
  CUcontext context = nullptr;
};

// A pool of the stream-ordered allocator: memory_pools.h says what it does.
struct MemoryPool {
  CUmemLocation location{};
  CUmemAllocationHandleType handle_types = CU_MEM_HANDLE_TYPE_NONE;
  bool imported = false;  // its pointers alone can be imported
  cuuint64_t threshold = 0;
  struct Bytes {
    cuuint64_t now = 0;
    cuuint64_t high = 0;
    void Add(size_t bytes) { high = std::max(high, now += bytes); }
  };
  Bytes used;
  Bytes reserved;                         // that, and what is kept
  std::multimap<size_t, uintptr_t> kept;  // freed, by its size
  int reuses[3] = {1, 1, 1};              // attributes that are only remembered
};

struct Device {
  // Stays the same for ever; stands for a context while the primary one is active.
  CUcontext primary_handle = nullptr;
  unsigned primary_flags = 0;
  unsigned primary_retained = 0;
  MemoryPool default_pool;
  CUmemoryPool current_pool = nullptr;  // null: that one
};

struct ExternalSemaphore {
  std::shared_ptr<uint64_t> value;  // in a page of the file that stands for it
  bool timeline = false;
  std::shared_ptr<const char> alive = std::make_shared<const char>();
};

struct GreenContext {
  CUcontext context = nullptr;
  int device = 0;
};

// A free that waits for the device: what other threads submit to the context meanwhile comes after
// it (measured).
struct WaitingFree {
  uint64_t context_id = 0;
  uint64_t thread = 0;
};

using Lock = Scheduler::Lock;

struct Simulation {
  Simulation();

  std::mutex lock;
  Misuse misuse;
  Allocations allocations;
  Hazards hazards;
  Scheduler scheduler;
  std::vector<Device> devices;
  HandleTable<CUcontext, Context> contexts;
  HandleTable<CUstream, Stream> streams;
  HandleTable<CUevent, Event> events;
  HandleTable<CUgraph, GraphPtr> graphs;
  HandleTable<CUgraphExec, GraphExec> graph_execs;
  HandleTable<CUarray, Array> arrays;
  HandleTable<CUmipmappedArray, Array> mipmapped_arrays;
  HandleTable<CUmemGenericAllocationHandle, PhysicalHandle> physical;
  HandleTable<CUtexObject, DeviceObject> device_objects;  // a CUsurfObject is the same type
  HandleTable<CUmodule, Module> modules;
  HandleTable<CUlibrary, Image> libraries;
  HandleTable<CUexternalMemory, ExternalMemory> external;
  HandleTable<CUexternalSemaphore, ExternalSemaphore> semaphores;
  HandleTable<CUmemoryPool, MemoryPool> pools;  // but for the default ones
  HandleTable<CUgreenCtx, GreenContext> green_contexts;
  HandleTable<CUdevResourceDesc, CUdevResource> resources;
  std::set<std::shared_ptr<Capture>> captures;  // between begin and end
  std::vector<WaitingFree> waiting_frees;
  uint64_t last_id = 0;  // contexts, streams, captures: unique for ever
};

Simulation& TheSimulation();

// The calling thread's identity for per-thread streams and captures; never reused.
uint64_t ThisThread();

void NoteInitialised();  // cuInit succeeded

// The process was forked after CUDA was initialised, and this is the child.
bool InForkedChild();

// kOnlyInitialisation: allowed in host functions, too.
enum class Needs { kNothing, kInitialisation, kOnlyInitialisation };
// CUDA_SUCCESS, or why no CUDA call can be served now: not initialised, in a host function, in a
// forked child, after the process's exit handlers.
CUresult MayEnter(const char* name, Needs needs);

// A call of this thread answered "not ready". Who asks again and again lets time pass, whatever the
// pauses in between: more with every question, up to 50 us.
void LetPollPass(Simulation& sim, Lock& lock);
// The calls of this thread.
inline thread_local uint64_t t_calls = 0;

// The calling thread's hold of the simulation's lock, for who has to let others in meanwhile.
inline thread_local Lock* t_lock = nullptr;

// The error of a call that needs more memory than is free (simNeed), or 0.
int ShortOfMemory(Simulation& sim, const CallSite& site);

// Runs `body(simulation, lock)` as one CUDA call: counted, perhaps made to fail, under the lock,
// virtual host time a little later than before. Each entry point's body is a type of its own, so
// `site` is one per entry point.
template <typename Body>
CUresult Enter(const char* name, Needs needs, Body&& body) {
  // Before anything that takes a lock: in a forked child it may be held for ever.
  if (InForkedChild()) return CUDA_ERROR_NOT_INITIALIZED;
  static CallSite& site = FindCallSite(name);
  const Stopwatch stopwatch;
  if (const int error = BeginCall(site); error != 0) return static_cast<CUresult>(error);
  const CUresult refused = MayEnter(name, needs);
  if (refused != CUDA_SUCCESS) return refused;
  const bool hooked = site.hooked.load(std::memory_order_acquire);
  if (hooked) [[unlikely]]
    RunHook(site, HookWhen::kBefore);
  Simulation& sim = TheSimulation();
  std::unique_lock<std::mutex> lock(sim.lock);
  sim.scheduler.HostCall(lock);
  ++t_calls;
  Lock* const outer = std::exchange(t_lock, &lock);
  const int short_of_memory = ShortOfMemory(sim, site);
  const CUresult result =
      short_of_memory != 0 ? static_cast<CUresult>(short_of_memory) : body(sim, lock);
  t_lock = outer;
  if (result == CUDA_ERROR_NOT_READY) LetPollPass(sim, lock);
  stopwatch.Spend(name);
  if (hooked) [[unlikely]] {
    lock.unlock();
    RunHook(site, HookWhen::kAfter);
  }
  return result;
}

template <typename Body>
CUresult Enter(const char* name, Body&& body) {
  return Enter(name, Needs::kInitialisation, std::forward<Body>(body));
}

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_SIMULATION_H_
