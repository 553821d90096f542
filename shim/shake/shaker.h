// What CMP_SHAKE does at each call of the program: while it records, it notes frees and who came
// after them (debts.h); while it shakes, it holds earlier work back, a hold at a time (holding.h).
//
// Locks: that of the report is taken before lock_, and that last but for those of the call sites
// and the threads; no CUDA call is made under any, and nothing is waited for under lock_.
#ifndef CMP_SHIM_SHAKE_SHAKER_H_
#define CMP_SHIM_SHAKE_SHAKER_H_

#include "core/base/lock.h"
#include "core/base/options.h"
#include "shim/shake/call_sites.h"
#include "shim/shake/debts.h"
#include "shim/shake/holding.h"
#include "shim/shake/report.h"
#include "shim/shake/shake.h"
#include "shim/shake/sites.h"
#include "shim/shake/streams.h"
#include "shim/shake/threads.h"

namespace cmp {

class Shaker {
 public:
  // False, with a line: nothing can be tried.
  bool Begin(const Options& options);
  // Where the sites are written to. REQUIRES: TheShaker() is this
  void BeginReport(const char* pattern);
  void End();

  void Before(const ShakenSubmission& submission, Shaken& shaken);
  void After(Shaken& shaken);
  void Free(size_t bytes);
  uint64_t Wait(StreamName stream);
  void Waited(StreamName stream, uint64_t begun);
  void StreamEnds(StreamName stream);
  void ThreadEnds(uint32_t thread);
  void ContextEnds();

 private:
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  // Of the calling one. REQUIRES: lock_ is not held
  uint32_t ThisThread();
  StreamName OwnNameOf(StreamName stream);
  // Does the stream order itself with the legacy one? In doubt it does: then it is left alone
  // beside that. False: it cannot be asked.
  bool AskIfBlocking(StreamName name, bool* blocking);
  // Is the memory of the holds known to CUDA?
  bool ReadyToHold();
  // The device's side of a hold that has begun.
  void Place(const HoldTarget& target, ShakeSite& site, CUstream stream);
  void GiveUp(const char* why);
  bool StartTimer();
  void RunTimer();

  static constexpr unsigned kMostRefused = 8;  // calls for holds, one after the other

  bool records_ = false;
  CallSites call_sites_;
  ShakeThreads threads_;
  std::atomic<bool> registered_{false};
  std::atomic<bool> closed_{false};  // no hold begins any more
  Bell bell_;

  Mutex lock_;  // for all below
  unsigned refused_ = 0;
  ShakeSites sites_;
  ShakeStreams streams_;
  ShakeDebts debts_{streams_, sites_};  // while it records
  Holding holding_{sites_};             // while it shakes

  ShakeReport report_{sites_, lock_};
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_SHAKER_H_
