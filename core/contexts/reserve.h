// How much of a context's memory the pool may hold: CMP_RESERVE.
//
//   bound = ratio * peak + bytes                           CMP_RESERVE=RATIOx+BYTES
//   bound = 1.15 * peak + min(256M, free / 16) + extra     CMP_RESERVE=auto, the default
//
// peak: the most that the program held at once. free: what the device really has free, asked now
// and then. extra follows one sentence: a ready block that was released for the bound, and whose
// size is then really allocated again within CMP_DECAY, raises the bound by its size, and where the
// pool is near the bound by an eighth of what may be idle; what ages away lowers it again.
//
//   what happens                                        extra
//   a ready block is released for the bound; also one   as it was; its size and the time are noted,
//   that was retired until the free waited for it       the last 512 of them
//   a retired block is really freed for the bound,      as it was
//   which waits for its work
//   a real allocation of r bytes, and a size in         + that size, and the note is gone; at most
//   [r, r * (1 + slack)] was noted within CMP_DECAY     a quarter of what is free or idle now
//   the same, and near the bound (near_bound())         + an eighth of bound - peak besides
//   the same while memory is scarce                     0, and the note is gone
//   memory becomes scarce: under a tenth of the         0
//   device is free
//   idle memory is released because it is old, or       - as much, not below 0; nothing is noted
//   because something ran out of memory
//
// The eighth makes few of many: with sizes alone the bound is found in as many regretted releases
// as there are blocks in what it lacks, each of which holds up the driver (mixed sizes to 64 MiB,
// 400 live, simulated: 100 to 230 releases, with it 15 to 27, for 2 to 10% more held at most).
//
// So a host that runs far ahead of its device, whose frees wait for what they release, has it noted
// in part: extra grows much the same with it and without (measured).
//
// Managed memory takes the device's when a kernel touches it, without a call, and where that is
// full what was touched longest ago goes to the host. While a process has managed memory, how much
// may be idle depends on whether it fits beside what the program uses, whatever CMP_RESERVE says:
//
//   share = what is free, held, or taken by managed memory: the most that free and held have been
//           together while there was any, and no more than all of it could add to them now
//   room  = share - managed memory, wherever that is
//
//   the program uses                      may be idle
//   up to the room                        what it leaves of the room
//   more                                  nothing: managed memory would move in its place
//   more, for 256 real allocations,       a sixteenth of the device: managed memory moves anyway
//   or there is no room
//
// In the last case the bound is what the program uses and that sixteenth, if CMP_RESERVE allows it,
// and blocks are made ahead as long as a tenth of the device is free or managed memory's.
//
// What others take of the device meanwhile counts in share as if managed memory had it. Managed
// memory is what the program had from cuMemAllocManaged: __managed__ variables, pools of managed
// memory and what NVIDIA's libraries make for themselves count as what others take.
//
// So a program without such a regretted release holds what ratio and bytes allow. With them the
// bound grows until a repeating pattern of sizes is served without real calls, and no further:
// what is never released is never regretted.
#ifndef CMP_CORE_CONTEXTS_RESERVE_H_
#define CMP_CORE_CONTEXTS_RESERVE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base/lock.h"
#include "core/base/memory.h"
#include "core/base/options.h"
#include "core/base/types.h"

namespace cmp {

inline bool IsScarce(size_t free, size_t total) { return free < total / 10; }
// What the rule adds to the peak where so much is free.
inline size_t BytesWith(const ReserveRule& rule, size_t free) {
  return rule.grows && free / 16 < rule.bytes ? free / 16 : rule.bytes;
}

// Of one context. All functions are thread-safe.
class Reserve {
 public:
  explicit Reserve(const ReserveRule& rule) : rule_(rule), bytes_(rule.bytes) { Update(); }

  // Of another context, which has nothing yet. REQUIRES: nobody else uses it
  void Open();

  // The program holds `live` bytes; returns by how much the peak rose.
  size_t NotePeak(size_t live) {
    size_t peak = peak_.load(std::memory_order_relaxed);
    while (live > peak) {
      if (!peak_.compare_exchange_weak(peak, live, std::memory_order_relaxed)) continue;
      Update();
      return live - peak;
    }
    return 0;
  }
  // The device really has `free` of `total` bytes free. Returns whether memory is scarce.
  bool NoteFree(size_t free, size_t total) {
    const bool scarce = IsScarce(free, total);
    if (!rule_.grows) return scarce;
    bytes_.store(BytesWith(rule_, free), std::memory_order_relaxed);
    if (scarce) extra_.store(0, std::memory_order_relaxed);
    Update();
    return scarce;
  }

  // `held` bytes are held as well, and the process has `managed` bytes of managed memory, as far as
  // that is counted. Returns how much of `free` that leaves to others.
  size_t NoteManaged(size_t managed, size_t held, size_t free, size_t total);
  // The same where the device is as it was.
  void NoteManaged(size_t managed) {
    Held held(lock_);
    SetRoom(managed);
  }
  // Was there managed memory, when it was noted last? Without, the following are of no account.
  bool IsBesideManaged() const { return room_.load(std::memory_order_relaxed) != kNoLimit; }
  // Is so much held that what the program uses decides how much may be idle?
  bool IsOverRoom(size_t held) const { return held > room_.load(std::memory_order_relaxed); }
  // Then: may as much be idle all the same, since managed memory moves anyway?
  bool MayStay(size_t used, size_t idle) const {
    return MovesAnyway(used) && idle <= spare_.load(std::memory_order_relaxed);
  }
  // How much of `idle` bytes must go where `held` are held, those among them.
  size_t TooMuchIdle(size_t held, size_t idle) const;
  // The program uses `used` bytes, and is about to have `more` in a real allocation.
  void NoteUsed(size_t used, size_t more);

  bool grows() const { return rule_.grows; }
  size_t peak() const { return peak_.load(std::memory_order_relaxed); }
  size_t extra() const { return extra_.load(std::memory_order_relaxed); }
  // As CMP_RESERVE says; and where managed memory leaves less room, that, or what the program uses
  // and a sixteenth of the device.
  size_t wanted() const { return wanted_.load(std::memory_order_relaxed); }
  // The same when the program holds `live` bytes.
  size_t WantedWith(size_t live) const {
    const size_t before = peak();
    const size_t rise = live > before ? live - before : 0;
    return wanted() + static_cast<size_t>(static_cast<double>(rise) * rule_.ratio);
  }
  size_t bound() const { return bound_.load(std::memory_order_relaxed); }
  // How much of what is idle should be ready near the bound, and where near it begins: a quarter of
  // what may be idle at the peak.
  size_t headroom() const {
    const size_t near = near_bound();
    const size_t most = bound();
    return most > near ? most - near : 0;  // both may just be changing
  }
  size_t near_bound() const { return near_bound_.load(std::memory_order_relaxed); }

  // A ready block of `bytes` was released for the bound.
  void NoteReleased(size_t bytes, uint64_t now_ns, Arena& arena);
  // A block of `bytes` was really allocated; one of at most `most` would have served. The size of a
  // release since `since_ns` that is regretted, which is forgotten; 0: none is.
  size_t TakeRegretted(size_t bytes, size_t most, uint64_t since_ns) {
    return noted_.load(std::memory_order_relaxed) == 0 ? 0 : FindRegretted(bytes, most, since_ns);
  }
  // A release of `bytes` is regretted, and `held` bytes are held: the bound grows, extra to at most
  // `most` by that.
  void Grow(size_t bytes, size_t held, size_t most);
  // `bytes` of idle memory were released, not for the bound.
  void NoteGivenBack(size_t bytes);
  // By how much extra has changed since this was asked last: for who adds it up.
  int64_t TakeExtraChange();

 private:
  static constexpr size_t kNoLimit = ~size_t{0};
  static constexpr uint32_t kCrowded = 256;
  static constexpr size_t kNotes = 512;
  static constexpr size_t kGrowthPart = 8;
  struct Note {
    size_t bytes;  // 0: none
    uint64_t when_ns;
  };
  bool MovesAnyway(size_t used) const {
    return never_fits_.load(std::memory_order_relaxed) ||
           (IsOverRoom(used) && crowded_.load(std::memory_order_relaxed) >= kCrowded);
  }
  void Update();
  void UpdateLocked();
  size_t SetRoom(size_t managed);  // REQUIRES: lock_ held
  size_t FindRegretted(size_t bytes, size_t most, uint64_t since_ns);

  const ReserveRule rule_;
  std::atomic<size_t> peak_{0};
  std::atomic<size_t> bytes_;
  std::atomic<size_t> extra_{0};
  // Of these, under lock_. Read with no lock: relaxed, each is right for some moment.
  std::atomic<size_t> room_{kNoLimit};
  std::atomic<bool> never_fits_{false};  // there is none
  std::atomic<size_t> spare_{0};         // a sixteenth of the device
  std::atomic<size_t> wanted_{0};
  std::atomic<size_t> bound_{0};
  std::atomic<size_t> near_bound_{0};
  // Real allocations of a program that used more than the room, since it was found to use less.
  // Relaxed: a number to go by.
  std::atomic<uint32_t> crowded_{0};
  std::atomic<size_t> used_{0};  // by the program, when it was noted last
  // Relaxed: who misses the newest note misses one chance to grow.
  std::atomic<uint32_t> noted_{0};
  Mutex lock_;  // takes the arena's alone
  size_t share_ = 0;
  Note* notes_ = nullptr;
  size_t next_ = 0;        // the oldest note's place, the next one's
  size_t told_extra_ = 0;  // by TakeExtraChange
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXTS_RESERVE_H_
