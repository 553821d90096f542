// How idle blocks are really freed.
#include "core/driver/driver.h"
#include "core/pool/block_source.h"

namespace cmp {

namespace {
constexpr size_t kLeastTrim = 64 * kMiB;
// Released at once where the bound is crossed a little: 0.2 ms each beside kernels, 1 ms at worst
// (measured, H200).
constexpr uint32_t kMostTrimmed = 1;
constexpr uint32_t kMostPutOff = 4;  // ticks: some 1.3 s of ten
// Of a portion of what has aged: a free pays for no more; an exit, and who asks how much is free,
// wait for no more.
constexpr uint32_t kMostAgedInFree = 64;
constexpr uint32_t kMostAged = 16;
constexpr uint32_t kMostForRoom = 16;  // before an allocation
constexpr uint64_t kJustNowNs = 1'000'000'000;
// Its address names the thread.
thread_local constinit char t_thread_name = 0;

// Which no call of the program's pays for, where the pool's thread can.
bool IsLittleOver(const Accounts& accounts, size_t excess) {
  return accounts.reserve().grows() && excess <= kLeastTrim + accounts.bound() / 16;
}
}  // namespace

bool BlockSource::CanFreeQuietly() const {
  const Driver* driver = host_.driver();
  return driver != nullptr && ReleaseStream::IsThere(*driver) && host_.frees_are_unseen();
}

int BlockSource::FreeIdle(ContextPool& context, DeviceAddress address, Work work,
                          const DeviceApi& api) {
  ReleaseStream& stream = context.release_stream();
  const bool too_soon = work == Work::kDoneForBound && will_be_warmed_up_ && !stream.warm();
  if (work != Work::kRetired && !too_soon && CanFreeQuietly()) {
    const uint64_t begin = NowNs();
    const ContextHandle handle = context.identity().handle;
    const int status = stream.Free(*host_.driver(), handle, address);
    if (status != ReleaseStream::kUnavailable) return CountFree(begin, status);
  }
  if (IsQuiet(work)) return ReleaseStream::kUnavailable;
  return RealFree(address, api);
}

void BlockSource::WarmUp(ContextPool& context, const DeviceApi& api) {
  ReleaseStream& stream = context.release_stream();
  const Accounts& accounts = context.accounts();
  if (stream.warm() || accounts.idle() == 0 || !CanFreeQuietly()) return;
  const Hand hand(*this, context, Quietly::kYes);
  if (!hand.user.entered()) return;
  // Not at the cost of who needs the memory: a later tick looks again.
  const bool scarce = context.scarce.load(std::memory_order_relaxed);
  if (AnyLack() || scarce || accounts.reserve().IsBesideManaged()) return;
  // Nor of the program's real allocations, which wait for it: a tick without any comes soon, as a
  // rule.
  const Counter& calls = statistics_.process().real_malloc_calls;
  const uint64_t made = calls.Get();
  const bool quiet = context.made_before_tick.exchange(made, std::memory_order_relaxed) == made;
  const uint32_t put_off = context.warm_ups_put_off.load(std::memory_order_relaxed);
  if (!quiet && put_off < kMostPutOff) {
    return context.warm_ups_put_off.store(put_off + 1, std::memory_order_relaxed);
  }
  // Once, though the driver may have refused: each try would leave a block.
  if (MakeAndFree(context, api)) {
    stream.SetWarm();
  } else {
    context.warm_ups_put_off.store(kMostPutOff + 1, std::memory_order_relaxed);
  }
  context.made_before_tick.store(calls.Get(), std::memory_order_relaxed);
}

// False: nothing was made.
bool BlockSource::MakeAndFree(ContextPool& context, const DeviceApi& api) {
  const Driver& driver = *host_.driver();
  if (driver.push_current(static_cast<CUcontext>(context.identity().handle)) != CUDA_SUCCESS) {
    return false;
  }
  // Of 2 MiB: a smaller one would take a place among the program's.
  const Request request{0, kLargeGranule, tiers_.TierOf(kLargeGranule), BlockState::kIdle};
  const Allocation made = Make(context, request, false, api);
  if (made.idle != nullptr) {
    statistics_.shared_slot()[request.tier].blocks_made.AddShared(1);
    Destroy(context, Batch::Of(made.idle), Work::kDoneQuietly, api);
  } else if (made.status == kSuccess) {
    FreeIdle(context, made.address, Work::kDone, api);  // on no list: it goes now, in whatever way
  } else {
    api.Recovered();
  }
  CUcontext popped = nullptr;
  driver.pop_current(&popped);
  return made.status == kSuccess;
}

size_t BlockSource::Destroy(ContextPool& context, Batch batch, Work work, const DeviceApi& api) {
  if (batch.count == 0) return 0;
  size_t bytes = 0;
  const Uncancelled uncancelled;
  Accounts& accounts = context.accounts();
  auto when = IsQuiet(work) ? ContextPool::When::kAtOnce : ContextPool::When::kSoon;
  const Stamp stamp = batch.stamp;
  accounts.BeginLeaving(BytesIn(batch));
  while (batch.count != 0) {
    Block* block = batch.Pop();
    const size_t leaving = block->bytes;
    const auto put_back = [&] {
      context.global().Put(Batch::Of(block, stamp));
      accounts.EndLeaving(leaving);
    };
    const ContextPool::Unasked unasked(context, when);
    if (!unasked.allowed()) {
      when = ContextPool::When::kAtOnce;  // one wait for all of them
      put_back();
      continue;
    }
    if (!block->BeginLeaving()) {
      accounts.EndLeaving(leaving);
      continue;
    }
    Releasing releasing(*this);
    const int status = FreeIdle(context, block->address, work, api);
    if (IsRefusedFree(status)) {  // it stays ours
      if (block->CancelLeaving()) {
        put_back();
      } else {
        accounts.EndLeaving(leaving);
      }
      continue;
    }
    releasing.Done();  // before it is no longer idle: who failed and finds nothing idle sees this
    takers_.Of(context.device()).NoteProgress();
    const unsigned tier = block->tier;
    Forget(block);
    accounts.EndLeaving(leaving);  // after it was taken from what is reserved
    bytes += leaving;
    if ((work == Work::kDoneForBound || work == Work::kDoneForBoundAside) && stamp == kReady)
      accounts.reserve().NoteReleased(leaving, NowNs(), context.arena());
    statistics_.shared_slot()[tier].blocks_released.AddShared(1);
    if (IsBrokenContextStatus(status)) Close(context);
  }
  return bytes;
}

size_t BlockSource::ReleaseIdle(ContextPool& context, size_t bytes, const DeviceApi& api) {
  const uint64_t begin = Fences::Step();
  readiness_.PromotePassed(context);
  return DestroyIdle(context, bytes, begin, Patience::kFree, api);
}

size_t BlockSource::DestroyIdle(ContextPool& context, size_t bytes, uint64_t begin,
                                Patience patience, const DeviceApi& api) {
  const Hand hand(*this, context);
  const size_t ready = Destroy(context, context.global().TakeOldest(bytes), Work::kDone, api);
  if (ready >= bytes) return ready;
  return ready + DestroyRetired(context, bytes - ready, begin, patience, Work::kDone, api);
}

size_t BlockSource::DestroyRetired(ContextPool& context, size_t bytes, uint64_t begin,
                                   Patience patience, Work done, const DeviceApi& api) {
  using Next = Readiness::Next;
  GlobalPool& global = context.global();
  size_t released = 0;
  auto next = Next::kPassed;
  while (released < bytes &&
         (next = readiness_.WaitForNext(context, begin, patience)) == Next::kPassed) {
    released += Destroy(context, global.TakeOldest(bytes - released), done, api);
  }
  if (next == Next::kInVain) return released;
  if (patience == Patience::kElsewhere && !readiness_.IsOwnWorkDone(context, begin))
    return released;
  // What is left of those waits for other contexts, or no fence can be had. (Whether the context's
  // work is done is looked at once they are taken: none that is freed meanwhile is missed then.)
  const Stamp before = begin - 1;
  const auto destroy = [&](Batch retired, bool waits_itself) {
    waits_itself |= !readiness_.IsOwnWorkDone(context, begin);
    retired.stamp = Fences::Now();
    return Destroy(context, retired, waits_itself ? Work::kRetired : done, api);
  };
  if (released < bytes) {
    released += destroy(global.TakeRetiredLarge(bytes - released, before), false);
  }
  if (released >= bytes || global.retired_bytes() == 0) return released;
  // The real free of a small one waits for copies of others into it. A free of the program's may
  // wait as well; an allocation only asks, as long as that may do: while the real free waits, other
  // threads' launches do.
  const bool passed = patience != Patience::kFree && readiness_.IsOwnWorkDone(context, begin) &&
                      readiness_.AwaitOthers(context, before);
  if (!passed && patience == Patience::kElsewhere) return released;
  return released + destroy(global.TakeRetired(bytes - released, before), !passed);
}

size_t BlockSource::ReleaseAged(ContextPool& context, uint64_t before, size_t bytes,
                                Quietly quietly, const DeviceApi& api) {
  const Hand hand(*this, context, quietly);
  const Work work = quietly == Quietly::kYes ? Work::kDoneQuietly : Work::kDone;
  const uint32_t most = quietly == Quietly::kYes ? kMostAged : kMostAgedInFree;
  const Batch aged = context.global().TakeOldest(bytes, before, most);
  const size_t released = Destroy(context, aged, work, api);
  NoteGivenBack(context, released);
  return released;
}

size_t BlockSource::ReleaseForMemory(ContextPool& context, size_t bytes, Patience patience,
                                     const DeviceApi& api) {
  const uint64_t begin = Fences::Step();
  readiness_.PromotePassed(context, patience);
  const Hand hand(*this, context);
  size_t released = Destroy(context, context.global().TakeOldestLarge(bytes), Work::kDone, api);
  if (released < bytes) released += DestroyIdle(context, bytes - released, begin, patience, api);
  NoteGivenBack(context, released);
  return released;
}

size_t BlockSource::ReleaseKept(int device) {
  const Takers::Taking taking(takers_.Of(device));  // who finds it gone already waits for the note
  return host_.release_kept(device);
}

void BlockSource::Releasing::Done() {
  source_.released_by_.store(&t_thread_name, std::memory_order_relaxed);
  source_.released_at_.store(NowNs(), std::memory_order_relaxed);
  source_.releases_.fetch_add(1, std::memory_order_release);
}

bool BlockSource::OthersReleaseJustNow() const {
  if (releasing_.load(std::memory_order_acquire) != 0) return true;
  return released_by_.load(std::memory_order_relaxed) != &t_thread_name &&
         released_at_.load(std::memory_order_relaxed) + kJustNowNs > NowNs();
}

void BlockSource::Trim(ContextPool& context, size_t freed, const DeviceApi& api) {
  Accounts& accounts = context.accounts();
  const uint64_t begin = Fences::Step();
  context.SetOverBound(false);
  const size_t excess = accounts.Excess();
  if (excess == 0) return;
  const Hand hand(*this, context);
  const auto trim = [&](size_t bytes, uint32_t most) {
    const Batch oldest = context.global().TakeOldest(bytes, GlobalPool::kAnyTime, most);
    return Destroy(context, oldest, Work::kDoneForBound, api);
  };
  // A bound that follows the program may be crossed a little for a while: no free pays for more
  // than one ready block then, and the next ones go on with it. Not for nothing: where only
  // blocks in use are left, the next real allocation looks again.
  const bool follows = accounts.reserve().grows();
  if (IsLittleOver(accounts, excess)) {
    size_t released = trim(excess, kMostTrimmed);
    if (released == 0 && context.EmptyCaches() != 0) released = trim(excess, kMostTrimmed);
    if (accounts.Excess() != 0 && (released != 0 || context.global().HasIdle())) {
      context.SetOverBound(true);
    }
    return;
  }
  const size_t enough = 2 * freed > kLeastTrim || follows ? 2 * freed : kLeastTrim;
  const size_t wanted = excess < enough ? excess : enough;
  size_t released = trim(wanted, ~0u);
  if (released < wanted) {
    context.EmptyCaches();
    const size_t now = accounts.Excess();  // without what others are releasing
    size_t left = now < wanted - released ? now : wanted - released;
    released = trim(left, ~0u);
    left -= released < left ? released : left;
    if (left != 0) {
      DestroyRetired(context, left, begin, Patience::kFree, Work::kDoneForBound, api);
    }
  }
  if (accounts.Excess() != 0) context.SetOverBound(true);
}

void BlockSource::MakeRoom(ContextPool& context, size_t bytes, const DeviceApi& api) {
  const Accounts& accounts = context.accounts();
  if (!accounts.reserve().grows() || IsLittleOver(accounts, bytes)) return;
  const size_t excess = accounts.ExcessWith(bytes);
  // Not by cuMemFree, though nothing is known to be under way: another thread may just submit what
  // waits for this one.
  if (excess == 0 || !context.release_stream().warm() || !CanFreeQuietly()) return;
  const Hand hand(*this, context, Quietly::kYes);
  const size_t wanted = excess < 2 * bytes ? excess : 2 * bytes;
  const Batch oldest = context.global().TakeOldestLarge(wanted, kMostForRoom);
  Destroy(context, oldest, Work::kDoneForBoundAside, api);
}

bool BlockSource::MayTrimAside(const ContextPool& context) const {
  const Accounts& accounts = context.accounts();
  const size_t excess = accounts.Excess();
  // Until the thread can, a free of the program's may as well, where it knows of nothing to wait
  // for.
  const bool can =
      context.release_stream().warm() || (WillBeWarm(context) && !context.fences().Idle());
  return excess != 0 && can && IsLittleOver(accounts, excess) && context.ready() != 0 &&
         CanFreeQuietly() && LeavesRoom(context);
}

bool BlockSource::WillBeWarm(const ContextPool& context) const {
  return will_be_warmed_up_ && !context.release_stream().warm() &&
         context.warm_ups_put_off.load(std::memory_order_relaxed) <= kMostPutOff &&
         !context.scarce.load(std::memory_order_relaxed) &&
         !context.accounts().reserve().IsBesideManaged();
}

size_t BlockSource::TrimAside(ContextPool& context, const DeviceApi& api) {
  const Hand hand(*this, context, Quietly::kYes);
  const size_t excess = context.accounts().Excess();
  if (!hand.user.entered() || excess == 0) return 0;
  const auto release = [&] {
    const Batch oldest = context.global().TakeOldest(excess, GlobalPool::kAnyTime, kMostTrimmed);
    return Destroy(context, oldest, Work::kDoneForBoundAside, api);
  };
  size_t released = release();
  if (released == 0 && context.EmptyCaches() != 0) released = release();
  // What is retired a free makes ready, and then looks again.
  if (released == 0 && context.global().HasIdle()) context.SetOverBound(true);
  return released;
}

}  // namespace cmp
