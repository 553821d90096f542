// What CMP_SHAKE keeps: streams, debts and sites while it records; the one hold while it shakes.
//
// While recording, a free that would owe order leaves a debt for what each stream has got since the
// free before, and the first later submission to another stream makes it an execution of two sites:
// that of the first submission, which holds back the others, and that of the last. What the host
// waited for is forgotten, so that only what could have gone wrong is a site. Under kind `host` the
// free itself does, for work whose end the host could see.
//
// While shaking there is one hold at a time, so that no two wait for each other and what changes is
// the work of one:
//
//   none     a submission of a listed site, by the seed                       ->  held
//   held     a free that would owe                                            ->  freed
//   freed    kind order: a submission to another stream; the device will
//            let go behind it                                                 ->  followed
//            kind host: a call of the thread that freed: the host has gone on
//            (that is counted, and the hold stays)                            ->  freed
//   any      its time is over (5 ms at most): the timer's thread lets go      ->  none
//   held, freed   a call that waits for the stream                            ->  none
//   followed a call that waits: 1 ms more, so that the later work can come first; or the device has
//            let go, which the next call sees                                 ->  none
//
// Two streams that order themselves (the legacy one and a blocking one) are one here.
//
// Locks: report_lock_ is taken before lock_, and that last but for those of the call sites and the
// threads; no CUDA call is made under any, and nothing is waited for under lock_.
#ifndef CMP_SHIM_SHAKE_SHAKER_H_
#define CMP_SHIM_SHAKE_SHAKER_H_

#include "core/base/lock.h"
#include "core/base/statistics.h"
#include "shim/record/own_files.h"
#include "shim/shake/call_sites.h"
#include "shim/shake/hold.h"
#include "shim/shake/shake.h"
#include "shim/shake/sites.h"
#include "shim/shake/threads.h"

namespace cmp {

class Shaker {
 public:
  static constexpr uint64_t kMostHeldNs = 5'000'000;
  static constexpr uint64_t kLeastFollowedNs = 125'000;  // twice that for a site's first hold
  static constexpr uint64_t kMoreAtWaitsNs = 1'000'000;

  // False, with a line: nothing can be tried.
  bool Begin(const Options& options);
  // Where the sites are written to, from now on and from time to time: the process may be killed.
  // REQUIRES: TheShaker() is this
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
  struct Submitted {
    ShakeCall call;
    uint64_t number = 0;  // among all submissions; 0: none
  };
  // What a stream has got since the last free that owed, or the last wait of the host.
  struct Group {
    Submitted first;  // who holds this one back holds back all
    Submitted last;

    void Add(const Submitted& submitted) {
      if (first.number == 0) first = submitted;
      last = submitted;
    }
    // All up to this number is done.
    void Done(uint64_t number) {
      if (last.number <= number) *this = {};
      if (first.number <= number) first = last;
    }
  };
  struct Stream {
    StreamName name = kNoStream;  // kNoStream: nobody's
    StreamOrdinal ordinal = kOrdinalUnknown;
    uint64_t who = 0;  // the same in every run: whose it is, and which of those
    bool blocking = false;
    Group work;
    Group visible;  // of it, what the host could see the end of
  };
  struct Debt {
    Group earlier;  // number 0: none
    const CallSite* free_where = nullptr;
    uint32_t free_thread = 0;
    size_t free_bytes = 0;
    const Stream* stream = nullptr;
  };
  enum class State : uint8_t { kNone, kHeld, kFreed, kFollowed };
  struct HoldNow {
    State state = State::kNone;
    HoldTarget target;
    ShakeSite* site = nullptr;
    const Stream* stream = nullptr;
    uint64_t begin = 0;
    uint64_t end = 0;
    uint32_t free_thread = 0;
    bool went_on = false;      // kind host
    bool later_waits = false;  // the later work returns only once it is done
  };

  Stream* StreamsEnd() { return streams_ + stream_places_; }
  // Of the calling one. REQUIRES: lock_ is not held
  uint32_t ThisThread();
  StreamName OwnNameOf(StreamName stream);
  // Does the stream order itself with the legacy one? In doubt it does: then it is left alone
  // beside that. False: it cannot be asked.
  bool AskIfBlocking(StreamName name, bool* blocking);

  // REQUIRES for all that make no CUDA call: lock_ held
  Stream* FindStream(StreamName name);
  // The stream, made if it is new; nullptr: there are too many. `owner`: the name of the thread.
  Stream* AddStream(StreamName name, bool blocking, uint64_t owner);
  void EndStream(Stream& stream);
  static bool AreOrdered(const Stream& one, const Stream& other);
  void Record(const ShakenSubmission& submission, const ShakeCall& call, Stream& stream);
  // Executions of the sites of a group: each of its two once. `later`: nullptr, not known yet.
  void Execute(ShakeKind kind, const Debt& debt, const ShakeCall* later);
  // The site that is to be held now, or nullptr.
  ShakeSite* Choose(const ShakeCall& call, uint64_t now);
  void Start(ShakeSite& site, const Stream& stream, const HoldTarget& target, uint64_t now);
  void NoteWentOn(uint32_t thread);
  void EndIfOver(uint64_t now);
  void EndHold(uint64_t now, bool by_timer);
  void PlaceHold(ShakeSite& site, const HoldTarget& target, CUstream stream);
  void GiveUp(const char* why);
  bool ReadyToHold();
  void Count(ShakeSite& site, Counter& counter, uint64_t ShakeSite::*of_site);
  bool StartTimer();
  void RunTimer();
  // Writes the report, if it has changed. `ends`: for the last time. False: it was, or it cannot be
  // written, which was told.
  bool WriteReport(bool ends);

  static constexpr size_t kMostStreams = 256;
  static constexpr unsigned kMostRefused = 8;  // calls for holds, one after the other

  bool records_ = false;
  ShakeKind kind_ = ShakeKind::kOrder;
  uint64_t seed_ = 0;
  uint64_t begin_ns_ = 0;  // of the process
  CallSites call_sites_;
  ShakeThreads threads_;
  std::atomic<bool> registered_{false};
  std::atomic<bool> closed_{false};  // no hold begins any more
  Bell bell_;

  Mutex report_lock_;
  char report_[kMaxPath] = {};        // empty: there is none, or no more is written
  uint64_t reported_ = ~uint64_t{0};  // changes that it has
  ShakeSites report_sites_;           // what it has: files are not written under lock_

  Mutex lock_;
  HoldWords words_;
  HoldNow hold_;
  uint64_t held_ns_ = 0;
  unsigned refused_ = 0;
  uint64_t number_ = 0;
  uint64_t changes_ = 0;  // of the sites
  ShakeSites sites_;
  size_t stream_places_ = 0;  // those behind were never anybody's
  Stream streams_[kMostStreams] = {};
  Debt debts_[kMostStreams] = {};   // one for each stream
  ShakeSite* freed_hosts_[8] = {};  // kind host: whose next call is not known yet
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_SHAKER_H_
