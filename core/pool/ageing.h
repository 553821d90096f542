// CMP_DECAY: idle memory that nobody has used for so long goes back to the driver, even if the
// program makes no call any more.
//
// By a thread, which exists only while memory is idle. A tick is a 32nd of CMP_DECAY: what threads'
// caches hold moves to the global pools, what the device has finished with becomes ready, and what
// has been idle since before the last 32 ticks is released, in a way that neither waits for the
// device nor holds up a launch (release_stream.h; a tick pays once what the first of them costs).
// The thread takes no signal, runs in relaxed capture mode and makes no call once the process
// exits. A process that uses CUDA has threads of the driver's already, so nobody who counts them
// sees a difference in kind.
//
// The same thread brings a context that is a little over its bound back under it, as soon as a
// free finds it so, or in a tick: no call of the program's waits for what the release takes, 0.2 ms
// beside kernels and 1 ms at worst (TrimSoon). The first of them takes 10 ms, and beside it a real
// allocation up to 1 ms (measured, H200): it is made in a tick during which nothing was really
// allocated, or in the fifth; until then what is over stays, unless memory is short or the next
// free finds the device idle.
//
// Where that cannot be (no thread can be made, the driver cannot free without a wait, the pool does
// not see contexts end, CMP_DECAY=oncall) the program's own frees do it, when it is due: each for
// the context of its block, whose work the real call waits for as well, and each a portion.
#ifndef CMP_CORE_POOL_AGEING_H_
#define CMP_CORE_POOL_AGEING_H_

#include <atomic>
#include <cstdint>

#include "core/base/lock.h"
#include "core/base/options.h"
#include "core/base/statistics.h"
#include "core/contexts/context_pool.h"
#include "core/driver/device_api.h"
#include "core/driver/host.h"

namespace cmp {

class Pool;

// All functions are thread-safe.
class Ageing {
 public:
  static constexpr unsigned kTicks = 32;  // of CMP_DECAY

  Ageing(Pool& pool, const Options& options, const PoolHost& host);

  // Memory has become idle: somebody looks after it from now on. seq_cst, after the block is on its
  // list: of this and the last look of a thread that ends, one sees the other.
  void MemoryIsIdle() {
    if (by_.load(std::memory_order_seq_cst) == By::kNobodyYet) [[unlikely]]
      Begin();
  }
  // The same in a free of the program's, of `bytes` of `context`, and then what is due, if no
  // thread does it.
  void InFree(ContextPool& context, size_t bytes, const DeviceApi& api) {
    By by = by_.load(std::memory_order_seq_cst);
    if (by == By::kNobodyYet) [[unlikely]] {
      Begin();
      by = by_.load(std::memory_order_relaxed);
    }
    if (by == By::kFrees) [[unlikely]] {
      const uint64_t now = NowNs();
      if (now >= context.next_tick_ns.load(std::memory_order_relaxed) ||
          context.aged_before.load(std::memory_order_relaxed) != 0) [[unlikely]] {
        DoWhatIsDue(context, bytes, api, now);
      }
    }
  }
  // Has the thread, if there is one, bring `context` under its bound. False: there is none.
  bool TrimSoon(ContextPool& context) {
    if (by_.load(std::memory_order_relaxed) != By::kThread || stopped()) return false;
    // Where it was due the thread knows, but for what it has put off (Pool::TrimDue).
    const bool was_due = context.trim_due.exchange(true, std::memory_order_acq_rel);
    if (!was_due || context.release_stream().warm()) bell_.Ring();
    return true;
  }
  // The same of page-locked memory, in a free of the program's.
  void InPageLockedFree() {
    MemoryIsIdle();
    if (by_.load(std::memory_order_relaxed) == By::kFrees) [[unlikely]]
      AgePageLocked();
  }
  // Does a free of the program's have nothing to do? Loads only.
  bool IsBesideFrees() const {
    const By by = by_.load(std::memory_order_seq_cst);
    return by == By::kThread || by == By::kNobody;
  }
  // Are ticks due in the program's own calls?
  bool IsInCalls() const { return by_.load(std::memory_order_relaxed) == By::kFrees; }
  // Will there be ticks, in a thread or in frees?
  bool HasTicks() const { return by_.load(std::memory_order_relaxed) != By::kNobody; }
  // The process exits: no call from now on. Waits for one that is under way, but not long.
  void Stop();
  bool stopped() const { return stop_.load(std::memory_order_seq_cst); }

 private:
  enum class By : uint8_t { kNobodyYet, kThread, kFrees, kNobody };
  class Inside;
  void Begin();
  bool Spawn();
  const Driver* DriverOfHost();  // nullptr: the process exits
  void Run();
  bool Rest(uint64_t until_ns);
  bool Leave();
  void AgePageLocked();
  void DoWhatIsDue(ContextPool& context, size_t bytes, const DeviceApi& api, uint64_t now);

  Pool& pool_;
  const PoolHost& host_;
  const uint64_t tick_ns_;
  std::atomic<By> by_;
  Bell bell_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> inside_{false};  // a tick is under way
};

}  // namespace cmp

#endif  // CMP_CORE_POOL_AGEING_H_
