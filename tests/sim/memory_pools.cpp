#include "memory_pools.h"

namespace cmp::sim {
namespace {

// What it takes of the pool; in the device's memory blocks from 2 MiB up take whole pages.
size_t Rounded(size_t bytes) {
  const size_t unit = bytes < kSmallLimit ? kSmallAlignment : kPage;
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

// The handle says no more than which device.
CUmemoryPool DefaultPool(Simulation& sim, CUdevice device) {
  return reinterpret_cast<CUmemoryPool>(&sim.devices[static_cast<size_t>(device)]);
}

CUmemoryPool CurrentPool(Simulation& sim, CUdevice device) {
  const Device& owner = sim.devices[static_cast<size_t>(device)];
  return FindPool(sim, owner.current_pool) != nullptr ? owner.current_pool
                                                      : DefaultPool(sim, device);
}

MemoryPool* FindPool(Simulation& sim, CUmemoryPool handle) {
  for (Device& device : sim.devices) {
    if (handle == reinterpret_cast<CUmemoryPool>(&device)) return &device.default_pool;
  }
  return sim.pools.Find(handle);
}

Allocation* AllocateFrom(Simulation& sim, const Context& context, CUmemoryPool handle,
                         size_t bytes) {
  MemoryPool& pool = *FindPool(sim, handle);
  Allocation* allocation = nullptr;
  if (pool.location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    allocation = sim.allocations.AllocateHost(context, bytes, MemoryKind::kPool, 0);
    if (allocation == nullptr) return nullptr;
    allocation->on_host = true;
  } else if (const auto kept = pool.kept.find(Rounded(bytes)); kept != pool.kept.end()) {
    allocation = sim.allocations.AllocateKept(context, kept->second, bytes);
    pool.kept.erase(kept);
    pool.used.Add(Rounded(bytes));
  } else {
    bool spoiled = false;
    const auto allocate = [&] {
      return sim.allocations.AllocateDevice(context, bytes, MemoryKind::kPool, &spoiled);
    };
    allocation = allocate();
    if (allocation == nullptr && TrimPoolsOf(sim, context.device)) allocation = allocate();
    if (allocation == nullptr) return nullptr;
    NotePoolCost(bytes);
    pool.used.Add(Rounded(bytes));
    pool.reserved.Add(Rounded(bytes));
  }
  allocation->pool = handle;
  return allocation;
}

void FreeInPool(Simulation& sim, Allocation& allocation) {
  MemoryPool* pool = allocation.pool != nullptr ? FindPool(sim, allocation.pool) : nullptr;
  if (pool == nullptr || allocation.on_host) return sim.allocations.Release(allocation);
  const size_t bytes = Rounded(allocation.bytes);
  pool->used.now -= bytes;
  pool->kept.emplace(bytes, allocation.base);
  sim.allocations.Keep(allocation);
}

void TrimPool(Simulation& sim, MemoryPool& pool, size_t least) {
  while (pool.reserved.now > least && !pool.kept.empty()) {
    const auto largest = std::prev(pool.kept.end());
    NotePoolCost(largest->first);
    sim.allocations.ReleaseKept(pool.location.id, largest->second, largest->first);
    pool.reserved.now -= largest->first;
    pool.kept.erase(largest);
  }
}

bool TrimPoolsOf(Simulation& sim, CUdevice device) {
  const size_t used = sim.allocations.device(device).used();
  TrimPool(sim, sim.devices[static_cast<size_t>(device)].default_pool, 0);
  for (const auto& [handle, pool] : sim.pools.all()) {
    if (pool->location.id == device) TrimPool(sim, *pool, 0);
  }
  return sim.allocations.device(device).used() < used;
}

CUresult PoolsSynchronised(Simulation& sim, CUresult status) {
  for (Device& device : sim.devices) {
    TrimPool(sim, device.default_pool, device.default_pool.threshold);
  }
  for (const auto& [handle, pool] : sim.pools.all()) TrimPool(sim, *pool, pool->threshold);
  return status;
}

void EndPoolsIn(Simulation& sim, const Context& context) {
  for (Allocation* allocation : sim.allocations.PooledIn(context.id)) {
    FreeInPool(sim, *allocation);
  }
  if (!context.primary) return;
  for (const auto& [handle, pool] : sim.pools.all()) {
    if (pool->location.id == context.device) TrimPool(sim, *pool, 0);
  }
  MemoryPool& pool = sim.devices[static_cast<size_t>(context.device)].default_pool;
  TrimPool(sim, pool, pool.threshold);
}

}  // namespace cmp::sim
