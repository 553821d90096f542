// Runtime entry points about streams, events and launches.
#include "runtime_driver.h"

namespace cmp::sim {
namespace {

CUresult Launch(const DriverFunctions& functions, const void* function, dim3 grid, dim3 block,
                void** arguments, size_t shared_bytes, cudaStream_t stream) {
  // There is no registration of kernels: the one "kernel", simFunction(), is its own address.
  auto* driver_function = reinterpret_cast<CUfunction>(const_cast<void*>(function));
  return functions.cuLaunchKernel(driver_function, grid.x, grid.y, grid.z, block.x, block.y,
                                  block.z, static_cast<unsigned>(shared_bytes), stream, arguments,
                                  nullptr);
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return CallDriver("cudaStreamCreate", [&](const Driver& driver) {
    return driver.legacy.cuStreamCreate(stream, CU_STREAM_DEFAULT);
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  return CallDriver("cudaStreamCreateWithFlags", [&](const Driver& driver) {
    return driver.legacy.cuStreamCreate(stream, flags);
  });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int flags, int priority) {
  return CallDriver("cudaStreamCreateWithPriority", [&](const Driver& driver) {
    return driver.legacy.cuStreamCreateWithPriority(stream, flags, priority);
  });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return CallDriver("cudaStreamDestroy",
                    [&](const Driver& driver) { return driver.legacy.cuStreamDestroy(stream); });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return CallDriver("cudaStreamQuery",
                    [&](const Driver& driver) { return driver.legacy.cuStreamQuery(stream); });
}

cudaError_t cudaStreamQuery_ptsz(cudaStream_t stream) {
  return CallDriver("cudaStreamQuery_ptsz",
                    [&](const Driver& driver) { return driver.per_thread.cuStreamQuery(stream); });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return CallDriver("cudaStreamSynchronize", [&](const Driver& driver) {
    return driver.legacy.cuStreamSynchronize(stream);
  });
}

cudaError_t cudaStreamSynchronize_ptsz(cudaStream_t stream) {
  return CallDriver("cudaStreamSynchronize_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamSynchronize(stream);
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
  return CallDriver("cudaStreamWaitEvent", [&](const Driver& driver) {
    return driver.legacy.cuStreamWaitEvent(stream, event, flags);
  });
}

cudaError_t cudaStreamWaitEvent_ptsz(cudaStream_t stream, cudaEvent_t event, unsigned int flags) {
  return CallDriver("cudaStreamWaitEvent_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamWaitEvent(stream, event, flags);
  });
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void* data,
                                  unsigned int flags) {
  return CallDriver("cudaStreamAddCallback", [&](const Driver& driver) {
    // The two callback types differ in the name of their error type alone.
    return driver.legacy.cuStreamAddCallback(stream, reinterpret_cast<CUstreamCallback>(callback),
                                             data, flags);
  });
}

cudaError_t cudaStreamAddCallback_ptsz(cudaStream_t stream, cudaStreamCallback_t callback,
                                       void* data, unsigned int flags) {
  return CallDriver("cudaStreamAddCallback_ptsz", [&](const Driver& driver) {
    // The two callback types differ in the name of their error type alone.
    return driver.per_thread.cuStreamAddCallback(
        stream, reinterpret_cast<CUstreamCallback>(callback), data, flags);
  });
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return CallDriver("cudaStreamGetPriority", [&](const Driver& driver) {
    return driver.legacy.cuStreamGetPriority(stream, priority);
  });
}

cudaError_t cudaStreamGetPriority_ptsz(cudaStream_t stream, int* priority) {
  return CallDriver("cudaStreamGetPriority_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamGetPriority(stream, priority);
  });
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned int* flags) {
  return CallDriver("cudaStreamGetFlags", [&](const Driver& driver) {
    return driver.legacy.cuStreamGetFlags(stream, flags);
  });
}

cudaError_t cudaStreamGetFlags_ptsz(cudaStream_t stream, unsigned int* flags) {
  return CallDriver("cudaStreamGetFlags_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamGetFlags(stream, flags);
  });
}

cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  return CallDriver("cudaStreamGetId",
                    [&](const Driver& driver) { return driver.legacy.cuStreamGetId(stream, id); });
}

cudaError_t cudaStreamGetId_ptsz(cudaStream_t stream, unsigned long long* id) {
  return CallDriver("cudaStreamGetId_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamGetId(stream, id);
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return CallDriver("cudaEventCreate", [&](const Driver& driver) {
    return driver.legacy.cuEventCreate(event, CU_EVENT_DEFAULT);
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags) {
  return CallDriver("cudaEventCreateWithFlags", [&](const Driver& driver) {
    return driver.legacy.cuEventCreate(event, flags);
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return CallDriver("cudaEventDestroy",
                    [&](const Driver& driver) { return driver.legacy.cuEventDestroy(event); });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return CallDriver("cudaEventQuery",
                    [&](const Driver& driver) { return driver.legacy.cuEventQuery(event); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return CallDriver("cudaEventSynchronize",
                    [&](const Driver& driver) { return driver.legacy.cuEventSynchronize(event); });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return CallDriver("cudaEventElapsedTime", [&](const Driver& driver) {
#if CUDA_VERSION >= 12080
    if (driver.legacy.cuEventElapsedTime_v2 != nullptr) {
      return driver.legacy.cuEventElapsedTime_v2(milliseconds, start, end);
    }
#endif
    return driver.legacy.cuEventElapsedTime(milliseconds, start, end);
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return CallDriver("cudaEventRecord", [&](const Driver& driver) {
    return driver.legacy.cuEventRecord(event, stream);
  });
}

cudaError_t cudaEventRecord_ptsz(cudaEvent_t event, cudaStream_t stream) {
  return CallDriver("cudaEventRecord_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuEventRecord(event, stream);
  });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned int flags) {
  return CallDriver("cudaEventRecordWithFlags", [&](const Driver& driver) {
    return driver.legacy.cuEventRecordWithFlags(event, stream, flags);
  });
}

cudaError_t cudaEventRecordWithFlags_ptsz(cudaEvent_t event, cudaStream_t stream,
                                          unsigned int flags) {
  return CallDriver("cudaEventRecordWithFlags_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuEventRecordWithFlags(event, stream, flags);
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return CallDriver("cudaLaunchHostFunc", [&](const Driver& driver) {
    return driver.legacy.cuLaunchHostFunc(stream, function, data);
  });
}

cudaError_t cudaLaunchHostFunc_ptsz(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return CallDriver("cudaLaunchHostFunc_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuLaunchHostFunc(stream, function, data);
  });
}

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes, cudaStream_t stream) {
  return CallDriver("cudaLaunchKernel", [&](const Driver& driver) {
    return Launch(driver.legacy, function, grid, block, arguments, shared_bytes, stream);
  });
}

cudaError_t cudaLaunchKernel_ptsz(const void* function, dim3 grid, dim3 block, void** arguments,
                                  size_t shared_bytes, cudaStream_t stream) {
  return CallDriver("cudaLaunchKernel_ptsz", [&](const Driver& driver) {
    return Launch(driver.per_thread, function, grid, block, arguments, shared_bytes, stream);
  });
}

}  // extern "C"
