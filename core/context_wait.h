// Waiting for all work of a context, as the real cudaFree does (measured: it waits for every
// stream of the context that owns the memory, whichever context is current).
//
// With cuCtxRecordEvent (driver 12.5 and later) the wait has two steps, so that the short one can
// be kept away from stream captures, which a record would invalidate, and the long one needs no
// exclusion. Older drivers do both in one cuCtxSynchronize.
#ifndef CMP_CORE_CONTEXT_WAIT_H_
#define CMP_CORE_CONTEXT_WAIT_H_

#include "core/driver.h"
#include "core/thread_cache.h"

namespace cmp {

class ContextWait {
 public:
  // For the owner context of `cache`, which belongs to the calling thread.
  ContextWait(const Driver& driver, ThreadCache& cache) : driver_(driver), cache_(cache) {}

  // Marks the end of the work submitted so far, where the driver can.
  // REQUIRES: no capture is under way or begins
  int Record();
  // Did Record mark anything? Ask once, after it.
  bool recorded() const { return recorded_; }
  // Waits until the marked work is done; the error of a broken context otherwise. Harmless to
  // captures. REQUIRES: Record succeeded, and recorded()
  int WaitForEvent();
  // Waits for all work. REQUIRES: no capture is under way or begins
  int WaitForAll();
  // One or the other, as Record went: where captures need no care.
  int Wait() { return recorded_ ? WaitForEvent() : WaitForAll(); }

 private:
  // The driver has the function and says that it does not support it.
  static inline constinit std::atomic<bool> g_refused{false};

  const Driver& driver_;
  ThreadCache& cache_;
  bool recorded_ = false;
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXT_WAIT_H_
