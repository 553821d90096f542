// CMP_TRACE: every allocation and free that the pool serves or passes on, written into a file while
// the process runs. shim/record/trace_format.h says what is in it and who reads it.
//
//   header | chunk | chunk | ...      pages of kTraceChunkBytes; a chunk holds records of one
//   thread
//
// Every thread fills a chunk of its own, in private memory (own_files.h says why), whose room on
// the disk is taken before. It is written when it is full, when the thread or the process ends,
// and, as far as it is filled, ten times a second: a process that is killed lacks at most its last
// tenth of a second. Where there is no room, one line says so, and what follows is only counted as
// lost. Where somebody truncates the file, what was there is lost, and what follows is not.
//
// The hit paths never come here: while calls are traced, g_hit_pool is nullptr.
#ifndef CMP_SHIM_RECORD_TRACE_H_
#define CMP_SHIM_RECORD_TRACE_H_

#include <atomic>
#include <cstdint>

#include "core/base/options.h"
#include "core/driver/driver.h"
#include "core/pool/block_source.h"
#include "shim/record/trace_format.h"

namespace cmp {

// True while calls are traced.
inline constinit std::atomic<bool> g_traced{false};
inline bool IsTraced() { return g_traced.load(std::memory_order_acquire); }

// Begins the trace that the options ask for. False: there is none; if it was asked for, a line says
// why.
bool BeginTrace(const Options& options);

// In a forked child: the parent's trace is not the child's.
void ForgetTrace();

// Of what memory.
enum class Traced : bool { kDevice, kPageLocked };

// An allocation that began at `begin_ns` and has ended now. `context` may be nullptr: the current
// one's, if it has any.
void TraceAlloc(const Driver* driver, const ContextPool* context, size_t bytes,
                const Allocation& made, uint64_t begin_ns, Traced memory = Traced::kDevice);
// A free, likewise. nullptr, 0: not known.
void TraceFree(const ContextIdentity& of, size_t bytes, DeviceAddress address, TraceOutcome outcome,
               int status, uint64_t begin_ns, Traced memory = Traced::kDevice);

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_TRACE_H_
