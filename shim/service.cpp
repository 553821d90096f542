#include "shim/service.h"

#include "core/driver_api.h"
#include "core/fill.h"

namespace cmp {

Allocation AllocInContext(Pool& pool, const Driver& driver, size_t bytes, const DeviceApi& api) {
  ContextPool* context =
      g_green_contexts.load(std::memory_order_acquire) ? nullptr : pool.CurrentContextPool(driver);
  // A thread that captures makes the real call, whose error or success is the program's to see;
  // other threads may have idle blocks meanwhile.
  const bool capturing = g_captures.UnderWay() && g_captures.OfThisThread();
  if (capturing) pool.statistics().process().capture_real_calls.AddShared(1);
  return AllocFilled(pool, driver, context, capturing, bytes, api);
}

int FreeBlock(Pool& pool, const Driver& driver, Block* block, DeviceAddress address, bool live,
              const DeviceApi& api) {
  const BlockState taken = live ? BlockState::kLive : pool.Take(block, address);
  if (taken == BlockState::kLive) [[likely]] {
    if (const Settlement settled = SettleFree(pool, driver, block); settled.pooled) [[likely]] {
      pool.Retire(block, settled.stamp, api);
      return kSuccess;
    }
    return pool.FreeReal(block, api);
  }
  if (taken == BlockState::kUnpooled) return pool.FreeReal(block, api);
  // Freed before. The real call says what it says of a pointer that is no allocation; one byte
  // further, so that it cannot touch the idle block.
  pool.statistics().process().double_frees.AddShared(1);
  return api.Release(address + 1);
}

void CountForeignFree(Pool& pool, uint64_t begin_ns) {
  ProcessCounters& process = pool.statistics().process();
  process.real_free_ns.AddShared(NowNs() - begin_ns);
  process.real_free_calls.AddShared(1);
  process.foreign_frees.AddShared(1);
}

Block* TakeObserved(Pool& pool, DeviceAddress address) {
  if (pool.options().mode != Mode::kObserve) return nullptr;
  Block* block = pool.Find(address);
  return block != nullptr && pool.Take(block, address) == BlockState::kUnpooled ? block : nullptr;
}

bool ReleaseForOthers() {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  // From inside a real call of ours the pool does it itself; during a capture a real free of ours
  // could end it.
  if (pool == nullptr || driver == nullptr || t_inside_real != 0 || g_captures.UnderWay())
    return false;
  const bool worth = pool->ReleaseForRetry(DriverApi(*driver));
  if (worth) pool->statistics().process().out_of_memory_rescues.AddShared(1);
  return worth;
}

Block* BlockAround(const Pool& pool, const Driver& driver, CUdeviceptr pointer) {
  if (Block* block = pool.Find(pointer)) return block;
  CUdeviceptr base = 0;
  size_t bytes = 0;
  if (driver.mem_address_range(&base, &bytes, pointer) != CUDA_SUCCESS) return nullptr;
  return pool.Find(base);
}

void UnpoolRange(CUdeviceptr pointer) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  if (pool == nullptr || driver == nullptr || pointer == 0) return;
  if (const Block* block = BlockAround(*pool, *driver, pointer)) pool->Unpool(block->address);
}

}  // namespace cmp
