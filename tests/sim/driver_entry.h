// What every file of driver entry points includes.
//
// The functions are those of cuda.h with all their ABI versions (__CUDA_API_VERSION_INTERNAL is
// defined for the whole library), so the header checks each signature. Entry points never call one
// another: an interposer must see exactly the calls that the program makes.
#ifndef CMP_TESTS_SIM_DRIVER_ENTRY_H_
#define CMP_TESTS_SIM_DRIVER_ENTRY_H_

#include <cuda.h>

#include "captures.h"
#include "contexts.h"
#include "settings.h"
#include "sim.h"
#include "simulation.h"
#include "streams.h"

// Those that older headers lack; cuCtxRecordEvent and cuCtxWaitEvent are in sim.h.
#if CUDA_VERSION < 13000
#pragma GCC visibility push(default)
extern "C" {
CUresult cuCtxSynchronize_v2(CUcontext context);
CUresult cuCtxGetDevice_v2(CUdevice* device, CUcontext context);
}
#pragma GCC visibility pop
#endif
#if CUDA_VERSION < 13030
#pragma GCC visibility push(default)
using CUgraphRecaptureCallback = void*;
extern "C" {
CUresult cuStreamBeginRecaptureToGraph(CUstream stream, CUstreamCaptureMode mode, CUgraph graph,
                                       CUgraphRecaptureCallback callback, void* data);
CUresult cuStreamBeginRecaptureToGraph_ptsz(CUstream stream, CUstreamCaptureMode mode,
                                            CUgraph graph, CUgraphRecaptureCallback callback,
                                            void* data);
}
#pragma GCC visibility pop
#endif

namespace cmp::sim {

inline constexpr int kMultiprocessors = 132;
inline constexpr int kThreads = 2048;  // of each

inline bool IsDevice(const Simulation& sim, int ordinal) {
  return ordinal >= 0 && static_cast<size_t>(ordinal) < sim.devices.size();
}

inline uintptr_t AddressOf(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }
inline void* PointerTo(uintptr_t address) { return reinterpret_cast<void*>(address); }

// Looks a symbol of this library up through dlsym; another's answer is counted as misuse.
void CheckOwnLookup();

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_DRIVER_ENTRY_H_
