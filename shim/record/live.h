// FILE.live: the counters of a process while it runs, and of one that was killed. Layout:
// core/base/statistics.h.
//
// The counters live in private memory (own_files.h says why); a thread of its own writes them into
// the file ten times a second, where they have changed. So a process that is killed leaves what it
// did until a tenth of a second before.
#ifndef CMP_SHIM_RECORD_LIVE_H_
#define CMP_SHIM_RECORD_LIVE_H_

#include "core/base/statistics.h"

namespace cmp {

// What cannot be written: one line, for whatever comes first; the report rarely has room where
// FILE.live had none. Thread-safe.
void WarnOfStatistics(const char* path, const char* problem);

// Begins FILE.live at `path`. False with errno: it cannot be made (EEXIST: a file that is not ours
// is there) or there is no room.
bool BeginLive(const char* path, const Statistics& statistics);

// Writes what has changed, if it can. Nothing where there is no FILE.live.
void WriteLive();

// The process ends, and has left its report: FILE.live goes.
void RemoveLive();

// In a forked child: the parent's is not the child's.
void ForgetLive();

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_LIVE_H_
