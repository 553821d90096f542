#include "core/global_pool.h"

namespace cmp {

bool GlobalPool::Open(Arena& arena) {
  small_tiers_ = tiers_.TierOf(kLargeGranule);
  const size_t largest = tiers_.RoundedBytes(max_block_);
  bin_count_ = largest < kLargeGranule ? 0 : BinOf(largest) + 1;
  small_ = static_cast<TierList*>(arena.Allocate(small_tiers_ * sizeof(TierList)));
  bins_ = static_cast<List*>(arena.Allocate(bin_count_ * sizeof(List) + 1));
  bin_words_ = static_cast<uint64_t*>(arena.Allocate(bin_count_ / 8 + sizeof(uint64_t)));
  if (small_ == nullptr || bins_ == nullptr || bin_words_ == nullptr) return false;
  for (unsigned tier = 0; tier < small_tiers_; ++tier) new (&small_[tier]) TierList;
  return true;
}

void GlobalPool::List::Add(Batch batch, uint64_t now) {
  Block* head = batch.head;
  head->batch_count = batch.count;
  head->idle_since = now;
  head->newer_batch = nullptr;
  head->older_batch = newest;
  (newest == nullptr ? oldest : newest->newer_batch) = head;
  newest = head;
}

Batch GlobalPool::List::Remove(Block* head) {
  (head->newer_batch == nullptr ? newest : head->newer_batch->older_batch) = head->older_batch;
  (head->older_batch == nullptr ? oldest : head->older_batch->newer_batch) = head->newer_batch;
  return Batch{head, head->batch_count};
}

void GlobalPool::Put(Batch batch) {
  const uint64_t now = clock_.fetch_add(1, std::memory_order_relaxed);
  Block* head = batch.head;
  Held held(LockOf(IsLarge(head) ? small_tiers_ : head->tier));
  if (ended_.load(std::memory_order_relaxed)) return;
  if (batch.stamp != kReady) {
    head->stamp = batch.stamp;
    RetiredOf(IsLarge(head) ? small_tiers_ : head->tier).Add(batch, now);
    AddBytes(retired_bytes_, batch);
    return;
  }
  AddBytes(ready_bytes_, batch);
  if (!IsLarge(head)) return small_[head->tier].list.Add(batch, now);
  const size_t bin = BinOf(head->bytes);
  bins_[bin].Add(batch, now);
  bin_words_[bin / 64] |= uint64_t{1} << (bin % 64);
}

Stamp GlobalPool::OldestStamp(unsigned tier) {
  Held held(LockOf(tier));
  const Block* head = RetiredOf(tier).oldest;
  return head == nullptr ? kReady : head->stamp;
}

bool GlobalPool::HasReady(unsigned tier, size_t bytes, size_t most) {
  Held held(LockOf(tier));
  if (tier < small_tiers_) return small_[tier].list.newest != nullptr;
  const size_t bin = NextBin(BinOf(bytes));
  return bin < bin_count_ && (bin + 1) * kLargeGranule <= most;
}

Batch GlobalPool::TakeBatch(unsigned tier) {
  TierList& from = small_[tier];
  Held held(from.lock);
  if (from.list.newest == nullptr) return Batch{};
  Batch batch = from.list.Remove(from.list.newest);
  SubtractBytes(ready_bytes_, batch);
  return batch;
}

size_t GlobalPool::NextBin(size_t bin) const {
  while (bin < bin_count_) {
    const uint64_t word = bin_words_[bin / 64] >> (bin % 64);
    if (word != 0) return bin + static_cast<size_t>(std::countr_zero(word));
    bin = (bin / 64 + 1) * 64;
  }
  return bin_count_;
}

Batch GlobalPool::RemoveFromBin(size_t bin, Block* head) {
  Batch batch = bins_[bin].Remove(head);
  if (bins_[bin].newest == nullptr) bin_words_[bin / 64] &= ~(uint64_t{1} << (bin % 64));
  SubtractBytes(ready_bytes_, batch);
  return batch;
}

Block* GlobalPool::TakeLarge(size_t bytes, size_t most) {
  Held held(large_lock_);
  const size_t bin = NextBin(BinOf(bytes));
  if (bin >= bin_count_ || (bin + 1) * kLargeGranule > most) return nullptr;
  return RemoveFromBin(bin, bins_[bin].newest).head;
}

Batch GlobalPool::TakeOldest(size_t wanted) {
  Batch taken;
  size_t taken_bytes = 0;
  while (taken_bytes < wanted) {
    // The list whose oldest batch has waited longest. It may move before it is locked again; then
    // the next oldest of that list is taken, which is as good.
    unsigned oldest_tier = small_tiers_;
    uint64_t oldest = ~uint64_t{0};
    for (unsigned tier = 0; tier < small_tiers_; ++tier) {
      Held held(small_[tier].lock);
      const Block* head = small_[tier].list.oldest;
      if (head != nullptr && head->idle_since < oldest) {
        oldest = head->idle_since;
        oldest_tier = tier;
      }
    }
    {
      Held held(large_lock_);
      size_t oldest_bin = bin_count_;
      for (size_t bin = NextBin(0); bin < bin_count_; bin = NextBin(bin + 1)) {
        if (bins_[bin].oldest->idle_since < oldest) {
          oldest = bins_[bin].oldest->idle_since;
          oldest_bin = bin;
        }
      }
      if (oldest_bin < bin_count_) {
        Block* block = RemoveFromBin(oldest_bin, bins_[oldest_bin].oldest).head;
        taken_bytes += block->bytes;
        taken.Push(block);
        continue;
      }
    }
    if (oldest_tier == small_tiers_) break;  // nothing is idle
    TierList& from = small_[oldest_tier];
    Held held(from.lock);
    if (from.list.oldest == nullptr) continue;
    Batch batch = from.list.Remove(from.list.oldest);
    const uint64_t idle_since = batch.head->idle_since;
    const size_t block_bytes = batch.head->bytes;
    size_t out = 0;
    while (batch.count != 0 && taken_bytes < wanted) {
      taken.Push(batch.Pop());
      taken_bytes += block_bytes;
      out += block_bytes;
    }
    ready_bytes_.fetch_sub(out, std::memory_order_relaxed);
    if (batch.count != 0) {  // the rest of it stays the oldest
      Block* head = batch.head;
      head->batch_count = batch.count;
      head->idle_since = idle_since;
      head->older_batch = nullptr;
      head->newer_batch = from.list.oldest;
      (from.list.oldest == nullptr ? from.list.newest : from.list.oldest->older_batch) = head;
      from.list.oldest = head;
    }
  }
  return taken;
}

Batch GlobalPool::End() {
  ended_.store(true, std::memory_order_relaxed);  // the locks below order it
  Batch all = TakeRetired(~size_t{0});
  for (Batch ready = TakeOldest(~size_t{0}); ready.count != 0;) all.Push(ready.Pop());
  return all;
}

Batch GlobalPool::TakeRetired(size_t wanted) {
  Batch taken;
  size_t taken_bytes = 0;
  // The large ones first: fewer real calls for the same bytes.
  for (unsigned tier = small_tiers_ + 1; tier-- != 0;) {
    Held held(LockOf(tier));
    List& retired = RetiredOf(tier);
    while (retired.oldest != nullptr && taken_bytes < wanted) {
      Batch batch = retired.Remove(retired.oldest);
      SubtractBytes(retired_bytes_, batch);
      taken_bytes += batch.count * batch.head->bytes;
      while (batch.count != 0) taken.Push(batch.Pop());
    }
  }
  return taken;
}

}  // namespace cmp
