// Who has idle blocks in hand that are on no list: to really free them, or on the way from one list
// to another. Who is short of memory and finds nothing on the lists waits for them.
//
// Two counts. Who comes is counted in that of the moment; who waits makes the other one that of the
// moment, and waits for the first: who comes later does not prolong it.
#ifndef CMP_CORE_LISTS_TAKERS_H_
#define CMP_CORE_LISTS_TAKERS_H_

#include <atomic>
#include <cstdint>

#include "core/base/lock.h"
#include "core/base/own_line.h"
#include "core/base/types.h"

namespace cmp {

// All functions are thread-safe.
class alignas(kCacheLine) Takers {
 public:
  // From before the caller takes blocks off a list until they are freed or on a list again. A real
  // call meanwhile is Uncancelled: who is cancelled here is waited for in vain.
  class [[nodiscard]] Taking {
   public:
    Taking() = default;
    explicit Taking(Takers& takers) { Begin(takers); }
    ~Taking() {
      // release pairs with the acquire in Await: what was freed here is seen there.
      if (inside_ != nullptr) inside_->fetch_sub(1, std::memory_order_release);
    }
    Taking(const Taking&) = delete;
    Taking& operator=(const Taking&) = delete;
    // Once.
    void Begin(Takers& takers) {
      inside_ = &takers.inside_[takers.epoch_.load(std::memory_order_relaxed) % 2];
      // Relaxed: who misses the blocks on their list had its lock after this thread, and so sees
      // this in either count.
      inside_->fetch_add(1, std::memory_order_relaxed);
    }

   private:
    std::atomic<int>* inside_ = nullptr;
  };

  // Is anybody inside? Who missed blocks on their list sees whoever has them, or what he noted
  // before he left.
  bool AnyInside() const {
    return inside_[0].load(std::memory_order_acquire) != 0 ||
           inside_[1].load(std::memory_order_acquire) != 0;
  }
  // One that is inside has freed a block.
  void NoteProgress() { progress_.fetch_add(1, std::memory_order_relaxed); }

  // Waits until all have left that were inside when the caller looked at the lists; but not for
  // ever, as they may be waiting for what the caller does next: a second without progress, ten
  // seconds with it. Who waits beside others shares their wait: several take no longer than two.
  void Await();
  uint64_t waits() const { return waits_.load(std::memory_order_acquire); }  // that are over

 private:
  Mutex lock_;  // of those who wait
  std::atomic<unsigned> epoch_{0};
  std::atomic<int> inside_[2] = {};
  std::atomic<uint64_t> progress_{0};  // relaxed: that it changes is all
  std::atomic<uint64_t> waits_{0};
};

// Of each device: what is in hand on one helps nobody who is short of memory on another.
class DeviceTakers {
 public:
  Takers& Of(int device) { return takers_[PlaceOfDevice(device)]; }
  void Await(int device) {
    if (device != kAllDevices) return Of(device).Await();
    for (Takers& takers : takers_) takers.Await();
  }

 private:
  Takers takers_[kDevicePlaces];
};

}  // namespace cmp

#endif  // CMP_CORE_LISTS_TAKERS_H_
