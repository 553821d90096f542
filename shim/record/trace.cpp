#include "shim/record/trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <new>

#include "core/base/lock.h"
#include "core/base/statistics.h"
#include "core/base/warnings.h"
#include "core/pool/pool_instance.h"
#include "shim/record/own_files.h"
#include "shim/record/run.h"
#include "shim/state/settings.h"

namespace cmp {

namespace {

// The file grows by so much at once; a multiple of every system's page size.
constexpr size_t kStepBytes = 4 * kMiB;

struct TraceFile {
  Mutex lock;
  char path[kMaxPath] = {};
  int file = -1;
  dev_t device = 0;  // what `file` must still be: a program may close what it did not open
  ino_t inode = 0;
  TraceHeader* header = nullptr;
  size_t bytes = 0;                 // of the file
  TraceChunk* next = nullptr;       // the first free chunk of the last step
  size_t left = 0;                  // chunks from there on
  std::atomic<bool> closed{false};  // no chunk is given out any more
};
constinit TraceFile g_file;

struct ThreadTrace {
  TraceChunk* chunk = nullptr;
  uint64_t thread = 0;
};
thread_local constinit ThreadTrace t_trace;

void WarnOfTrace(const char* problem) {
  char line[400];
  snprintf(line, sizeof(line), "cannot write the trace to %.256s: %s", g_file.path, problem);
  PrintWarning(line);
}

// fstat, which C libraries before 2.33 have under another name. The kernel's structure is the
// library's on both architectures.
bool StatusOf(int file, struct stat* status) { return syscall(SYS_fstat, file, status) == 0; }

bool IsStillTheFile() {
  struct stat now;
  return StatusOf(g_file.file, &now) && now.st_dev == g_file.device && now.st_ino == g_file.inode;
}

// One more step of the file, mapped; nullptr with errno.
void* Grow() {
  void* step = MapMore(g_file.file, g_file.bytes, kStepBytes);
  if (step == nullptr) return nullptr;
  g_file.bytes += kStepBytes;
  g_file.next = static_cast<TraceChunk*>(step);
  g_file.left = kStepBytes / kTraceChunkBytes;
  return step;
}

TraceChunk* TakeChunk() {
  if (g_file.closed.load(std::memory_order_acquire)) return nullptr;
  Held held(g_file.lock);
  if (g_file.closed.load(std::memory_order_relaxed)) return nullptr;
  if (g_file.left == 0) {
    const bool same = IsStillTheFile();
    if (!same || Grow() == nullptr) {
      WarnOfTrace(same ? strerror(errno) : "the program has closed it");
      g_file.closed.store(true, std::memory_order_release);
      return nullptr;
    }
  }
  --g_file.left;
  return g_file.next++;
}

void Record(const TraceRecord& record) {
  TraceChunk* chunk = t_trace.chunk;
  if (chunk == nullptr || chunk->count.load(std::memory_order_relaxed) == TraceChunk::kRecords)
      [[unlikely]] {
    if (t_trace.thread == 0) t_trace.thread = static_cast<uint64_t>(syscall(SYS_gettid));
    chunk = TakeChunk();
    if (chunk == nullptr) {
      g_file.header->lost.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    chunk->thread = t_trace.thread;
    t_trace.chunk = chunk;
  }
  const uint32_t count = chunk->count.load(std::memory_order_relaxed);
  chunk->records[count] = record;
  chunk->count.store(count + 1, std::memory_order_release);  // after the record
}

// The process ends: what the file has too much is given back. Threads that still run write into
// chunks that they have.
__attribute__((destructor)) void EndTrace() {
  if (!IsTraced()) return;
  Held held(g_file.lock);
  const bool whole = !g_file.closed.exchange(true, std::memory_order_acq_rel);
  g_file.header->ended.store(1, std::memory_order_release);
  const size_t used = g_file.bytes - g_file.left * kTraceChunkBytes;
  if (whole && IsStillTheFile() && ftruncate(g_file.file, static_cast<off_t>(used)) != 0) {
    WarnOfTrace(strerror(errno));
  }
}

TraceOutcome OutcomeOf(const Allocation& made) {
  if (made.status != kSuccess) return TraceOutcome::failed;
  switch (made.served) {
    case Served::kThreadCache:
      return TraceOutcome::thread_cache;
    case Served::kGlobalPool:
      return TraceOutcome::global_pool;
    case Served::kRefill:
      return TraceOutcome::refill;
    case Served::kReal:
      break;
  }
  return TraceOutcome::real;
}

void RecordCall(const ContextIdentity& context, size_t bytes, DeviceAddress address,
                TraceOutcome outcome, int status, uint64_t begin_ns, uint64_t end_ns) {
  constexpr uint64_t kMostCost = (uint64_t{1} << 40) - 1;
  constexpr uint64_t kMostBytes = (uint64_t{1} << 48) - 1;
  const uint64_t cost = end_ns - begin_ns;
  TraceRecord record;
  record.begin_ns = begin_ns;
  record.address = address;
  record.bytes = bytes < kMostBytes ? bytes : kMostBytes;
  record.context = static_cast<uint16_t>(context.id);
  record.cost_ns = cost < kMostCost ? cost : kMostCost;
  record.device = static_cast<uint8_t>(context.device);
  record.outcome = static_cast<uint8_t>(outcome) & 63;
  record.status = static_cast<unsigned>(status) & 1023;
  Record(record);
}

}  // namespace

bool BeginTrace(const Options& options) {
  if (options.trace == nullptr || options.mode == Mode::kOff) return false;
  if (!ExpandPath(options.trace, g_file.path)) {
    snprintf(g_file.path, sizeof(g_file.path), "%.256s", options.trace);
    WarnOfTrace("the name is too long");
    return false;
  }
  g_file.file = MakeFile(g_file.path, kTraceMagic);
  if (g_file.file < 0) {
    WarnOfTrace(errno == EEXIST ? "a file that is not ours is there" : strerror(errno));
    return false;
  }
  struct stat made;
  void* step = StatusOf(g_file.file, &made) ? Grow() : nullptr;
  if (step == nullptr) {
    WarnOfTrace(strerror(errno));
    close(g_file.file);
    unlink(g_file.path);
    return false;
  }
  g_file.device = made.st_dev;
  g_file.inode = made.st_ino;
  g_file.header = static_cast<TraceHeader*>(step);
  ++g_file.next;
  --g_file.left;
  TraceHeader& header = *g_file.header;
  header.schema = kTraceSchema;
  header.chunk_bytes = kTraceChunkBytes;
  header.record_bytes = sizeof(TraceRecord);
  header.pid = static_cast<uint64_t>(getpid());
  header.begin_ns = NowNs();
  header.begin_unix_ns = UnixNs();
  snprintf(header.version, sizeof(header.version), "%s", Version());
  snprintf(header.program, sizeof(header.program), "%s", ProgramName());
  CopySettings(header.settings, sizeof(header.settings));
  memcpy(header.magic, kTraceMagic, sizeof(header.magic));
  g_traced.store(true, std::memory_order_release);
  return true;
}

void ForgetTrace() {
  g_traced.store(false, std::memory_order_release);
  if (g_file.header == nullptr) return;
  if (IsStillTheFile()) close(g_file.file);
  new (&g_file) TraceFile;
  t_trace = ThreadTrace{};
}

void TraceAlloc(const Driver* driver, const ContextPool* context, size_t bytes,
                const Allocation& made, uint64_t begin_ns) {
  const uint64_t end_ns = NowNs();
  ContextIdentity of;
  if (context != nullptr) {
    of = context->identity();
  } else if (driver != nullptr && (of.handle = CurrentContext(*driver)) != nullptr) {
    of.id = ContextId(*driver, of.handle);
    driver->context_device(&of.device);
  }
  RecordCall(of, bytes, made.address, OutcomeOf(made), made.status, begin_ns, end_ns);
}

void TraceFree(const ContextIdentity& of, size_t bytes, DeviceAddress address, TraceOutcome outcome,
               int status, uint64_t begin_ns) {
  const uint64_t end_ns = NowNs();
  RecordCall(of, bytes, address, outcome, status, begin_ns, end_ns);
}

}  // namespace cmp
