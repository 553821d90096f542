// How the rows add up, for every tier and in total:
//
//   requests    = thread_cache_hits + global_pool_hits + refills + real
//   live blocks = requests - frees - real_frees
//   idle blocks = blocks_made - blocks_released - (requests that took one and did not return it)
//                 (of 2 MiB and more in total alone: a block may serve a smaller request of another
//                 row, and counts in that one from then on)
//   reserved    = live + ready bytes
//   real calls avoided = (requests + frees + real_frees) - (real_malloc_calls + real_free_calls of
//                        our blocks): what the program called, less what was really called
#include "core/base/statistics.h"

#include <stddef.h>
#include <string.h>
#include <time.h>

#include "core/base/memory.h"

namespace cmp {

namespace {
constexpr size_t RoundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }
constexpr size_t kHeaderBytes = RoundUp(sizeof(StatisticsHeader), 4096);

size_t SlotBytes(unsigned tier_count) { return RoundUp(tier_count * sizeof(TierCounters), 4096); }
}  // namespace

void TierTotals::Add(const TierTotals& other) {
#define CMP_ADD(name, meaning) name += other.name;
  CMP_TIER_COUNTERS(CMP_ADD)
#undef CMP_ADD
}

size_t Statistics::PageBytes(const Tiers&, unsigned tier_count) {
  return kHeaderBytes + kStatisticsSlots * SlotBytes(tier_count);
}

void Statistics::Open(void* page, const Tiers& tiers, unsigned tier_count, uint64_t pid,
                      const char* program) {
  header_ = static_cast<StatisticsHeader*>(page);
  tier_count_ = tier_count;
  memcpy(header_->magic, kStatisticsMagic, sizeof(header_->magic));
  header_->schema = kStatisticsSchema;
  header_->header_bytes = kHeaderBytes;
  header_->slot_bytes = static_cast<uint32_t>(SlotBytes(tier_count));
  header_->slot_count.store(kStatisticsSlots, std::memory_order_relaxed);
  header_->tier_count = tier_count;
  header_->tier_steps = tiers.steps();
  header_->pid = pid;
  header_->tier_counter_count = sizeof(TierCounters) / sizeof(Counter);
  header_->process_counter_count = sizeof(ProcessCounters) / sizeof(Counter);
  header_->run_offset = offsetof(StatisticsHeader, run);
  header_->slots_used.store(1, std::memory_order_relaxed);
  parts_[0].store(static_cast<char*>(page) + kHeaderBytes, std::memory_order_relaxed);
  slots_.store(1, std::memory_order_release);
  strncpy(header_->program, program, sizeof(header_->program) - 1);
}

bool Statistics::Grow(uint32_t index) {
  void* part = MapPages(size_t{kStatisticsSlots} * header_->slot_bytes);
  if (part == nullptr) return false;
  header_->slot_count.fetch_add(kStatisticsSlots, std::memory_order_relaxed);
  parts_[index / kStatisticsSlots].store(static_cast<char*>(part), std::memory_order_release);
  return true;
}

void Statistics::CopyHead(uint64_t* to, uint32_t slots) const {
  const auto* words = reinterpret_cast<const uint64_t*>(header_);
  for (size_t i = 0; i < kStatisticsHeadBytes / sizeof(*words); ++i) {
    to[i] = __atomic_load_n(words + i, __ATOMIC_RELAXED);  // who takes a slot changes one
  }
  memcpy(reinterpret_cast<char*>(to) + offsetof(StatisticsHeader, slots_used), &slots,
         sizeof(slots));
}

TierCounters* Statistics::TakeSlot() {
  Held held(lock_);
  const uint32_t index = slots_.load(std::memory_order_relaxed);
  if (index == kMostParts * kStatisticsSlots) return nullptr;
  if (index % kStatisticsSlots == 0 && !Grow(index)) return nullptr;
  slots_.store(index + 1, std::memory_order_release);
  header_->slots_used.store(index + 1, std::memory_order_relaxed);
  return Slot(index);
}

uint64_t Statistics::CountWait(uint64_t begin_ns) {
  const uint64_t waited_ns = NowNs() - begin_ns;
  process().wait_ns.AddShared(waited_ns);
  process().wait_calls.AddShared(1);
  return waited_ns;
}

TierTotals Statistics::TotalsOfTier(unsigned tier) const {
  TierTotals totals;
  const uint32_t slots = slots_.load(std::memory_order_acquire);
  for (uint32_t index = 0; index < slots; ++index) {
    const TierCounters& counters = Slot(index)[tier];
#define CMP_ADD(name, meaning) totals.name += counters.name.Get();
    CMP_TIER_COUNTERS(CMP_ADD)
#undef CMP_ADD
  }
  return totals;
}

TierTotals Statistics::Totals() const {
  TierTotals totals;
  for (unsigned tier = 0; tier < tier_count_; ++tier) totals.Add(TotalsOfTier(tier));
  return totals;
}

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace cmp
