// What the pool asks of whoever it works for: the preloaded shim, which sees submissions and
// captures, or the library by itself, which sees neither.
#ifndef CMP_CORE_DRIVER_HOST_H_
#define CMP_CORE_DRIVER_HOST_H_

#include <cstddef>
#include <cstdint>

namespace cmp {

class ContextPool;
struct Driver;

// What a fence is recorded for. Only one for order may let later submissions wait: one for reuse
// may be recorded at any time, and so cover work that the program submitted after its last free.
// One to see idleness is one for reuse, after which every submission shows (Fences::work_since); so
// is one for the block of a free that owes no order.
enum class FencePurpose : uint8_t { kReuse, kOrder, kIdleness, kBlock };

// The real calls for page-locked memory, as the host makes them. The status is the driver's.
struct PageLockedCalls {
  // Of the context, which is current. `flags`: PageLockedPool.
  int (*allocate)(ContextPool& context, unsigned flags, size_t bytes, uintptr_t* address);
  int (*release)(uintptr_t address);
};

struct PoolHost {
  // The driver's calls; nullptr while there is no driver.
  const Driver* (*driver)();

  // May a context event be recorded, which no capture survives? If so none begins until
  // leave_recording.
  bool (*enter_recording)();
  void (*leave_recording)();
  // The same for a synchronisation of a whole context, which may take long: drivers before 12.5.
  bool (*enter_synchronizing)();
  void (*leave_synchronizing)();

  // Around the record of fence `number`, or with 0 a synchronisation: the work seen so far is
  // covered by it, unless it failed.
  void (*fence_begins)(ContextPool& context, uint64_t number, FencePurpose purpose);
  void (*fence_failed)(ContextPool& context);

  // Does nobody but the driver learn of a cuMemFree? Where somebody does (a limiter that counts
  // with it, a communication library that patched it), the pool really frees by cuMemFree alone.
  bool (*frees_are_unseen)();

  // Of the process's managed memory, wherever it is: it may take any device's when it is touched.
  // What the program had from cuMemAllocManaged; variables and pools are not counted.
  size_t (*managed_bytes)();

  // Memory of a device, or all, that the host keeps idle elsewhere, and that goes as the pool's
  // does: where there may be any, as bits (contexts/device_links.h); gives it back, and says how
  // much; a tick of CMP_DECAY, false where nothing is kept. What goes is told
  // (Pool::BeginRelease) before it is no longer among the devices.
  uint64_t (*devices_with_kept)();
  size_t (*release_kept)(int device);
  bool (*age_kept)();

  // Whether every end of a context reaches the pool. If not, the pool makes sure of a context
  // before it really frees memory of it.
  bool sees_contexts_end;
  // Whether it sees submissions: if not, every free may leave work behind (Fences::work_since).
  bool sees_submissions;
  // A context got a pool; it has one no more. Once each, one context after the other: under the
  // context table's lock.
  void (*context_opened)(ContextPool& context);
  void (*context_ended)(ContextPool& context);

  // nullptr: the host serves no page-locked memory.
  const PageLockedCalls* page_locked = nullptr;
};

// The host that sees nothing: every free may leave work behind, no capture is ever under way.
extern const PoolHost kBlindHost;

}  // namespace cmp

#endif  // CMP_CORE_DRIVER_HOST_H_
