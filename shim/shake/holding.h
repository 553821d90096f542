// The one hold, from the choice of a site to its end. There is one at a time, so that no two wait
// for each other and what changes is the work of one:
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
// Not thread-safe. No CUDA call is made here.
#ifndef CMP_SHIM_SHAKE_HOLDING_H_
#define CMP_SHIM_SHAKE_HOLDING_H_

#include "shim/shake/hold.h"
#include "shim/shake/sites.h"
#include "shim/shake/streams.h"

namespace cmp {

class Holding {
 public:
  static constexpr uint64_t kMostHeldNs = 5'000'000;
  static constexpr uint64_t kLeastFollowedNs = 125'000;  // twice that for a site's first hold
  static constexpr uint64_t kMoreAtWaitsNs = 1'000'000;

  explicit Holding(ShakeSites& sites) : sites_(sites) {}
  // Times are in nanoseconds, and so is `begun`, when the process began.
  void Begin(ShakeKind kind, uint64_t seed, uint64_t begun);
  HoldWords& words() { return words_; }

  bool is_none() const { return hold_.state == State::kNone; }
  // REQUIRES: !is_none()
  uint64_t end() const { return hold_.end; }
  bool IsFor(const HoldTarget& target) const {
    return !is_none() && hold_.target.word == target.word && hold_.target.value == target.value;
  }

  // A thread comes with any call: what is over ends, and perhaps it is the host that went on.
  // `thread` 0: it is not known which.
  void Arrive(uint64_t now, uint32_t thread);
  // A submission. The site that is to be held now, or nullptr.
  ShakeSite* Choose(const ShakeCall& call, uint64_t now);
  // True: it is the later work, behind which the device is to write target().
  bool Follow(const ShakeCall& call, const ShakeStream& stream, bool waits, uint64_t now);
  const HoldTarget& target() const { return hold_.target; }
  // A hold begins; none where there is one, or the device still has all words in hand.
  HoldTarget Start(ShakeSite& site, const ShakeStream& stream, uint64_t now);
  void Free(const CallSite* where, uint32_t thread, size_t bytes);
  // A call that waits. True: it is for less time now.
  bool Wait(StreamName name, uint64_t now);
  // The later work was submitted; the device has been told to write, or not. `waited`: it is done.
  void Followed(const HoldTarget& target, bool will_write, bool waited, uint64_t now);

  void EndIfOver(uint64_t now);
  // Lets go, if there is one.
  void End(uint64_t now);
  void StreamEnds(const ShakeStream& stream, uint64_t now);
  void ThreadEnds(uint32_t thread);

 private:
  enum class State : uint8_t { kNone, kHeld, kFreed, kFollowed };
  struct Hold {
    State state = State::kNone;
    HoldTarget target;
    ShakeSite* site = nullptr;
    const ShakeStream* stream = nullptr;
    uint64_t begin = 0;
    uint64_t end = 0;
    uint32_t free_thread = 0;
    bool went_on = false;      // kind host
    bool later_waits = false;  // the later work returns only once it is done
  };

  void CountEffective();
  void LetGo(uint64_t now, bool by_timer);

  ShakeSites& sites_;
  ShakeKind kind_ = ShakeKind::kOrder;
  uint64_t seed_ = 0;
  uint64_t begun_ = 0;
  uint64_t held_ns_ = 0;  // by those that have ended
  HoldWords words_;
  Hold hold_;
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_HOLDING_H_
