// The preload's pool as CudaMemoryPool sees it: a program that links the library and runs under
// the preload has one pool.
#include "core/face_over.h"
#include "shim/captures.h"
#include "shim/free_sync.h"
#include "shim/interposed.h"
#include "shim/process.h"
#include "shim/service.h"

namespace cmp {

namespace {

struct Preload {
  static constexpr bool kSeesContextsEnd = true;

  static Pool* Started() { return StartedPool(); }
  static bool Capturing() {
    return g_green_contexts.load(std::memory_order_acquire) ||
           (g_captures.UnderWay() && g_captures.OfThisThread());
  }
  static Allocation Alloc(Pool& pool, const Driver& driver, ContextPool* context, bool real,
                          size_t bytes, const DeviceApi& api) {
    return AllocTraced(pool, driver, context, real, bytes, api);
  }
  static void FreeTaken(Pool& pool, const Driver& driver, Block* block, BlockState taken,
                        const DeviceApi& api) {
    cmp::FreeTaken(pool, driver, block, block->address, taken, api);
  }
};

}  // namespace

}  // namespace cmp

CMP_EXPORT const cmp::PoolFace* cmp_preload_pool() { return cmp::FaceOver<cmp::Preload>::Face(); }
