// Which threads ask whether a context's work is done, so that frees of other threads wait beside
// them, as the real call does: what was skipped would have to be waited for in their next question,
// and a thread that polls is to be as fast as without the pool.
//
// A thread whose question was answered "not ready" leaves its mark. A free that would skip its wait
// looks for marks of other threads, and waits in full where it finds one. It also writes into the
// mark when that was. The next question of the mark's thread wipes that out; if none comes for 10
// ms the next free takes the mark away. So neither the usual question nor the usual free reads a
// clock.
//
//   a mark           0                        nobody's
//                    thread, 0                it stands: its thread has asked since the last free
//                    thread, time             a free met it then
//   who asks         0 or (other, time)   ->  (self, 0), and looks at what was skipped before
//                    (self, time)         ->  (self, 0)
//   who frees        (other, 0)           ->  (other, now), and waits
//                    (other, time)        ->  0 after 10 ms, else waits
//   who skips        (self, any)          ->  0
//
// Two marks are enough: where two stand, of different threads, at least one is not the freeing
// thread's, so every free waits. A third thread finds no place then, looks each time, and finds
// nothing.
//
// What a question answers rests on this: while the thread's mark stands, no other thread has
// skipped anything since the look that followed its making, and so there is nothing to look at.
// Proof: who frees publishes what it skips, and then looks for marks once more (HasOthers); who
// asks makes its mark, and then looks at what was published. All four are sequentially consistent,
// so one of the two sees the other: either the free waits after all, or the question finds what it
// skipped. And a thread that was told of a free reads marks at least as new as the free read them
// (coherence): a mark that the free took away cannot still spare that thread the look.
#ifndef CMP_SHIM_WORK_WATCH_H_
#define CMP_SHIM_WORK_WATCH_H_

#include <atomic>
#include <cstdint>

namespace cmp {

// A thread, by a number that no other has had, from 1 on.
using Watcher = uint32_t;
inline constinit std::atomic<Watcher> g_watchers{0};
inline thread_local constinit Watcher t_watcher = 0;
inline Watcher ThisWatcher() {
  if (t_watcher == 0) [[unlikely]]
    t_watcher = g_watchers.fetch_add(1, std::memory_order_relaxed) + 1;
  return t_watcher;
}

class Watch {
 public:
  constexpr Watch() = default;

  // Does the mark of `self` stand? Two loads at most; relaxed, see above.
  bool Stands(Watcher self) const {
    const uint64_t mark = Standing(self);
    return marks_[0].load(std::memory_order_relaxed) == mark ||
           marks_[1].load(std::memory_order_relaxed) == mark;
  }
  // `self` asks, or waits in a question. False: it has no mark.
  bool Keep(Watcher self);
  // `self` was told "not ready". True: its mark stood all the time. False: it was made now, or
  // found no place, and what was skipped is to be looked at.
  bool Renew(Watcher self);

  // Does a thread other than `self` ask? For who frees: before it skips its wait, and once more
  // after it has published that. Two loads where nobody does.
  bool HasOthers(Watcher self) { return HasAny() && MeetOthers(self); }
  // `self` skips its wait: what it asks next, it has to look.
  void Leave(Watcher self) {
    if (HasAny()) TakeAway(self);
  }
  // Of another context from now on.
  void Clear() {
    for (std::atomic<uint64_t>& mark : marks_) mark.store(0, std::memory_order_seq_cst);
  }

 private:
  static constexpr uint64_t Standing(Watcher thread) { return uint64_t{thread} << 32; }
  static constexpr Watcher ThreadOf(uint64_t mark) { return static_cast<Watcher>(mark >> 32); }
  static constexpr uint32_t TimeOf(uint64_t mark) { return static_cast<uint32_t>(mark); }
  bool HasAny() const {
    return (marks_[0].load(std::memory_order_seq_cst) |
            marks_[1].load(std::memory_order_seq_cst)) != 0;
  }
  bool MeetOthers(Watcher self);
  void TakeAway(Watcher self);

  std::atomic<uint64_t> marks_[2] = {};
};

}  // namespace cmp

#endif  // CMP_SHIM_WORK_WATCH_H_
