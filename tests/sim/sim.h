// The simulated CUDA's own controls: what a test program calls besides CUDA itself.
//
// Everything here is exported by the simulated libcuda.so.1 with C linkage, callable from any
// thread, and costs no virtual time unless its line says so. A program that must also run on the
// real driver has to look these names up with dlsym.
#ifndef CMP_TESTS_SIM_SIM_H_
#define CMP_TESTS_SIM_SIM_H_

#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

#ifdef __cplusplus
extern "C" {
#endif

// Functions of the simulated driver that older headers do not declare.
#if CUDA_VERSION < 12050
CUresult cuCtxRecordEvent(CUcontext context, CUevent event);
CUresult cuCtxWaitEvent(CUcontext context, CUevent event);
#endif

#if CUDA_VERSION >= 12080 && CUDA_VERSION < 13020
CUresult cuMemcpyWithAttributesAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                     CUmemcpyAttributes* attributes, CUstream stream);
CUresult cuMemcpyWithAttributesAsync_ptsz(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                                          CUmemcpyAttributes* attributes, CUstream stream);
CUresult cuMemcpy3DWithAttributesAsync(CUDA_MEMCPY3D_BATCH_OP* box, unsigned long long flags,
                                       CUstream stream);
CUresult cuMemcpy3DWithAttributesAsync_ptsz(CUDA_MEMCPY3D_BATCH_OP* box, unsigned long long flags,
                                            CUstream stream);
#endif

// A stretch of memory that a work item reads or writes: device, page-locked or managed.
typedef struct SimRange {
  const void* pointer;
  size_t bytes;
} SimRange;

enum {
  SIM_WORK_TRAP = 1,  // the kernel fails: its context gets the sticky error 719
};

// A simulated kernel. Zero-initialise, then set what matters. The arrays are copied at the launch.
typedef struct SimWork {
  uint64_t id;           // names the item; part of the default effect's hash
  uint64_t duration_ns;  // virtual time on the device
  const SimRange* reads;
  size_t read_count;
  const SimRange* writes;
  size_t write_count;
  // The effect on memory, applied at completion, called without the simulator's lock and not
  // allowed to call CUDA. NULL: every written range is filled with a hash of (id, contents of all
  // read ranges), so final contents are a fingerprint of the order in which items ran.
  void (*effect)(void* data);
  void* data;
  uint64_t spin_until_id;  // not 0: runs until an item with that id is launched after this one
  unsigned flags;          // SIM_WORK_*
  // What the kernel prints. It goes to stdout when the program next waits for a stream, an event,
  // a context, a copy or a free, or exits, and only if the kernel is done by then.
  const char* print;
  // Textures and surfaces that it reads or writes through. One that was destroyed before the kernel
  // is done is a hazard.
  const unsigned long long* objects;
  size_t object_count;
} SimWork;

// --- Work ---------------------------------------------------------------------------------------

// The one "kernel" of the simulator: cuLaunchKernel(simFunction(), …, kernelParams, NULL) with
// kernelParams[0] pointing to a `const SimWork*`. cudaLaunchKernel takes it as its function, too.
CUfunction simFunction(void);
// Launches through the process's cuLaunchKernel, so an interposed one sees it.
CUresult simLaunch(CUstream stream, const SimWork* work);
// Launches past every interposer: work like that of NVIDIA's private tables.
CUresult simSubmit(CUstream stream, const SimWork* work);

// --- Virtual time -------------------------------------------------------------------------------

uint64_t simNow(void);
void simAdvance(uint64_t nanoseconds);      // lets items whose time has come complete
size_t simPendingCount(CUcontext context);  // submitted, not complete; NULL: all contexts
// 0: deterministic, exact durations. Odd: jittered durations, random order of what is equally
// possible. Even: jittered and lazy: nothing runs before it must. See README.md.
void simSeed(uint64_t seed);

// --- Failures -----------------------------------------------------------------------------------

// The nth call from now (1: the next one) of an entry point, driver or runtime, returns `error`
// and does nothing else.
void simFailNext(const char* name, uint64_t nth, int error);
void simFailFrom(const char* name, uint64_t nth, int error);  // that one and all after it
void simFailRandomly(const char* name, double probability, uint64_t seed, int error);
// From now on the entry point of the driver returns `error`, and does nothing else, wherever the
// current context's device (without one, the first) has less than `bytes` free. What it really
// would take is not taken.
void simNeed(const char* name, size_t bytes, int error);
void simFailNever(void);

// --- Places in other calls
// ------------------------------------------------------------------------

enum { SIM_BEFORE_CALL, SIM_AFTER_CALL };
// `function` is called in every call of the entry point, on the calling thread and without the
// simulator's lock, right before the call takes effect or right after, before it returns. It may
// call CUDA (where it is not called again) and let other threads do so. NULL: no longer.
void simOnCall(const char* name, int when, void (*function)(void* data), void* data);

// --- Checkers -----------------------------------------------------------------------------------

// Call right after the allocation returned and right before the free is called. Also for
// page-locked memory, whose contents then count for the fingerprint.
void simNoteAlloc(const void* pointer, size_t bytes);
void simNoteFree(const void* pointer);
void simNoteKept(const void* pointer, size_t bytes);  // the free failed: the block is still in use
uint64_t simHazardCount(void);
// The first hazards in words, one a line; valid until the calling thread asks again.
const char* simHazardReport(void);
uint64_t simMisuseCount(void);  // invalid handles, calls from host functions, calls after exit
const char* simMisuseReport(void);
// A hash of the contents of all noted live buffers, independent of addresses and of the order in
// which they were noted. Waits for nothing.
uint64_t simFingerprint(void);

// --- Counters -----------------------------------------------------------------------------------

uint64_t simCallCount(const char* name);  // calls of an entry point, by its symbol's name
uint64_t simUsedBytes(int device);        // what cuMemGetInfo would subtract from the total
uint64_t simLiveAllocations(int device);  // device allocations that were not freed
uint64_t simHostBytes(void);  // page-locked memory of the host that was not freed, as asked for
// Of managed memory, in granules of 2 MiB: how many came to the device, went from it to the host
// for want of room, were used by the device where they were, since blocks left no room. See
// README.md.
uint64_t simManagedMigrations(int device);
uint64_t simManagedEvictions(int device);
uint64_t simManagedRemoteUses(int device);
// What an IPC handle really names. False for a handle that is not the simulator's.
int simDescribeIpcHandle(const CUipcMemHandle* handle, CUdeviceptr* base, size_t* bytes, int* pid);
// Clears counters, hazards, misuse, notes, failures; restarts the random sequence. Contexts,
// streams, memory and pending work stay.
void simReset(void);

#ifdef __cplusplus
}
#endif

#pragma GCC visibility pop

#endif  // CMP_TESTS_SIM_SIM_H_
