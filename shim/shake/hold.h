// A hold: a stream waits on the device until a word in memory of ours has a value
// (cuStreamWaitValue32, greater or equal). Two may write it, neither with a CUDA call of the host's
// at that moment:
//
//   the device, behind the later work (cuStreamWriteValue32)   the target: that came first
//   the host, at any time, by a plain store                    the target + 1
//
// So the word tells who was first. A write that the device still has to make when the host has let
// go arrives some time: until then the word is not used again, as it could then end the next hold,
// or undo its end.
//
// The memory is the process's own, made known to CUDA (cuMemHostRegister): the end of a context
// takes that knowledge away and not the memory, so the store is always safe.
//
// Not thread-safe, but for HoldWords::Register.
#ifndef CMP_SHIM_SHAKE_HOLD_H_
#define CMP_SHIM_SHAKE_HOLD_H_

#include <cuda.h>

#include <atomic>
#include <cstdint>

#include "core/driver/driver.h"

namespace cmp {

// What a stream waits for, and what is written to let it go.
struct HoldTarget {
  std::atomic<uint32_t>* word = nullptr;  // nullptr: no hold
  uint32_t value = 0;

  CUdeviceptr address() const { return reinterpret_cast<CUdeviceptr>(word); }
};

class HoldWords {
 public:
  // Has the driver what holds need, and is there memory for the words?
  bool Begin(const Driver& driver);
  // For the current context, and all others. The status is the driver's. REQUIRES: no capture is
  // under way
  CUresult Register(const Driver& driver);

  // A word for the next hold; none: the device still has to write all of them.
  HoldTarget Take();
  // The device will write this one: before it is told to. Or it will not after all.
  void DeviceWillWrite(const HoldTarget& target, bool will);
  // Lets go. True: the device did so before.
  bool LetGo(const HoldTarget& target);
  static bool DeviceHasWritten(const HoldTarget& target) {
    return target.word->load(std::memory_order_acquire) == target.value;
  }

 private:
  struct alignas(64) Word {
    std::atomic<uint32_t> value{0};
    uint32_t target = 0;
    bool awaited = false;  // the device's write
  };
  static constexpr size_t kBytes = 4096;
  static constexpr size_t kCount = kBytes / sizeof(Word);
  Word& WordOf(const HoldTarget& target);

  Word* words_ = nullptr;
  size_t next_ = 0;
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_HOLD_H_
