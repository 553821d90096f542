// What of the host's memory the device works on, and what of the device's work others see: what a
// copy must touch to count as visible (visible_work.h), and what makes every free wait.
//
// Ranges are page-locked or managed memory of the program, by address. What NVIDIA's own libraries
// make for themselves is not here: the program cannot see it.
#ifndef CMP_SHIM_VISIBLE_MEMORY_H_
#define CMP_SHIM_VISIBLE_MEMORY_H_

#include <cuda.h>

#include <atomic>

#include "core/lock.h"
#include "core/rules.h"
#include "core/types.h"
#include "shim/visible_work.h"

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
  // Ranges end with their context.
  void ContextEnds(uint64_t context);

  // Is there page-locked memory at `address`? No lock; a few loads in each of log2(ranges) steps.
  bool IsPageLocked(uintptr_t address) const;
  bool HasRanges() const { return count_.load(std::memory_order_acquire) != 0; }
  bool HasPageLocked() const { return page_locked_.load(std::memory_order_acquire) != 0; }

  // Something that stays: exports, imports, attributes, pageable access, variables.
  void NoteForGood(Visible what) { for_good_.fetch_or(BitOf(what), std::memory_order_acq_rel); }
  // What exists for which every free waits, kNothing: nothing. Two loads.
  Visible Exists() const {
    const uint32_t exists =
        ranges_.load(std::memory_order_acquire) | for_good_.load(std::memory_order_acquire);
    return exists == 0 ? Visible::kNothing : First(exists);
  }

  // In a forked child: what the parent's contexts had is not the child's.
  void Forget();

 private:
  static uint32_t BitOf(Visible what) { return uint32_t{1} << static_cast<unsigned>(what); }
  static Visible First(uint32_t exists);

  // A range as readers see it.
  struct Entry {
    std::atomic<uintptr_t> begin;
    std::atomic<uintptr_t> end;
    std::atomic<uint64_t> context;
    std::atomic<Visible> what;
  };
  // Around every change, with lock_ held: readers that meet one try again.
  class Change;
  static Range Load(const Entry& entry);
  static void Store(Entry& entry, const Range& range);
  // The first entry that begins above `address`.
  size_t Above(uintptr_t address, const Entry* entries, size_t count) const;
  bool MakeRoom();
  void Erase(size_t at);
  void Recount();

  Mutex lock_;
  std::atomic<uint32_t> changes_{0};      // odd while one is under way
  std::atomic<Entry*> entries_{nullptr};  // by address; replaced by a larger one, never freed
  std::atomic<size_t> count_{0};
  size_t room_ = 0;
  std::atomic<size_t> page_locked_{0};
  std::atomic<uint32_t> ranges_{0};  // what the ranges are
  std::atomic<uint32_t> for_good_{0};
  std::atomic<bool> incomplete_{false};
};

inline constinit VisibleMemory g_visible_memory;

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

#endif  // CMP_SHIM_VISIBLE_MEMORY_H_
