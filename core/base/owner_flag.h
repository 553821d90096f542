// A flag that its owner, one thread, takes on every operation and that somebody else takes almost
// never. The owner only stores and loads:
//
//   owner   inside = true;  asked == nothing?            then it is the owner's; else inside =
//   false other   asked = taken;  a barrier on every thread;   waits until inside == false
//
// The barrier (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED) orders the owner's store before its
// load in place of the owner: either the other sees that the owner is inside, or the owner sees
// that the other asks. Without it both could miss each other, so where it is refused later on
// (a filter of system calls was installed), or the owner stays inside (it is stopped), the other
// never has the flag: it leaves a request, which the owner finds at its next operation.
//
// Where there were no barriers from the start (a kernel before 4.14, a sandbox) it is an ordinary
// lock. TryLock never has that one: such a process has no hits, and all else.
//
// Held for a few dozen instructions, never across a call that can block, so that a waiter need not
// be woken.
#ifndef CMP_CORE_BASE_OWNER_FLAG_H_
#define CMP_CORE_BASE_OWNER_FLAG_H_

#include <atomic>
#include <cstdint>

namespace cmp {

// A full memory barrier on every running thread of the process: what another thread's code has
// before a point in its own order is before this call or its rest after it. False: it is refused.
// Leaves errno alone. About 0.1 us with one thread (measured), an interrupt for each running one;
// the first registers the process, which in one with threads takes 5 to 19 ms (measured beside
// CUDA's: the kernel waits until every processor has been elsewhere).
bool BarrierOnEveryThread();
// Does the kernel have them, and allow the question? Registers nothing.
[[nodiscard]] bool HasBarriers();

class OwnerFlag {
 public:
  enum class Kind : bool { kOfOwner, kOrdinary };
  constexpr explicit OwnerFlag(Kind kind = Kind::kOfOwner)
      : asked_(kind == Kind::kOrdinary ? kOrdinary : kNothing) {}

  // ---- The owner

  // False: somebody else has it, or asks for it. True: until Leave.
  [[nodiscard]] bool TryLock() {
    if (!Enter()) return false;
    // acquire pairs with the release in GiveBack: the lists are as the other left them.
    if (asked_.load(std::memory_order_acquire) == kNothing) [[likely]]
      return true;
    Leave();
    return false;
  }
  // release pairs with the acquire of who takes it next.
  void Leave() { inside_.store(false, std::memory_order_release); }
  // Waits while somebody else has it; a request does not keep the owner out. Until Unlock.
  void Lock() {
    if (!TryLock()) [[unlikely]]
      Await();
  }
  void Unlock() {
    if (IsOrdinary()) [[unlikely]]
      return held_.store(false, std::memory_order_release);
    Leave();
  }
  // Somebody wanted it and could not have it.
  bool IsRequested() const { return asked_.load(std::memory_order_relaxed) == kRequested; }
  // What a request wanted is done. REQUIRES: the lock of the others; the caller has the flag
  void Honour() {
    requested_ = false;
    if (IsRequested()) asked_.store(kNothing, std::memory_order_relaxed);
  }

  // ---- Others, one at a time, by a lock of their own

  // Then BarrierOnEveryThread, once for as many flags as are to be taken, and for each EndTaking,
  // which is told whether there was a barrier. True: the caller has it, until GiveBack. False: it
  // is requested.
  void BeginTaking() {
    if (IsOrdinary()) return;
    requested_ = IsRequested();
    asked_.store(kTaken, std::memory_order_relaxed);
  }
  [[nodiscard]] bool EndTaking(bool barrier);
  void GiveBack();  // a request that was not honoured stands again

 private:
  enum Asked : uint8_t { kNothing, kTaken, kRequested, kOrdinary };  // the last for good

  // ThreadSanitizer does not know what the barrier orders: there the flag is an ordinary one.
#if defined(__SANITIZE_THREAD__)
  static constexpr bool kLocked = true;
#else
  static constexpr bool kLocked = false;
#endif
  bool Enter() {
    if constexpr (kLocked) return !inside_.exchange(true, std::memory_order_acquire);
    inside_.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the compiler's order; see above
    return true;
  }
  bool IsOrdinary() const { return asked_.load(std::memory_order_relaxed) == kOrdinary; }
  bool Hold() { return !held_.exchange(true, std::memory_order_acquire); }
  void Await();

  std::atomic<bool> inside_{false};
  std::atomic<Asked> asked_;
  std::atomic<bool> held_{false};  // the ordinary lock
  bool requested_ = false;         // before it was taken; by the lock of the others
};

}  // namespace cmp

#endif  // CMP_CORE_BASE_OWNER_FLAG_H_
