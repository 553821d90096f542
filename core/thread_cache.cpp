#include "core/thread_cache.h"

namespace cmp {

Batch ThreadCache::Overflow(Shelf& shelf, size_t block_bytes) {
  Batch leaving;
  if (ready_bytes() > limits_->bytes) {
    // Over the byte limit: the colder batch goes if there is one.
    Batch& colder = shelf.spare.count != 0 ? shelf.spare : shelf.current;
    leaving = colder;
    colder = Batch{};
  } else {
    leaving = shelf.spare;
    shelf.spare = shelf.current;
    shelf.current = Batch{};
  }
  AddReadyBytes(-(leaving.count * block_bytes));
  return leaving;
}

void ThreadCache::Stock(unsigned tier, Batch batch) {
  if (batch.count == 0) return;
  Held held(flag_);
  AddReadyBytes(batch.count * batch.head->bytes);
  Shelf& shelf = shelves_[tier];
  if (shelf.current.count == 0) {
    shelf.current = batch;
    return;
  }
  while (batch.count != 0) shelf.current.Push(batch.Pop());
}

void ThreadCache::Count(unsigned tier, Counter TierCounters::*served, size_t requested,
                        size_t bytes) {
  Held held(flag_);
  TierCounters& counters = counters_[tier];
  (counters.*served).Add(1);
  counters.requested_bytes.Add(requested);
  counters.block_bytes.Add(bytes);
}

void ThreadCache::CountFree(unsigned tier, size_t requested, size_t bytes) {
  Held held(flag_);
  TierCounters& counters = counters_[tier];
  counters.frees.Add(1);
  counters.requested_freed_bytes.Add(requested);
  counters.block_freed_bytes.Add(bytes);
}

uint32_t ThreadCache::NextRefill(unsigned tier) {
  Held held(flag_);
  Shelf& shelf = shelves_[tier];
  const uint32_t blocks = shelf.next_refill;
  const uint32_t doubled = blocks * 2;
  shelf.next_refill = doubled < limits_->batch[tier] ? doubled : limits_->batch[tier];
  return blocks;
}

}  // namespace cmp
