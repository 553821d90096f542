#include "core/readiness.h"

namespace cmp {

// Another context's newest fence may be older than what it did before this free: only the clock
// tells, unless the other one is idle.
Stamp Readiness::WithOthers(const ContextPool& context, Stamp stamp) const {
  bool idle = true;
  GlanceAtOthers(context, [&](const ContextPool& other) { idle &= other.fences().Idle(); });
  return idle ? stamp : Fences::Now();
}

bool Readiness::OthersPassed(const ContextPool& context, Stamp stamp) const {
  bool passed = true;
  GlanceAtOthers(context,
                 [&](const ContextPool& other) { passed &= other.fences().Covers(stamp); });
  return passed;
}

void Readiness::CloseIfBroken(ContextPool& context, int status) {
  if (IsBrokenContextStatus(status) && context.Close(ContextPool::Why::kBroken)) {
    statistics_.process().contexts_dropped.AddShared(1);
  }
}

Fences::Recorded Readiness::Record(ContextPool& context, FencePurpose purpose) {
  const Driver* driver = host_.driver();
  const ContextPool::User user(context);
  if (driver == nullptr || !user.entered()) return {kNotReady, 0};
  if (!host_.enter_recording()) return {kCaptureUnderWay, 0};
  const Fences::Recorded recorded =
      context.fences().Record(*driver, host_, context, context.arena(), purpose);
  host_.leave_recording();
  if (recorded.status == CUDA_ERROR_NOT_SUPPORTED) {
    g_refused.store(true, std::memory_order_relaxed);
  }
  if (recorded.status == kSuccess) statistics_.process().fences.AddShared(1);
  CloseIfBroken(context, recorded.status);
  return recorded;
}

bool Readiness::AskOne(ContextPool& context, Stamp stamp) {
  if (context.fences().Covers(stamp)) return true;
  const Driver* driver = host_.driver();
  const ContextPool::User user(context);
  if (driver == nullptr || !user.entered()) return false;
  const int status = context.fences().Poll(*driver, stamp);
  statistics_.process().fence_queries.AddShared(1);
  CloseIfBroken(context, status);
  if (status == kSuccess) CountSkipped(context);
  return status == kSuccess;
}

void Readiness::Cover(ContextPool& context, Stamp stamp) {
  const Driver* driver = host_.driver();
  if (driver == nullptr || !HasContextEvents(*driver)) return;
  const auto cover = [&](ContextPool& one) {
    if (one.fences().published() <= stamp && !one.fences().Covers(stamp)) Record(one);
  };
  cover(context);
  if (contexts_.count() > 1) {
    ForEachOther(context, [&](ContextPool& other) {
      const ContextPool::Unasked unasked(other, ContextPool::When::kAtOnce);
      if (unasked.may_ask()) cover(other);
    });
  }
}

bool Readiness::Ask(ContextPool& context, Stamp stamp) {
  Cover(context, stamp);
  if (!AskOne(context, stamp)) return false;
  if (!HasOthers()) return true;
  bool passed = true;
  ForEachOther(context, [&](ContextPool& other) {
    const ContextPool::Unasked unasked(other, ContextPool::When::kAtOnce);
    passed = passed && unasked.may_ask() && AskOne(other, stamp);
  });
  return passed;
}

bool Readiness::Wait(ContextPool& context, Stamp stamp) {
  Cover(context, stamp);
  return WaitFor(context, stamp + 1) == kSuccess;
}

void Readiness::PromotePassed(ContextPool& context) {
  if (context.global().retired_bytes() == 0) return;
  // Not those of what is freed meanwhile: on an idle device one after the other would pass.
  const Stamp begin = Fences::Now();
  uint64_t number = context.fences().passed();
  for (uint64_t before = number; Ask(context, number) && !context.fences().Covers(begin);
       before = number) {
    number = context.fences().passed();
    if (number == before) break;
  }
  context.global().PromoteAll([&](Stamp stamp) { return HasPassed(context, stamp); });
}

bool Readiness::WaitForNext(ContextPool& context, Stamp begin) {
  if (context.global().retired_bytes() == 0 || context.fences().Covers(begin)) return false;
  if (!Wait(context, context.fences().passed())) return false;
  PromotePassed(context);
  return true;
}

int Readiness::WaitFor(ContextPool& context, uint64_t number) {
  const Driver* driver = host_.driver();
  const ContextPool::User user(context);
  if (driver == nullptr || !user.entered()) return kNotReady;
  const int status = context.fences().Wait(*driver, number - 1);
  CloseIfBroken(context, status);
  if (status == kSuccess) CountSkipped(context);
  return status;
}

void Readiness::CountSkipped(ContextPool& context) {
  if (context.fences().skipped() == 0) return;
  const Fences::SkippedTime time = context.fences().TakeSkippedTime();
  if (time.max_ns == 0) return;
  statistics_.process().skipped_wait_min_ns.AddShared(time.min_ns);
  statistics_.process().skipped_wait_max_ns.AddShared(time.max_ns);
}

int Readiness::Finish(ContextPool& context) {
  if (context.fences().Idle()) return kSuccess;
  const Driver* driver = host_.driver();
  const ContextPool::User user(context);
  if (driver == nullptr || !user.entered()) return kNotReady;
  int status = CUDA_ERROR_NOT_SUPPORTED;
  if (HasContextEvents(*driver)) {
    const Fences::Recorded recorded = Record(context);
    status = recorded.status;
    if (status == kSuccess) status = context.fences().Wait(*driver, recorded.number - 1);
  }
  if (status == CUDA_ERROR_NOT_SUPPORTED) status = Synchronize(context, *driver);
  CloseIfBroken(context, status);
  CountSkipped(context);
  return status;
}

int Readiness::Synchronize(ContextPool& context, const Driver& driver) {
  const Uncancelled uncancelled;  // no capture begins until leave_synchronizing
  if (!host_.enter_synchronizing()) return kCaptureUnderWay;
  const uint64_t number = context.fences().Begin();
  host_.fence_begins(context, 0, FencePurpose::kOrder);
  auto* handle = static_cast<CUcontext>(context.identity().handle);
  int status = kSuccess;
  if (CurrentContext(driver) == handle) {
    status = driver.synchronize();
  } else if (status = driver.push_current(handle); status == kSuccess) {
    status = driver.synchronize();
    CUcontext popped = nullptr;
    driver.pop_current(&popped);
  }
  if (status == kSuccess) {
    context.fences().NoteWaited(number);
  } else {
    host_.fence_failed(context);
  }
  host_.leave_synchronizing();
  return status;
}

}  // namespace cmp
