// The simulator's central types, and who points to whom.
//
//   Context --owns--> Stream --tail--> Item (the last one submitted to it)
//   Event   --marker-> Item (what it was recorded behind; a zero-length item)
//   Item    --needs--> earlier Items, --dependents--> later Items
//   Capture --graph--> Graph --owns--> Node (a Work that a launch turns into an Item)
//
// Invariants: an Item needs only Items that were submitted before it, so what is pending is a
// directed acyclic graph; `unmet` counts the needs that are not done; the lists of an Item that is
// done are empty. Everything here is guarded by the simulator's one lock.
#ifndef CMP_TESTS_SIM_TYPES_H_
#define CMP_TESTS_SIM_TYPES_H_

#include <cuda.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace cmp::sim {

struct Context;
struct Stream;
struct Capture;
struct Node;

struct Range {
  uintptr_t start = 0;
  size_t bytes = 0;
  uintptr_t end() const { return start + bytes; }
  bool Overlaps(const Range& other) const {
    return bytes != 0 && other.bytes != 0 && start < other.end() && other.start < end();
  }
};

// A texture, surface or external semaphore that work uses.
struct UsedObject {
  uint64_t handle = 0;
  std::weak_ptr<const void> object;  // expired: it was destroyed, or never was
};

// What a submission asks the device to do.
struct Work {
  const char* what = "work";  // for reports
  uint64_t id = 0;
  uint64_t duration_ns = 0;
  std::vector<Range> reads;
  std::vector<Range> writes;
  std::vector<UsedObject> objects;
  // The result of everything before it in the context: an error after a trap. May be empty.
  std::function<void(CUresult)> effect;
  bool host_side = false;         // the effect is the program's code: called without the lock
  bool runs_after_error = false;  // cuStreamAddCallback's promise
  bool trap = false;
  // Captured, it names memory that is none: who makes or launches the graph is told (measured).
  enum class Refused { kNever, kWhenMade, kWhenLaunched };
  Refused refused = Refused::kNever;
  uint64_t spin_until_id = 0;
  bool endless = false;        // it never ends
  bool brings_managed = true;  // managed memory that it names comes to its device
  std::string print;
  // A wait for a value: runs until this holds for what `reads` covers. May be empty.
  std::function<bool()> until;
};

enum class ItemState { kBlocked, kSpinning, kRunnable, kRunning, kDone };

struct Item {
  uint64_t number = 0;         // order of submission, over all contexts
  Context* context = nullptr;  // of its stream
  // Whose fences, synchronisations and frees cover it: the same, but for copies between devices.
  std::vector<const Context*> runs_in;
  Work work;
  ItemState state = ItemState::kBlocked;
  bool cancelled = false;  // its context failed before it ran
  bool lost = false;       // its memory was released under it: reported, and will not be done
  uint64_t submitted_at = 0;
  uint64_t finished_at = 0;
  uint64_t due =
      0;  // on the scheduler's progress clock, once runnable; of a wait for a value, its end
  uint64_t tie_breaker = 0;
  size_t unmet = 0;
  std::vector<std::shared_ptr<Item>> needs;
  std::vector<Item*> dependents;
  std::set<uint64_t> hazards;  // note numbers of the blocks that it was already reported for
};
using ItemPtr = std::shared_ptr<Item>;

struct Stream {
  CUstream handle = nullptr;
  uint64_t id = 0;
  Context* context = nullptr;
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false;
  bool per_thread = false;
  ItemPtr tail;
  std::shared_ptr<Capture> capture;
  std::vector<Node*> capture_tail;  // what the next captured work depends on

  bool blocking() const { return !legacy && (flags & CU_STREAM_NON_BLOCKING) == 0; }
};

struct Event {
  CUevent handle = nullptr;
  Context* context = nullptr;
  unsigned flags = 0;
  // Shared with those that were opened by an IPC handle of this one. Null: never recorded, which
  // counts as complete.
  std::shared_ptr<ItemPtr> recorded = std::make_shared<ItemPtr>();
  std::shared_ptr<Capture> capture;  // recorded in a capture: then `nodes`, not `marker`
  std::vector<Node*> nodes;
  uint64_t id = 0;

  ItemPtr& marker() { return *recorded; }
  const ItemPtr& marker() const { return *recorded; }
};

struct Node {
  CUgraphNode handle = nullptr;
  Work work;
  std::vector<Node*> needs;
};

struct Graph {
  std::vector<std::unique_ptr<Node>> nodes;  // an order in which each comes after its needs
};
using GraphPtr = std::shared_ptr<Graph>;

struct Capture {
  uint64_t id = 0;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  uint64_t thread = 0;  // that began it
  Stream* origin = nullptr;
  bool invalidated = false;
  GraphPtr graph;
  CUgraph graph_handle = nullptr;  // given out before the end, or of BeginCaptureToGraph
  std::set<Stream*> streams;
  std::vector<Node*> abandoned;  // the last nodes of streams that were destroyed meanwhile
};

struct Context {
  // A green context is a part of this one; null for every other.
  Context* whole = nullptr;
  int attached = 1;  // cuCtxAttach, cuCtxDetach
  CUcontext handle = nullptr;
  uint64_t id = 0;
  int device = 0;
  unsigned flags = 0;
  bool primary = false;
  unsigned version = 0;
  // What one of its kernels did. `sticky` is what its calls say, from the first on that found out:
  // submissions and allocations do not look (measured).
  CUresult failed = CUDA_SUCCESS;
  CUresult sticky = CUDA_SUCCESS;
  std::string printed;  // by kernels that are done; not shown yet
  ItemPtr floor;        // cuCtxWaitEvent: all later work of the context comes after it
  Stream* legacy = nullptr;
  std::map<uint64_t, Stream*> per_thread;  // by thread
  std::set<Stream*> streams;               // all of them, the two kinds above included
  // What destroyed streams left behind: blocking or not, and their last items.
  std::vector<std::pair<bool, ItemPtr>> orphans;
  std::vector<ItemPtr> guests;         // of other contexts' streams, that run here, too
  std::set<const Context*> reachable;  // cuCtxEnablePeerAccess
  // cuCtxSetLimit: the values that were set, and the allocations that they took.
  std::map<CUlimit, size_t> limits;
  std::map<CUlimit, uintptr_t> limit_memory;

  // What a call on this context covers: a primary one's green ones, too, as CUDA documents.
  bool Includes(const Context& other) const { return &other == this || other.whole == this; }
  bool Covers(const Item& item) const {
    return std::any_of(item.runs_in.begin(), item.runs_in.end(),
                       [this](const Context* context) { return Includes(*context); });
  }
};

// kMapped: physical memory at a reserved address. kExternal: a buffer of external memory.
enum class MemoryKind {
  kDevice,
  kPool,
  kArray,
  kManaged,
  kHost,
  kRegistered,
  kImported,
  kMapped,
  kExternal
};

struct PhysicalMemory;

struct Allocation {
  uintptr_t base = 0;
  size_t bytes = 0;
  MemoryKind kind = MemoryKind::kDevice;
  int device = 0;
  uint64_t context_id = 0;
  CUcontext context = nullptr;
  unsigned flags = 0;
  uint64_t buffer_id = 0;
  unsigned sync_memops = 0;
  uintptr_t mapping = 0;  // of the host's, of another's: what to unmap
  size_t mapping_bytes = 0;
  int opened = 0;                           // kImported: how often
  bool accessible = true;                   // kMapped: cuMemSetAccess
  bool on_host = false;                     // kPool, kMapped: its location is the host
  bool variable = false;                    // kDevice, kManaged: a module's, gone with it alone
  std::shared_ptr<PhysicalMemory> backing;  // kMapped
  size_t backing_offset = 0;
  CUmemoryPool pool = nullptr;  // kPool: whose it is
  bool freed_in_order = false;  // cuMemFreeAsync: the stream has not come to it yet

  Range range() const { return {base, bytes}; }
};

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_TYPES_H_
