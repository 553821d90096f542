// When a free block may be handed out again: once the fences have passed that cover its free, in
// its own context and in every other context of the process whose work may use it (device_links.h).
// Nothing waits for another context's fence: it only delays reuse.
//
// All functions are thread-safe.
#ifndef CMP_CORE_CONTEXTS_READINESS_H_
#define CMP_CORE_CONTEXTS_READINESS_H_

#include "core/base/rules.h"
#include "core/base/statistics.h"
#include "core/contexts/contexts.h"
#include "core/driver/driver.h"
#include "core/driver/host.h"

namespace cmp {

// What a free came to: the block goes back to the pool with this stamp, or ends in a real free.
struct Settlement {
  enum class End : uint8_t { kRealFree, kPooled, kPooledAfterWait };
  End end;
  Stamp stamp;
  bool pooled() const { return end != End::kRealFree; }
  // It waited for the GPU before.
  bool waited() const { return end == End::kPooledAfterWait; }

  static constexpr Settlement Pooled(Stamp stamp) { return {End::kPooled, stamp}; }
  static constexpr Settlement Waited(Stamp stamp) { return {End::kPooledAfterWait, stamp}; }
};
inline constexpr Settlement kRealFree = {Settlement::End::kRealFree, kReady};

// How long who releases retired blocks may wait for their work.
enum class Patience : uint8_t {
  // A free of the program's, or who asks for it: as long as the real free would, now.
  kFree,
  // An allocation: as long as the real frees did. Not for what was submitted after them, which may
  // wait for what the caller does next.
  kAllocation,
  // The same for blocks of a context that is not the caller's. Another thread may end that, so
  // questions alone are asked about it, and none while it may be ending (ContextPool::Unasked).
  kElsewhere,
};

class Readiness {
 public:
  // `frees_are_fenced`: a block is freed once its own context's work is done, or is covered by a
  // fence of its own or another free that is recorded: in every mode but CMP_FREE_SYNC=none.
  Readiness(const Contexts& contexts, const PoolHost& host, Statistics& statistics,
            bool frees_are_fenced)
      : contexts_(contexts),
        host_(host),
        statistics_(statistics),
        frees_are_fenced_(frees_are_fenced) {}

  // The stamp of a block of `context` whose free has begun; kReady if nothing unfinished could use
  // it. Loads only.
  Stamp StampNow(const ContextPool& context) const {
    const Fences& fences = context.fences();
    Stamp stamp = kReady;
    if (fences.work_since()) {
      stamp = Fences::Now();
    } else if (const uint64_t newest = fences.started(); fences.passed() < newest) {
      stamp = newest - 1;  // it covers all that was submitted: it is read after work_since()
    }
    if (HasOthers()) [[unlikely]]
      return WithOthers(context, stamp);
    return stamp;
  }

  // The stamp of a block that fence `number` of its own context covers.
  Stamp StampFor(const ContextPool& context, uint64_t number) const {
    return HasOthers() ? WithOthers(context, number - 1) : number - 1;
  }

  // The stamp of a block whose own context has finished all work from before the free.
  Stamp StampOfOthers(const ContextPool& context) const {
    return HasOthers() ? WithOthers(context, kReady) : kReady;
  }

  // ---- The same of memory that work of every context may use, on whatever device: page-locked.
  // `all` is the pool that it is in, of no device (kAllDevices) and without work of its own.

  // The stamp of a block whose free has begun.
  Stamp StampOfAll(const ContextPool& all) const { return WithOthers(all, kReady); }
  bool AllPassed(const ContextPool& all, Stamp stamp) const { return OthersPassed(all, stamp); }
  // Asks, as Ask does.
  bool AskAll(ContextPool& all, Stamp stamp) {
    CoverEach(all, stamp);
    return AskEach(all, stamp);
  }
  // Asks whether anything is unfinished where that is not known: a program may know by its streams
  // alone that its work is done. What is missing is recorded, for the next time. StampOfAll tells.
  void SeekIdleness(const ContextPool& all);

  // May blocks of `context` with this stamp be handed out? Loads only.
  bool HasPassed(const ContextPool& context, Stamp stamp) const {
    if (!context.fences().Covers(stamp)) return false;
    return !HasOthers() || OthersPassed(context, stamp);
  }

  // The same, and asks the driver where that may help: one query for each context that is not known
  // to have passed. Fences that are missing are recorded, for the next time. Waits for nothing.
  bool Ask(ContextPool& context, Stamp stamp);
  // Makes blocks of the global pool ready that the device has finished with. Of so many fences, the
  // binary logarithm of their number and a few are asked about. False: they may not be.
  bool PromotePassed(ContextPool& context, Patience patience = Patience::kFree);
  // Makes sure that some fence above `stamp` is recorded in every context whose work may use the
  // memory, if captures allow.
  void Cover(ContextPool& context, Stamp stamp);
  // Waits until the oldest fence of `context` above `stamp` has passed. False: that cannot be.
  bool Wait(ContextPool& context, Stamp stamp);

  // For who releases what was freed before `begin`, of Fences::Step.
  // Is the work of `context` done that was submitted before those frees? Also of a block that was
  // taken off its list before this call, if its stamp is below `begin`: no fence that the free had
  // to wait for is missed. That does not say that it is ready: another context may use it.
  bool IsOwnWorkDone(ContextPool& context, uint64_t begin) const;
  // Waits for the next fence that such a free needs, and makes ready what is so after it: one fence
  // after the other. Where frees are not fenced one is recorded now, which covers later work, too:
  // an allocation only asks about it, again and again, and not for ever; so it does elsewhere.
  // kNone: there is no such fence, or none can be had; kInVain: it has not passed.
  enum class Next : uint8_t { kPassed, kNone, kInVain };
  Next WaitForNext(ContextPool& context, uint64_t begin, Patience patience);
  // Asks whether the other contexts have finished with memory that was freed with a stamp up to
  // this: for a few milliseconds, in which a copy into a small block ends.
  bool AwaitOthers(ContextPool& context, Stamp stamp);

  // Waits for all work of `context` submitted so far, as the real free does (measured: it waits for
  // every stream of the context that owns the memory, whichever context is current). The status is
  // the driver's, or kCaptureUnderWay. An error of a broken context closes it.
  int Finish(ContextPool& context);

  // The same until fence `number` of `context` has passed; in place of one that has, the next one
  // up to `last`. The status is the driver's. An error of a broken context closes it.
  int WaitFor(ContextPool& context, uint64_t number, uint64_t last = Fences::kAny);
  // Adds what is known of skipped waits to the statistics.
  void CountSkipped(ContextPool& context);

  // Records a fence that covers everything submitted so far. The status is the driver's, or
  // kCaptureUnderWay, and then nothing was done. An error of a broken context closes it.
  static constexpr int kCaptureUnderWay = 900;  // as CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
  Fences::Recorded Record(ContextPool& context, FencePurpose purpose = FencePurpose::kReuse);

  // Can the driver mark a context's work at all (12.5 and later)?
  static bool HasContextEvents(const Driver& driver) {
    return driver.record_context != nullptr && !g_refused.load(std::memory_order_relaxed);
  }

 private:
  // The driver has the function and says that it does not support it.
  static inline constinit std::atomic<bool> g_refused{false};

  bool HasOthers() const { return contexts_.count() > 1 && RuleIsOn(Rule::kFenceInEveryContext); }
  // The contexts besides `context` whose work may use its memory, also those that are being ended:
  // their work runs until they have.
  static bool IsOther(const ContextPool& other, const ContextPool& context) {
    return &other != &context && other.may_work() && MayUse(other, context);
  }
  template <typename Visitor>
  void ForEachOther(const ContextPool& context, Visitor visit) const {
    contexts_.ForEachIf([&](const ContextPool& other) { return IsOther(other, context); }, visit);
  }
  // For who only looks. What is ordered before the caller's free is of contexts that were there by
  // then: one that takes the place of another meanwhile has no such work, and the other's is over.
  template <typename Visitor>
  void GlanceAtOthers(const ContextPool& context, Visitor visit) const {
    contexts_.Glance([&](const ContextPool& other) {
      if (IsOther(other, context)) visit(other);
    });
  }
  Stamp WithOthers(const ContextPool& context, Stamp stamp) const;
  bool OthersPassed(const ContextPool& context, Stamp stamp) const;
  int Synchronize(ContextPool& context, const Driver& driver);
  // Asks which fences have passed.
  void AskPassed(ContextPool& context);
  void CoverOne(ContextPool& context, Stamp stamp);
  void CoverOthers(ContextPool& context, Stamp stamp) {
    if (contexts_.count() > 1) CoverEach(context, stamp);
  }
  void CoverEach(ContextPool& context, Stamp stamp);
  bool AskOne(ContextPool& context, Stamp stamp);
  bool AskOthers(ContextPool& context, Stamp stamp) {
    return !HasOthers() || AskEach(context, stamp);
  }
  bool AskEach(ContextPool& context, Stamp stamp);  // of the others
  Next AskForNext(ContextPool& context, uint64_t begin, Patience patience);
  void CloseIfBroken(ContextPool& context, int status);

  const Contexts& contexts_;
  const PoolHost& host_;
  Statistics& statistics_;
  const bool frees_are_fenced_;
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXTS_READINESS_H_
