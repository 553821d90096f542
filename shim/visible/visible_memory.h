// What of the host's memory the device works on, and what of the device's work others see: what a
// copy must touch to count as visible (visible_work.h), and what makes every free wait.
//
// Ranges are page-locked or managed memory of the program, by address. What NVIDIA's own libraries
// make for themselves is not here: the program cannot see it.
#ifndef CMP_SHIM_VISIBLE_VISIBLE_MEMORY_H_
#define CMP_SHIM_VISIBLE_VISIBLE_MEMORY_H_

#include <cuda.h>

#include <atomic>

#include "core/base/lock.h"
#include "core/base/rules.h"
#include "core/base/types.h"
#include "shim/visible/visible_work.h"

namespace cmp {

class VisibleMemory {
 public:
  constexpr VisibleMemory() = default;

  struct Range {
    uintptr_t begin = 0;
    uintptr_t end = 0;
    uint64_t context = 0;              // its id (handles are reused); the range ends with it
    Visible what = Visible::kNothing;  // kMapped, kManaged; kCopies: page-locked and no more
  };

  // All are thread-safe. Where memory for the table has run out, everything counts as page-locked.
  void Add(const Range& range);
  // Takes the range that begins here off; one that ends at 0 if there is none.
  Range Remove(uintptr_t begin);
  // The page-locked range around `address` is used by kernels, too.
  void SetMapped(uintptr_t address);
  // A range of page-locked memory that begins here is `what` from now on.
  void SetWhat(uintptr_t begin, Visible what);
  // Ranges end with their context.
  void ContextEnds(uint64_t context);

  // Is there page-locked memory at `address`? No lock; a few loads in each step.
  bool IsPageLocked(uintptr_t address) const;
  bool HasRanges() const { return count_.load(std::memory_order_acquire) != 0; }
  // Of managed memory, wherever it is now. Relaxed: how much there is, not what.
  size_t managed_bytes() const { return managed_bytes_.load(std::memory_order_relaxed); }
  bool HasPageLocked() const { return page_locked_.load(std::memory_order_acquire) != 0; }

  // Is any range used by kernels, too? One load.
  bool HasMapped() const {
    return (ranges_.load(std::memory_order_acquire) & BitOf(Visible::kMapped)) != 0;
  }

  // Something that stays: exports, imports, attributes, pageable access, variables.
  void NoteForGood(Visible what) { for_good_.fetch_or(BitOf(what), std::memory_order_acq_rel); }
  // What exists for which every free waits, kNothing: nothing. Two loads.
  Visible Exists() const {
    const uint32_t exists =
        ranges_.load(std::memory_order_acquire) | for_good_.load(std::memory_order_acquire);
    return exists == 0 ? Visible::kNothing : First(exists);
  }

  // Nodes that changes have looked at so far.
  uint64_t steps() {
    Held held(lock_);
    return steps_;
  }

  // In a forked child: what the parent's contexts had is not the child's.
  void Forget();

 private:
  static uint32_t BitOf(Visible what) { return uint32_t{1} << static_cast<unsigned>(what); }
  static Visible First(uint32_t exists);

  // Ranges by address, in a treap: a search tree in which no node's priority, a random number, is
  // above its parent's. So each look-up and change takes some 2 log2(ranges) steps. Nodes are used
  // again and never freed: readers may still be at one.
  struct Node {
    std::atomic<uintptr_t> begin{0};
    std::atomic<uintptr_t> end{0};  // 0: unused
    std::atomic<uint64_t> context{0};
    std::atomic<Visible> what{Visible::kNothing};
    uint32_t priority = 0;
    std::atomic<Node*> less{nullptr};  // unused nodes are linked by it
    std::atomic<Node*> more{nullptr};
  };
  struct Nodes;
  using Link = std::atomic<Node*>;
  // Around every change, with lock_ held: readers that meet one try again.
  class Change;
  static Range Load(const Node& node);
  // REQUIRES for all below: within a change
  Node* TakeNode();
  // The last range that begins at `address` or below it, or nullptr.
  Node* AtOrBelow(uintptr_t address);
  void Insert(Node* node);
  void Erase(Node* node);
  void Count(const Node& node, int change);
  void Become(Node* node, Visible what);

  Mutex lock_;
  std::atomic<uint32_t> changes_{0};  // odd while one is under way
  Link root_{nullptr};
  Node* unused_ = nullptr;
  Nodes* nodes_ = nullptr;  // all there are
  uint32_t random_ = 2463534242;
  uint64_t steps_ = 0;
  std::atomic<size_t> count_{0};
  std::atomic<size_t> page_locked_{0};
  std::atomic<size_t> managed_bytes_{0};
  size_t of_kind_[static_cast<size_t>(Visible::kNothing) + 1] = {};
  std::atomic<uint32_t> ranges_{0};  // what the ranges are
  std::atomic<uint32_t> for_good_{0};
  std::atomic<bool> incomplete_{false};
};

inline constinit VisibleMemory g_visible_memory;

// There are `more` bytes of managed memory. It takes the device's when it is touched. Where that is
// full, managed memory that was there before makes room, and thrashes: so idle blocks go back
// first, as far as they must and the driver frees them without a wait.
void MakeRoomForManaged(size_t more);

// ---- What `caller` (a return address) does, noted. NVIDIA's own libraries do not count
// (nvidia_libraries.h), other than the CUDA runtime, which speaks for the program.

// Shares something for good, or is about to.
void NoteShared(Visible what, const void* caller);
// Got memory of the current context.
void AddRange(Visible what, uintptr_t begin, size_t bytes, const void* caller);
// Makes memory of this type at this place, which the host may share.
void NotePlace(int type, const CUmemLocation& place, const void* caller);

// A real call that ends a range, on its way: a call that failed ended nothing.
class [[nodiscard]] EndOfRange {
 public:
  explicit EndOfRange(uintptr_t begin)
      : range_(g_visible_memory.HasRanges() ? g_visible_memory.Remove(begin)
                                            : VisibleMemory::Range{}) {}
  CUresult Done(CUresult status) const {
    if (status != CUDA_SUCCESS && range_.end != 0) g_visible_memory.Add(range_);
    return status;
  }

 private:
  VisibleMemory::Range range_;
};

}  // namespace cmp

#endif  // CMP_SHIM_VISIBLE_VISIBLE_MEMORY_H_
