#include "shim/work/watch.h"

#include "core/base/rules.h"
#include "core/base/statistics.h"

namespace cmp {

namespace {

// Of 65 µs, never 0. They begin again after 78 hours: a mark that a free met that long ago may then
// stay for 10 ms more.
constexpr unsigned kTickBits = 16;
constexpr uint32_t kTicks = 10'000'000 >> kTickBits;  // how long a mark stays that a free has met
uint32_t Now() { return static_cast<uint32_t>(NowNs() >> kTickBits) | 1; }
// Another free may have met it after we read the clock.
bool IsRecent(uint32_t then, uint32_t now) { return now - then + kTicks < 2 * kTicks; }

}  // namespace

bool Watch::Keep(Watcher self) {
  if (Stands(self)) return true;
  for (std::atomic<uint64_t>& mark : marks_) {
    uint64_t seen = mark.load(std::memory_order_relaxed);
    // A free may take it away meanwhile, or another thread: then it has not stood.
    while (ThreadOf(seen) == self) {
      if (mark.compare_exchange_strong(seen, Standing(self), std::memory_order_seq_cst))
        return true;
    }
  }
  return false;
}

bool Watch::Renew(Watcher self) {
  if (Keep(self)) return true;
  // A place that nobody has, else that of a thread which has not asked since a free.
  for (const bool empty : {true, false}) {
    for (std::atomic<uint64_t>& mark : marks_) {
      uint64_t seen = mark.load(std::memory_order_relaxed);
      if (empty ? seen != 0 : seen != 0 && TimeOf(seen) == 0) continue;
      if (mark.compare_exchange_strong(seen, Standing(self), std::memory_order_seq_cst))
        return false;
    }
  }
  return false;
}

bool Watch::MeetOthers(Watcher self) {
  if (!RuleIsOn(Rule::kWatchedFreesWait)) return false;
  const auto is_other = [=](uint64_t mark) { return mark != 0 && ThreadOf(mark) != self; };
  bool met = false;
  for (std::atomic<uint64_t>& mark : marks_) {
    uint64_t seen = mark.load(std::memory_order_seq_cst);
    while (is_other(seen)) {
      const uint32_t now = Now();
      const bool stands = TimeOf(seen) == 0;
      if (!stands && IsRecent(TimeOf(seen), now)) break;
      const uint64_t next = stands ? seen | now : 0;
      if (mark.compare_exchange_strong(seen, next, std::memory_order_seq_cst)) seen = next;
    }
    met |= is_other(seen);
  }
  return met;
}

void Watch::TakeAway(Watcher self) {
  if (!RuleIsOn(Rule::kSkipEndsWatch)) return;
  for (std::atomic<uint64_t>& mark : marks_) {
    uint64_t seen = mark.load(std::memory_order_relaxed);
    // Another thread's free may write its time, or another thread take the place.
    while (ThreadOf(seen) == self) {
      if (mark.compare_exchange_strong(seen, 0, std::memory_order_seq_cst)) break;
    }
  }
}

}  // namespace cmp
