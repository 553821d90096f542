// The fences of one context: points in its submitted work, marked by context events.
//
// cuCtxRecordEvent (driver 12.5 and later) marks all work of a context at once, on every stream,
// whoever submitted it. Fences are numbered by one clock of the process and pass in order:
//
//   clock      1 . . . . 5 . . . 7 . . 9 . . . . 12           this context's fences: 5, 7, 9, 12
//   passed               5                                    work before fence 5 is done
//   started                                      12           12 is being recorded, or was
//
// A free block is stamped with a number: it is ready once a fence with a larger number has passed.
// The stamp is the clock, read after the free has begun, or one less than a fence that is known to
// cover the free. That is sound because a recorder takes its number from the clock before it calls
// the driver: whoever still read a smaller number had freed before the record.
//
// Invariants
// - A fence is in the queue from the moment when its event has been recorded until it has passed;
//   an event is recorded again only once its fence has passed and nobody looks at it any more.
// - passed <= published <= started; each only grows.
// - One recorder at a time in each context, and one poller. The recorder's lock is held across
//   cuCtxRecordEvent and the poller's across cuEventQuery, which wait for nothing but the driver's
//   own lock and never call back; who holds one takes only locks below it (lock.h). One record
//   serves everybody who waited for the lock.
// - A recorder takes no second lock: it alone pushes on the queue, and takes fences that are unused
//   off their list, all at once.
//
// That stamps are sound, and that a submission which is noted after its call is seen in time
// (shim/work/context_work.h), needs a driver in which a launch and a record of the same context
// exclude each other, so that what came before one is seen after the other. A driver that records a
// point in all streams at once cannot do without.
#ifndef CMP_CORE_FENCES_FENCES_H_
#define CMP_CORE_FENCES_FENCES_H_

#include <atomic>
#include <cstdint>

#include "core/base/lock.h"
#include "core/base/rules.h"
#include "core/base/types.h"
#include "core/driver/host.h"
#include "core/fences/numbered_queue.h"
#include "core/fences/skipped_time.h"

namespace cmp {

class Arena;
class ContextPool;
struct Driver;

class Fences {
 public:
  // Those of a context that is new: it has no work that an earlier free could have to wait for, so
  // its past has passed. REQUIRES: what they were before has ended, and nobody uses them; to look
  // at the numbers, which only grow, is harmless.
  void Open();

  // The stamp of a block whose free has begun: any fence that is begun from now on covers it.
  // Sequentially consistent: ordered against the recorder's step of the clock.
  static Stamp Now() { return g_clock.load(std::memory_order_seq_cst); }
  // A number between the stamps of what was freed before this call, which are smaller, and of what
  // is freed after it, which are not.
  static uint64_t Step() { return g_clock.fetch_add(1, std::memory_order_seq_cst) + 1; }

  // All work submitted before the fence with this number, and all older ones, is done.
  uint64_t passed() const { return passed_.load(std::memory_order_acquire); }
  // The newest fence; it may not be recorded yet.
  uint64_t started() const { return started_.load(std::memory_order_seq_cst); }
  // The newest fence that is recorded.
  uint64_t published() const { return published_.load(std::memory_order_acquire); }
  // The newest one of a free, for order or for the block alone. Set before the fence is published:
  // who finds a block on a list that such a fence covers reads its number here, or a larger one.
  uint64_t newest_of_free() const { return newest_of_free_.load(std::memory_order_acquire); }
  // Have all fences of frees up to `last` passed that were published before this call?
  bool FreesHavePassed(uint64_t last);

  // May work have been submitted since the newest fence began? Set and cleared by who sees the
  // submissions; always true where nobody does. acquire: who reads false also reads the number of
  // the fence that covers the work.
  bool work_since() const { return (unsettled_.load(std::memory_order_acquire) & kWorkSince) != 0; }
  void SetWorkSince(bool work) { SetReason(kWorkSince, work); }
  // Reasons of others why a free must look closer, beside that one in one word.
  enum Reason : uint8_t { kWorkSince = 1, kOverBound = 2, kAmongSeveral = 4 };
  bool Has(Reason reason) const {
    return (unsettled_.load(std::memory_order_relaxed) & reason) != 0;
  }
  void SetReason(Reason reason, bool on) {
    if (on) {
      unsettled_.fetch_or(reason, std::memory_order_seq_cst);
    } else {
      unsettled_.fetch_and(static_cast<uint8_t>(~reason), std::memory_order_seq_cst);
    }
  }
  // None of them, and nothing submitted is unfinished: a free is settled. Loads only.
  bool Settled() const {
    return unsettled_.load(std::memory_order_acquire) == 0 && passed() >= started();
  }
  // Nothing submitted is unfinished, as far as is known without asking.
  bool Idle() const { return !work_since() && passed() >= started(); }
  // Is a block with this stamp ready as far as this context goes? One or two loads.
  bool Covers(Stamp stamp) const {
    return passed() > stamp || Idle() || !RuleIsOn(Rule::kFenceBeforeReuse);
  }

  struct Recorded {
    int status;
    uint64_t number;  // of a fence that covers all that was submitted before the call
  };
  // Whose fences these are: the context's handle, what its host is told of it by, and where new
  // fences come from.
  struct Of {
    ContextHandle handle;
    ContextPool& context;
    Arena& arena;
  };
  // Records a fence, or joins one that is begun meanwhile and does as well: one for order for every
  // purpose, one for a block for all but order.
  // REQUIRES: no capture is under way or begins; driver.record_context
  Recorded Record(const Driver& driver, const PoolHost& host, const Of& of,
                  FencePurpose purpose = FencePurpose::kReuse);

  // Asks the driver once, if nothing else tells, whether a fence above `stamp` has passed.
  // kSuccess: yes; kNotReady: no, or none is recorded; else the error that the driver reports.
  // Harmless to captures.
  int Poll(const Driver& driver, Stamp stamp);
  // Waits until the oldest fence above `stamp` has passed, if it is none after `last`. kNotReady:
  // none is recorded. Harmless to captures.
  static constexpr uint64_t kAny = ~uint64_t{0};
  int Wait(const Driver& driver, Stamp stamp, uint64_t last = kAny);
  // All work submitted to `context` from now on runs after the work before fence `number`: the
  // device waits, not the host. `ask`: unless the driver, asked first, says that it has passed.
  // `status` is the driver's. REQUIRES: no capture is under way or begins
  enum class Ask : bool { kNo, kFirst };
  struct Order {
    int status;
    bool passed;  // nothing has to wait
  };
  Order OrderAfter(const Driver& driver, ContextHandle context, uint64_t number,
                   Ask ask = Ask::kNo);

  // A free that fence `number` covers returns without waiting, where the real one would have
  // waited.
  void NoteSkipped(uint64_t number);
  // The newest such fence. Sequentially consistent, as what NoteSkipped does, also where another
  // free had noted the fence before: who frees looks for threads that ask after the one, and who
  // asks says so before the other.
  uint64_t skipped() const { return skipped_.load(std::memory_order_seq_cst); }
  // When the context's newest fence was recorded, from the first skipped one on (NowNs).
  uint64_t newest_ns() const { return newest_ns_.load(std::memory_order_relaxed); }
  // How long the real frees would have waited, since the last call.
  SkippedTime::Bounds TakeSkippedTime();

  // All work of the context was waited for by other means, from a moment after fence `number`
  // was begun (or after the clock showed it).
  void NoteWaited(uint64_t number);
  // A number for work that is about to be waited for by other means.
  uint64_t Begin();

 private:
  struct Fence {
    uint64_t number = 0;
    uint64_t recorded_ns = 0;  // 0: before the first skipped one
    void* event = nullptr;     // nullptr: it ended with its context
    uint32_t users = 0;        // threads that ask or wait for it now
    bool queued = false;
    Fence* next_unused = nullptr;
  };

  Fence* TakeFence(const Driver& driver, const Of& of, int* status);
  static int MakeEvent(const Driver& driver, ContextHandle context, void** event);
  // The oldest fence above `stamp`, in use; nullptr if none up to `last` is recorded.
  Fence* Use(Stamp stamp, uint64_t last);
  // The driver was asked about the fence, and said this; or was not asked.
  static constexpr int kUnasked = -1;
  void Unuse(Fence* fence, int status);
  void PutAside(Fence* fence);
  void Pass(uint64_t number);
  // The same under queue_lock_, for passed() that says so.
  void TakePassed(uint64_t number);

  static constinit std::atomic<uint64_t> g_clock;

  // Read by every free and by whoever looks for ready blocks; written once a fence.
  alignas(64) std::atomic<uint64_t> passed_{0};
  std::atomic<uint64_t> started_{0};
  std::atomic<uint64_t> published_{0};
  std::atomic<uint8_t> unsettled_{kWorkSince};
  std::atomic<uint64_t> skipped_{0};
  std::atomic<uint64_t> newest_ns_{0};
  std::atomic<uint64_t> newest_for_order_{0};  // these two: written under recorder_
  std::atomic<uint64_t> newest_of_free_{0};

  alignas(64) Mutex recorder_;
  Mutex poller_;
  Mutex queue_lock_;
  Fence* spare_ = nullptr;  // under recorder_, through next_unused
  NumberedQueue<Fence> queue_;
  std::atomic<Fence*> unused_{nullptr};  // through next_unused; anybody adds, a recorder takes all
  SkippedTime skipped_time_;             // under queue_lock_
};

}  // namespace cmp

#endif  // CMP_CORE_FENCES_FENCES_H_
