// Contexts: which one is current on a thread, and their birth and end.
//
// Invariants: a context's id is never reused, its handle is, except that a device's primary
// context has one handle for ever. Ending a context first runs what is pending in it, then frees
// its memory and streams. The caller holds the lock.
#ifndef CMP_TESTS_SIM_CONTEXTS_H_
#define CMP_TESTS_SIM_CONTEXTS_H_

#include "simulation.h"

namespace cmp::sim {

// The calling thread's stack of current contexts. Handles only: what they stand for may be gone.
CUcontext CurrentHandle();
void SetCurrentHandle(CUcontext handle);
bool PushCurrentHandle(CUcontext handle);
bool PopCurrentHandle(CUcontext* handle);

// The context that a call works in, or why there is none: CUDA_ERROR_INVALID_CONTEXT, or the
// sticky error of a context that is known to have failed.
CUresult RequireContext(Simulation& sim, Context** context);
// By handle; null stands for the current one, as in cuCtxGetId and cuCtxRecordEvent.
CUresult RequireContext(Simulation& sim, CUcontext handle, Context** context);
// For calls that look at the device: waits, and questions about work. Once one of them has found
// out that a kernel failed, every context of the device says so (measured).
CUresult FindOut(Simulation& sim, const Context& context);

Context* CreateContext(Simulation& sim, int device, unsigned flags, unsigned version);
// Makes the device's primary context active when it is not.
Context* ActivatePrimary(Simulation& sim, int device);
// A part of the device's active primary context.
Context* CreateGreenContext(Simulation& sim, int device);
// Gives one reference of the device's primary context up.
CUresult ReleasePrimary(Simulation& sim, Lock& lock, int device);
// Its green contexts end with it. May release the lock while it waits; `handle` stands for nothing
// afterwards.
void EndContext(Simulation& sim, Lock& lock, CUcontext handle);

// Writes what kernels of the context printed to stdout, the program's own stream.
void ShowPrinted(Simulation& sim, const Context& context);

// Runs everything that is pending in the context, and shows what it printed. The error of a context
// that failed, or is gone, meanwhile.
CUresult Drain(Simulation& sim, Lock& lock, CUcontext handle);
// The same for some of its items.
CUresult WaitFor(Simulation& sim, Lock& lock, CUcontext handle, const std::vector<ItemPtr>& items);
// Drain for a free, which holds up other threads' submissions until it has waited. That of a small
// block (`freed`) waits for what other devices write into it on the context's own streams, too:
// copies from them (two H200s, 64 KiB; whether that of another block waits for them was not
// measured).
CUresult DrainForFree(Simulation& sim, Lock& lock, CUcontext handle, const Range& freed = {});
// Returns once no other thread's free waits for the context, which may be gone by then.
// REQUIRES: called by an entry point's body
void LetFreesPass(Simulation& sim, const Context& context);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_CONTEXTS_H_
