#include "core/pool/block_source.h"

#include "core/driver/driver.h"

namespace cmp {

namespace {
constexpr size_t kLeastTrim = 64 * kMiB;
// Released by one free where the bound is crossed a little (30 to 60 us each, measured, H200).
constexpr uint32_t kMostTrimmed = 2;
// Of a portion of what has aged: a free pays for no more; an exit, and who asks how much is free,
// wait for no more.
constexpr uint32_t kMostAgedInFree = 64;
constexpr uint32_t kMostAged = 16;
constexpr uint64_t kJustNowNs = 1'000'000'000;
// Its address names the thread.
thread_local constinit char t_thread_name = 0;

size_t BytesOf(const Batch& batch) {
  size_t bytes = 0;
  const Block* block = batch.head;
  for (uint32_t i = 0; i < batch.count; ++i, block = block->next) bytes += block->bytes;
  return bytes;
}
}  // namespace

int BlockSource::RealAllocate(size_t bytes, bool last_resort, const DeviceApi& api,
                              DeviceAddress* address) {
  const uint64_t begin = NowNs();
  const int status = api.Allocate(bytes, last_resort, address);
  statistics_.process().real_malloc_ns.AddShared(NowNs() - begin);
  statistics_.process().real_malloc_calls.AddShared(1);
  return status;
}

int BlockSource::RealFree(DeviceAddress address, const DeviceApi& api) {
  const uint64_t begin = NowNs();
  return CountFree(begin, api.Release(address));
}

int BlockSource::CountFree(uint64_t begin, int status) {
  statistics_.process().real_free_ns.AddShared(NowNs() - begin);
  statistics_.process().real_free_calls.AddShared(1);
  return status;
}

bool BlockSource::Attach(ContextPool& context, Block* block, BlockState state, Block** displaced) {
  // Before it can be found, and detached: what is subtracted was added.
  block->owner_context.store(&context, std::memory_order_release);  // after the address
  context.accounts().AddReserved(block->bytes);
  ProcessCounters& process = statistics_.process();
  process.reserved_bytes.AddShared(block->bytes);
  block->state.store(state, std::memory_order_release);
  if (!side_table_.Insert(block, displaced)) {
    block->state.store(BlockState::kUnused, std::memory_order_release);
    context.accounts().SubtractReserved(block->bytes);
    process.reserved_bytes.AddShared(-block->bytes);
    return false;
  }
  if (block->bytes < kLargeGranule) chunks_.Add(*block, context.identity().device);
  process.reserved_peak_bytes.RaiseTo(process.reserved_bytes.Get());
  return true;
}

BlockState BlockSource::Detach(Block* block) {
  // Read first: once it is kUnused the record may become another block's.
  const DeviceAddress address = __atomic_load_n(&block->address, __ATOMIC_RELAXED);
  const size_t bytes = __atomic_load_n(&block->bytes, __ATOMIC_RELAXED);
  ContextPool* const owner = block->owner();
  const BlockState was = block->state.exchange(BlockState::kUnused, std::memory_order_acq_rel);
  if (was != BlockState::kUnused) {
    side_table_.Erase(address, bytes, block);
    if (bytes < kLargeGranule) chunks_.Remove(address, bytes);
    owner->accounts().SubtractReserved(bytes);
    statistics_.process().reserved_bytes.AddShared(-bytes);
  }
  return was;
}

bool BlockSource::Forget(Block* block) {
  const HeldContext owner(*block->owner());  // once it is detached, it is in hand no more
  if (Detach(block) == BlockState::kUnused) return false;
  owner->records().Return(block);
  return true;
}

void BlockSource::CountFreed(const Block& block) {
  TierCounters& counters = statistics_.shared_slot()[block.tier];
  counters.real_frees.AddShared(1);
  counters.requested_freed_bytes.AddShared(block.requested);
  counters.block_freed_bytes.AddShared(block.bytes);
  block.owner()->accounts().TakeBack(block.bytes, MoreThanAsked(block));
}

bool BlockSource::ForgetFreed(Block* block) {
  CountFreed(*block);
  return Forget(block);
}

void BlockSource::Register(ContextPool& context, const Request& request, Allocation* made) {
  if (!SideTable::CanHold(made->address)) return;
  const ContextPool::User user(context);  // ForgetAll sees no record half-made
  if (user.ended()) return;
  Block* block = context.records().Take();
  if (block == nullptr) return;
  // Atomic because who frees the record's last block twice may look.
  __atomic_store_n(&block->address, made->address, __ATOMIC_RELAXED);
  __atomic_store_n(&block->bytes, request.bytes, __ATOMIC_RELAXED);
  block->requested = request.requested;
  block->buffer_id.store(0, std::memory_order_relaxed);
  block->tier = static_cast<uint16_t>(request.tier);
  Block* displaced = nullptr;
  if (!Attach(context, block, request.state, &displaced)) {
    context.records().Return(block);
    return;
  }
  made->bytes = request.bytes;
  if (request.state == BlockState::kIdle) {
    made->idle = block;
  } else {
    context.accounts().HandOut(request.bytes, MoreThanAsked(request.bytes, request.requested));
  }
  if (displaced == nullptr) return;
  // The driver gave this address out again. Usually because the old block is leaving: it was just
  // freed, and its record may even be another block's by now, which must not be touched. The state
  // is read first: a record that is used again has its address before it has a state.
  const BlockState state = displaced->state.load(std::memory_order_acquire);
  if (state == BlockState::kLeaving || state == BlockState::kUnused) return;
  if (__atomic_load_n(&displaced->address, __ATOMIC_RELAXED) != made->address) return;
  // Else it was freed without us. A live one is forgotten; an idle one means that a free list
  // cannot be trusted: its context serves no more. Unless its context has ended, and the record has
  // another block by now.
  const BlockState taken = displaced->TakeFromProgramAt(made->address);
  if (taken == BlockState::kLive || taken == BlockState::kUnpooled) {
    ForgetFreed(displaced);
  } else if (taken == BlockState::kIdle) {
    // Still idle and its owner's, who is held now: then that is whose it was. The address is read
    // last: it is written before the owner.
    const HeldContext owner(*displaced->owner());
    if (displaced->state.load(std::memory_order_acquire) == BlockState::kIdle &&
        displaced->owner_context.load(std::memory_order_acquire) == owner.get() &&
        __atomic_load_n(&displaced->address, __ATOMIC_RELAXED) == made->address) {
      Close(*owner, ContextPool::Why::kDistrusted);
    }
  }
}

Allocation BlockSource::Make(ContextPool& context, const Request& request, bool last_resort,
                             const DeviceApi& api) {
  Allocation made;
  made.status = RealAllocate(request.bytes, last_resort, api, &made.address);
  if (made.status == kSuccess) Register(context, request, &made);
  return made;
}

// Others allocate, too: the device is asked again once an eighth is gone of what could be taken.
bool BlockSource::MustLook(ContextPool& context, size_t bytes) {
  const auto taken = static_cast<int64_t>(bytes);
  return context.unasked_bytes.fetch_sub(taken, std::memory_order_relaxed) < taken;
}

bool BlockSource::CheckFreeMemory(ContextPool& context, size_t bytes, const DeviceApi& api) {
  bool plenty = false;
  if (MustLook(context, bytes)) {
    size_t free = 0;
    if (!LookAtMemory(context, api, &free)) return false;
    plenty = free > context.device_bytes.load(std::memory_order_relaxed) / 10 + bytes;
  } else {
    plenty = !context.scarce.load(std::memory_order_relaxed);
  }
  return plenty || MayMakeBesideManaged(context, bytes);
}

bool BlockSource::NoteManaged(ContextPool& context, size_t more) {
  if (MustLook(context, more)) return true;
  context.accounts().reserve().NoteManaged(host_.managed_bytes());
  return false;
}

// Where it does not fit, none of the device counts as free.
bool BlockSource::MayMakeBesideManaged(const ContextPool& context, size_t bytes) const {
  const size_t total = context.device_bytes.load(std::memory_order_relaxed);
  const Share share = ShareOf(context);
  return context.accounts().reserve().MayStay(share.used, share.idle + bytes) &&
         share.used + share.idle + bytes <= total - total / 10;
}

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
  if (work == Work::kDoneQuietly) return ReleaseStream::kUnavailable;
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
  // Once, though the driver may have refused: each try would leave a block.
  if (MakeAndFree(context, api)) stream.SetWarm();
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
    Destroy(context, Batch{made.idle, 1, kReady}, Work::kDoneQuietly, api);
  } else if (made.status == kSuccess) {
    FreeIdle(context, made.address, Work::kDone, api);  // on no list: it goes now, in whatever way
  } else {
    api.Recovered();
  }
  CUcontext popped = nullptr;
  driver.pop_current(&popped);
  return made.status == kSuccess;
}

bool BlockSource::LookAtMemory(ContextPool& context, const DeviceApi& api, size_t* free) {
  Accounts& accounts = context.accounts();
  Reserve& reserve = accounts.reserve();
  size_t total = 0;
  size_t held = Held(context);
  if (!api.MemoryInfo(free, &total)) return false;
  // Together with what is free it must not seem more than there ever is: what other threads are
  // allocating or freeing just now does not count.
  if (const size_t held_after = Held(context); held_after < held) held = held_after;
  *free = reserve.NoteManaged(host_.managed_bytes(), held, *free, total);
  const size_t kept = total / 10;
  const size_t least = total / 1024;  // where little is free, not each time all the same
  const size_t unasked = *free > kept + 8 * least ? (*free - kept) / 8 : least;
  context.unasked_bytes.store(static_cast<int64_t>(unasked), std::memory_order_relaxed);
  context.device_bytes.store(total, std::memory_order_relaxed);
  context.scarce.store(reserve.NoteFree(*free, total), std::memory_order_relaxed);
  CountExtra(context);
  if (IsOver(context)) context.over_bound.store(true, std::memory_order_relaxed);
  return true;
}

void BlockSource::CountExtra(ContextPool& context) {
  const int64_t change = context.accounts().reserve().TakeExtraChange();
  if (change == 0) return;
  ProcessCounters& process = statistics_.process();
  process.reserve_extra_bytes.AddShared(static_cast<uint64_t>(change));
  // Below 0 for a moment where another thread has yet to add what it saw before.
  const uint64_t sum = process.reserve_extra_bytes.Get();
  if (static_cast<int64_t>(sum) > 0) process.reserve_extra_peak_bytes.RaiseTo(sum);
}

void BlockSource::NoteGivenBack(ContextPool& context, size_t bytes) {
  context.accounts().reserve().NoteGivenBack(bytes);
  CountExtra(context);
}

void BlockSource::NoteMade(ContextPool& context, size_t bytes, size_t most, uint64_t since_ns,
                           const DeviceApi& api) {
  Accounts& accounts = context.accounts();
  const size_t regretted = accounts.reserve().TakeRegretted(bytes, most, since_ns);
  if (regretted == 0) return;
  statistics_.process().regretted_releases.AddShared(1);
  size_t free = 0;
  if (!LookAtMemory(context, api, &free)) return;
  if (context.scarce.load(std::memory_order_relaxed)) return;
  accounts.reserve().Grow(regretted, (free + accounts.idle()) / 4);
  CountExtra(context);
}

size_t BlockSource::Destroy(ContextPool& context, Batch batch, Work work, const DeviceApi& api) {
  if (batch.count == 0) return 0;
  size_t bytes = 0;
  const Uncancelled uncancelled;
  Accounts& accounts = context.accounts();
  auto when = work == Work::kDoneQuietly ? ContextPool::When::kAtOnce : ContextPool::When::kSoon;
  const Stamp stamp = batch.stamp;
  accounts.BeginLeaving(BytesOf(batch));
  while (batch.count != 0) {
    Block* block = batch.Pop();
    const size_t leaving = block->bytes;
    const auto put_back = [&] {
      context.global().Put(Batch{block, 1, stamp});
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
    const int status = FreeIdle(context, block->address, work, api);
    // Refused for the moment (a capture that somebody began meanwhile): it stays ours. But not what
    // the driver does not know: somebody freed it past us.
    if (status != kSuccess && status != kInvalidValue && !IsBrokenContextStatus(status)) {
      if (block->CancelLeaving()) {
        put_back();
      } else {
        accounts.EndLeaving(leaving);
      }
      continue;
    }
    releases_.fetch_add(1, std::memory_order_release);
    takers_.Of(context.device()).NoteProgress();
    const unsigned tier = block->tier;
    Forget(block);
    accounts.EndLeaving(leaving);  // after it was taken from what is reserved
    bytes += leaving;
    if (work == Work::kDoneForBound && stamp == kReady)
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
  if (released == 0) return 0;
  room_by_.store(&t_thread_name, std::memory_order_relaxed);
  room_at_.store(NowNs(), std::memory_order_relaxed);
  return released;
}

bool BlockSource::OthersMadeRoomJustNow() const {
  return room_by_.load(std::memory_order_relaxed) != &t_thread_name &&
         room_at_.load(std::memory_order_relaxed) + kJustNowNs > NowNs();
}

void BlockSource::Trim(ContextPool& context, size_t freed, const DeviceApi& api) {
  Accounts& accounts = context.accounts();
  const uint64_t begin = Fences::Step();
  readiness_.PromotePassed(context);
  context.over_bound.store(false, std::memory_order_relaxed);
  const size_t excess = accounts.Excess();
  if (excess == 0) return;
  const Hand hand(*this, context);
  const auto trim = [&](size_t bytes, uint32_t most) {
    const Batch oldest = context.global().TakeOldest(bytes, GlobalPool::kAnyTime, most);
    return Destroy(context, oldest, Work::kDoneForBound, api);
  };
  // A bound that follows the program may be crossed a little for a while: no free pays for more
  // than a few ready blocks then, and the next ones go on with it. Not for nothing: where only
  // blocks in use are left, the next real allocation looks again.
  const bool follows = accounts.reserve().grows();
  if (follows && excess <= kLeastTrim + accounts.bound() / 16) {
    size_t released = trim(excess, kMostTrimmed);
    if (released == 0 && context.EmptyCaches() != 0) released = trim(excess, kMostTrimmed);
    if (accounts.Excess() != 0 && (released != 0 || context.global().HasIdle())) {
      context.over_bound.store(true, std::memory_order_relaxed);
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
  if (accounts.Excess() != 0) context.over_bound.store(true, std::memory_order_relaxed);
}

void BlockSource::Close(ContextPool& context, ContextPool::Why why) {
  if (context.Close(why)) statistics_.process().contexts_dropped.AddShared(1);
}

bool BlockSource::ForgetAll(ContextPool& context) {
  context.EndLists([&](Block* block) {
    statistics_.shared_slot()[block->tier].blocks_released.AddShared(1);
    Detach(block);
  });
  return context.records().End([&](Block* block) {
    const BlockState was = Detach(block);
    if (was == BlockState::kLive || was == BlockState::kUnpooled) CountFreed(*block);
    // On no list: another thread frees it.
    return was != BlockState::kIdle && was != BlockState::kLeaving;
  });
}

}  // namespace cmp
