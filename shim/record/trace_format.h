// What is in a file of CMP_TRACE. scripts/cmp_preload/records/trace_file.py reads it,
// scripts/replay.cpp plays it again.
//
//   header | chunk | chunk | ...      each of kTraceChunkBytes; a chunk holds records of one thread
//
// A thread's chunks stand in the order in which it filled them. Chunks without records are not
// begun yet, or were lost when somebody truncated the file. All numbers are little-endian.
//
// Versions: kTraceSchema rises with every change of what stands here, a new outcome included; magic
// and schema stay where they are. A reader refuses a schema that it does not know, in one line, and
// looks at nothing else: an old one would misread a new file. A new one goes on reading old files.
#ifndef CMP_SHIM_RECORD_TRACE_FORMAT_H_
#define CMP_SHIM_RECORD_TRACE_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace cmp {

#define CMP_TRACE_OUTCOMES(X)                                                          \
  X(thread_cache, "allocated: a block of the thread's own cache")                      \
  X(global_pool, "allocated: a block of the global pool")                              \
  X(refill, "allocated: by a real call for the pool")                                  \
  X(real, "allocated: by a real call (oversized, during a capture, CMP_MODE=observe)") \
  X(failed, "not allocated")                                                           \
  X(pooled, "freed: into the pool")                                                    \
  X(waited, "freed: into the pool, after a wait for the GPU")                          \
  X(real_free, "freed: by the real call")                                              \
  X(foreign_free, "given to the real call: no block of the pool's")                    \
  X(double_free, "not freed: it was free already")

enum class TraceOutcome : uint8_t {
#define CMP_DECLARE(name, meaning) name,
  CMP_TRACE_OUTCOMES(CMP_DECLARE)
#undef CMP_DECLARE
};

struct TraceRecord {
  uint64_t begin_ns;         // of the clock of the header's begin_ns
  uint64_t address;          // 0 where nothing was allocated
  uint64_t bytes : 48;       // asked for; of a free too, 0 where it is not known
  uint64_t context : 16;     // of its id; 0 where it is not known
  uint64_t cost_ns : 40;     // inside the call
  uint64_t device : 8;       //
  uint64_t outcome : 5;      // a TraceOutcome
  uint64_t page_locked : 1;  // of memory of the host
  uint64_t status : 10;      // of the call: a cudaError_t or a CUresult
};
static_assert(sizeof(TraceRecord) == 32);

inline constexpr size_t kTraceChunkBytes = 4096;

struct TraceChunk {
  static constexpr uint32_t kRecords = kTraceChunkBytes / sizeof(TraceRecord) - 1;
  uint64_t thread;  // as gettid() says
  uint32_t count;   // records that are complete
  uint32_t unused[5];
  TraceRecord records[kRecords];
};
static_assert(sizeof(TraceChunk) == kTraceChunkBytes);

inline constexpr uint32_t kTraceSchema = 3;
// 2: without page-locked memory; 1: with zeros behind the settings, too.
inline constexpr uint32_t kOldestTraceSchema = 1;
inline constexpr char kTraceMagic[] = "CMPTRACE";

struct TraceHeader {
  char magic[8];
  uint32_t schema;
  uint32_t chunk_bytes;
  uint32_t record_bytes;
  uint32_t ended;  // 1: the process ended normally
  uint64_t pid;
  uint64_t begin_ns;       // two clocks at the same time: the monotonic one of the records,
  uint64_t begin_unix_ns;  // and the time of the day
  uint64_t lost;           // calls that found no room
  char version[16];
  char program[64];
  char settings[2048];  // the process's CMP_ variables, each with a newline; "..." for more
  char host[80];
  char rank[16];       // of a launcher's; empty: none
  char command[1024];  // as a shell takes it; a longer one ends with "..."
};
static_assert(sizeof(TraceHeader) <= kTraceChunkBytes);

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_TRACE_FORMAT_H_
