// What others ask the library itself. CudaMemoryPool: the preload's pool, so that a program that
// links the library and runs under the preload has one. cmp-preload: which options and counters
// there are, so that it repeats no table.
#include "core/base/options.h"
#include "core/base/statistics.h"
#include "core/library/face_over.h"
#include "shim/entry/process.h"
#include "shim/lookup/interposed.h"
#include "shim/service/service.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"
#include "shim/work/free_sync.h"

namespace cmp {

namespace {

struct Preload {
  static constexpr bool kSeesContextsEnd = true;

  static Pool* Started() { return StartedPool(); }
  static bool Capturing() {
    return IsAside() || (g_captures.UnderWay() && g_captures.OfThisThread());
  }
  static Allocation Alloc(Pool& pool, const Driver& driver, ContextPool* context, bool real,
                          size_t bytes, const DeviceApi& api) {
    return AllocTraced(pool, driver, context, real, bytes, api);
  }
  static int FreeTaken(Pool& pool, const Driver& driver, Block* block, BlockState taken, Wait wait,
                       const DeviceApi& api) {
    const Settle settle = wait == Wait::kNever ? &SettleWithoutWait : &SettleFree;
    return cmp::FreeTaken(pool, driver, block, block->address, taken, api,
                          {settle, &Pool::FreeRealUnlessRefused});
  }
};

}  // namespace

}  // namespace cmp

CMP_EXPORT const cmp::PoolFace* cmp_preload_pool() { return cmp::FaceOver<cmp::Preload>::Face(); }

// The table of options.
CMP_EXPORT void cmp_preload_options(void (*visit)(const char* name, const char* default_value,
                                                  const char* values, const char* meaning)) {
  cmp::VisitOptions(visit);
}

// 1 if the option takes the value, 0 if not or if there is no such option.
CMP_EXPORT int cmp_preload_is_right(const char* name, const char* value) {
  return cmp::IsRightValue(name, value) ? 1 : 0;
}

// One line to `say` if `name` begins with CMP_, is no option, and resembles one: what is meant.
CMP_EXPORT void cmp_preload_misspelled(const char* name, void (*say)(const char* line)) {
  const char* const environment[] = {name, nullptr};
  cmp::WarnOfMisspelledOptions(environment, say);
}

// The counters in the order of a statistics file: those of each tier, then those of the process.
CMP_EXPORT void cmp_preload_counters(void (*visit)(const char* kind, const char* name,
                                                   const char* meaning)) {
#define CMP_VISIT(name, meaning) visit("tier", #name, meaning);
  CMP_TIER_COUNTERS(CMP_VISIT)
#undef CMP_VISIT
#define CMP_VISIT(name, meaning) visit("process", #name, meaning);
  CMP_PROCESS_COUNTERS(CMP_VISIT)
#undef CMP_VISIT
}
