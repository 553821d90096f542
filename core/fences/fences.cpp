#include "core/fences/fences.h"

#include <algorithm>
#include <utility>

#include "core/base/memory.h"
#include "core/base/statistics.h"
#include "core/driver/driver.h"

namespace cmp {

constinit std::atomic<uint64_t> Fences::g_clock{1};

namespace {
void RaiseTo(std::atomic<uint64_t>& value, uint64_t to) {
  // Who finds it raised relies on that as who raises it does (shim/work/watch.h).
  uint64_t seen = value.load(std::memory_order_seq_cst);
  while (seen < to && !value.compare_exchange_weak(seen, to, std::memory_order_seq_cst)) {
  }
}
}  // namespace

void Fences::Open() {
  unsettled_.store(kWorkSince, std::memory_order_seq_cst);
  const uint64_t number = Begin();
  RaiseTo(passed_, number);
  RaiseTo(published_, number);
  skipped_.store(0, std::memory_order_relaxed);
  newest_ns_.store(0, std::memory_order_relaxed);
  Held recorder(recorder_);
  Held queue(queue_lock_);
  while (queue_.Oldest() != nullptr) {
    Fence* fence = queue_.Pop();
    fence->queued = false;
    PutAside(fence);
  }
  for (Fence* list : {spare_, unused_.load(std::memory_order_acquire)}) {
    for (Fence* fence = list; fence != nullptr; fence = fence->next_unused) fence->event = nullptr;
  }
}

uint64_t Fences::Begin() {
  const uint64_t number = Step();
  RaiseTo(started_, number);
  return number;
}

Fences::Recorded Fences::Record(const Driver& driver, const PoolHost& host, const Of& of,
                                FencePurpose purpose) {
  const uint64_t seen = Now();
  // Begun after we came, so it covers us. A record takes 1 us, a sleep for the lock more.
  const bool for_order = purpose == FencePurpose::kOrder;
  const bool of_free = for_order || purpose == FencePurpose::kBlock;
  uint64_t newest = 0;
  const auto covered = [&] {
    newest = for_order ? newest_for_order_.load(std::memory_order_acquire)
             : of_free ? newest_of_free()
                       : published();
    return newest > seen && published() >= newest;
  };
  if (!recorder_.LockUnless(covered)) return {kSuccess, newest};
  const Held recorder(recorder_, Taken::kYes);
  if (covered()) return {kSuccess, newest};
  int status = kSuccess;
  Fence* fence = TakeFence(driver, of, &status);
  if (fence == nullptr) return {status, 0};
  const auto publish = [&](uint64_t number) {
    fence->number = number;
    fence->recorded_ns = skipped() == 0 ? 0 : NowNs();
    if (fence->recorded_ns != 0) newest_ns_.store(fence->recorded_ns, std::memory_order_relaxed);
    fence->queued = true;
    queue_.Push(fence);
    RaiseTo(published_, number);  // who synchronised meanwhile may have raised it further
  };
  const bool stamped_first = RuleIsOn(Rule::kStampProtocol);
  uint64_t number = stamped_first ? Begin() : 0;
  host.fence_begins(of.context, number, purpose);
  const bool reuses_early = !RuleIsOn(Rule::kEventReuse);
  if (reuses_early) publish(number);
  status =
      driver.record_context(static_cast<CUcontext>(of.handle), static_cast<CUevent>(fence->event));
  if (!stamped_first) number = Begin();
  if (status != kSuccess) {
    host.fence_failed(of.context);
    if (!reuses_early) {
      fence->next_unused = spare_;
      spare_ = fence;
    }
    return {status, 0};
  }
  if (for_order) newest_for_order_.store(number, std::memory_order_release);
  if (of_free) newest_of_free_.store(number, std::memory_order_release);
  if (!reuses_early) publish(number);
  return {kSuccess, number};
}

// A fence whose event nobody looks at, and room for it in the queue. acquire: whoever put it aside
// is done with it.
Fences::Fence* Fences::TakeFence(const Driver& driver, const Of& of, int* status) {
  if (!queue_.HasRoom()) {
    Held queue(queue_lock_);
    if (!queue_.MakeRoom()) {
      *status = kOutOfMemory;
      return nullptr;
    }
  }
  if (spare_ == nullptr) spare_ = unused_.exchange(nullptr, std::memory_order_acquire);
  if (spare_ == nullptr) spare_ = of.arena.New<Fence>();
  Fence* fence = spare_;
  if (fence == nullptr) {
    *status = kOutOfMemory;
    return nullptr;
  }
  if (fence->event == nullptr) *status = MakeEvent(driver, of.handle, &fence->event);
  if (*status != kSuccess) return nullptr;
  spare_ = fence->next_unused;
  return fence;
}

int Fences::MakeEvent(const Driver& driver, ContextHandle context, void** event) {
  // An event belongs to the context that is current when it is made.
  int status = driver.push_current(static_cast<CUcontext>(context));
  if (status != kSuccess) return status;
  // Who waits for it sleeps where the context's own synchronisations do (cuda.h, CU_CTX_SCHED_*).
  unsigned how = CU_EVENT_DISABLE_TIMING;
  unsigned flags = 0;
  if (driver.context_flags != nullptr && driver.context_flags(&flags) == CUDA_SUCCESS &&
      (flags & CU_CTX_SCHED_MASK) == CU_CTX_SCHED_BLOCKING_SYNC) {
    how |= CU_EVENT_BLOCKING_SYNC;
  }
  CUevent made = nullptr;
  status = driver.event_create(&made, how);
  CUcontext popped = nullptr;
  driver.pop_current(&popped);
  if (status == kSuccess) *event = made;
  return status;
}

bool Fences::FreesHavePassed(uint64_t last) {
  if (passed() >= newest_of_free()) return true;
  Held queue(queue_lock_);
  const Fence* open = queue_.Above(passed());
  return open == nullptr || open->number > last;
}

Fences::Fence* Fences::Use(Stamp stamp, uint64_t last) {
  Held queue(queue_lock_);
  Fence* fence = queue_.Above(stamp);
  if (fence == nullptr || fence->number > last) return nullptr;
  ++fence->users;
  return fence;
}

void Fences::Unuse(Fence* fence, int status) {
  if (status == kSuccess) RaiseTo(passed_, fence->number);
  const uint64_t seen_open = status == kNotReady && skipped() != 0 ? NowNs() : 0;
  Held queue(queue_lock_);
  if (seen_open != 0 && queue_.Oldest() == fence) skipped_time_.SeenOpen(seen_open);
  if (status == kSuccess) TakePassed(fence->number);
  if (--fence->users == 0 && !fence->queued) PutAside(fence);
}

// release: a recorder that takes it finds it as it was left.
void Fences::PutAside(Fence* fence) {
  fence->next_unused = unused_.load(std::memory_order_relaxed);
  while (!unused_.compare_exchange_weak(fence->next_unused, fence, std::memory_order_release,
                                        std::memory_order_relaxed)) {
  }
}

void Fences::Pass(uint64_t number) {
  RaiseTo(passed_, number);
  Held queue(queue_lock_);
  TakePassed(number);
}

void Fences::TakePassed(uint64_t number) {
  if (queue_.Oldest() == nullptr || queue_.Oldest()->number > number) return;
  const uint64_t last_skipped = skipped();
  const uint64_t now = last_skipped == 0 ? 0 : NowNs();
  while (queue_.Oldest() != nullptr && queue_.Oldest()->number <= number) {
    Fence* fence = queue_.Pop();
    if (fence->number <= last_skipped && fence->recorded_ns != 0) {
      skipped_time_.Passed(fence->recorded_ns, now);
    }
    fence->queued = false;
    if (fence->users == 0) PutAside(fence);
  }
}

void Fences::NoteSkipped(uint64_t number) {
  if (newest_ns() == 0) newest_ns_.store(NowNs(), std::memory_order_relaxed);
  if (skipped() < number) RaiseTo(skipped_, number);
}

SkippedTime::Bounds Fences::TakeSkippedTime() {
  Held queue(queue_lock_);
  return skipped_time_.Take();
}

void Fences::NoteWaited(uint64_t number) {
  if (passed() >= number) return;  // whoever found that saw to the rest
  RaiseTo(published_, number);
  Pass(number);
}

int Fences::Poll(const Driver& driver, Stamp stamp) {
  if (Covers(stamp)) return kSuccess;
  Held poller(poller_);
  if (Covers(stamp)) return kSuccess;  // who polled before found it
  Fence* fence = Use(stamp, kAny);
  if (fence == nullptr) return kNotReady;
  int status = kSuccess;
  {
    const RelaxedCaptureMode relaxed(driver);
    status = driver.event_query(static_cast<CUevent>(fence->event));
  }
  Unuse(fence, status);
  return status;
}

int Fences::Wait(const Driver& driver, Stamp stamp, uint64_t last) {
  if (Covers(stamp)) return kSuccess;
  const Uncancelled uncancelled;  // the fence is in use, and its context
  Fence* fence = Use(stamp, last);
  if (fence == nullptr) return Covers(stamp) ? kSuccess : kNotReady;
  int status = kSuccess;
  {
    const RelaxedCaptureMode relaxed(driver);
    status = driver.event_synchronize(static_cast<CUevent>(fence->event));
  }
  Unuse(fence, status);
  return status;
}

Fences::Order Fences::OrderAfter(const Driver& driver, ContextHandle context, uint64_t number,
                                 Ask ask) {
  if (passed() >= number) return {kSuccess, true};
  if (published() < number) Held recorder(recorder_);  // until it is recorded
  Fence* fence = Use(number - 1, number);
  if (fence == nullptr) return {kSuccess, true};  // it has passed, or was never recorded
  int status = kUnasked;
  if (ask == Ask::kFirst) status = driver.event_query(static_cast<CUevent>(fence->event));
  const bool passed = status == kSuccess;
  int ordered = kSuccess;
  if (!passed) {
    ordered =
        driver.wait_event(static_cast<CUcontext>(context), static_cast<CUevent>(fence->event));
  }
  Unuse(fence, status);
  return {ordered, passed};
}

}  // namespace cmp
