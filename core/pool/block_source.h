// Where blocks come from and go to: the real allocation calls, the real frees, and what is tried
// before an allocation fails.
//
// Invariant: a block is in the side table from before the program can see its address until the
// program's own real free of it begins; one that the pool frees, or the program by a call that may
// be refused, until that has happened. No lock is held here across a real call.
#ifndef CMP_CORE_POOL_BLOCK_SOURCE_H_
#define CMP_CORE_POOL_BLOCK_SOURCE_H_

#include "core/base/statistics.h"
#include "core/contexts/context_pool.h"
#include "core/contexts/readiness.h"
#include "core/driver/device_api.h"
#include "core/driver/host.h"
#include "core/lists/side_table.h"
#include "core/lists/takers.h"
#include "core/pool/allocation.h"
#include "core/pool/hands.h"

namespace cmp {

inline constexpr unsigned kLargeBlocks = ~0U;  // in place of a tier: all blocks of 2 MiB and more

// Of blocks that may differ in size.
inline size_t BytesIn(const Batch& batch) {
  size_t bytes = 0;
  const Block* block = batch.head;
  for (uint32_t i = 0; i < batch.count; ++i, block = block->next) bytes += block->bytes;
  return bytes;
}

// The block that was found in the table, and then not in use: is it still the pool's? False: it is
// no affair of the pool's, its context has ended or may be ending, as may_have_ended(owner) says.
// Waits where that is about to be decided.
template <typename MayHaveEnded>
bool StillFound(const SideTable& table, const Block* block, DeviceAddress address,
                MayHaveEnded may_have_ended) {
  constexpr int kMostWaits = 10'000;  // about ten seconds: who frees it may have no processor
  const HeldContext owner(*block->owner());
  // Now it is the owner's as long as it is found. While it leaves, the driver may have given the
  // address to somebody already: whose it is shows when it has left. But not for ever: as long as
  // its real free waits, it is nobody's.
  const Block* found = table.Find(address);
  Pause pause;
  for (int i = 0; i < kMostWaits && found != nullptr && found == block && found->IsLeaving(); ++i) {
    pause.Wait();
    found = table.Find(address);
  }
  if (found != block || block->owner() != owner.get()) return found != nullptr;
  return !may_have_ended(*owner);
}

// May a real free wait for the device, as cuMemFree does?
enum class Quietly : uint8_t { kNo, kYes };

class BlockSource {
 public:
  BlockSource(const PoolHost& host, Arena& arena, const Tiers& tiers, SideTable& side_table,
              IdleChunks& chunks, Readiness& readiness, Statistics& statistics)
      : host_(host),
        slabs_(arena),
        tiers_(tiers),
        side_table_(side_table),
        chunks_(chunks),
        readiness_(readiness),
        statistics_(statistics) {}

  // Where contexts have the records of their blocks from.
  BlockSlabs& slabs() { return slabs_; }

  // One real allocation, entered in the side table.
  // REQUIRES: `context` is current
  Allocation Make(ContextPool& context, const Request& request, bool last_resort,
                  const DeviceApi& api);

  // A Make that failed is tried again: after every release of idle blocks (of this context, other
  // threads' caches included; then of other contexts of the device), with find_fit() asked first
  // each time, and at last with exactly the requested bytes. May wait for the device, as the real
  // frees do. The last failure is the real call's own. `releases`: those before the Make. Defined
  // in ladder.h.
  template <typename FindFit>
  Allocation MakeAfterReleases(ContextPool& context, const Request& request, uint64_t releases,
                               const DeviceApi& api, FindFit find_fit);

  // Accounts for `bytes` about to be made, or just made, and now and then asks the device, which
  // keeps context.scarce current. True if `bytes` more than the program asked for may be made: a
  // tenth of the device stays really free, or where managed memory moves anyway, free or its.
  bool CheckFreeMemory(ContextPool& context, size_t bytes, const DeviceApi& api);

  // There are `more` bytes of managed memory than there were. True: so much that the device must be
  // asked; else that much less is left to the pool.
  [[nodiscard]] bool NoteManaged(ContextPool& context, size_t more);

  // Asks the device, and keeps current what follows from that; *free: what managed memory leaves to
  // others. False: it cannot be told. REQUIRES: `context` is current, or another one of its device
  bool LookAtMemory(ContextPool& context, const DeviceApi& api, size_t* free);

  // Of the device's memory the context takes so much; small blocks take all of their chunk, which
  // contexts of one device may share.
  size_t Held(const ContextPool& context) const {
    const size_t leaving = context.accounts().leaving();
    const size_t held = context.accounts().reserved() + GapsBeside(context);
    return held > leaving ? held - leaving : 0;
  }
  size_t GapsBeside(const ContextPool& context) const { return chunks_.Gaps(context.device()); }
  // Of that: what would go to the driver as the lists stand, and what would not. Threads' caches
  // have little, which counts as used.
  struct Share {
    size_t used;
    size_t idle;
  };
  Share ShareOf(const ContextPool& context) const {
    const size_t listed = context.global().large_bytes() + chunks_.Bytes(context.device());
    const size_t own = context.accounts().idle() + GapsBeside(context);
    const size_t idle = listed < own ? listed : own;  // chunks may be another context's
    const size_t held = Held(context);
    return {held > idle ? held - idle : 0, idle};
  }
  // Do idle blocks leave managed memory its room, as far as can be said without a look at caches?
  bool LeavesRoom(const ContextPool& context) const {
    const Reserve& reserve = context.accounts().reserve();
    if (!reserve.IsBesideManaged()) [[likely]]
      return true;
    if (!reserve.IsOverRoom(Held(context))) return true;
    const Share share = ShareOf(context);
    return reserve.MayStay(share.used, share.idle);
  }
  // Must the next free look whether idle blocks must go?
  bool IsOver(const ContextPool& context) const {
    return context.accounts().Excess() != 0 || !LeavesRoom(context);
  }

  // Really frees idle blocks of the global pool, about `bytes` of them, and returns how many bytes
  // they were: the ready ones that have waited longest, which waits for nothing, and if those do
  // not suffice, retired ones, once the work of the context from before their frees is done. Not
  // for what was submitted since: it may wait for what the program does next. Where their frees
  // recorded no fence (CMP_FREE_SYNC=none) one is recorded now; where none can be had (old drivers,
  // captures) the real free waits for all of the context's work. For other contexts it waits no
  // more than the real free does: with a large block not at all (measured, two H200s: what copies
  // into it fails), with a small one in the real free.
  size_t ReleaseIdle(ContextPool& context, size_t bytes, const DeviceApi& api);
  // A portion of the ready ones that have been idle since `before` on the global pool's clock,
  // about `bytes`; the bound falls. Quietly: what the driver cannot free without a wait stays.
  size_t ReleaseAged(ContextPool& context, uint64_t before, size_t bytes, Quietly quietly,
                     const DeviceApi& api);
  // Pays what the first free without a wait costs (release_stream.h), with a block made for it,
  // unless it is paid, or memory is scarce or wanted by managed memory; and for some ticks not
  // while there are real allocations. Until then a little over the bound stays, unless the next
  // free knows of no work that it would wait for; that one, and frees where it is more, keep the
  // bound with cuMemFree, as the program would free itself; but where nobody will pay, the first
  // does.
  void WarmUp(ContextPool& context, const DeviceApi& api);
  void WillBeWarmedUp() { will_be_warmed_up_ = true; }  // before there are blocks
  // Is it still to be paid, and will be before long? Not where memory is short, or was for that.
  bool WillBeWarm(const ContextPool& context) const;
  // Really frees idle blocks that are on no list, in the way that may wait; returns their bytes.
  size_t Free(ContextPool& context, Batch batch, const DeviceApi& api) {
    return Destroy(context, batch, Work::kRetired, api);
  }
  // Can idle blocks be freed without a wait, as far as that is known?
  bool CanFreeQuietly() const;
  // The same as ReleaseIdle for a real call that lacks memory, and the bound falls: large ready
  // ones first. What smaller ones take goes back to the driver only where all of their chunk does.
  // kAllocation: a fence that is recorded now is waited for ten seconds at most, and a small block
  // for other contexts a while, before the real free has to. kElsewhere: that is not tried.
  size_t ReleaseForMemory(ContextPool& context, size_t bytes, Patience patience,
                          const DeviceApi& api);
  // The same of what the host keeps idle of the device, which goes at once and waits for nothing.
  size_t ReleaseKept(int device);
  // Around each real free of idle memory, which still counts as idle until this is over: so a real
  // call that failed before finds it idle, or sees this, and is worth another try.
  class [[nodiscard]] Releasing {
   public:
    explicit Releasing(BlockSource& source) : source_(source) {
      // Relaxed: who finds the memory free has asked the driver after this.
      source_.releasing_.fetch_add(1, std::memory_order_relaxed);
    }
    // release: who finds it over sees what was noted.
    ~Releasing() { source_.releasing_.fetch_sub(1, std::memory_order_release); }
    Releasing(const Releasing&) = delete;
    Releasing& operator=(const Releasing&) = delete;
    void Done();  // it was freed

   private:
    BlockSource& source_;
  };
  uint64_t releases() const { return releases_.load(std::memory_order_acquire); }
  // Is another thread at it, or was the latest another thread's, within the last second?
  bool OthersReleaseJustNow() const;
  // Around all that is tried before a call fails for want of memory: no block is made meanwhile
  // that nobody asked for. WarmUp becomes one of the takers and then looks here; who lacks memory
  // says so here, and then waits for the takers. acq_rel: whose change here comes second sees the
  // other's.
  void BeginLack() { lacking_.fetch_add(1, std::memory_order_acq_rel); }
  void EndLack() { lacking_.fetch_sub(1, std::memory_order_release); }
  bool AnyLack() { return lacking_.fetch_add(0, std::memory_order_acq_rel) != 0; }
  // Other threads may have in hand what is idle. Waits until it is free or on a list: takers.h.
  void AwaitTakers(int device) { takers_.Await(device); }
  DeviceTakers& takers() { return takers_; }
  Hands hands(int device) const { return hands_.Of(device); }
  // While it lives, this thread takes blocks of `context` off its lists to really free them: it is
  // awaited for them, and the context does not end meanwhile.
  struct [[nodiscard]] Hand {
    Hand(BlockSource& source, ContextPool& context, Quietly quietly = Quietly::kNo)
        : place(source.hands_.PlaceOf(context.device())),
          quiet(quietly == Quietly::kYes ? 1 : 0),
          taking(source.takers_.Of(context.device())),
          user(context) {
      // Relaxed: who finds blocks missing in the sums (acquire, and released by who takes them)
      // sees these.
      place.quiet.fetch_add(quiet, std::memory_order_relaxed);
      place.now.fetch_add(1, std::memory_order_relaxed);
    }
    ~Hand() {
      place.quiet.fetch_sub(quiet, std::memory_order_relaxed);
      place.ended.fetch_add(1, std::memory_order_release);
      place.now.fetch_sub(1, std::memory_order_release);
    }
    Hand(const Hand&) = delete;
    Hand& operator=(const Hand&) = delete;
    HandsByDevice::Place& place;
    const int quiet;
    Takers::Taking taking;
    ContextPool::User user;
  };
  // Before `bytes` are really allocated for the program, more than a little, where that would cross
  // a bound that follows the program: releases large ready blocks, 16 at most, as far as that waits
  // for nothing. What is left, and a little, goes after it, in the thread or a free. Under a fixed
  // bound all does: a free finds the more ready blocks, and need wait the less for retired ones.
  // A moment ago none of the ready blocks would serve.
  void MakeRoom(ContextPool& context, size_t bytes, const DeviceApi& api);
  // `freed` bytes were freed. Brings the context back under its bound if it is over it, or nearer
  // to it by twice as much, and at least 64 MiB, or under CMP_RESERVE=auto by one block while it
  // is not far over it: no free pays for much. Waits for retired ones as ReleaseIdle does, where
  // the ready ones are not that much.
  void Trim(ContextPool& context, size_t freed, const DeviceApi& api);
  // Is it not far over it, and can a thread of the pool's release what is ready without a wait,
  // now, or before long where this free might have to wait for it?
  bool MayTrimAside(const ContextPool& context) const;
  // In that thread: releases one block. Returns its bytes; 0: nothing is over, or ready.
  size_t TrimAside(ContextPool& context, const DeviceApi& api);

  // A block of `bytes` was really allocated, with memory released for the bound alone; one of at
  // most `most` would have served. If such a one was released for the bound since `since_ns`, the
  // bound grows.
  void NoteMade(ContextPool& context, size_t bytes, size_t most, uint64_t since_ns,
                const DeviceApi& api);

  // `bytes` of idle memory were given back, not for the bound, which falls by as much.
  void NoteGivenBack(ContextPool& context, size_t bytes);

  // Bytes of a block beyond the request that it serves, from 2 MiB up beyond the rounded one.
  size_t MoreThanAsked(size_t block_bytes, size_t requested) const {
    if (block_bytes < kLargeGranule) return block_bytes - requested;
    const size_t rounded = tiers_.RoundedBytes(requested);
    return block_bytes > rounded ? block_bytes - rounded : 0;
  }
  size_t MoreThanAsked(const Block& block) const {
    return MoreThanAsked(block.bytes, block.requested);
  }

  // A block that the program had is no longer the pool's: its free is a real one, whoever makes it,
  // and counted. The caller owns the block (it won TakeFromProgram). False if the context was
  // dropped meanwhile: then the memory is gone already and must not be freed.
  bool ForgetFreed(Block* block);
  // Forgets every block of a closed context that has no users. The records are used again, but for
  // those that another thread has in hand. True: nobody has any.
  bool ForgetAll(ContextPool& context);

  // The pool is off for the context. From then on every call is real: of one that is broken so that
  // the program sees the real errors.
  void Close(ContextPool& context, ContextPool::Why why = ContextPool::Why::kBroken);

  // The real free of memory that the program gave back. Counted and timed.
  int RealFree(DeviceAddress address, const DeviceApi& api);

  // Contexts besides the one that is short of memory whose idle blocks may help.
  using OtherContexts = size_t (*)(void* self, ContextPool& except, size_t bytes,
                                   const DeviceApi& api);
  void SetOtherContexts(OtherContexts release, void* self) {
    release_others_ = release;
    others_ = self;
  }

 private:
  // Really frees idle blocks of `context` that are on no list any more; returns their bytes. What
  // cannot be freed (the context is ending, a capture forbids it) goes back to the global pool,
  // with the batch's stamp: kReady, or another context may still use it. kDone: the context's work
  // is done, and the real free need not wait for others'. kDoneQuietly: see ReleaseAged.
  // kDoneForBound: in a free of the program's, which would have waited itself. kDoneForBoundAside:
  // the same in the ageing thread or before an allocation, and quietly. kRetired: work is
  // not done that the real free has to wait for. REQUIRES: the caller is one of the takers since
  // before it took the batch
  enum class Work { kDone, kDoneForBound, kDoneForBoundAside, kDoneQuietly, kRetired };
  static bool IsQuiet(Work work) {
    return work == Work::kDoneQuietly || work == Work::kDoneForBoundAside;
  }
  size_t Destroy(ContextPool& context, Batch batch, Work work, const DeviceApi& api);
  // About `bytes` of the global pool's, retired ones included, of what was freed before `begin`, a
  // Fences::Step.
  size_t DestroyIdle(ContextPool& context, size_t bytes, uint64_t begin, Patience patience,
                     const DeviceApi& api);
  // The same of retired ones, one fence after the other; what is done is destroyed as `done` says.
  size_t DestroyRetired(ContextPool& context, size_t bytes, uint64_t begin, Patience patience,
                        Work done, const DeviceApi& api);
  bool MakeAndFree(ContextPool& context, const DeviceApi& api);
  int FreeIdle(ContextPool& context, DeviceAddress address, Work work, const DeviceApi& api);
  static bool MustLook(ContextPool& context, size_t bytes);
  bool MayMakeBesideManaged(const ContextPool& context, size_t bytes) const;
  void CountExtra(ContextPool& context);      // by which the bound has grown
  int CountFree(uint64_t begin, int status);  // returns the status
  int RealAllocate(size_t bytes, bool last_resort, const DeviceApi& api, DeviceAddress* address);
  bool Attach(ContextPool& context, Block* block, BlockState state, Block** displaced);
  // Its reverse: from now on the memory is not the pool's. The state that it was in; kUnused: the
  // context was dropped meanwhile.
  BlockState Detach(Block* block);
  // The same, and its record may be used again. REQUIRES: the caller owns the block
  bool Forget(Block* block);
  void CountFreed(const Block& block);  // a block that the program had
  void Register(ContextPool& context, const Request& request, Allocation* made);

  const PoolHost& host_;
  DeviceTakers takers_;
  HandsByDevice hands_;
  // Real frees of idle memory; whose the latest was, and when. Relaxed: the release of releases_,
  // of releasing_ or of who has left the takers publishes them.
  std::atomic<uint64_t> releases_{0};
  std::atomic<const void*> released_by_{nullptr};
  std::atomic<uint64_t> released_at_{0};
  std::atomic<int> releasing_{0};
  std::atomic<int> lacking_{0};
  BlockSlabs slabs_;
  const Tiers& tiers_;
  SideTable& side_table_;
  IdleChunks& chunks_;
  Readiness& readiness_;
  Statistics& statistics_;
  bool will_be_warmed_up_ = false;
  OtherContexts release_others_ = nullptr;
  void* others_ = nullptr;
};

}  // namespace cmp

#endif  // CMP_CORE_POOL_BLOCK_SOURCE_H_
