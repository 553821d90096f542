// Page-locked memory of the host, kept as device memory is: blocks of one real allocation each,
// thread caches, global pools, fences. What differs from the pool of device memory:
//
//   where blocks come from   the driver's calls for page-locked memory (PageLockedCalls), once for
//                            each context and flags: a heap
//   ready                    every context's work may use it, on whatever device, and the host
//                            writes it as soon as it has it: no fence of any context may be open
//                            that was begun for work from before the free (Readiness::StampOfAll)
//   how much is kept         what is idle, not what is held: the host's own shortage kills, and
//                            no call fails before that could be tried again (CMP_HOST)
//   how it goes back         the real free waits for the device, and there is none that does not:
//                            it is made in frees of the program's, which would have waited, and
//                            else only while no work is known to be unfinished
//
// A heap is a ContextPool of no device, whose fences are not used: caches, lists, records and
// accounts are what it is for. Its context holds the fences.
//
//   idle memory  =  what listed caches may hold (ContextPool::allowed)  +  what is on global pools
//                +  what is being really freed                           <=  bound
//
// A cache may hold nothing until it is allowed to, for as long as it is listed; so hits take from
// it and give to it without looking at anything shared. Whoever adds to either sum does it under
// lock_, which is taken before those of caches and lists, and never across a real call.
//
// All functions are thread-safe.
#ifndef CMP_CORE_POOL_PAGE_LOCKED_POOL_H_
#define CMP_CORE_POOL_PAGE_LOCKED_POOL_H_

#include "core/base/options.h"
#include "core/contexts/context_pool.h"
#include "core/contexts/readiness.h"
#include "core/driver/host.h"
#include "core/lists/side_table.h"
#include "core/lists/thread_cache.h"
#include "core/pool/allocation.h"
#include "core/pool/block_source.h"
#include "core/pool/thread_memory.h"

namespace cmp {

// The page-locked memory of one context that was made with the same flags.
class PageLockedHeap : public ContextPool {
 public:
  using ContextPool::ContextPool;

  // For who holds it, or has a block of it.
  ContextPool& context() const { return *context_; }
  unsigned flags() const { return flags_; }

 private:
  friend class PageLockedPool;
  ContextPool* context_ = nullptr;  // held from when the heap is opened until it is spare
  unsigned flags_ = 0;
};

class PageLockedPool {
 public:
  // What an allocation was made with: the flags of cuMemHostAlloc, or that it was cuMemAllocHost.
  static constexpr unsigned kByAllocHost = 8;
  static constexpr unsigned kMostFlags = kByAllocHost;

  // nullptr when memory is exhausted, or nothing may be kept. `host.page_locked` is there.
  static PageLockedPool* Create(const Options& options, const PoolHost& host, Contexts& contexts,
                                Readiness& readiness, Arena& arena);

  // The hit path: a block of this thread's cache for the context and flags, handed out, or 0, which
  // says nothing.
  DeviceAddress AllocHit(ContextHandle current, unsigned flags, size_t bytes) {
    ThreadCache* const cache = t_memory.FindPageLocked(KeyOf(current, flags));
    if (cache == nullptr) [[unlikely]]
      return 0;
    if (bytes - 1 < hit_bytes_) [[likely]]
      return cache->AllocHit(bytes);
    return AllocLargeHit(*cache, bytes);
  }
  // The rest: idle or really allocated. An address of 0 with kSuccess: the caller makes the real
  // call, whose memory is not the pool's. REQUIRES: `context` is current, and held
  Allocation Alloc(ContextPool& context, unsigned flags, size_t bytes);

  Block* Find(DeviceAddress address) const { return side_table_.Find(address); }
  Block* FindAround(DeviceAddress address) const { return side_table_.FindAround(address); }
  static PageLockedHeap& HeapOf(const Block& block) {
    return static_cast<PageLockedHeap&>(*block.owner());
  }
  // As Pool::StillHas.
  bool StillHas(const Block* block, DeviceAddress address) const;

  // The hit path of a free, after the block was taken from the program: back on this thread's
  // shelf. False: nothing was done. REQUIRES: the block is ready
  bool RetireHit(Block* block, const PageLockedHeap& heap);
  // After TakeFromProgramAt returned kLive: the block may be handed out again once fences above
  // `stamp` have passed in every context. Over the bound it makes room by real frees, or really
  // frees the block: the status is the real call's.
  int Retire(Block* block, Stamp stamp);
  // Or it ends in a real free.
  int FreeReal(Block* block);
  // The real free of an address that is no block's.
  int Release(DeviceAddress address) { return calls_.release(address); }
  // The stamp of a block whose free is settled as `stamp` for its own context.
  Stamp StampFor(const PageLockedHeap& heap, Stamp stamp) const {
    const bool several = contexts_.count() > 1 && RuleIsOn(Rule::kPageLockedInEveryContext);
    return several ? readiness_.StampOfAll(heap) : stamp;
  }
  // A block in use will be really freed when it is freed.
  void Unpool(DeviceAddress address);

  // The context has ended, and has no user: its heaps go without a real call.
  void DropContext(ContextPool& context);
  // A tick: what caches hold moves to the lists, what has been idle for kDecayNs goes back, as far
  // as that waits for nothing. False: nothing is idle.
  static constexpr uint64_t kDecayNs = 2'000'000'000;
  static constexpr uint64_t kTickNs = kDecayNs / GlobalPool::kMarks;
  bool Age(const std::atomic<bool>& stop);
  bool HasIdle();
  // Really frees what is idle, about `bytes` of it, for a call that lacks memory; waits for the
  // work that was submitted by now, but not for ever. Not during captures. Returns the bytes.
  size_t ReleaseForMemory(size_t bytes);
  // Waits for what other threads are really freeing, but not for ever. True: they did, just now.
  bool AwaitReleases();
  // The heaps' counters have changed: those of the process say so (host_*).
  void TellStatistics(ProcessCounters& process);

  // Page-locked memory of this process is not the pool's any more: a thread has a NUMA policy.
  bool bypassed() const { return bypassed_.load(std::memory_order_relaxed); }
  size_t bound() const { return bound_.load(std::memory_order_relaxed); }
  // What may be idle just now, at most.
  size_t IdleBytes() const;
  const Statistics& statistics() const { return statistics_; }

 private:
  PageLockedPool(const Options& options, const PoolHost& host, Contexts& contexts,
                 Readiness& readiness, Arena& arena);

  // By default at most this, and this part of what the process may have, is idle.
  static constexpr size_t kMostIdle = 256 * kMiB;
  static constexpr size_t kShareOfLimit = 16;

  // What a thread remembers a heap's cache by: no context's handle, and each is another one. Where
  // it is remembered follows from the lower bits.
  static ContextHandle KeyOf(ContextHandle context, unsigned flags) {
    const uintptr_t its = flags + 1;
    return reinterpret_cast<ContextHandle>((reinterpret_cast<uintptr_t>(context) ^ its << 4) |
                                           its << kKeyShift);
  }
  static constexpr unsigned kKeyShift = 57;  // no address has higher bits
  DeviceAddress AllocLargeHit(ThreadCache& cache, size_t bytes);
  bool HasShelf(unsigned tier) const { return tier < limits_.tiers; }
  size_t SlackFor(size_t rounded) const {
    if (rounded < kLargeGranule) return 0;
    return static_cast<size_t>(static_cast<double>(rounded) * options_.slack);
  }
  // The heap, made if there is none; nullptr: no place, no memory.
  PageLockedHeap* HeapFor(ContextPool& context, unsigned flags);
  ThreadCache* CacheFor(PageLockedHeap& heap);
  // Held meanwhile: see Contexts::ForEachIf.
  template <typename Visitor>
  void ForEachHeap(Visitor visit) const {
    const size_t used = heaps_used_.load(std::memory_order_acquire);
    for (size_t i = 0; i < used; ++i) {
      PageLockedHeap* heap = heaps_[i].load(std::memory_order_acquire);
      if (heap == nullptr) continue;
      const HeldContext held(*heap);
      if (heaps_[i].load(std::memory_order_acquire) == heap) visit(*heap);
    }
  }
  Allocation TakeIdle(PageLockedHeap& heap, ThreadCache& cache, size_t bytes, size_t rounded,
                      unsigned tier);
  Allocation TakeReady(PageLockedHeap& heap, ThreadCache& cache, size_t bytes, size_t rounded,
                       unsigned tier);
  Allocation HandOut(PageLockedHeap& heap, ThreadCache& cache, Block* block, size_t bytes,
                     unsigned tier);
  bool PromoteRetired(PageLockedHeap& heap, ThreadCache& cache, unsigned tier, size_t rounded);
  void PromotePassed(PageLockedHeap& heap);
  void LearnWhatCounts(size_t bytes);
  void AllowMore(PageLockedHeap& heap, ThreadCache& cache, size_t bytes, size_t large_bytes);
  bool PutOnShelf(PageLockedHeap& heap, ThreadCache& cache, Block* block, Stamp stamp,
                  Batch* leaving);
  bool Put(PageLockedHeap& heap, Batch batch);
  bool MakeRoom(PageLockedHeap& heap, size_t bytes);
  size_t Destroy(PageLockedHeap& heap, Batch batch);
  void EmptyAllCaches();
  // One of them is who takes blocks off the lists to really free them, from before that.
  Takers& takers() { return source_.takers().Of(kAllDevices); }
  bool IsCaptureUnderWay() const;
  bool AwaitWork(PageLockedHeap& heap);

  const Options& options_;
  const PoolHost& host_;
  const PageLockedCalls& calls_;
  Contexts& contexts_;
  Readiness& readiness_;
  Arena& arena_;
  const Tiers tiers_;
  CacheLimits limits_;
  size_t hit_bytes_ = 0;
  size_t cache_bytes_ = 0;  // what a cache may have on the shelves of its tiers
  Options heap_options_;
  SideTable side_table_{arena_};
  IdleChunks chunks_{side_table_};
  Statistics statistics_;
  BlockSource source_;
  SpareCaches spare_caches_;
  GlobalPool::SpareLists spare_lists_;
  std::atomic<size_t> bound_{0};
  std::atomic<size_t> leaving_{0};
  std::atomic<bool> bypassed_{false};
  std::atomic<bool> knows_what_counts_{false};
  uint64_t marked_ns_ = 0;  // by Age
  static constexpr size_t kMostHeaps = 256;
  std::atomic<size_t> heaps_used_{0};
  std::atomic<PageLockedHeap*> heaps_[kMostHeaps] = {};
  Mutex heaps_lock_;
  ContextPool* spare_heaps_ = nullptr;  // through next_spare
  Mutex lock_;
};

}  // namespace cmp

#endif  // CMP_CORE_POOL_PAGE_LOCKED_POOL_H_
