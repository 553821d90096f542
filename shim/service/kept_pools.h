// CMP_ASYNC_KEEP: the driver's pools of stream-ordered memory keep what was freed.
//
// By default such a pool gives back, at every synchronisation, all that is not in use: its release
// threshold is 0. Once something was allocated from a device's default pool, or from one that the
// program made, that threshold is raised, unless the program set it. What a pool keeps by that is
// idle memory like blocks of ours:
//
//   how much   auto: the threshold is what CMP_RESERVE would allow a context (reserve.h) that
//              holds what the pool has in use; 0 while memory is scarce. Looked at again now and
//              then, after allocations.
//   how long   what was not seen in use during the last 32 ticks of CMP_DECAY goes back
//   for whom   the driver gives it to cuMemAlloc and to its other pools itself (measured, H200); it
//              goes before any call that lacked memory is tried again, before managed memory needs
//              its room, and before any question about free or reserved memory is answered, so that
//              the answer is the driver's own
//
// Left alone: pools that can be shared, with a largest size, of another place than a device, and
// what graphs allocate. What the program sets itself is as it set it.
//
//   the driver's pool, to us   it begins                               then
//   unknown                    made by the program, or first use       known
//   known                      an allocation, and its threshold is 0   raised
//   raised                     the program sets its threshold          left alone
//   any                        its device's primary context ends, or   at 0, then not to be asked
//                              may end                                 about, until an allocation
//                                                                      shows that it is there
//
// One lock, which is held across calls of the driver about pools: so none is destroyed, or has its
// threshold set by the program, meanwhile. They wait for no work (measured, H200) and
// run no code of the program's. An allocation never waits for that lock: it looks the next time.
#ifndef CMP_SHIM_SERVICE_KEPT_POOLS_H_
#define CMP_SHIM_SERVICE_KEPT_POOLS_H_

#include <cuda.h>

#include <atomic>

#include "core/base/lock.h"
#include "core/contexts/device_links.h"
#include "core/pool/pool.h"
#include "shim/lookup/lookup.h"

namespace cmp {

// ---- Allocations

// What is done about them in this process; kUnknown before the first.
enum class AsyncUse : uint8_t { kUnknown, kLeftAlone, kCounted, kKept };
inline constinit std::atomic<AsyncUse> g_async_use{AsyncUse::kUnknown};
// By the settings and whether the shim serves; `started`: as StartedPool says.
void DecideAsyncUse(Pool* started);

// `bytes` were allocated in the order of `stream`, from `from`, or with nullptr from the current
// pool of the stream's device.
void NoteAllocatedInOrder(CUstream stream, CUmemoryPool from, size_t bytes);

// ---- What is kept

// The devices of which a pool may have memory. seq_cst: who allocates sets it after that, and who
// clears it, once it has found nothing, asks again after that; see also Ageing::MemoryIsIdle.
inline constinit std::atomic<Devices> g_devices_with_kept{0};
inline Devices DevicesWithKept() { return g_devices_with_kept.load(std::memory_order_seq_cst); }
// Gives back what the device's pools keep, or with kAllDevices those of all; returns the bytes.
// One load where there is nothing. Thread-safe, in captures too.
size_t ReleaseKeptSlow(int device);
inline size_t ReleaseKept(int device) {
  return DevicesWithKept() == 0 ? 0 : ReleaseKeptSlow(device);
}
// A tick of CMP_DECAY. False: nothing is kept, nor can be before the next allocation.
bool AgeKept();

// ---- What the program does with pools. Around its real calls.

void PoolMade(CUmemoryPool pool, const CUmemPoolProps& properties);
// Another pool may be a device's current one.
void CurrentPoolsChange();

// While it lives nobody else sets the pool's threshold, asks about the pool, or trims it.
class [[nodiscard]] PoolInHand {
 public:
  explicit PoolInHand(CUmemoryPool pool);
  PoolInHand(const PoolInHand&) = delete;
  PoolInHand& operator=(const PoolInHand&) = delete;
  bool raised() const;
  void GiveBack();         // what it keeps
  void SetByTheProgram();  // its threshold was
  void Forget();           // it was destroyed

 private:
  const Uncancelled uncancelled_;
  const Held<Mutex> held_;
  CUmemoryPool handle_;
};

// Around what ends the device's primary context, or may: its pools may be gone afterwards.
class [[nodiscard]] PoolsEnding {
 public:
  explicit PoolsEnding(CUdevice device);
  ~PoolsEnding();
  PoolsEnding(const PoolsEnding&) = delete;
  PoolsEnding& operator=(const PoolsEnding&) = delete;
  void Ended() { ended_ = true; }

 private:
  CUdevice device_;
  bool ended_ = false;
};

void ForgetKeptPools();  // in a forked child

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_KEPT_POOLS_H_
