// When submitted work happens: virtual time, and the choice of what runs next.
//
// There are no threads here. Items complete inside CUDA calls, on the calling thread: because
// virtual time passed their end, or because the call waits for them.
//
// Two clocks: `now` is what the program can observe; `progress` is how long the devices have been
// working by themselves. A wait moves `now` to the end of what it waited for. Under the timed
// policies `progress` goes along, so everything due by then has completed as well. Under the lazy
// policy it does not: only what the wait needed has run, all else is as far from done as before.
//
// Invariants: items are `pending_` from Submit until they are done; `runnable_` holds exactly the
// pending items in state kRunnable, by due time; `spinning_` those in state kSpinning, whose end is
// the launch of another item or a value in memory, looked at in every CUDA call and after every
// item, or never comes. The caller holds the simulator's lock, which is released around the
// program's own functions; `changed_` is signalled after each of those and after each submission.
#ifndef CMP_TESTS_SIM_SCHEDULER_H_
#define CMP_TESTS_SIM_SCHEDULER_H_

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "types.h"

namespace cmp::sim {

class Allocations;
class Hazards;

class Scheduler {
 public:
  using Lock = std::unique_lock<std::mutex>;

  Scheduler(Hazards& hazards, Allocations& allocations);

  void Seed(uint64_t seed);
  void Restart() { Seed(seed_); }  // the random sequence begins again

  // One CUDA call's worth of virtual host time passes.
  void HostCall(Lock& lock);
  void Advance(Lock& lock, uint64_t nanoseconds);
  uint64_t now() const { return now_; }

  // REQUIRES: `needs` were submitted before. Null and done ones are skipped. `runs_in`: in
  // `context` unless others are named.
  ItemPtr Submit(Context& context, Work work, std::vector<ItemPtr> needs,
                 std::vector<const Context*> runs_in = {});

  // Returns when all are done. Aborts the program when that cannot happen any more. The lock may
  // have been released in between: look contexts, streams and allocations up again.
  void Wait(Lock& lock, const std::vector<ItemPtr>& items);

  // Returns when `until()`, which other threads' calls bring about; aborts the program when they
  // have had time enough. `what` is what the caller waits for.
  template <typename Until>
  void WaitForCalls(Lock& lock, const char* what, Until until) {
    while (!until()) {
      const uint64_t before = changes_;
      if (!WaitForChange(lock, before) && !until()) ReportStuck(what);
    }
  }
  void NoteChange();  // for those who wait so

  // What runs in the context.
  std::vector<ItemPtr> PendingOf(const Context& context) const;
  // That, and what was submitted to its streams.
  std::vector<ItemPtr> PendingWith(const Context& context) const;
  size_t PendingCount(const Context* context) const;

 private:
  using Key = std::tuple<uint64_t, uint64_t, uint64_t>;  // due, tie breaker, number
  static Key KeyOf(const Item& item) { return {item.due, item.tie_breaker, item.number}; }

  bool lazy() const { return seed_ != 0 && seed_ % 2 == 0; }
  bool jittered() const { return seed_ != 0; }

  void MakeRunnable(Item& item);
  bool HasItsValue(const Item& item) const;
  bool EndWaitsForValues();
  // True if the next thing to happen, before `next` (may be null), was that a wait for a value has
  // lasted as long as one may (CMPSIM_HOLD_NS).
  bool EndLongWait(const ItemPtr& next);
  void RunDue(Lock& lock);
  void Run(Lock& lock, const ItemPtr& item);
  void Fail(Context& context);
  ItemPtr ChooseTowards(const std::vector<ItemPtr>& items);
  // True when one of them waits for a value, which any other item may write.
  bool CollectNeeds(const ItemPtr& item, std::unordered_set<Item*>* seen,
                    std::vector<ItemPtr>* runnable) const;
  void WaitForOtherThreads(Lock& lock, const std::vector<ItemPtr>& items);
  [[noreturn]] void ReportDeadlock() const;
  // False: nothing has changed for as long as the patience lasts.
  bool WaitForChange(Lock& lock, uint64_t before);
  [[noreturn]] static void ReportStuck(const char* what);

  Hazards& hazards_;
  Allocations& allocations_;
  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  uint64_t now_ = 0;
  uint64_t progress_ = 0;
  uint64_t last_number_ = 0;
  uint64_t changes_ = 0;
  size_t running_ = 0;
  std::map<uint64_t, ItemPtr> pending_;  // by number
  std::map<Key, ItemPtr> runnable_;
  std::vector<ItemPtr> spinning_;
  std::unordered_multimap<uint64_t, ItemPtr> awaited_;  // id: what spins until its launch
  std::condition_variable changed_;
};

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_SCHEDULER_H_
