// Driver entry points about green contexts: a part of a device's multiprocessors.
//
// A green context is a part of the device's primary one: it has streams of its own, allocates as
// the primary context does, and what is done for the whole primary context covers it.
#include "driver_entry.h"

namespace cmp::sim {
namespace {

constexpr unsigned kSmallestGroup = 8;

CUdevResource Multiprocessors(unsigned count) {
  CUdevResource resource{};
  resource.type = CU_DEV_RESOURCE_TYPE_SM;
  resource.sm.smCount = count;
#if CUDA_VERSION >= 13000
  resource.sm.minSmPartitionSize = kSmallestGroup;
  resource.sm.smCoscheduledAlignment = kSmallestGroup;
#endif
  return resource;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource* resource, CUdevResourceType type) {
  return Enter("cuDeviceGetDevResource", [&](Simulation& sim, Lock&) -> CUresult {
    if (resource == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    if (type != CU_DEV_RESOURCE_TYPE_SM) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    *resource = Multiprocessors(kMultiprocessors);
    return CUDA_SUCCESS;
  });
}

CUresult cuDevSmResourceSplitByCount(CUdevResource* groups, unsigned int* group_count,
                                     const CUdevResource* input, CUdevResource* remaining,
                                     unsigned int, unsigned int least) {
  return Enter("cuDevSmResourceSplitByCount", [&](Simulation&, Lock&) -> CUresult {
    if (group_count == nullptr || input == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (input->type != CU_DEV_RESOURCE_TYPE_SM) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    const unsigned size =
        (std::max(least, kSmallestGroup) + kSmallestGroup - 1) / kSmallestGroup * kSmallestGroup;
    const unsigned possible = input->sm.smCount / size;
    if (possible == 0) return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
    *group_count = groups == nullptr ? possible : std::min(*group_count, possible);
    if (groups == nullptr) return CUDA_SUCCESS;
    for (unsigned i = 0; i < *group_count; ++i) groups[i] = Multiprocessors(size);
    if (remaining != nullptr) {
      *remaining = Multiprocessors(input->sm.smCount - size * *group_count);
    }
    return CUDA_SUCCESS;
  });
}

CUresult cuDevResourceGenerateDesc(CUdevResourceDesc* description, CUdevResource* resources,
                                   unsigned int count) {
  return Enter("cuDevResourceGenerateDesc", [&](Simulation& sim, Lock&) -> CUresult {
    if (description == nullptr || resources == nullptr || count == 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    for (unsigned i = 0; i < count; ++i) {
      if (resources[i].type != CU_DEV_RESOURCE_TYPE_SM) return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    }
    *description = sim.resources.Add(std::make_unique<CUdevResource>(resources[0]));
    return CUDA_SUCCESS;
  });
}

CUresult cuGreenCtxCreate(CUgreenCtx* green, CUdevResourceDesc description, CUdevice device,
                          unsigned int flags) {
  return Enter("cuGreenCtxCreate", [&](Simulation& sim, Lock&) -> CUresult {
    if (green == nullptr || flags != CU_GREEN_CTX_DEFAULT_STREAM ||
        sim.resources.Find(description) == nullptr) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (!IsDevice(sim, device)) return CUDA_ERROR_INVALID_DEVICE;
    auto created = std::make_unique<GreenContext>();
    created->device = device;
    created->context = CreateGreenContext(sim, device)->handle;
    ++sim.devices[static_cast<size_t>(device)].primary_retained;
    *green = sim.green_contexts.Add(std::move(created));
    return CUDA_SUCCESS;
  });
}

CUresult cuGreenCtxDestroy(CUgreenCtx green) {
  return Enter("cuGreenCtxDestroy", [&](Simulation& sim, Lock& lock) -> CUresult {
    const std::unique_ptr<GreenContext> removed = sim.green_contexts.Remove(green);
    if (removed == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (sim.contexts.Find(removed->context) == nullptr) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    EndContext(sim, lock, removed->context);
    return ReleasePrimary(sim, lock, removed->device);
  });
}

CUresult cuCtxFromGreenCtx(CUcontext* context, CUgreenCtx green) {
  return Enter("cuCtxFromGreenCtx", [&](Simulation& sim, Lock&) -> CUresult {
    if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const GreenContext* found = sim.green_contexts.Find(green);
    if (found == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    *context = found->context;
    return CUDA_SUCCESS;
  });
}

#if CUDA_VERSION >= 12050

CUresult cuGreenCtxStreamCreate(CUstream* stream, CUgreenCtx green, unsigned int flags,
                                int priority) {
  return Enter("cuGreenCtxStreamCreate", [&](Simulation& sim, Lock&) -> CUresult {
    if (stream == nullptr || flags != CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    const GreenContext* found = sim.green_contexts.Find(green);
    if (found == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    Context* context = sim.contexts.Find(found->context);
    if (context == nullptr) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *stream = CreateStream(sim, *context, flags, priority)->handle;
    return CUDA_SUCCESS;
  });
}

#endif

}  // extern "C"
