// Serving an allocation or a free, whichever layer it came through: the runtime's entry points and
// the driver's differ only in the real calls that they fall back on.
#ifndef CMP_SHIM_SERVICE_SERVICE_H_
#define CMP_SHIM_SERVICE_SERVICE_H_

#include "core/driver/driver.h"
#include "core/pool/pool_instance.h"
#include "shim/lookup/lookup.h"
#include "shim/record/trace.h"
#include "shim/service/pitches.h"
#include "shim/state/aside.h"
#include "shim/work/free_sync.h"

namespace cmp {

// The hit path: a block from this thread's cache for the current context, or 0, which says nothing:
// AllocLargeHit may know more. `pool` may be nullptr; `driver` is not, where the pool is not.
inline DeviceAddress AllocHit(Pool* pool, size_t bytes, const Driver* driver) {
  if (pool == nullptr) [[unlikely]]
    return 0;
  return pool->AllocSmallHit([=] { return CurrentOrNone(*driver); }, bytes);
}
// The same of what has no shelf of its tier.
inline DeviceAddress AllocLargeHit(Pool* pool, size_t bytes, const Driver* driver) {
  if (pool == nullptr || !pool->IsLarge(bytes)) return 0;
  return pool->AllocLargeHit(CurrentOrNone(*driver), bytes);
}
// Both for `rows` rows of `width` bytes, if their pitch is known.
inline DeviceAddress AllocPitchedHit(Pool* pool, size_t width, size_t rows, uint64_t element,
                                     size_t* pitch) {
  if (pool == nullptr) [[unlikely]]
    return 0;
  const Driver* driver = LoadedDriver();
  if (driver == nullptr) [[unlikely]]
    return 0;
  const ContextHandle context = CurrentContext(*driver);
  const size_t known = g_context_pitches.Find(context, width, element);
  size_t bytes = 0;  // 0 is never a hit
  if (__builtin_mul_overflow(known, rows, &bytes)) [[unlikely]]
    return 0;
  const DeviceAddress address = pool->AllocHit(context, bytes);
  if (address != 0) [[likely]]
    *pitch = known;
  return address;
}

// An allocation of bytes > 0 in the current context, by the pool or, where it must be, the real
// call.
Allocation AllocInContext(Pool& pool, const Driver& driver, size_t bytes, const DeviceApi& api);
// AllocFilled, recorded if calls are traced.
Allocation AllocTraced(Pool& pool, const Driver& driver, ContextPool* context, bool real,
                       size_t bytes, const DeviceApi& api);
// CMP_MODE=observe: the real call, its memory remembered.
Allocation AllocObserved(Pool& pool, size_t bytes, const DeviceApi& api);

// The hit path of a free of the block of ours at `address`. False: call FreeBlock. *live: the block
// was taken from the program.
inline bool FreeHit(Pool& pool, Block* block, DeviceAddress address, bool* live) {
  *live = pool.TakeLive(block, address);
  if (!*live) [[unlikely]]
    return false;
  const ContextPool& owner = *block->owner();
  return IsSettled(owner) && pool.RetireHit(block, owner);
}
// The rest of the hit path, where that took the block: of a block without a shelf of its tier, of
// another context than this thread used last, or where there are several contexts.
inline bool FreeHitElsewhere(Pool& pool, Block* block) {
  return IsSettledAmongSeveral(pool, *block) && pool.RetireHitElsewhere(block);
}
// Frees the block of ours at `address`, in any state; the status is the layer's own. `live`: it was
// live, and is taken from the program.
int FreeBlock(Pool& pool, const Driver& driver, Block* block, DeviceAddress address, bool live,
              const DeviceApi& api);
// How it is freed: what is owed first, and which real free it is, where it must be one.
struct FreeManner {
  Settle settle = &SettleFree;
  int (Pool::*real_free)(Block* block, const DeviceApi& api) = &Pool::FreeReal;
};
// The same after Take returned `taken`, recorded if calls are traced.
int FreeTaken(Pool& pool, const Driver& driver, Block* block, DeviceAddress address,
              BlockState taken, const DeviceApi& api, const FreeManner& manner = {});

// The block of ours at `address` where calls are traced: frees of it are for FreeTaken. nullptr:
// not ours, or found by the hit path.
inline Block* TracedBlock(DeviceAddress address) {
  Pool* pool = IsTraced() ? g_pool.load(std::memory_order_acquire) : nullptr;
  return pool == nullptr ? nullptr : pool->Find(address);
}

// A real free of a pointer that is not ours, counted and recorded.
void CountForeignFree(Pool& pool, DeviceAddress address, int status, uint64_t begin_ns);

// CMP_MODE=observe: frees what a real call gave before. False: it is not known.
bool FreeObserved(Pool& pool, DeviceAddress address, const DeviceApi& api, int* status);

// The allocation behind `pointer` (its base, or an address inside) must be really freed when it is
// freed: somebody outside the process may use it, or it was given properties that stay.
void UnpoolRange(CUdeviceptr pointer);

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_SERVICE_H_
