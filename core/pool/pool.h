// The pool of one process: Alloc and Free, and the only mover of blocks between thread caches and
// global pools. It knows contexts, fences and real calls, and nothing of preloading or streams: who
// calls Free has already settled what the free owes to the program, and says for which fence the
// block itself must wait.
//
// All functions are thread-safe. No lock is held across a real call.
#ifndef CMP_CORE_POOL_POOL_H_
#define CMP_CORE_POOL_POOL_H_

#include "core/base/memory.h"
#include "core/base/options.h"
#include "core/base/statistics.h"
#include "core/base/tiers.h"
#include "core/contexts/contexts.h"
#include "core/contexts/device_links.h"
#include "core/contexts/readiness.h"
#include "core/driver/device_api.h"
#include "core/driver/driver.h"
#include "core/lists/side_table.h"
#include "core/lists/thread_cache.h"
#include "core/pool/ageing.h"
#include "core/pool/block_source.h"
#include "core/pool/page_locked_pool.h"
#include "core/pool/thread_memory.h"

namespace cmp {

class Pool {
 public:
  // The process's pool, made of `options`; nullptr when memory is exhausted. `statistics_page` has
  // StatisticsBytes(options) zeroed bytes. `host` must outlive the pool.
  static Pool* Create(const Options& options, void* statistics_page, uint64_t pid,
                      const char* program, const PoolHost& host = kBlindHost);
  static size_t StatisticsBytes(const Options& options);

  // The hit path of an allocation in the context that current() says is current, where it is asked:
  // a block of this thread's cache, handed out, or 0, which says nothing (call Alloc). Of what has
  // a shelf of its tier.
  template <typename Current>
  DeviceAddress AllocSmallHit(Current current, size_t bytes) {
    // bytes - 1 wraps for 0, which is never a hit. hit_bytes_ is 0 where hits must not happen.
    if (bytes - 1 >= hit_bytes_) [[unlikely]]
      return 0;
    const ContextHandle handle = current();
    const ThreadMemory::Entry& last = t_memory.last;
    if (last.handle == handle && last.IsOfNow()) [[likely]]
      return last.cache->AllocHit(bytes);
    return AllocHitElsewhere(handle, bytes);
  }
  // Of what has none: from the large shelf, or the global pool. REQUIRES: IsLarge(bytes)
  DeviceAddress AllocLargeHit(ContextHandle current, size_t bytes);
  bool IsLarge(size_t bytes) const { return hit_bytes_ != 0 && bytes > hit_bytes_; }
  // Of either.
  DeviceAddress AllocHit(ContextHandle current, size_t bytes) {
    const DeviceAddress address = AllocSmallHit([=] { return current; }, bytes);
    return address != 0 || !IsLarge(bytes) ? address : AllocLargeHit(current, bytes);
  }
  // The hit path of a free: Take, if the program has the block and a free brings it into the pool.
  // False says nothing (call Take).
  bool TakeLive(Block* block, DeviceAddress address) {
    if (!block->TakeFromProgram(BlockState::kLive)) [[unlikely]]
      return false;
    if (block->address == address) [[likely]]
      return true;
    block->GiveBack(BlockState::kLive);
    return false;
  }
  // And then, if the block is ready and its context's pool is on: Retire, where that is only to put
  // the block back on this thread's shelf. False: nothing was done. Only for a block with a shelf,
  // of the context that this thread used last; RetireHitElsewhere: for any, and requires no more.
  // REQUIRES: `owner` is block's, and owner.fences().Settled()
  bool RetireHit(Block* block, const ContextPool& owner) {
    const ThreadMemory::Entry& last = t_memory.last;
    return last.owner == &owner && RetireInto(last, block);
  }
  bool RetireHitElsewhere(Block* block);

  // An allocation of bytes > 0 in `context`, which must be current: from this thread's cache, the
  // global pool, or a real call. The status of a failure is the real call's own.
  Allocation Alloc(ContextPool& context, size_t bytes, const DeviceApi& api);
  // A real call for bytes > 0, whose memory will be really freed: while this thread captures, or
  // when the pool is off. `context` is the current one's, nullptr if it has none. Short of memory,
  // idle blocks are released and it is tried again.
  Allocation AllocReal(ContextPool* context, size_t bytes, const DeviceApi& api);

  // The block whose base is `address`, in any state, or nullptr: not ours.
  Block* Find(DeviceAddress address) const { return side_table_.Find(address); }
  // The same for any byte of a block.
  Block* FindAround(DeviceAddress address) const { return side_table_.FindAround(address); }
  // If `address` is in a block, that one; else any, or nullptr.
  Block* FindNear(DeviceAddress address) const { return side_table_.FindNear(address); }
  // The block that was found there, and then not in use: does the pool still have the address?
  // False: it is no affair of the pool's, its context has ended or may be ending. Waits where that
  // is about to be decided.
  bool StillHas(const Block* block, DeviceAddress address) const;

  // Free, in two steps, so that the caller can settle in between what the free owes.
  // First: takes the block at `address` from the program; kIdle says that somebody freed it before,
  // kUnused that its context is gone.
  static BlockState Take(Block* block, DeviceAddress address) {
    return block->TakeFromProgramAt(address);
  }
  // Then, after Take returned kLive: the block may be handed out again once a fence above `stamp`
  // has passed; kReady: from now on. Where the bound demands it, may wait for older fences of the
  // context and make real frees. True: it has waited.
  bool Retire(Block* block, Stamp stamp, const DeviceApi& api);
  // Or, after Take returned kLive or kUnpooled: the block ends in a real free, whose status this
  // returns.
  int FreeReal(Block* block, const DeviceApi& api);
  // The same for who shall not lose it: where the driver refuses the real free, the program has the
  // block still, and the status says so; else it is kSuccess. Leaves captures alone.
  int FreeRealUnlessRefused(Block* block, const DeviceApi& api);

  // A block in use will be really freed when it is freed. False: not a block in use.
  bool Unpool(DeviceAddress address);
  // Or another call of the program's frees the block at `address`: between these two. Takes it from
  // the program, as Take does; and, if that was in use: forgets it, or it stays with the program as
  // it was, because the call failed.
  static BlockState BeginFreeElsewhere(Block* block, DeviceAddress address);
  void EndFreeElsewhere(Block* block, BlockState taken, bool freed);

  // The open pool of the current context, made if there is none; none without a current context,
  // when the pool is off for it, or when memory is exhausted.
  HeldContext CurrentContextPool(const Driver& driver);
  // The open pool of a context, or none: none yet, or closed. A context of the same handle and
  // another id is dropped first: it was destroyed behind our back.
  HeldContext FindContext(ContextHandle handle, uint64_t id);
  // A pool for a context that has none; none when memory or places are exhausted.
  HeldContext OpenContext(const ContextIdentity& identity);
  // The pool is off for the context: it has failed. Its blocks stay known, so that frees are real
  // frees of blocks that exist.
  void CloseContext(ContextPool& context) { source_.Close(context); }
  // Drops the pool of the current context's handle if that names another context by now: where
  // nobody sees contexts end. Costs a driver call of 10 ns.
  void DropIfGone(const Driver& driver, ContextHandle current);
  // The context was reset or destroyed: its pool and side-table entries are dropped without a real
  // call. Waits for calls of the pool's own about it that other threads are making.
  // REQUIRES: the caller holds it
  void DropContext(ContextPool& context);
  // Visits every context that was opened and not dropped, closed ones included; see Contexts.
  template <typename Visitor>
  void ForEachContext(Visitor visit) {
    contexts_.ForEach(visit);
  }
  const Contexts& contexts() const { return contexts_; }
  Readiness& readiness() { return readiness_; }

  // This thread's cache for a context, which it holds from then on; nullptr when memory is
  // exhausted, or where we would not learn of the thread's end. REQUIRES: the caller holds it, or
  // has a block of it in hand
  ThreadCache* CacheFor(ContextPool& context);

  // What releasing the idle blocks of a device's contexts would give back to the driver: blocks of
  // 2 MiB and more, which have their physical memory to themselves, and wholly idle chunks of
  // smaller ones. Empties every thread's cache, unless they are to be left: then small blocks in
  // them do not count.
  enum class Caches : uint8_t { kLeft, kEmptied };
  size_t ReleasableBytes(int device, Caches caches = Caches::kEmptied);

  // Really frees the idle blocks of all global pools, retired ones included, whose fences are
  // waited for, and those of large shelves; what threads' caches have on the shelves of their
  // tiers, and blocks in use, are not touched. Returns the bytes freed. Where the host does not see
  // contexts end, those of the current context and of primary ones alone.
  size_t ReleaseAll(const DeviceApi& api);
  // The same after emptying every thread's cache.
  size_t ReleaseThreadCaches(const DeviceApi& api);

  // There are `more` bytes of managed memory than there were. Idle blocks that would make it move
  // go, as far as the driver frees them without a wait; others with the next free.
  void LeaveRoomForManaged(size_t more, const Driver& driver);

  // Really frees idle blocks of one device, or all, for a real call that failed for lack of memory:
  // about `bytes`, large ready blocks first. Of all contexts but one.
  size_t ReleaseForRetry(const DeviceApi& api, int device, size_t bytes,
                         const ContextPool* except = nullptr);
  // Of which the host keeps memory idle (PoolHost).
  Devices DevicesWithKept() const { return host_.devices_with_kept(); }
  // What other threads release is worth another try, too: BlockSource. The host does it around
  // what goes of what it keeps.
  void AwaitTakers(int device) { source_.AwaitTakers(device); }
  bool OthersReleaseJustNow() const { return source_.OthersReleaseJustNow(); }
  BlockSource::Releasing BeginRelease() { return BlockSource::Releasing(source_); }
  // May any memory of the context be idle, other threads' hands included? Who finds none, and then
  // that others release nothing just now, has not missed any that went meanwhile.
  bool MayHaveIdle(ContextPool& context) {
    return context.HasIdle() || source_.takers().Of(context.device()).AnyInside();
  }
  Hands hands(int device) const { return source_.hands(device); }
  uint64_t releases() const { return source_.releases(); }

  // A tick of CMP_DECAY: see ageing.h. False: nothing is idle any more. One caller at a time.
  bool Age(const DeviceApi& api);
  // What Ageing::TrimSoon was asked for. In its thread.
  void TrimDue(const DeviceApi& api);
  // The same of page-locked memory: see PageLockedPool::Age.
  bool AgePageLocked(const std::atomic<bool>& stop);
  // The same in a free of the program's, of a block of `context` of `freed` bytes, of that alone:
  // no more than a portion at once, so the frees after a tick go on with it.
  void AgeInFree(ContextPool& context, bool tick, size_t freed, const DeviceApi& api);
  bool CanFreeQuietly() const { return source_.CanFreeQuietly(); }
  // Is any memory idle? Looks at every context.
  bool HasIdle();
  Ageing& ageing() { return ageing_; }

  // Page-locked memory of the host; nullptr: it is not kept (CMP_HOST).
  PageLockedPool* page_locked() const { return page_locked_; }

  Statistics& statistics() { return statistics_; }
  const Tiers& tiers() const { return tiers_; }
  const Options& options() const { return options_; }

  // The thread exits: its caches go to the global pools. Called by a hook that CacheFor registers.
  static void ThreadExit();
  // The process forked: this thread, the child's only one, forgets what it remembers.
  static void ForgetThread();

 private:
  Pool(const Options& options, const PoolHost& host);
  bool RetireLargeHit(ContextPool& context, ThreadCache& cache, Block* block);
  // May large shelves have blocks of the context?
  bool KeepsLarge(const ContextPool& context) const;
  bool FreeLarge(ContextPool& context, ThreadCache& cache, Block* block);
  bool FreeLargeListed(ContextPool& context, ThreadCache& cache, Block* block);
  Allocation TakeIdle(ContextPool& context, ThreadCache* cache, size_t bytes, size_t rounded,
                      unsigned tier, bool* asked);
  Allocation TakeReady(ContextPool& context, ThreadCache* cache, size_t bytes, size_t rounded,
                       unsigned tier);
  // Is the context still there, as far as that can be known?
  enum class Presence { kThere, kUnknown, kGone };
  Presence PresenceOf(const ContextPool& context) const;
  // Visits the contexts that are there; those that are gone are dropped.
  template <typename Visitor>
  void ForEachPresent(Visitor visit) {
    ForEachContext([&](ContextPool& context) {
      const Presence presence = PresenceOf(context);
      if (presence == Presence::kThere) visit(context);
      if (presence == Presence::kGone) DropContext(context);
    });
  }
  bool PromoteRetired(ContextPool& context, ThreadCache* cache, unsigned tier, size_t rounded,
                      bool* asked);
  // Before memory goes back that nobody asked for: what is idle is where it can be found. False:
  // the context may be about to end.
  bool TidyUnasked(ContextPool& context, const DeviceApi& api);
  void TrimAside(ContextPool& context, const DeviceApi& api);  // all that is over, in its thread
  Stamp OldestStamp(ContextPool& context, ThreadCache* cache, unsigned tier, size_t rounded);
  bool MayRoundUp(const ContextPool& context, size_t bytes, size_t rounded) const;
  size_t SlackFor(const ContextPool& context, size_t rounded) const;
  Allocation TakeShared(ContextPool& context, ThreadCache* cache, size_t bytes, size_t rounded,
                        unsigned tier, size_t slack);
  Block* TakeFromGlobal(ContextPool& context, ThreadCache* cache, size_t rounded, unsigned tier,
                        size_t slack);
  Allocation HandOut(ContextPool& context, ThreadCache* cache, Block* block, size_t bytes,
                     unsigned tier);
  bool HasReady(ContextPool& context, ThreadCache* cache, size_t bytes, unsigned tier);
  void PutIdle(ContextPool& context, Batch batch);
  static bool IsNearBound(const ContextPool& context, size_t more);
  bool TidyInFree(ContextPool& context, ThreadCache* cache, size_t bytes, unsigned tier,
                  const DeviceApi& api);
  bool KeepBound(ContextPool& context, ThreadCache* cache, size_t bytes, unsigned tier,
                 const DeviceApi& api);
  bool LeaveRoom(ContextPool& context, size_t more, Quietly quietly, const DeviceApi& api);
  void AwaitRoom(ContextPool& context, const DeviceApi& api);
  uint32_t Refill(ContextPool& context, ThreadCache& cache, unsigned tier, size_t rounded,
                  uint32_t wanted, const DeviceApi& api);
  static void Stock(ContextPool& context, ThreadCache& cache, unsigned tier, Batch batch);
  // Of another context than this thread used last.
  [[gnu::noinline]] static DeviceAddress AllocHitElsewhere(ContextHandle current, size_t bytes);
  void NotePeak(ContextPool& context);
  bool HasShelf(unsigned tier) const { return tier < limits_.tiers; }
  void AskLess(ContextPool& context, ThreadCache& cache, unsigned tier, size_t rounded,
               const DeviceApi& api);
  // The epoch has changed if the context was closed.
  [[gnu::always_inline]] bool RetireInto(const ThreadMemory::Entry& entry, Block* block) {
    if (!entry.IsOfNow()) [[unlikely]]
      return false;
    const size_t tier = block->tier;
    return tier < limits_.tiers && entry.cache->FreeHit(block, tier);
  }

  Arena arena_;
  // What hits read, and nobody writes once it is there. At its end what frees read of the contexts.
  alignas(kCacheLine) const Options options_;
  const Tiers tiers_;
  size_t hit_bytes_ = 0;
  CacheLimits limits_;
  const PoolHost& host_;
  SideTable side_table_{arena_};
  Readiness readiness_{contexts_, host_, statistics_, options_.free_sync != FreeSync::kNone};
  Contexts contexts_;

  // What is written wherever a cache is not enough.
  alignas(kCacheLine) SpareCaches spare_caches_;
  GlobalPool::SpareLists spare_lists_;
  Statistics statistics_;
  IdleChunks chunks_{side_table_};
  BlockSource source_{host_, arena_, tiers_, side_table_, chunks_, readiness_, statistics_};
  // Owner of what AllocReal allocates in contexts that have no pool; a closed context.
  ContextPool unpooled_{tiers_, options_, source_.slabs(), chunks_};
  Ageing ageing_{*this, options_, host_};
  PageLockedPool* page_locked_ = nullptr;
  std::atomic<int64_t> peaks_{0};  // the sum of those of the contexts that there are
};

}  // namespace cmp

#endif  // CMP_CORE_POOL_POOL_H_
