// Driver entry points about contexts.
#include "driver_entry.h"
#include "memory_pools.h"

namespace cmp::sim {
namespace {

CUresult Create(Simulation& sim, CUcontext* handle, unsigned flags, CUdevice device,
                unsigned version) {
  if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
  for (const auto& [other, context] : sim.contexts.all()) {
    if (context->device != device) continue;
    const CUresult failed = FindOut(sim, *context);
    if (failed != CUDA_SUCCESS) return failed;
  }
  *handle = CreateContext(sim, device, flags, version)->handle;
  PushCurrentHandle(*handle);
  return CUDA_SUCCESS;
}

CUresult Destroy(Simulation& sim, Lock& lock, CUcontext handle) {
  const Context* context = sim.contexts.Find(handle);
  if (context == nullptr) {
    sim.misuse.Add("a context handle that is not a live context's was destroyed");
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  if (context->primary || context->whole != nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  EndContext(sim, lock, handle);
  if (CurrentHandle() == handle) PopCurrentHandle(nullptr);
  return CUDA_SUCCESS;
}

CUresult Synchronize(Simulation& sim, Lock& lock, CUcontext handle) {
  Context* context = nullptr;
  const CUresult result = RequireContext(sim, handle, &context);
  if (result != CUDA_SUCCESS) return result;
  const CUresult capturing = CheckContextCall(sim, *context);
  return capturing != CUDA_SUCCESS ? capturing
                                   : PoolsSynchronised(sim, Drain(sim, lock, context->handle));
}

CUresult Release(Simulation& sim, Lock& lock, CUdevice device) {
  return IsDevice(sim, device) ? ReleasePrimary(sim, lock, device) : CUDA_ERROR_INVALID_DEVICE;
}

CUresult ResetPrimary(Simulation& sim, Lock& lock, CUdevice device) {
  if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
  Device& owner = sim.devices[static_cast<size_t>(device)];
  owner.primary_retained = 0;
  if (owner.primary_handle != nullptr) EndContext(sim, lock, owner.primary_handle);
  return CUDA_SUCCESS;
}

CUresult SetPrimaryFlags(Simulation& sim, CUdevice device, unsigned flags) {
  if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
  sim.devices[static_cast<size_t>(device)].primary_flags = flags;
  return CUDA_SUCCESS;
}

CUresult Push(Simulation& sim, CUcontext handle) {
  if (sim.contexts.Find(handle) == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return PushCurrentHandle(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult Pop(CUcontext* handle) {
  return PopCurrentHandle(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult GetDevice(Simulation& sim, CUdevice* device, CUcontext handle) {
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Context* context = nullptr;
  const CUresult result = RequireContext(sim, handle, &context);
  if (context == nullptr) return result;
  *device = context->device;  // also of a failed context
  return CUDA_SUCCESS;
}

// What an H200 begins with.
size_t DefaultLimit(CUlimit limit) {
  switch (limit) {
    case CU_LIMIT_STACK_SIZE:
      return 1024;
    case CU_LIMIT_PRINTF_FIFO_SIZE:
    case CU_LIMIT_MALLOC_HEAP_SIZE:
      return size_t{8} << 20;
    default:
      return 0;
  }
}

// What a larger limit than the default takes is taken at once; it is gone with the context.
CUresult SetLimit(Simulation& sim, CUlimit limit, size_t value) {
  Context* context = nullptr;
  const CUresult result = RequireContext(sim, &context);
  if (result != CUDA_SUCCESS) return result;
  const size_t standard = DefaultLimit(limit);
  if (standard == 0) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  const auto before = context->limit_memory.find(limit);
  if (before != context->limit_memory.end()) {
    sim.allocations.Release(*sim.allocations.FindBase(before->second));
    context->limit_memory.erase(before);
    context->limits.erase(limit);
  }
  if (value > standard) {
    const size_t each = limit == CU_LIMIT_STACK_SIZE ? size_t{kMultiprocessors} * kThreads : 1;
    bool spoiled = false;
    const Allocation* taken =
        sim.allocations.AllocateDevice(*context, value * each, MemoryKind::kArray, &spoiled);
    if (taken == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    context->limit_memory[limit] = taken->base;
  }
  context->limits[limit] = value;
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuDevicePrimaryCtxRetain(CUcontext* handle, CUdevice device) {
  return Enter("cuDevicePrimaryCtxRetain", [&](Simulation& sim, Lock&) -> CUresult {
    if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    *handle = ActivatePrimary(sim, device)->handle;
    ++sim.devices[static_cast<size_t>(device)].primary_retained;
    return CUDA_SUCCESS;
  });
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  return Enter("cuDevicePrimaryCtxRelease",
               [&](Simulation& sim, Lock& lock) { return Release(sim, lock, device); });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return Enter("cuDevicePrimaryCtxRelease_v2",
               [&](Simulation& sim, Lock& lock) { return Release(sim, lock, device); });
}

CUresult cuDevicePrimaryCtxReset(CUdevice device) {
  return Enter("cuDevicePrimaryCtxReset",
               [&](Simulation& sim, Lock& lock) { return ResetPrimary(sim, lock, device); });
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  return Enter("cuDevicePrimaryCtxReset_v2",
               [&](Simulation& sim, Lock& lock) { return ResetPrimary(sim, lock, device); });
}

CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags) {
  return Enter("cuDevicePrimaryCtxSetFlags",
               [&](Simulation& sim, Lock&) { return SetPrimaryFlags(sim, device, flags); });
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags) {
  return Enter("cuDevicePrimaryCtxSetFlags_v2",
               [&](Simulation& sim, Lock&) { return SetPrimaryFlags(sim, device, flags); });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int* flags, int* active) {
  return Enter("cuDevicePrimaryCtxGetState", [&](Simulation& sim, Lock&) -> CUresult {
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    const Device& owner = sim.devices[static_cast<size_t>(device)];
    if (flags != nullptr) *flags = owner.primary_flags;
    if (active != nullptr) *active = sim.contexts.Find(owner.primary_handle) != nullptr;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxCreate_v2(CUcontext* handle, unsigned int flags, CUdevice device) {
  return Enter("cuCtxCreate_v2",
               [&](Simulation& sim, Lock&) { return Create(sim, handle, flags, device, 3020); });
}

CUresult cuCtxCreate_v3(CUcontext* handle, CUexecAffinityParam*, int, unsigned int flags,
                        CUdevice device) {
  return Enter("cuCtxCreate_v3",
               [&](Simulation& sim, Lock&) { return Create(sim, handle, flags, device, 3020); });
}

#if CUDA_VERSION >= 12050
CUresult cuCtxCreate_v4(CUcontext* handle, CUctxCreateParams*, unsigned int flags,
                        CUdevice device) {
  return Enter("cuCtxCreate_v4",
               [&](Simulation& sim, Lock&) { return Create(sim, handle, flags, device, 3020); });
}
#endif

CUresult cuCtxDestroy(CUcontext handle) {
  return Enter("cuCtxDestroy",
               [&](Simulation& sim, Lock& lock) { return Destroy(sim, lock, handle); });
}

CUresult cuCtxDestroy_v2(CUcontext handle) {
  return Enter("cuCtxDestroy_v2",
               [&](Simulation& sim, Lock& lock) { return Destroy(sim, lock, handle); });
}

CUresult cuCtxAttach(CUcontext* handle, unsigned int flags) {
  return Enter("cuCtxAttach", [&](Simulation& sim, Lock&) -> CUresult {
    if (handle == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    ++context->attached;
    *handle = context->handle;
    return CUDA_SUCCESS;
  });
}

// The context must be current; the last one ends it.
CUresult cuCtxDetach(CUcontext handle) {
  return Enter("cuCtxDetach", [&](Simulation& sim, Lock& lock) -> CUresult {
    Context* context = sim.contexts.Find(handle);
    if (context == nullptr || handle != CurrentHandle() || context->primary ||
        context->whole != nullptr) {
      return CUDA_ERROR_INVALID_CONTEXT;
    }
    return --context->attached > 0 ? CUDA_SUCCESS : Destroy(sim, lock, handle);
  });
}

CUresult cuCtxPushCurrent(CUcontext handle) {
  return Enter("cuCtxPushCurrent", [&](Simulation& sim, Lock&) { return Push(sim, handle); });
}

CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  return Enter("cuCtxPushCurrent_v2", [&](Simulation& sim, Lock&) { return Push(sim, handle); });
}

CUresult cuCtxPopCurrent(CUcontext* handle) {
  return Enter("cuCtxPopCurrent", [&](Simulation&, Lock&) { return Pop(handle); });
}

CUresult cuCtxPopCurrent_v2(CUcontext* handle) {
  return Enter("cuCtxPopCurrent_v2", [&](Simulation&, Lock&) { return Pop(handle); });
}

CUresult cuCtxSetCurrent(CUcontext handle) {
  return Enter("cuCtxSetCurrent", [&](Simulation& sim, Lock&) -> CUresult {
    if (handle != nullptr && sim.contexts.Find(handle) == nullptr) {
      return CUDA_ERROR_INVALID_CONTEXT;
    }
    SetCurrentHandle(handle);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetCurrent(CUcontext* handle) {
  return Enter("cuCtxGetCurrent", [&](Simulation&, Lock&) -> CUresult {
    if (handle == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *handle = CurrentHandle();
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetDevice(CUdevice* device) {
  return Enter("cuCtxGetDevice",
               [&](Simulation& sim, Lock&) { return GetDevice(sim, device, nullptr); });
}

CUresult cuCtxGetDevice_v2(CUdevice* device, CUcontext handle) {
  return Enter("cuCtxGetDevice_v2",
               [&](Simulation& sim, Lock&) { return GetDevice(sim, device, handle); });
}

CUresult cuCtxGetId(CUcontext handle, unsigned long long* id) {
  return Enter("cuCtxGetId", [&](Simulation& sim, Lock&) -> CUresult {
    if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, handle, &context);
    if (context == nullptr || (result != CUDA_SUCCESS && handle == nullptr)) return result;
    *id = context->id;  // also of a failed context, if it is named
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetFlags(unsigned int* flags) {
  return Enter("cuCtxGetFlags", [&](Simulation& sim, Lock&) -> CUresult {
    if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (context == nullptr) return result;
    *flags = context->flags;  // also of a failed context
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetApiVersion(CUcontext handle, unsigned int* version) {
  return Enter("cuCtxGetApiVersion", [&](Simulation& sim, Lock&) -> CUresult {
    if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, handle, &context);
    if (result == CUDA_SUCCESS) *version = 3020;
    return result;
  });
}

CUresult cuCtxSetLimit(CUlimit limit, size_t value) {
  return Enter("cuCtxSetLimit",
               [&](Simulation& sim, Lock&) { return SetLimit(sim, limit, value); });
}

CUresult cuCtxGetLimit(size_t* value, CUlimit limit) {
  return Enter("cuCtxGetLimit", [&](Simulation& sim, Lock&) -> CUresult {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    if (DefaultLimit(limit) == 0) return CUDA_ERROR_UNSUPPORTED_LIMIT;
    const auto found = context->limits.find(limit);
    *value = found != context->limits.end() ? found->second : DefaultLimit(limit);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  return Enter("cuCtxGetStreamPriorityRange", [&](Simulation&, Lock&) -> CUresult {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxSynchronize() {
  return Enter("cuCtxSynchronize",
               [&](Simulation& sim, Lock& lock) { return Synchronize(sim, lock, nullptr); });
}

CUresult cuCtxSynchronize_v2(CUcontext handle) {
  return Enter("cuCtxSynchronize_v2",
               [&](Simulation& sim, Lock& lock) { return Synchronize(sim, lock, handle); });
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
  return Enter("cuCtxEnablePeerAccess", [&](Simulation& sim, Lock&) -> CUresult {
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const Context* other = sim.contexts.Find(peer);
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (other == nullptr || other == context) return CUDA_ERROR_INVALID_CONTEXT;
    return context->reachable.insert(other).second ? CUDA_SUCCESS
                                                   : CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
  });
}

CUresult cuCtxDisablePeerAccess(CUcontext peer) {
  return Enter("cuCtxDisablePeerAccess", [&](Simulation& sim, Lock&) -> CUresult {
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const Context* other = sim.contexts.Find(peer);
    if (other == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    return context->reachable.erase(other) != 0 ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
  });
}

}  // extern "C"
