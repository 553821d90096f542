#include "core/lists/thread_cache.h"

namespace cmp {

void SpareCaches::Put(ThreadCache* cache) {
  Held held(lock_);
  cache->next_of_thread = first_;
  first_ = cache;
}

ThreadCache* SpareCaches::Take() {
  Held held(lock_);
  ThreadCache* cache = first_;
  if (cache != nullptr) first_ = cache->next_of_thread;
  return cache;
}

// `filling` has become full, or the cache is over its limit.
Batch ThreadCache::Overflow(Batch& filling, Batch& full, size_t& bytes) {
  Batch leaving;
  if (OverLimit()) {
    // The colder batch goes if there is one.
    Batch& colder = full.count != 0 ? full : filling;
    leaving = colder;
    colder = Batch{};
  } else {
    leaving = full;
    full = filling;
    filling = Batch{};
  }
  if (leaving.count != 0) Move(bytes, size_t{0} - BytesOf(leaving));
  return leaving;
}

Batch ThreadCache::Retire(Shelf& shelf, Block* block, Stamp stamp) {
  shelf.retiring.Push(block);
  if (stamp > shelf.retiring.stamp) shelf.retiring.stamp = stamp;
  retired_bytes_ += block->bytes;
  SetMostReady();
  if (shelf.retiring.count < limits_->batch[block->tier] && !OverLimit()) return Batch{};
  return Overflow(shelf.retiring, shelf.retired, retired_bytes_);
}

bool ThreadCache::Stock(unsigned tier, Batch batch, size_t most) {
  if (batch.count == 0) return true;
  Held held(flag_);
  if (!listed_ || ready_bytes_ + retired_bytes_ + BytesOf(batch) > most) return false;
  Move(ready_bytes_, BytesOf(batch));
  Shelf& shelf = shelves_[tier];
  if (shelf.current.count == 0) {
    shelf.current = batch;
    return true;
  }
  while (batch.count != 0) shelf.current.Push(batch.Pop());
  return true;
}

ThreadCache::Changes ThreadCache::SettleHeld() {
  const size_t bytes = ready_bytes() + retired_bytes();
  const size_t handed_out = settled_bytes_ - bytes;
  const Changes changes{static_cast<int64_t>(handed_out + large_live_),
                        static_cast<int64_t>(handed_out - requested_ + large_rounding_),
                        static_cast<int64_t>(large_slack_),
                        static_cast<int64_t>(retired_bytes() - settled_retired_)};
  settled_bytes_ = bytes;
  requested_ = 0;
  settled_retired_ = retired_bytes();
  large_live_ = large_rounding_ = large_slack_ = 0;
  return changes;
}

void ThreadCache::Count(unsigned tier, Counter TierCounters::*served, size_t requested,
                        size_t bytes) {
  Held held(flag_);
  CountServed(counters_[tier], served, requested, bytes);
}

void ThreadCache::CountFree(unsigned tier, size_t requested, size_t bytes) {
  Held held(flag_);
  CountFreed(counters_[tier], requested, bytes);
}

uint32_t ThreadCache::NextRefill(unsigned tier) {
  Held held(flag_);
  Shelf& shelf = shelves_[tier];
  const uint32_t blocks = shelf.next_refill;
  const uint32_t doubled = blocks * 2;
  const uint32_t most = limits_->batch[tier] < kMostMade ? limits_->batch[tier] : kMostMade;
  shelf.next_refill = doubled < most ? doubled : most;
  shelf.made_to_ask_less = 0;  // none is left of them
  return blocks;
}

uint32_t ThreadCache::NextToAskLess(unsigned tier) {
  constexpr uint32_t kFew = 8;
  Held held(flag_);
  Shelf& shelf = shelves_[tier];
  const uint32_t idle =
      shelf.current.count + shelf.spare.count + shelf.retiring.count + shelf.retired.count;
  const uint32_t few = limits_->batch[tier] < kFew ? limits_->batch[tier] : kFew;
  if (idle >= few || shelf.made_to_ask_less >= few) return 0;
  if (shelf.pass_by != 0) return --shelf.pass_by, 0;
  return few - idle < kMostMade ? few - idle : kMostMade;
}

// An attempt in vain may cost a real call that fails or a question about the device's memory, tens
// of microseconds, and memory may be scarce for as long as the program runs: after each the pause
// is twice as long. But not beyond 1,024 occasions, of 3 us each: that makes such calls a hundredth
// of what the questions cost, and once there is memory they end within milliseconds.
void ThreadCache::MadeToAskLess(unsigned tier, uint32_t blocks) {
  constexpr uint16_t kMostPassedBy = 1024;
  Held held(flag_);
  Shelf& shelf = shelves_[tier];
  shelf.made_to_ask_less += blocks;
  if (blocks != 0) {
    shelf.next_pass_by = 1;
    return;
  }
  shelf.pass_by = shelf.next_pass_by;
  if (shelf.next_pass_by < kMostPassedBy) shelf.next_pass_by *= 2;
}

}  // namespace cmp
