// CMP_FILL: writes a byte into a block that is about to be handed out, for programs that read
// memory before they write it. CUDA leaves new memory undefined.
#ifndef CMP_CORE_FILL_H_
#define CMP_CORE_FILL_H_

#include "core/driver.h"
#include "core/pool.h"

namespace cmp {

// Does what the option asks for, if anything, with memory of `context`, which must be current.
// Waits for the fill alone, on a non-blocking stream of the thread's own: for no other work. A fill
// that fails (the context is broken) is left to the program's next call to find.
void FillNewBlock(Pool& pool, const Driver& driver, ContextPool& context, DeviceAddress address,
                  size_t bytes);

}  // namespace cmp

#endif  // CMP_CORE_FILL_H_
