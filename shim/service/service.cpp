#include "shim/service/service.h"

#include "core/driver/driver_api.h"
#include "core/pool/fill.h"
#include "shim/record/held_up.h"
#include "shim/shake/shake.h"
#include "shim/state/captures.h"
#include "shim/work/context_work.h"

namespace cmp {

Allocation AllocInContext(Pool& pool, const Driver& driver, size_t bytes, const DeviceApi& api) {
  const HeldContext context = ServingContext(pool, driver);
  // A thread that captures makes the real call, whose error or success is the program's to see;
  // other threads may have idle blocks meanwhile.
  const bool capturing = g_captures.UnderWay() && g_captures.OfThisThread();
  if (capturing) pool.statistics().process().capture_real_calls.AddShared(1);
  return AllocTraced(pool, driver, context.get(), capturing, bytes, api);
}

Allocation AllocTraced(Pool& pool, const Driver& driver, ContextPool* context, bool real,
                       size_t bytes, const DeviceApi& api) {
  if (!IsTraced()) [[likely]]
    return AllocFilled(pool, driver, context, real, bytes, api);
  const uint64_t begin = NowNs();
  const Allocation made = AllocFilled(pool, driver, context, real, bytes, api);
  TraceAlloc(&driver, context, bytes, made, begin);
  return made;
}

Allocation AllocObserved(Pool& pool, size_t bytes, const DeviceApi& api) {
  if (!IsObserved()) [[unlikely]] {
    g_observed.store(&pool.statistics().process(), std::memory_order_release);
    MakeNoStreamQuiet();
  }
  const InsideAllocation inside;
  const uint64_t begin = NowNs();
  const Allocation made = pool.AllocReal(nullptr, bytes, api);
  if (IsTraced()) TraceAlloc(LoadedDriver(), nullptr, bytes, made, begin);
  return made;
}

namespace {

struct Freed {
  int status;
  TraceOutcome outcome;
};

// Would the real free have waited, and will this one? One that owes no order is no site.
[[gnu::noinline, gnu::cold]] void TellShaker(Pool& pool, const Block& block, BlockState taken,
                                             Settle settle) {
  if (taken != BlockState::kLive || g_captures.UnderWay()) {
    if (RuleIsOn(Rule::kFreesThatMayWaitEndHolds)) ShakeWait(kSeveralStreams);
  } else if (settle == &SettleFree && pool.readiness().StampNow(*block.owner()) != kReady) {
    ShakeFree(block.requested);
  }
}

Freed Free(Pool& pool, const Driver& driver, Block* block, DeviceAddress address, BlockState taken,
           const DeviceApi& api, const FreeManner& manner) {
  if (TheShaker() != nullptr) [[unlikely]]
    TellShaker(pool, *block, taken, manner.settle);
  if (taken == BlockState::kLive) [[likely]] {
    if (const Settlement settled = manner.settle(pool, driver, *block->owner()); settled.pooled())
        [[likely]] {
      const bool waited = pool.Retire(block, settled.stamp, api) || settled.waited();
      return {kSuccess, waited ? TraceOutcome::waited : TraceOutcome::pooled};
    }
  }
  if (taken == BlockState::kLive || taken == BlockState::kUnpooled) {
    return {(pool.*manner.real_free)(block, api), TraceOutcome::real_free};
  }
  if (!pool.StillHas(block, address)) return {api.Release(address), TraceOutcome::foreign_free};
  // Freed before. The real call says what it says of a pointer that is no allocation; one byte
  // further, so that it cannot touch the idle block.
  pool.statistics().process().double_frees.AddShared(1);
  return {api.Release(address + 1), TraceOutcome::double_free};
}

}  // namespace

int FreeBlock(Pool& pool, const Driver& driver, Block* block, DeviceAddress address, bool live,
              const DeviceApi& api) {
  const BlockState taken = live ? BlockState::kLive : pool.Take(block, address);
  return Free(pool, driver, block, address, taken, api, {}).status;
}

int FreeTaken(Pool& pool, const Driver& driver, Block* block, DeviceAddress address,
              BlockState taken, const DeviceApi& api, const FreeManner& manner) {
  const uint64_t begin = NowNs();
  const bool ours = taken == BlockState::kLive || taken == BlockState::kUnpooled;
  const ContextIdentity of = ours ? block->owner()->identity() : ContextIdentity{};
  const size_t bytes = ours ? block->requested : 0;
  const Freed freed = Free(pool, driver, block, address, taken, api, manner);
  if (!IsTraced()) return freed.status;
  TraceFree(of, bytes, address, freed.outcome, freed.status, begin);
  return freed.status;
}

void CountForeignFree(Pool& pool, DeviceAddress address, int status, uint64_t begin_ns) {
  ProcessCounters& process = pool.statistics().process();
  process.real_free_ns.AddShared(NowNs() - begin_ns);
  process.real_free_calls.AddShared(1);
  process.foreign_frees.AddShared(1);
  if (IsTraced()) {
    TraceFree({}, 0, address, TraceOutcome::foreign_free, status, begin_ns);
  }
}

bool FreeObserved(Pool& pool, DeviceAddress address, const DeviceApi& api, int* status) {
  if (pool.options().mode != Mode::kObserve) return false;
  Block* block = pool.Find(address);
  if (block == nullptr || pool.Take(block, address) != BlockState::kUnpooled) return false;
  const InsideAllocation inside;
  *status = FreeTaken(pool, *LoadedDriver(), block, address, BlockState::kUnpooled, api);
  return true;
}

void UnpoolRange(CUdeviceptr pointer) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const Block* block = pool == nullptr ? nullptr : pool->FindAround(pointer);
  if (block != nullptr) pool->Unpool(block->address);
  if (PageLockedPool* page_locked = g_page_locked.load(std::memory_order_acquire)) {
    page_locked->Unpool(pointer);
  }
}

}  // namespace cmp
