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
  static Settlement SettleFree(Pool& pool, const Driver& driver, Block* block) {
    return cmp::SettleFree(pool, driver, block);
  }
};

}  // namespace

}  // namespace cmp

CMP_EXPORT const cmp::PoolFace* cmp_preload_pool() { return cmp::FaceOver<cmp::Preload>::Face(); }
