#include "core/pool/block_source.h"

namespace cmp {

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
  if (IsOver(context)) context.SetOverBound(true);
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
  accounts.reserve().Grow(regretted, accounts.reserved(), (free + accounts.idle()) / 4);
  CountExtra(context);
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
