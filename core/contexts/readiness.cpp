#include "core/contexts/readiness.h"

namespace cmp {

namespace {
// With pauses of at most a millisecond: ten seconds, as takers.h, and about four milliseconds.
constexpr int kMostQuestions = 10'000;
constexpr int kMostQuestionsToOthers = 24;
}  // namespace

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
  const Fences::Recorded recorded = context.fences().Record(
      *driver, host_, {context.handle(), context, context.arena()}, purpose);
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

void Readiness::CoverOne(ContextPool& context, Stamp stamp) {
  const Driver* driver = host_.driver();
  if (driver == nullptr || !HasContextEvents(*driver)) return;
  Fences& fences = context.fences();
  if (fences.published() <= stamp && !fences.Covers(stamp)) Record(context);
}

void Readiness::CoverEach(ContextPool& context, Stamp stamp) {
  ForEachOther(context, [&](ContextPool& other) {
    const ContextPool::Unasked unasked(other, ContextPool::When::kAtOnce);
    if (unasked.may_ask()) CoverOne(other, stamp);
  });
}

void Readiness::Cover(ContextPool& context, Stamp stamp) {
  CoverOne(context, stamp);
  CoverOthers(context, stamp);
}

bool Readiness::AskEach(ContextPool& context, Stamp stamp) {
  bool passed = true;
  ForEachOther(context, [&](ContextPool& other) {
    const ContextPool::Unasked unasked(other, ContextPool::When::kAtOnce);
    passed = passed && unasked.may_ask() && AskOne(other, stamp);
  });
  return passed;
}

void Readiness::SeekIdleness(const ContextPool& all) {
  const Driver* driver = host_.driver();
  if (driver == nullptr || !HasContextEvents(*driver)) return;
  ForEachOther(all, [&](ContextPool& other) {
    const ContextPool::Unasked unasked(other, ContextPool::When::kAtOnce);
    const Fences& fences = other.fences();
    if (!unasked.may_ask() || fences.Idle()) return;
    if (fences.work_since()) Record(other, FencePurpose::kIdleness);
    if (fences.passed() < fences.started()) AskOne(other, fences.started() - 1);
  });
}

bool Readiness::Ask(ContextPool& context, Stamp stamp) {
  Cover(context, stamp);
  return AskOne(context, stamp) && AskOthers(context, stamp);
}

bool Readiness::Wait(ContextPool& context, Stamp stamp) {
  Cover(context, stamp);
  return WaitFor(context, stamp + 1) == kSuccess;
}

// They pass in order, so few questions tell. What is freed meanwhile is not asked about: on an idle
// device one after the other would pass.
void Readiness::AskPassed(ContextPool& context) {
  const Stamp begin = Fences::Now();
  const Fences& fences = context.fences();
  if (!Ask(context, fences.passed())) return;
  Stamp open = fences.published() - 1;  // what the newest covers
  if (Ask(context, open)) {
    if (!fences.Covers(begin)) Ask(context, fences.passed());  // one is missing
    return;
  }
  Stamp passed = fences.passed();
  if (passed >= open || !Ask(context, passed)) return;  // one alone had passed
  while (open - passed > 1) {
    const Stamp middle = passed + (open - passed) / 2;
    (Ask(context, middle) ? passed : open) = middle;
  }
}

bool Readiness::PromotePassed(ContextPool& context, Patience patience) {
  if (patience == Patience::kElsewhere) {
    const ContextPool::Unasked unasked(context, ContextPool::When::kAtOnce);
    return unasked.may_ask() && PromotePassed(context);
  }
  if (context.global().retired_bytes() == 0) return true;
  AskPassed(context);
  context.global().PromoteAll([&](Stamp stamp) { return HasPassed(context, stamp); });
  return true;
}

bool Readiness::IsOwnWorkDone(ContextPool& context, uint64_t begin) const {
  // A free with a stamp below `begin` is covered by a fence up to it, if by any.
  Fences& fences = context.fences();
  return fences.Covers(begin - 1) || (frees_are_fenced_ && fences.FreesHavePassed(begin));
}

Readiness::Next Readiness::WaitForNext(ContextPool& context, uint64_t begin, Patience patience) {
  if (context.global().retired_bytes() == 0 || IsOwnWorkDone(context, begin)) return Next::kNone;
  if (patience == Patience::kElsewhere ||
      (patience == Patience::kAllocation && !frees_are_fenced_)) {
    return AskForNext(context, begin, patience);
  }
  const uint64_t passed = context.fences().passed();
  if (!frees_are_fenced_) Cover(context, passed);
  const uint64_t last = frees_are_fenced_ ? begin : Fences::kAny;
  if (WaitFor(context, passed + 1, last) != kSuccess) return Next::kNone;
  PromotePassed(context);
  return Next::kPassed;
}

Readiness::Next Readiness::AskForNext(ContextPool& context, uint64_t begin, Patience patience) {
  const Fences& fences = context.fences();
  const uint64_t passed = fences.passed();
  Pause pause;
  for (int i = 0;; ++i) {
    // Who ends it waits for its users, and the caller may be one.
    if (!context.open() || !PromotePassed(context, patience)) return Next::kInVain;
    if (fences.passed() != passed) return Next::kPassed;
    if (IsOwnWorkDone(context, begin) || fences.published() <= passed) return Next::kNone;
    // Where that was in vain not again, before the device has come further.
    if (i == kMostQuestions) context.asked_in_vain_at.store(passed, std::memory_order_relaxed);
    if (context.asked_in_vain_at.load(std::memory_order_relaxed) == passed) return Next::kInVain;
    pause.Wait();
  }
}

bool Readiness::AwaitOthers(ContextPool& context, Stamp stamp) {
  CoverOthers(context, stamp);
  Pause pause;
  for (int i = 0; !AskOthers(context, stamp); ++i) {
    if (i == kMostQuestionsToOthers) return false;
    pause.Wait();
  }
  return true;
}

int Readiness::WaitFor(ContextPool& context, uint64_t number, uint64_t last) {
  const Driver* driver = host_.driver();
  const ContextPool::User user(context);
  if (driver == nullptr || !user.entered()) return kNotReady;
  const int status = context.fences().Wait(*driver, number - 1, last);
  CloseIfBroken(context, status);
  if (status == kSuccess) CountSkipped(context);
  return status;
}

void Readiness::CountSkipped(ContextPool& context) {
  if (context.fences().skipped() == 0) return;
  const SkippedTime::Bounds time = context.fences().TakeSkippedTime();
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
