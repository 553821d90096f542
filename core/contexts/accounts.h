// The bytes of one context, as running sums: to know one never walks a list.
//
//   reserved = live + slack + idle + leaving
//
// live: what the program has, as it asked for it (rounded to its tier, from 2 MiB up to 2 MiB);
// rounding: by how much its tiers are more than it asked for. slack: by how much the blocks in use
// are larger than all that. leaving: idle blocks off the lists, whose real free is about to be made
// or under way. idle: the rest, on lists or on the way between two.
//
// What a thread allocates from its own cache and frees into it is added when the cache moves a
// batch (ThreadCache::Settle): until then live is off by at most what the cache may hold. It is one
// sum of its own, not a difference of others, so blocks in motion are never taken for live ones,
// and the peak and with it the bound grow by what the program held alone.
#ifndef CMP_CORE_CONTEXTS_ACCOUNTS_H_
#define CMP_CORE_CONTEXTS_ACCOUNTS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "core/base/own_line.h"
#include "core/base/types.h"
#include "core/contexts/reserve.h"

namespace cmp {

// All functions are thread-safe. Relaxed: each sum is exact, and nobody concludes from one that
// another has changed.
class alignas(kCacheLine) Accounts {
 public:
  explicit Accounts(const ReserveRule& rule) : reserve_(rule) {}
  // Those of a context that has nothing yet. REQUIRES: nobody else uses them
  void Open() {
    for (Sum* sum : {&reserved_, &live_, &slack_, &rounding_, &leaving_}) {
      sum->store(0, std::memory_order_relaxed);
    }
    reserve_.Open();
  }

  // ---- What happens

  // A real allocation was made; one has ended.
  void AddReserved(size_t bytes) { Add(reserved_, bytes); }
  void SubtractReserved(size_t bytes) { Subtract(reserved_, bytes); }
  // The program has a block of `bytes`, `more` of them beyond what it asked for; it has given it
  // back.
  void HandOut(size_t bytes, size_t more = 0) {
    const bool small = bytes < kLargeGranule;
    Add(live_, small ? bytes : bytes - more);
    if (more != 0) Add(small ? rounding_ : slack_, more);
  }
  void TakeBack(size_t bytes, size_t more = 0) {
    const bool small = bytes < kLargeGranule;
    Subtract(live_, small ? bytes : bytes - more);
    if (more != 0) Subtract(small ? rounding_ : slack_, more);
  }
  // What a cache handed out, less what came back to it, since it was asked last.
  void Settle(int64_t live, int64_t rounding, int64_t slack = 0) {
    if (live != 0) live_.fetch_add(live, std::memory_order_relaxed);
    if (rounding != 0) rounding_.fetch_add(rounding, std::memory_order_relaxed);
    if (slack != 0) slack_.fetch_add(slack, std::memory_order_relaxed);
  }
  // Idle blocks are off the lists; they were really freed, or are back on a list.
  void BeginLeaving(size_t bytes) { Add(leaving_, bytes); }
  void EndLeaving(size_t bytes) { Subtract(leaving_, bytes); }

  // ---- What there is

  size_t reserved() const { return Read(reserved_); }
  size_t live() const { return Read(live_); }
  // As the sum stands, below 0 where more came back than is settled as handed out.
  int64_t settled_live() const { return live_.load(std::memory_order_relaxed); }
  size_t slack() const { return Read(slack_); }
  size_t rounding() const { return Read(rounding_); }  // part of live
  int64_t settled_rounding() const { return rounding_.load(std::memory_order_relaxed); }
  size_t leaving() const { return Read(leaving_); }
  size_t idle() const {
    const size_t other = live() + slack() + leaving();
    const size_t held = reserved();
    return held > other ? held - other : 0;
  }

  // ---- What may be held

  Reserve& reserve() { return reserve_; }
  const Reserve& reserve() const { return reserve_; }
  // Notes the live bytes of this moment; returns by how much the peak rose.
  size_t NotePeak() { return reserve_.NotePeak(live()); }
  size_t peak() const { return reserve_.peak(); }
  size_t bound() const { return reserve_.bound(); }
  // Is anything idle, leaving or on the way between two lists? What caches have not settled is not
  // known, nor what other threads are changing just now.
  bool HasIdle() const { return reserved() > live() + slack(); }
  // Bytes over what CMP_RESERVE allows that nobody is releasing yet.
  size_t Excess() const { return ExcessWith(0); }
  // The same once `more` bytes are really allocated for the program.
  size_t ExcessWith(size_t more) const {
    const size_t allowed =
        (more == 0 ? reserve_.wanted() : reserve_.WantedWith(live() + more)) + leaving();
    const size_t held = reserved() + more;
    return held > allowed ? held - allowed : 0;
  }

 private:
  using Sum = std::atomic<int64_t>;
  static void Add(Sum& sum, size_t bytes) {
    sum.fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  }
  static void Subtract(Sum& sum, size_t bytes) {
    sum.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  }
  // A block that one cache handed out and another took back may be settled by the latter first.
  static size_t Read(const Sum& sum) {
    const int64_t bytes = sum.load(std::memory_order_relaxed);
    return bytes > 0 ? static_cast<size_t>(bytes) : 0;
  }

  Sum reserved_{0};
  Sum live_{0};
  Sum slack_{0};
  Sum rounding_{0};
  Sum leaving_{0};
  Reserve reserve_;
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXTS_ACCOUNTS_H_
