// How the pool's idle memory goes back to the driver: asked for, aged, for a call that lacks
// memory, for managed memory. (What one free releases to keep the bound: Pool::KeepBound.)
#include "core/driver/driver_api.h"
#include "core/pool/pool.h"

namespace cmp {

namespace {
constexpr int kMostWaitsForRoom = 100;  // less than a tenth of a second
constexpr long kBetweenPortionsNs = 300'000;
constexpr long kBetweenTrimsNs = 50'000;
constexpr size_t kPortion = 64 * kMiB;  // of what has aged, released at once
}  // namespace

size_t Pool::ReleaseAll(const DeviceApi& api) {
  size_t bytes = 0;
  ForEachPresent([&](ContextPool& context) {
    context.GatherLarge();
    bytes += source_.ReleaseIdle(context, ~size_t{0}, api);
  });
  return bytes;
}

size_t Pool::ReleasableBytes(int device, Caches caches) {
  size_t bytes = 0;
  ForEachContext([&](ContextPool& context) {
    if (context.identity().device != device || !context.open()) return;
    bytes += caches == Caches::kEmptied ? context.GatherAll() : context.GatherLarge();
  });
  return bytes + chunks_.Bytes(device);
}

size_t Pool::ReleaseThreadCaches(const DeviceApi& api) {
  ForEachContext([](ContextPool& context) { context.EmptyCaches(); });
  return ReleaseAll(api);
}

// What is idle where managed memory needs it goes: before `more` bytes are really allocated, and
// after frees. False: more must go than can without a wait.
bool Pool::LeaveRoom(ContextPool& context, size_t more, Quietly quietly, const DeviceApi& api) {
  Reserve& reserve = context.accounts().reserve();
  const size_t held = source_.Held(context);
  if (!reserve.IsOverRoom(held + more)) return true;
  BlockSource::Share share = source_.ShareOf(context);
  const bool may_stay = reserve.MayStay(share.used + more, share.idle);
  // Nothing is taken that would only come back, as if it had been used last.
  if (may_stay || (quietly == Quietly::kYes && !source_.CanFreeQuietly())) {
    reserve.NoteUsed(share.used, more);
    return may_stay;
  }
  context.EmptyCaches();
  readiness_.PromotePassed(context);
  for (bool noted = false;; noted = true) {
    share = source_.ShareOf(context);
    if (!noted) reserve.NoteUsed(share.used, more);
    const size_t excess = reserve.TooMuchIdle(share.used + more + share.idle, share.idle);
    if (excess == 0) return true;
    // A small block gives nothing back before the last one of its chunk.
    const size_t wanted = excess < kLargeGranule ? kLargeGranule : excess;
    size_t released = 0;
    for (size_t portion = 1; released < wanted && portion != 0; released += portion) {
      const size_t left = wanted - released;
      portion = quietly == Quietly::kYes
                    ? source_.ReleaseAged(context, GlobalPool::kAnyTime, left, quietly, api)
                    : source_.ReleaseIdle(context, left, api);
    }
    if (released == 0) return false;
  }
}

void Pool::LeaveRoomForManaged(size_t more, const Driver& driver) {
  const DriverApi api(driver);
  const ContextHandle current = CurrentContext(driver);
  ForEachPresent([&](ContextPool& context) {
    const ContextPool::User user(context);
    const ContextPool::Unasked unasked(context, ContextPool::When::kAtOnce);
    if (!unasked.allowed()) return;
    const bool look = source_.NoteManaged(context, more);
    context.GatherLarge();  // from now on large shelves keep nothing
    if (!look && source_.LeavesRoom(context)) return;
    auto* const handle = static_cast<CUcontext>(context.identity().handle);
    const bool push = handle != current;
    if (push && driver.push_current(handle) != CUDA_SUCCESS) return;
    size_t free = 0;
    if (look) source_.LookAtMemory(context, api, &free);
    AwaitRoom(context, api);
    if (!source_.LeavesRoom(context)) context.SetOverBound(true);
    CUcontext popped = nullptr;
    if (push) driver.pop_current(&popped);
  });
}

// The real frees would have waited for what is retired. Not long: it may wait for what the caller
// does next. And where that was in vain not again, before the device has come further.
void Pool::AwaitRoom(ContextPool& context, const DeviceApi& api) {
  const auto leaves_room = [&] {
    const ContextPool::Unasked still(context, ContextPool::When::kAtOnce);
    return !still.allowed() || LeaveRoom(context, 0, Quietly::kYes, api) ||
           context.global().retired_bytes() == 0;
  };
  Pause pause;
  for (int i = 0; !leaves_room(); ++i) {
    const uint64_t passed = context.fences().passed();
    if (!source_.CanFreeQuietly() ||
        passed == context.waited_in_vain_at.load(std::memory_order_relaxed))
      return;
    if (i == kMostWaitsForRoom) {
      context.waited_in_vain_at.store(passed, std::memory_order_relaxed);
      return;
    }
    pause.Wait();
  }
}

size_t Pool::ReleaseForRetry(const DeviceApi& api, int device, size_t bytes,
                             const ContextPool* except) {
  size_t released = source_.ReleaseKept(device);
  const Driver* driver = host_.driver();
  const ContextHandle current = driver == nullptr ? nullptr : CurrentContext(*driver);
  ForEachPresent([&](ContextPool& context) {
    if (device != kAllDevices && context.identity().device != device) return;
    if (&context == except || released >= bytes) return;
    context.EmptyCaches(true);
    const bool callers = context.identity().handle == current;
    const Patience patience = callers ? Patience::kAllocation : Patience::kElsewhere;
    released += source_.ReleaseForMemory(context, bytes - released, patience, api);
  });
  return released;
}

bool Pool::TidyUnasked(ContextPool& context, const DeviceApi& api) {
  const ContextPool::Unasked unasked(context, ContextPool::When::kAtOnce);
  if (!unasked.allowed()) return false;
  context.EmptyCaches();  // and what is idle is known
  source_.WarmUp(context, api);
  readiness_.PromotePassed(context);
  return true;
}

// Cleared before the look: a free that leaves more to it after that rings again.
void Pool::TrimDue(const DeviceApi& api) {
  ForEachPresent([&](ContextPool& context) {
    if (source_.WillBeWarm(context)) return;  // a tick sees to that, and then it is still due
    if (!context.trim_due.exchange(false, std::memory_order_acq_rel)) return;
    TrimAside(context, api);
  });
}

// No more than is over now: a program that goes on crossing the bound must not keep the thread
// here.
void Pool::TrimAside(ContextPool& context, const DeviceApi& api) {
  for (size_t left = context.accounts().Excess(); left != 0 && !ageing_.stopped();) {
    const size_t released = source_.TrimAside(context, api);
    if (released == 0) return;
    left -= released < left ? released : left;
    SleepNs(kBetweenTrimsNs);
  }
  if (context.accounts().Excess() != 0) context.SetOverBound(true);
}

bool Pool::Age(const DeviceApi& api) {
  ForEachPresent([&](ContextPool& context) {
    if (ageing_.stopped() || !TidyUnasked(context, api)) return;
    if (context.release_stream().warm() && source_.MayTrimAside(context)) TrimAside(context, api);
    const uint64_t before = context.global().Mark();
    while (!ageing_.stopped() &&
           source_.ReleaseAged(context, before, kPortion, Quietly::kYes, api) != 0) {
      SleepNs(kBetweenPortionsNs);  // who wants to know what is free finds nothing on its way
    }
  });
  if (!ageing_.stopped()) host_.age_kept();
  return HasIdle();
}

bool Pool::AgePageLocked(const std::atomic<bool>& stop) {
  if (page_locked_ == nullptr) return false;
  const bool idle = page_locked_->Age(stop);
  page_locked_->TellStatistics(statistics_.process());
  return idle;
}

void Pool::AgeInFree(ContextPool& context, bool tick, size_t freed, const DeviceApi& api) {
  if (PresenceOf(context) != Presence::kThere) return;
  if (tick && TidyUnasked(context, api)) {
    context.aged_before.store(context.global().Mark(), std::memory_order_relaxed);
  }
  const uint64_t before = context.aged_before.load(std::memory_order_relaxed);
  if (before == 0) return;
  const size_t portion = 2 * freed > kPortion ? 2 * freed : kPortion;
  if (source_.ReleaseAged(context, before, portion, Quietly::kNo, api) != 0) return;
  context.aged_before.store(0, std::memory_order_relaxed);
}

bool Pool::HasIdle() {
  bool idle = DevicesWithKept() != 0;
  if (page_locked_ != nullptr) idle |= page_locked_->HasIdle();
  ForEachContext([&](ContextPool& context) { idle |= context.open() && context.HasIdle(); });
  return idle;
}

}  // namespace cmp
