#include "core/lists/global_pool.h"

namespace cmp {

bool GlobalPool::Open(size_t max_block, Arena& arena, SpareLists& spare) {
  small_tiers_ = tiers_.TierOf(kLargeGranule);
  const size_t largest = tiers_.RoundedBytes(max_block);
  bin_count_ = largest < kLargeGranule ? 0 : BinOf(largest) + 1;
  lists_ = spare.Take(bin_count_);
  if (lists_ == nullptr) {
    lists_ = arena.New<Lists>();
    if (lists_ == nullptr) return false;
    lists_->bin_count = bin_count_;
    lists_->small = static_cast<TierList*>(arena.Allocate(small_tiers_ * sizeof(TierList)));
    lists_->bins = static_cast<List*>(arena.Allocate(bin_count_ * sizeof(List) + 1));
    lists_->bin_words = static_cast<uint64_t*>(arena.Allocate(bin_count_ / 8 + sizeof(uint64_t)));
    if (lists_->small == nullptr || lists_->bins == nullptr || lists_->bin_words == nullptr) {
      return false;
    }
    for (unsigned tier = 0; tier < small_tiers_; ++tier) new (&lists_->small[tier]) TierList;
  }
  small_ = lists_->small;
  bins_ = lists_->bins;
  bin_words_ = lists_->bin_words;
  for (uint64_t& mark : marks_) mark = 0;
  ended_.store(false, std::memory_order_relaxed);
  gone_.store(false, std::memory_order_relaxed);
  return true;
}

void GlobalPool::Put(Batch batch) {
  chunks_.AddIdle(batch);  // while it is ours
  if (!PutCounted(batch)) chunks_.RemoveIdle(batch);
}

bool GlobalPool::PutCounted(Batch batch) {
  const uint64_t now = clock_.fetch_add(1, std::memory_order_relaxed);
  Block* head = batch.head;
  Held held(LockOf(IsLarge(head) ? small_tiers_ : head->tier));
  if (ended_.load(std::memory_order_relaxed)) return false;
  if (batch.stamp != kReady) {
    head->links->stamp = batch.stamp;
    Add(RetiredOf(IsLarge(head) ? small_tiers_ : head->tier), batch, now);
    AddBytes(retired_bytes_, batch);
    return true;
  }
  AddBytes(ReadyBytesOf(head), batch);
  AddReady(batch, now);
  return true;
}

void GlobalPool::PutEach(Batch blocks) {
  Batch small;  // each has another lock
  {
    const uint64_t now = clock_.fetch_add(1, std::memory_order_relaxed);
    Held held(large_lock_);
    if (ended_.load(std::memory_order_relaxed)) return;
    while (blocks.count != 0) {
      Block* block = blocks.Pop();
      if (!IsLarge(block)) {
        small.Push(block);
        continue;
      }
      const Batch alone = Batch::Of(block);
      AddBytes(ready_large_bytes_, alone);
      AddReady(alone, now);
    }
  }
  while (small.count != 0) Put(Batch::Of(small.Pop()));
}

void GlobalPool::AddReady(const Batch& batch, uint64_t now) {
  Block* head = batch.head;
  if (!IsLarge(head)) {
    Add(small_[head->tier].list, batch, now);
    return;
  }
  const size_t bin = BinOf(head->bytes);
  Add(bins_[bin], batch, now);
  by_age_.Add(head);
  bin_words_[bin / 64] |= uint64_t{1} << (bin % 64);
}

Stamp GlobalPool::OldestStamp(unsigned tier) {
  Held held(LockOf(tier));
  if (IsGone()) return kReady;
  const Block* head = RetiredOf(tier).oldest;
  return head == nullptr ? kReady : head->links->stamp;
}

bool GlobalPool::HasReady(unsigned tier, size_t bytes, size_t most) {
  Held held(LockOf(tier));
  if (IsGone()) return false;
  if (tier < small_tiers_) return small_[tier].list.newest != nullptr;
  return BestBin(bytes, most) != nullptr;
}

Batch GlobalPool::TakeBatch(unsigned tier) {
  TierList& from = small_[tier];
  Batch batch;
  {
    Held held(from.lock);
    if (IsGone() || from.list.newest == nullptr) return batch;
    batch = Remove(from.list, from.list.newest);
    SubtractBytes(ready_bytes_, batch);
  }
  chunks_.RemoveIdle(batch);
  return batch;
}

GlobalPool::List* GlobalPool::BestBin(size_t bytes, size_t most) const {
  const size_t end = most / kLargeGranule < bin_count_ ? most / kLargeGranule : bin_count_;
  for (size_t bin = BinOf(bytes); bin < end; bin = (bin / 64 + 1) * 64) {
    const uint64_t word = bin_words_[bin / 64] >> (bin % 64);
    if (word == 0) continue;
    bin += static_cast<size_t>(std::countr_zero(word));
    return bin < end ? &bins_[bin] : nullptr;
  }
  return nullptr;
}

void GlobalPool::RemoveLarge(Block* block) {
  const size_t bin = BinOf(block->bytes);
  SubtractBytes(ready_large_bytes_, Remove(bins_[bin], block));
  by_age_.Remove(block);
  if (bins_[bin].newest == nullptr) bin_words_[bin / 64] &= ~(uint64_t{1} << (bin % 64));
}

Block* GlobalPool::TakeLarge(size_t bytes, size_t most) {
  Held held(large_lock_);
  const List* bin = IsGone() ? nullptr : BestBin(bytes, most);
  if (bin == nullptr) return nullptr;
  Block* block = bin->newest;
  RemoveLarge(block);
  return block;
}

Block* GlobalPool::TakeLargeOf(size_t bytes, uint64_t then, uint64_t before) {
  Held held(large_lock_);
  Block* block = by_age_.oldest;
  if (block == nullptr || block->idle_since >= then) return nullptr;
  if (block->bytes > bytes) {
    const size_t granules = (bytes + kLargeGranule - 1) / kLargeGranule;
    Block* other = BestBin(granules * kLargeGranule, block->bytes)->oldest;
    if (other->idle_since < before) block = other;
  }
  RemoveLarge(block);
  return block;
}

Batch GlobalPool::TakeOldestLarge(size_t wanted, uint32_t most) {
  Batch taken;
  for (size_t bytes = 0; bytes < wanted && taken.count < most;) {
    Block* block = TakeLargeOf(wanted - bytes, ~uint64_t{0}, ~uint64_t{0});
    if (block == nullptr) break;
    bytes += block->bytes;
    taken.Push(block);
  }
  return taken;
}

Batch GlobalPool::TakeOldestOf(unsigned tier, size_t wanted, uint64_t before, uint32_t most) {
  TierList& from = small_[tier];
  Batch taken;
  {
    Held held(from.lock);
    const Block* oldest = IsGone() ? nullptr : from.list.oldest;
    if (oldest == nullptr || oldest->idle_since >= before) return taken;
    Batch batch = Remove(from.list, from.list.oldest);
    const uint64_t idle_since = batch.head->idle_since;
    for (size_t bytes = 0; batch.count != 0 && bytes < wanted && taken.count < most;) {
      Block* block = batch.Pop();
      bytes += block->bytes;
      taken.Push(block);
    }
    SubtractBytes(ready_bytes_, taken);
    if (batch.count != 0) {  // the rest of it stays the oldest
      batch.head->batch_count = batch.count;
      batch.head->idle_since = idle_since;
      from.list.AddOldest(batch.head);
    }
  }
  chunks_.RemoveIdle(taken);
  return taken;
}

Batch GlobalPool::TakeOldest(size_t wanted, uint64_t before, uint32_t most) {
  Batch taken;
  for (size_t bytes = 0; bytes < wanted && taken.count < most;) {
    // The list whose oldest batch has waited longest. It may move before it is locked again; then
    // the next oldest of that list is taken, if that is old enough.
    unsigned oldest_tier = small_tiers_;
    uint64_t oldest = before;
    for (unsigned tier = 0; tier < small_tiers_; ++tier) {
      Held held(small_[tier].lock);
      const Block* head = IsGone() ? nullptr : small_[tier].list.oldest;
      if (head != nullptr && head->idle_since < oldest) {
        oldest = head->idle_since;
        oldest_tier = tier;
      }
    }
    if (Block* large = TakeLargeOf(wanted - bytes, oldest, before)) {
      bytes += large->bytes;
      taken.Push(large);
      continue;
    }
    if (oldest_tier == small_tiers_) break;  // nothing is idle
    for (Batch batch = TakeOldestOf(oldest_tier, wanted - bytes, before, most - taken.count);
         batch.count != 0;) {
      Block* block = batch.Pop();
      bytes += block->bytes;
      taken.Push(block);
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

void GlobalPool::GiveListsBack(SpareLists& spare) {
  gone_.store(true, std::memory_order_relaxed);  // the locks below order it
  for (unsigned tier = 0; tier <= small_tiers_; ++tier) Held held(LockOf(tier));
  spare.Put(lists_);
}

void GlobalPool::TakeRetiredOf(unsigned tier, size_t bytes, Stamp before, Batch* taken,
                               size_t* taken_bytes) {
  Held held(LockOf(tier));
  if (IsGone()) return;
  List& retired = RetiredOf(tier);
  while (retired.oldest != nullptr && *taken_bytes < bytes &&
         retired.oldest->links->stamp <= before) {
    Batch batch = Remove(retired, retired.oldest);
    SubtractBytes(retired_bytes_, batch);
    chunks_.RemoveIdle(batch);
    *taken_bytes += BytesOf(batch);
    while (batch.count != 0) taken->Push(batch.Pop());
  }
}

Batch GlobalPool::TakeRetired(size_t bytes, Stamp before) {
  Batch taken;
  size_t taken_bytes = 0;
  // The large ones first: fewer real calls for the same bytes.
  for (unsigned tier = small_tiers_ + 1; tier-- != 0;) {
    TakeRetiredOf(tier, bytes, before, &taken, &taken_bytes);
  }
  return taken;
}

Batch GlobalPool::TakeRetiredLarge(size_t bytes, Stamp before) {
  Batch taken;
  size_t taken_bytes = 0;
  TakeRetiredOf(small_tiers_, bytes, before, &taken, &taken_bytes);
  return taken;
}

}  // namespace cmp
