// Stream captures under way in this process, and what must not happen meanwhile.
//
// cuCtxRecordEvent and synchronising calls invalidate every capture, from every thread, in every
// mode (measured). So recording and beginning exclude each other:
//
//   recorder:  ++recording; captures under way? yes: --recording, do without
//                                               no:  record; --recording
//   beginner:  ++under_way; wait until recording == 0; pay debts (work_state.h), which cannot be
//              paid while a capture is under way, or wait for the beginner who does; the real begin
//
// All four accesses are sequentially consistent: of a recorder and a beginner that meet, at least
// one sees the other. A recorder never waits; a beginner waits for a call of less than a
// microsecond. With drivers before 12.5 the recorder synchronises the whole context, which may wait
// for what the beginner is about to submit: the first beginner waits only for a while, and from
// then on such a process synchronises no more; its frees are real ones.
//
// Invariant: under_way counts begins that are in progress or have succeeded and whose capture has
// not been seen to end. Whether it ended is asked of the stream, not taken from return codes. While
// streams are being destroyed (Ending) none is asked; afterwards they are off the list.
#ifndef CMP_SHIM_STATE_CAPTURES_H_
#define CMP_SHIM_STATE_CAPTURES_H_

#include <cuda.h>

#include <atomic>

#include "core/base/lock.h"
#include "core/base/rules.h"
#include "core/base/types.h"
#include "core/contexts/hits.h"
#include "core/driver/driver.h"

namespace cmp {

class Captures {
 public:
  constexpr Captures() = default;

  // True while a capture is under way, or beginning, anywhere in the process. One load. Hits need
  // not ask: they are barred meanwhile (core/contexts/hits.h).
  bool UnderWay() const { return under_way_.load(std::memory_order_seq_cst) != 0; }
  // True if one of them was begun by this thread.
  bool OfThisThread();

  // May a context event be recorded, or a context be synchronised, now? If so no capture begins
  // until LeaveRecording.
  [[nodiscard]] bool EnterRecording() {
    recording_.fetch_add(1, std::memory_order_seq_cst);
    if (!UnderWay() || !RuleIsOn(Rule::kCapture)) return true;
    LeaveRecording();
    return false;
  }
  void LeaveRecording() { recording_.fetch_sub(1, std::memory_order_seq_cst); }
  // The same for a synchronisation of the whole context, which may take long.
  [[nodiscard]] bool EnterSynchronising();
  void LeaveSynchronising() { synchronising_.fetch_sub(1, std::memory_order_seq_cst); }

  // Around a real begin of a capture on `stream`. A per-thread default stream is named by the
  // handle CU_STREAM_PER_THREAD. From the first on nothing is recorded; what is owed is still to be
  // paid (shim/work/work_owner.h, BeforeCapture). True: by the caller, the others wait for him.
  [[nodiscard]] bool BeforeBegin();
  void AfterBegin(CUstream stream, ContextHandle context, bool begun);
  // The capture that this thread, or any for a named stream, began on `stream` has ended.
  void Ended(CUstream stream);
  // Forgets captures that have ended in ways that nobody saw: asks every stream, now and then.
  void Revisit(const Driver& driver);
  // This thread exits, and its own default stream with it: nobody can end a capture on that.
  void EndedWithThread();
  // A context was reset or destroyed, and its captures with it.
  void EndedIn(ContextHandle context);

  // Around a real call that destroys streams, and Ended or EndedIn after it.
  class [[nodiscard]] Ending {
   public:
    explicit Ending(Captures& captures) : captures_(captures) { captures_.ChangeEnding(1); }
    ~Ending() { captures_.ChangeEnding(-1); }
    Ending(const Ending&) = delete;
    Ending& operator=(const Ending&) = delete;

   private:
    Captures& captures_;
    const Uncancelled uncancelled_;
  };

  // In a forked child: none of the parent's captures is the child's.
  void Forget();

 private:
  static constexpr uint64_t kPatienceNs = 100'000'000;

  void Leave() {
    under_way_.fetch_sub(1, std::memory_order_seq_cst);
    UnbarHits();
  }

  void ChangeEnding(int change) {
    Held held(lock_);  // waits for who asks just now
    ending_ += change;
  }

  struct Capture {
    CUstream stream = nullptr;
    ContextHandle context = nullptr;
    const void* thread = nullptr;
    bool used = false;
  };
  // Places for captures; more are mapped when these are all in use, and stay.
  struct Places {
    Capture captures[64];
    Places* more = nullptr;
  };
  // Visits every place until visit(capture) is true. REQUIRES: lock_ is held
  template <typename Visitor>
  bool Visit(Visitor visit) {
    for (Places* places = &places_; places != nullptr; places = places->more) {
      for (Capture& capture : places->captures) {
        if (visit(capture)) return true;
      }
    }
    return false;
  }

  // Apart from each other: many calls read the first, which hardly ever changes; every free that
  // records writes the second.
  alignas(64) std::atomic<int> under_way_{0};
  alignas(64) std::atomic<int> recording_{0};
  std::atomic<int> synchronising_{0};
  std::atomic<bool> ever_{false};
  std::atomic<unsigned> visits_{0};
  alignas(64) Mutex lock_;
  int ending_ = 0;
  Places places_;
};

inline constinit Captures g_captures;

}  // namespace cmp

#endif  // CMP_SHIM_STATE_CAPTURES_H_
