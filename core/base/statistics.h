// What happened: counters, always on, in memory of the process alone. Whoever wants them in a file
// writes them there (VisitPieces). core/base/statistics.cpp explains how the rows add up.
//
// Layout: StatisticsHeader (counters of the process, and at `run_offset` what it is: 0 in a page of
// a library that did not say), then `slot_count` slots of `slot_bytes`, each an array of one
// TierCounters per tier. Slot 0 is shared by all threads (atomic adds); every other slot belongs to
// one thread cache, whose owner adds with a plain load and store: no shared cache line on the hit
// path. Slots are never given back, so the sum over all slots is the total of the process. When all
// are taken there are as many more, elsewhere in memory; in a file they follow the others.
#ifndef CMP_CORE_BASE_STATISTICS_H_
#define CMP_CORE_BASE_STATISTICS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base/lock.h"
#include "core/base/tiers.h"
#include "core/base/types.h"

namespace cmp {

// A counter with one writer at a time. Relaxed: readers want a recent value, not an order.
class Counter {
 public:
  [[gnu::always_inline]] void Add(uint64_t amount) {
#if defined(__x86_64__) && defined(__GNUC__)
    // What the other line means, in one instruction: compilers make three of two relaxed accesses.
    asm("addq %1, %0" : "+m"(value_) : "er"(amount));
#else
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
#endif
  }
  void AddShared(uint64_t amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  void RaiseTo(uint64_t value) {
    uint64_t seen = value_.load(std::memory_order_relaxed);
    while (seen < value && !value_.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
  }
  void Set(uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  uint64_t Get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Per tier and slot. requests == thread_cache_hits + global_pool_hits + refills + oversized + real
#define CMP_TIER_COUNTERS(X)                                            \
  X(thread_cache_hits, "requests served from the thread's own cache")   \
  X(global_pool_hits, "requests served from the global pool")           \
  X(refills, "requests that needed a real allocation for the pool")     \
  X(real, "requests too large or too odd to pool: real calls")          \
  X(frees, "frees that brought a block into the pool")                  \
  X(real_frees, "frees of our blocks that were real frees")             \
  X(blocks_made, "blocks that the pool got from real allocations")      \
  X(blocks_released, "idle blocks that the pool really freed")          \
  X(requested_bytes, "bytes that the program asked for")                \
  X(requested_freed_bytes, "bytes of those that the program gave back") \
  X(block_bytes, "bytes of the blocks that served the requests")        \
  X(block_freed_bytes, "bytes of those that came back")

// Of wait_calls under CMP_FREE_SYNC=auto: what the host could have noticed. First what was pending,
// then what exists in the process.
#define CMP_WAIT_REASONS(X)                                                       \
  X(wait_copies, "frees that waited for copies and sets of page-locked memory")   \
  X(wait_host_functions, "for functions of the host's in a stream")               \
  X(wait_graphs, "for graphs")                                                    \
  X(wait_stream_memory, "for waits for, and writes of, values in memory")         \
  X(wait_unknown, "for work from before the pool, of which nothing is known")     \
  X(wait_managed, "because there is managed memory")                              \
  X(wait_mapped, "because there is memory that the host and the device share")    \
  X(wait_pageable_access, "because the device can access all memory of the host") \
  X(wait_exports, "because other processes or devices were given memory")         \
  X(wait_imports, "because memory or semaphores of others are used")              \
  X(wait_attributes, "because memory was given attributes")                       \
  X(wait_watched, "because another thread keeps asking whether work is done")

// Of page-locked memory of the host. The first four also where CMP_HOST is off; the others are as
// of the last real call or tick.
#define CMP_PAGE_LOCKED_COUNTERS(X)                                                         \
  X(host_real_malloc_calls, "real allocations of page-locked memory, failed ones included") \
  X(host_real_malloc_ns, "nanoseconds inside them")                                         \
  X(host_real_free_calls, "real frees of it, failed ones included")                         \
  X(host_real_free_ns, "nanoseconds inside them")                                           \
  X(host_requests, "requests for it that CMP_HOST served")                                  \
  X(host_thread_cache_hits, "of those, from the thread's own cache")                        \
  X(host_global_pool_hits, "of those, from the pool that all threads share")                \
  X(host_refills, "of those, by real allocations")                                          \
  X(host_frees, "frees that brought a block of it into the pool")                           \
  X(host_real_frees, "frees of such blocks that were real frees")                           \
  X(host_blocks_released, "idle blocks of it that were really freed")                       \
  X(host_requested_bytes, "bytes of it that the program asked for")                         \
  X(host_reserved_bytes, "bytes of it in blocks that the pool holds now")                   \
  X(host_reserved_peak_bytes, "the most that it held")                                      \
  X(host_bypassed, "1: not served any more, since a thread has a NUMA policy")

// Once per process (atomic adds): rare beside the calls that they count.
#define CMP_PROCESS_COUNTERS(X)                                                             \
  X(real_malloc_calls, "real allocation calls, failed ones included")                       \
  X(real_malloc_ns, "nanoseconds inside them")                                              \
  X(real_free_calls, "real free calls, failed ones included")                               \
  X(real_free_ns, "nanoseconds inside them")                                                \
  X(allocating_ns, "in which a thread at least was in either, under CMP_MODE=observe")      \
  X(held_up_calls, "submissions under way beside them, by other threads, likewise")         \
  X(held_up_ns, "nanoseconds of those beside them")                                         \
  X(wait_calls, "frees that waited for the context's work")                                 \
  X(wait_ns, "nanoseconds inside those waits")                                              \
  X(bound_waits, "of those, frees that waited for an older fence because of CMP_RESERVE")   \
  X(bound_wait_ns, "nanoseconds inside those")                                              \
  CMP_WAIT_REASONS(X)                                                                       \
  X(skipped_waits, "frees that did not wait although the real ones would have")             \
  X(skipped_wait_min_ns, "for how long those, at least: by when the fences were seen open") \
  X(skipped_wait_max_ns, "and at most: by when they were seen to have passed")              \
  X(paid_by_queries, "skipped waits that a query of the program's paid")                    \
  X(paid_by_destruction, "that the destruction of something paid")                          \
  X(paid_by_other_contexts, "that a submission to another context paid")                    \
  X(paid_by_thread_ends, "that the end of the thread paid")                                 \
  X(paid_at_exit, "that were paid at the end of the process")                               \
  X(paid_ns, "nanoseconds inside those")                                                    \
  X(fences, "fences recorded")                                                              \
  X(fence_queries, "times that the driver was asked whether a fence has passed")            \
  X(order_waits, "times that a stream had to wait on the device for work before a free")    \
  X(failed_allocations, "requests that ended in an error")                                  \
  X(out_of_memory_rescues, "requests that failed at first and were served after releases")  \
  X(double_frees, "frees of blocks that were idle already")                                 \
  X(foreign_frees, "frees of pointers that are not ours")                                   \
  X(capture_real_calls, "calls that were real because a capture was under way")             \
  X(unpooled_blocks, "blocks that left the pool (IPC, asynchronous free)")                  \
  X(async_allocations, "stream-ordered allocations, which the driver's own pools serve")    \
  X(kept_pools, "of those pools, they that were told to keep memory (CMP_ASYNC_KEEP)")      \
  X(kept_peak_bytes, "the most that they were seen to keep, now and then")                  \
  X(kept_aged_bytes, "bytes that they gave back after CMP_DECAY")                           \
  X(kept_released_bytes, "and for a call that lacked memory, or asked how much is free")    \
  X(contexts, "contexts that got a pool")                                                   \
  X(contexts_dropped, "contexts that were reset, destroyed or had failed")                  \
  X(thread_caches, "thread caches made")                                                    \
  X(regretted_releases, "blocks released for CMP_RESERVE=auto and soon allocated again")    \
  X(reserve_extra_bytes, "bytes by which its bound has grown by that now")                  \
  X(reserve_extra_peak_bytes, "the most that it had")                                       \
  X(reserved_bytes, "bytes of real allocations that the pool holds now")                    \
  X(reserved_peak_bytes, "the most that it held")                                           \
  X(live_peak_bytes, "the most that the program held, sampled when the pool moves batches") \
  CMP_PAGE_LOCKED_COUNTERS(X)

struct TierCounters {
#define CMP_DECLARE(name, meaning) Counter name;
  CMP_TIER_COUNTERS(CMP_DECLARE)
};

struct ProcessCounters {
  CMP_PROCESS_COUNTERS(CMP_DECLARE)
#undef CMP_DECLARE
};

inline constexpr uint32_t kStatisticsSchema = 1;
inline constexpr char kStatisticsMagic[] = "CMPSTAT";
inline constexpr uint32_t kStatisticsSlots = 512;  // that are added at once

// Which run it is of: written once, by who opens the page; cuda_version and what follows from
// gpu_count when CUDA is initialised. Text ends with a zero; empty: not known.
struct StatisticsRun {
  static constexpr uint32_t kMostGpus = 16;
  uint64_t begin_unix_ns;              // of the process
  std::atomic<uint32_t> cuda_version;  // as cuDriverGetVersion gives it: 13000 is 13.0
  std::atomic<uint32_t> gpu_count;     // of `gpus`, which are complete from then on
  char host[80];
  char rank[16];
  char driver[32];      // version of the kernel's module
  char command[1024];   // as a shell takes it; a longer one ends with "..."
  char settings[1024];  // the process's CMP_ variables, each with a newline; "..." for more
  char gpus[kMostGpus][64];
};

struct StatisticsHeader {
  char magic[8];  // "CMPSTAT" and a zero
  uint32_t schema;
  uint32_t header_bytes;
  uint32_t slot_bytes;
  std::atomic<uint32_t> slot_count;  // that there is room for; a file has those that are used
  uint32_t tier_count;
  uint32_t tier_steps;
  uint64_t pid;
  uint32_t tier_counter_count;
  uint32_t process_counter_count;
  std::atomic<uint32_t> slots_used;
  uint32_t run_offset;
  char program[64];
  ProcessCounters process;
  StatisticsRun run;
};
static_assert(sizeof(StatisticsHeader) <= 4096);
// What tells of the rest.
constexpr size_t kStatisticsHeadBytes = offsetof(StatisticsHeader, process);
static_assert(kStatisticsHeadBytes % sizeof(uint64_t) == 0);

// The sum over all slots for one tier, or over all tiers.
struct TierTotals {
#define CMP_DECLARE(name, meaning) uint64_t name = 0;
  CMP_TIER_COUNTERS(CMP_DECLARE)
#undef CMP_DECLARE
  uint64_t requests() const { return thread_cache_hits + global_pool_hits + refills + real; }
  uint64_t live_blocks() const { return requests() - frees - real_frees; }
  void Add(const TierTotals& other);
};

class Statistics {
 public:
  constexpr Statistics() = default;

  // Bytes of a page for these tiers.
  static size_t PageBytes(const Tiers& tiers, unsigned tier_count);
  // `page`: PageBytes zeroed bytes.
  void Open(void* page, const Tiers& tiers, unsigned tier_count, uint64_t pid, const char* program);

  // A slot of its own for a thread cache, or nullptr: no memory, or more than half a million are
  // taken. Thread-safe.
  TierCounters* TakeSlot();
  TierCounters* shared_slot() const {
    return reinterpret_cast<TierCounters*>(reinterpret_cast<char*>(header_) +
                                           header_->header_bytes);
  }
  ProcessCounters& process() const { return header_->process; }
  // A free waited since `begin_ns`; for how many nanoseconds.
  uint64_t CountWait(uint64_t begin_ns);
  StatisticsHeader* header() const { return header_; }
  unsigned tier_count() const { return tier_count_; }

  // visit(offset, data, bytes): the slots that are taken, in parts, and then the header, as they
  // stand in a file, `offset` bytes from its beginning. Whole 8-byte words, which other threads may
  // change meanwhile. The beginning of the header last, as a copy: it says how many slots have been
  // visited, those that were taken meanwhile, too. Stops where visit returns false.
  template <typename Visitor>
  bool VisitPieces(Visitor visit) const {
    uint32_t first = 0;
    uint32_t count = 0;
    for (uint32_t slots = 0; first < (slots = slots_.load(std::memory_order_acquire));
         first += count) {
      const uint32_t in_part = kStatisticsSlots - first % kStatisticsSlots;
      count = slots - first < in_part ? slots - first : in_part;
      const size_t offset = header_->header_bytes + size_t{first} * header_->slot_bytes;
      if (!visit(offset, static_cast<const void*>(Slot(first)),
                 size_t{count} * header_->slot_bytes)) {
        return false;
      }
    }
    uint64_t copy[kStatisticsHeadBytes / sizeof(uint64_t)];
    CopyHead(copy, first);
    return visit(kStatisticsHeadBytes, static_cast<const void*>(&header_->process),
                 header_->header_bytes - kStatisticsHeadBytes) &&
           visit(size_t{0}, static_cast<const void*>(copy), sizeof copy);
  }

  // Sums that other threads may change meanwhile.
  TierTotals TotalsOfTier(unsigned tier) const;
  TierTotals Totals() const;

 private:
  static constexpr uint32_t kMostParts = 1024;
  TierCounters* Slot(uint32_t index) const {
    char* part = parts_[index / kStatisticsSlots].load(std::memory_order_acquire);
    return reinterpret_cast<TierCounters*>(part +
                                           size_t{index % kStatisticsSlots} * header_->slot_bytes);
  }
  bool Grow(uint32_t index);  // REQUIRES: lock_ held
  // kStatisticsHeadBytes, telling of `slots` slots.
  void CopyHead(uint64_t* to, uint32_t slots) const;

  StatisticsHeader* header_ = nullptr;
  unsigned tier_count_ = 0;
  Mutex lock_;  // for TakeSlot
  std::atomic<uint32_t> slots_{0};
  std::atomic<char*> parts_[kMostParts] = {};  // of kStatisticsSlots slots each
};

// Now, in nanoseconds of a monotonic clock.
uint64_t NowNs();

}  // namespace cmp

#endif  // CMP_CORE_BASE_STATISTICS_H_
