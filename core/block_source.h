// Where blocks come from and go to: the real allocation calls, the real frees, and what is tried
// before an allocation fails.
//
// Invariant: a block is in the side table from before the program can see its address until before
// the real free that ends it. No lock is held here across a real call.
#ifndef CMP_CORE_BLOCK_SOURCE_H_
#define CMP_CORE_BLOCK_SOURCE_H_

#include "core/context_pool.h"
#include "core/device_api.h"
#include "core/host.h"
#include "core/side_table.h"
#include "core/statistics.h"

namespace cmp {

// What served an allocation: a real call for it alone, one for the pool, or an idle block, which is
// counted and handed out already.
enum class Served : uint8_t { kReal, kRefill, kThreadCache, kGlobalPool };

// What is asked of a real call: `bytes` for a program that wants `requested`, counted in `tier`.
struct Request {
  size_t requested;
  size_t bytes;
  unsigned tier;
  BlockState state;  // of the block that it becomes; kIdle: the caller's, who lists it
};

// What an allocation came to. `bytes`, those of its block, are 0 with a set `address` when the
// allocation is real and not entered in the side table (no bookkeeping memory, an address outside
// its range, a context that has just ended): such memory is the program's own affair, as without
// the pool. No pointer to a block that the program has: another thread may end its context at any
// time, and then the record becomes another block's.
struct Allocation {
  int status = kSuccess;
  DeviceAddress address = 0;
  size_t bytes = 0;
  Served served = Served::kReal;
  Block* idle = nullptr;  // where kIdle was asked for

  bool pooled() const { return bytes != 0; }
};

// May a real free wait for the device, as cuMemFree does?
enum class Quietly : uint8_t { kNo, kYes };

class BlockSource {
 public:
  BlockSource(const PoolHost& host, Arena& arena, const Tiers& tiers, SideTable& side_table,
              IdleChunks& chunks, Statistics& statistics)
      : host_(host),
        slabs_(arena),
        tiers_(tiers),
        side_table_(side_table),
        chunks_(chunks),
        statistics_(statistics) {}

  // Where contexts have the records of their blocks from.
  BlockSlabs& slabs() { return slabs_; }

  // One real allocation, entered in the side table.
  // REQUIRES: `context` is current
  Allocation Make(ContextPool& context, const Request& request, bool last_resort,
                  const DeviceApi& api);

  // A failed Make is tried again: after every release of idle blocks (of this context, other
  // threads' caches included; then of other contexts of the device), with find_fit() asked first
  // each time, and at last with exactly the requested bytes. May wait for the device, as the real
  // frees do. The last failure is the real call's own.
  template <typename FindFit>
  Allocation MakeAfterReleases(ContextPool& context, const Request& request, const DeviceApi& api,
                               FindFit find_fit);

  // Accounts for `bytes` about to be made, or just made, and now and then asks the device, which
  // keeps context.scarce current. True if `bytes` more than the program asked for may be made: a
  // tenth of the device stays really free.
  bool CheckFreeMemory(ContextPool& context, size_t bytes, const DeviceApi& api);

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
  // Must the next free look whether idle blocks must go?
  bool IsOver(const ContextPool& context) const {
    return context.accounts().Excess() != 0 ||
           context.accounts().reserve().IsOverRoom(Held(context));
  }

  // Really frees idle blocks of the global pool, about `bytes` of them, and returns how many bytes
  // they were: the ready ones that have waited longest, which waits for nothing, and if those do
  // not suffice, retired ones, for whose work the real free waits.
  size_t ReleaseIdle(ContextPool& context, size_t bytes, const DeviceApi& api);
  // Ready ones that have been idle since `before` on the global pool's clock, about `bytes`; the
  // bound falls. Quietly: what the driver cannot free without a wait stays.
  size_t ReleaseAged(ContextPool& context, uint64_t before, size_t bytes, Quietly quietly,
                     const DeviceApi& api);
  // The same for a real call that lacks memory, and the bound falls: large ready ones first. What
  // smaller ones take goes back to the driver only where all of their chunk does.
  size_t ReleaseForMemory(ContextPool& context, size_t bytes, const DeviceApi& api);
  // Another thread may have taken what is idle and be about to free it. If so, waits for its next
  // real free and returns true: it is worth another try.
  bool AwaitReleases() const;
  // Grows with every real free of an idle block.
  uint64_t releases() const { return releases_.load(std::memory_order_acquire); }
  // `freed` bytes were freed. Brings the context back under its bound if it is over it, or nearer
  // to it by twice as much, and at least 64 MiB: no free pays for much.
  void Trim(ContextPool& context, size_t freed, const DeviceApi& api);

  // A block of `bytes` was really allocated, with no memory released for it; one of at most `most`
  // would have served. If such a one was released for the bound since `since_ns`, the bound grows.
  void NoteMade(ContextPool& context, size_t bytes, size_t most, uint64_t since_ns,
                const DeviceApi& api);

  // `bytes` of idle memory were given back, not for the bound, which falls by as much.
  void NoteGivenBack(ContextPool& context, size_t bytes);

  // Counts that a block in use ends in a real free, whoever makes it.
  void CountRealFree(const Block& block);
  // Bytes of a block beyond the request that it serves, from 2 MiB up beyond the rounded one.
  size_t MoreThanAsked(size_t block_bytes, size_t requested) const {
    if (block_bytes < kLargeGranule) return block_bytes - requested;
    const size_t rounded = tiers_.RoundedBytes(requested);
    return block_bytes > rounded ? block_bytes - rounded : 0;
  }
  size_t MoreThanAsked(const Block& block) const {
    return MoreThanAsked(block.bytes, block.requested);
  }

  // Takes `block` out of the side table and forgets it, without a real call. The caller owns the
  // block (it won TakeFromProgram, or took it off a list). False if the context was dropped
  // meanwhile: then the memory is gone already and must not be freed.
  bool Forget(Block* block);
  // Forgets every block of a closed context that has no users. The records are used again, but for
  // those that another thread has in hand. True: nobody has any.
  bool ForgetAll(ContextPool& context);

  // The pool is off for the context: it has failed. From then on every call is real, so that the
  // program sees the real errors.
  void Close(ContextPool& context);

  // The real free of memory that the program gave back. Counted and timed.
  int RealFree(DeviceAddress address, const DeviceApi& api);

  // Contexts besides the one that is short of memory whose idle blocks may help.
  using OtherContexts = size_t (*)(void* self, ContextPool& except, const DeviceApi& api);
  void SetOtherContexts(OtherContexts release, void* self) {
    release_others_ = release;
    others_ = self;
  }

 private:
  // Really frees idle blocks of `context` that are on no list any more; returns their bytes. What
  // cannot be freed (the context is ending, a capture forbids it) goes back to the global pool.
  // kRetired: the blocks' work may not be done, and is waited for. kDoneQuietly: see ReleaseAged.
  enum class Work { kDone, kDoneQuietly, kRetired };
  size_t Destroy(ContextPool& context, Batch batch, Work work, const DeviceApi& api,
                 bool for_bound = false);
  int FreeIdle(ContextPool& context, DeviceAddress address, Work work, const DeviceApi& api);
  void CountExtra(ContextPool& context);  // by which the bound has grown
  // While it lives, blocks may be off the lists that are about to be freed: who finds none there
  // awaits them (AwaitReleases). seq_cst: taken before the lists are looked at.
  class [[nodiscard]] Taking {
   public:
    explicit Taking(BlockSource& source) : source_(source) {
      source_.releasing_.fetch_add(1, std::memory_order_seq_cst);
    }
    ~Taking() { source_.releasing_.fetch_sub(1, std::memory_order_acq_rel); }
    Taking(const Taking&) = delete;
    Taking& operator=(const Taking&) = delete;

   private:
    BlockSource& source_;
  };
  int CountFree(uint64_t begin, int status);  // returns the status
  int RealAllocate(size_t bytes, bool last_resort, const DeviceApi& api, DeviceAddress* address);
  // Forget without giving the record back, and its reverse.
  bool Detach(Block* block) { return DetachFrom(block) != BlockState::kUnused; }
  BlockState DetachFrom(Block* block);  // the state that it was in
  bool Attach(ContextPool& context, Block* block, BlockState state, Block** displaced);
  void Register(ContextPool& context, const Request& request, Allocation* made);

  const PoolHost& host_;
  std::atomic<int> releasing_{0};      // threads that take blocks off the lists and free them
  std::atomic<uint64_t> releases_{0};  // real frees that Destroy has made
  BlockSlabs slabs_;
  const Tiers& tiers_;
  SideTable& side_table_;
  IdleChunks& chunks_;
  Statistics& statistics_;
  OtherContexts release_others_ = nullptr;
  void* others_ = nullptr;
};

template <typename FindFit>
Allocation BlockSource::MakeAfterReleases(ContextPool& context, const Request& request,
                                          const DeviceApi& api, FindFit find_fit) {
  context.EmptyCaches(true);
  for (size_t wanted = request.bytes;; wanted *= 2) {
    if (const Allocation fit = find_fit(); fit.pooled()) return fit;
    size_t released = ReleaseForMemory(context, wanted, api);
    if (released == 0) {
      context.EmptyCaches(true);  // what other threads freed meanwhile
      released = ReleaseForMemory(context, wanted, api) + release_others_(others_, context, api);
    }
    const Allocation made = Make(context, request, false, api);
    if (made.status != kOutOfMemory) return made;
    if (released == 0 && !AwaitReleases()) break;
  }
  // A block of an odd size fits no tier: it is really freed when it comes back.
  Request exact = request;
  exact.bytes = request.requested;
  if (exact.bytes != request.bytes) exact.state = BlockState::kUnpooled;
  return Make(context, exact, true, api);
}

}  // namespace cmp

#endif  // CMP_CORE_BLOCK_SOURCE_H_
