// The central types: what a block is, which states it passes through, and how idle blocks hang
// together. The rest of the code leans on this file.
//
//   real allocation --Register--> kLive --Free--> kIdle --Alloc--> kLive ...
//                                    \              \--release--> kLeaving --real free--> kUnused
//                                     \--Unpool--> kUnpooled --Free--> kUnused (real free)
//   kLive, kUnpooled --another call of the program's frees it--> kLeaving --> kUnused; refused: as
//   it was (one of CudaMemoryPool's: kUnpooled)
//
// Invariants
// - A block is exactly one real allocation: `address` is its base, `bytes` what was asked of the
//   real call. The host never touches the memory behind `address`.
// - A block record is type-stable: it stays a Block for the life of the process, so a stale pointer
//   to it can be read, and its state checked, at any time. Once its context has ended it may be
//   another context's.
// - Exactly one party owns a block: the program (kLive, kUnpooled), one free list (kIdle), or the
//   thread that really frees it (kLeaving; or kIdle on its way between two of these). Only the
//   owner writes its fields; ownership passes through `state` (program to pool), through a thread
//   cache's flag or through a lock of the global pool.
// - bytes of a context: see accounts.h.
#ifndef CMP_CORE_BASE_TYPES_H_
#define CMP_CORE_BASE_TYPES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace cmp {

inline constexpr size_t kKiB = size_t{1} << 10;
inline constexpr size_t kMiB = size_t{1} << 20;
inline constexpr size_t kGiB = size_t{1} << 30;

// The smallest block, and the alignment that CUDA promises for every allocation (CUDA C++
// programming guide, "Device Memory Accesses": at least 256 bytes).
inline constexpr size_t kMinBlock = 256;
// Below 2 MiB the driver cuts blocks in these steps (measured).
inline constexpr size_t kSmallGrain = 512;
// From here up the driver rounds to this size and aligns to it (measured, shared by all drivers
// with 2 MiB pages); the pool rounds requests of this size and more to it.
inline constexpr size_t kLargeGranule = 2 * kMiB;

// CUcontext as an opaque value: core does not need cuda.h to carry it around.
using ContextHandle = void*;
// A device address. Never dereferenced.
using DeviceAddress = uintptr_t;

// What a free block must wait for before it may be handed out: a fence with a larger number; see
// fences.h.
using Stamp = uint64_t;
inline constexpr Stamp kReady = 0;  // nothing

inline constexpr int kAllDevices = -1;  // in place of one
// What is kept by device: those beyond the first 64 share a place.
inline constexpr int kDevicePlaces = 65;
constexpr int PlaceOfDevice(int device) {
  return device >= 0 && device < kDevicePlaces - 1 ? device : kDevicePlaces - 1;
}

// Results of real calls, in the numbering of the layer that made them. cudaError_t and CUresult
// agree on these.
inline constexpr int kSuccess = 0;
inline constexpr int kInvalidValue = 1;
inline constexpr int kOutOfMemory = 2;
inline constexpr int kNotReady = 600;
// The context is broken for good: what a kernel did wrong (an address, an assertion, an
// instruction, too long a run, ...), hardware, a device or a server of others, a context that is
// gone, or what the driver does not know. The numbering is that of both layers.
inline constexpr bool IsBrokenContextStatus(int status) {
  switch (status) {
    case 214:  // ECC_UNCORRECTABLE
    case 220:  // NVLINK_UNCORRECTABLE
    case 226:  // CONTAINED
    case 700:  // ILLEGAL_ADDRESS
    case 702:  // LAUNCH_TIMEOUT
    case 709:  // CONTEXT_IS_DESTROYED
    case 710:  // ASSERT
    case 714:  // HARDWARE_STACK_ERROR
    case 715:  // ILLEGAL_INSTRUCTION
    case 716:  // MISALIGNED_ADDRESS
    case 717:  // INVALID_ADDRESS_SPACE
    case 718:  // INVALID_PC
    case 719:  // LAUNCH_FAILED
    case 721:  // TENSOR_MEMORY_LEAK
    case 810:  // MPS_CLIENT_TERMINATED
    case 911:  // EXTERNAL_DEVICE
    case 999:  // UNKNOWN
      return true;
    default:
      return false;
  }
}

// A real free that answers this did nothing: it was refused for the moment (during a capture, in a
// host function). Not of what the driver does not know: somebody freed that past us.
inline constexpr bool IsRefusedFree(int status) {
  return status != kSuccess && status != kInvalidValue && !IsBrokenContextStatus(status);
}

class ContextPool;

enum class BlockState : uint8_t {
  kUnused,    // no allocation behind the record
  kLive,      // the program has it; a free brings it into the pool
  kUnpooled,  // the program has it; a free is a real free (oversized, exported, made as asked for)
  kIdle,      // a free list of its context has it
  kLeaving,   // on no list; its real free is under way
};

struct BlockLinks;

struct alignas(64) Block {
  DeviceAddress address = 0;
  size_t bytes = 0;
  union {
    size_t requested = 0;  // while live: what the program asked for
    uint64_t idle_since;   // at the head of an idle batch: the context's clock when it came
  };
  // Atomic because a context that is dropped looks for its blocks among all records. Relaxed: it is
  // written before `state` is released and read after `state` is acquired.
  std::atomic<ContextPool*> owner_context{nullptr};
  Block* next = nullptr;  // the next block of the same batch
  // While live: names this handing-out, see BufferIdOf; 0 until asked for.
  std::atomic<uint64_t> buffer_id{0};
  uint32_t batch_count = 0;  // at the head of a batch in the global pool: blocks in it
  uint16_t tier = 0;
  std::atomic<BlockState> state{BlockState::kUnused};
  BlockLinks* links = nullptr;  // the record's other part; never changes

  ContextPool* owner() const { return owner_context.load(std::memory_order_relaxed); }

  // The program gives the block back. True for exactly one caller: a second free of the same
  // pointer loses, whichever thread makes it. acq_rel: the winner sees what the allocating thread
  // wrote to the record, and who finds kIdle later sees that the free has begun.
  bool TakeFromProgram(BlockState expected) {
    return state.compare_exchange_strong(expected, BlockState::kIdle, std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  }
  // The program gives back what it has at `address`. kLive, kUnpooled: the caller has the block
  // now. kIdle: it was given back before, and may be leaving; kUnused: its context is gone, or the
  // record has another block.
  BlockState TakeFromProgramAt(DeviceAddress its_address) {
    for (const BlockState owned : {BlockState::kLive, BlockState::kUnpooled}) {
      if (!TakeFromProgram(owned)) continue;
      if (address == its_address) [[likely]]
        return owned;
      GiveBack(owned);
      return BlockState::kUnused;
    }
    const BlockState now = state.load(std::memory_order_acquire);
    return now == BlockState::kLeaving ? BlockState::kIdle : now;
  }
  // Taken by mistake, so late that the record has another block by now: the program keeps that.
  void GiveBack(BlockState owned) { state.store(owned, std::memory_order_release); }
  // An idle block that the caller has from a list is about to be really freed: it is found until
  // that has happened, so that a second free of the program's is known for one. False: its context
  // has ended. CancelLeaving: it was not freed.
  [[nodiscard]] bool BeginLeaving() { return Change(BlockState::kIdle, BlockState::kLeaving); }
  // Or has left, and is about to be found no more.
  bool IsLeaving() const {
    const BlockState now = state.load(std::memory_order_acquire);
    return now == BlockState::kLeaving || now == BlockState::kUnused;
  }
  [[nodiscard]] bool CancelLeaving() { return Change(BlockState::kLeaving, BlockState::kIdle); }
  // The same where it was the program's free that failed: it has the block still.
  [[nodiscard]] bool StayWithProgram(BlockState owned) {
    return Change(BlockState::kLeaving, owned);
  }
  // The pool hands the block out. The caller holds what keeps its context from ending (its cache's
  // flag), so a plain release store is enough: a later free on another thread acquires it.
  void GiveToProgram(size_t bytes_requested) {
    requested = bytes_requested;
    buffer_id.store(0, std::memory_order_relaxed);
    state.store(BlockState::kLive, std::memory_order_release);
  }
  // The same for a caller who has it from a list, and holds nothing. False: its context has ended
  // meanwhile, and the memory with it.
  [[nodiscard]] bool GiveToProgramUnlessEnded(size_t bytes_requested) {
    requested = bytes_requested;
    buffer_id.store(0, std::memory_order_relaxed);
    BlockState idle = BlockState::kIdle;
    return state.compare_exchange_strong(idle, BlockState::kLive, std::memory_order_release,
                                         std::memory_order_relaxed);
  }

 private:
  // acq_rel, as in TakeFromProgram.
  bool Change(BlockState from, BlockState to) {
    return state.compare_exchange_strong(from, to, std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  }
};
static_assert(sizeof(Block) == 64, "a hit touches one cache line of a block");

// What only the global pool touches, at the head of a batch that it has.
struct BlockLinks {
  struct Pair {
    Block* newer = nullptr;
    Block* older = nullptr;
  };
  Pair list;  // its neighbours in the list of its tier or size
  union {
    Pair age = {};  // a large ready one: among all of them
    Stamp stamp;    // a retired batch's
  };
};
static_assert(sizeof(Block) + sizeof(BlockLinks) == 96, "bookkeeping of a block");

// The number that names the allocation which the program has in `block`: another one each time that
// the block is handed out, never one of the driver's own. REQUIRES: the block is live
inline uint64_t BufferIdOf(Block* block) {
  static constinit std::atomic<uint64_t> g_next{uint64_t{1} << 62};
  uint64_t known = block->buffer_id.load(std::memory_order_relaxed);
  if (known != 0) return known;
  const uint64_t fresh = g_next.fetch_add(1, std::memory_order_relaxed);
  const bool first =
      block->buffer_id.compare_exchange_strong(known, fresh, std::memory_order_relaxed);
  return first ? fresh : known;
}

// Several idle blocks of one tier, moved at once: a chain through Block::next, that of the last one
// nullptr. Ready or retired.
struct Batch {
  static Batch Of(Block* block, Stamp stamp = kReady) {
    block->next = nullptr;
    return {block, 1, stamp};
  }
  Block* head = nullptr;
  uint32_t count = 0;
  Stamp stamp = kReady;  // the largest of its blocks

  void Push(Block* block) {
    block->next = head;
    head = block;
    ++count;
  }
  // REQUIRES: count > 0
  Block* Pop() {
    Block* block = head;
    head = block->next;
    --count;
    return block;
  }
};

}  // namespace cmp

#endif  // CMP_CORE_BASE_TYPES_H_
