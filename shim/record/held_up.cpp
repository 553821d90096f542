#include "shim/record/held_up.h"

#include <new>

#include "core/base/lock.h"

namespace cmp {

namespace {

// Guards what follows; what is atomic is read without it.
constinit Mutex g_inside_lock;
constinit std::atomic<uint32_t> g_inside{0};     // threads that are inside
constinit std::atomic<uint64_t> g_inside_ns{0};  // up to the last moment at which none was
constinit uint64_t g_inside_since = 0;           // REQUIRES: g_inside != 0

thread_local constinit int t_inside = 0;  // a call of the runtime's leads to one of the driver's

// REQUIRES: g_inside_lock held
uint64_t InsideUntil(uint64_t now) {
  const bool inside = g_inside.load(std::memory_order_relaxed) != 0;
  return g_inside_ns.load(std::memory_order_relaxed) + (inside ? now - g_inside_since : 0);
}

// What the clock of all calls says now.
uint64_t InsideUntilNow() {
  Held held(g_inside_lock);
  return InsideUntil(NowNs());
}

}  // namespace

InsideAllocation::InsideAllocation() : counters_(g_observed.load(std::memory_order_acquire)) {
  if (counters_ == nullptr || t_inside++ != 0) return;
  Held held(g_inside_lock);
  const uint32_t others = g_inside.load(std::memory_order_relaxed);
  if (others == 0) g_inside_since = NowNs();
  g_inside.store(others + 1, std::memory_order_release);
}

InsideAllocation::~InsideAllocation() {
  if (counters_ == nullptr || --t_inside != 0) return;
  Held held(g_inside_lock);
  const uint32_t others = g_inside.load(std::memory_order_relaxed) - 1;
  if (others == 0) {
    const uint64_t until = InsideUntil(NowNs());
    g_inside_ns.store(until, std::memory_order_release);
    counters_->allocating_ns.Set(until);
  }
  // After the sum: who finds nobody inside finds the time that they spent there.
  g_inside.store(others, std::memory_order_release);
}

// What is inside an allocation is part of it, and held up by none.
BesideAllocations::BesideAllocations()
    : before_(g_inside.load(std::memory_order_acquire) == 0
                  ? g_inside_ns.load(std::memory_order_acquire)
                  : InsideUntilNow()) {}

BesideAllocations::~BesideAllocations() {
  if (t_inside != 0) return;
  if (g_inside.load(std::memory_order_acquire) == 0 &&
      g_inside_ns.load(std::memory_order_acquire) == before_) {
    return;
  }
  const uint64_t beside = InsideUntilNow() - before_;
  ProcessCounters* counters = g_observed.load(std::memory_order_acquire);
  if (beside == 0 || counters == nullptr) return;
  counters->held_up_ns.AddShared(beside);
  counters->held_up_calls.AddShared(1);
}

void ForgetObserved() {
  new (&g_inside_lock) Mutex;
  g_observed.store(nullptr, std::memory_order_release);
  g_inside.store(0, std::memory_order_release);
  g_inside_ns.store(0, std::memory_order_release);
  t_inside = 0;
}

}  // namespace cmp
