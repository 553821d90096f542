// CMP_FILL: writes a byte into a block that is about to be handed out, for programs that read
// memory before they write it. CUDA leaves new memory undefined.
#ifndef CMP_CORE_POOL_FILL_H_
#define CMP_CORE_POOL_FILL_H_

#include "core/driver/driver.h"
#include "core/pool/pool.h"

namespace cmp {

// Does what the option asks for, if anything, with memory of `context`, which must be current.
// Waits for the fill alone, on a non-blocking stream of the thread's own: for no other work. A fill
// that fails (the context is broken) is left to the program's next call to find.
void FillNewBlock(Pool& pool, const Driver& driver, ContextPool& context, DeviceAddress address,
                  size_t bytes);

// An allocation of bytes > 0 in `context`, which is the current one's or nullptr, by the pool or,
// if `real`, by a real call; filled.
inline Allocation AllocFilled(Pool& pool, const Driver& driver, ContextPool* context, bool real,
                              size_t bytes, const DeviceApi& api) {
  const Allocation made = context == nullptr || real ? pool.AllocReal(context, bytes, api)
                                                     : pool.Alloc(*context, bytes, api);
  if (made.status == kSuccess && context != nullptr) {
    FillNewBlock(pool, driver, *context, made.address, bytes);
  }
  return made;
}

}  // namespace cmp

#endif  // CMP_CORE_POOL_FILL_H_
