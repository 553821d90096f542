#include "shim/record/trace.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
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

struct TraceState {
  Mutex lock;  // who takes chunks
  OpenFile file;
  TraceHeader header = {};
  size_t next = kTraceChunkBytes;    // where the next chunk begins
  uint32_t cuts = 0;                 // of the file, when its header was written last
  std::atomic<bool> closed{false};   // no chunk is given out any more
  std::atomic<bool> is_told{false};  // that something could not be written
};
constinit TraceState g_trace;

struct ThreadTrace {
  size_t chunk = 0;  // where it begins; 0: there is none
  uint64_t thread = 0;
  uint32_t count = 0;
  uint32_t cuts = 0;  // of the file, when it was taken
};
thread_local constinit ThreadTrace t_trace;

void WarnOfTrace(const char* path, const char* problem) {
  char line[400];
  snprintf(line, sizeof(line), "cannot write the trace to %.256s: %s", path, problem);
  PrintWarning(line);
}

// Once, for whatever comes first.
void TellOfTrace() {
  const int problem = errno;
  if (g_trace.is_told.exchange(true, std::memory_order_relaxed)) return;
  WarnOfTrace(g_trace.file.path(),
              problem == EBADF ? "the program has closed it" : strerror(problem));
}

constexpr TraceChunk kEmptyChunk = {};

bool WriteHeader() { return g_trace.file.Write({{0, &g_trace.header, sizeof(g_trace.header)}}); }

// Somebody has cut the file: what follows can be read, if the header is there and no chunk has
// fewer records than it says. REQUIRES: the lock is held.
void Mend() {
  const uint32_t cuts = g_trace.file.cuts();
  if (cuts == g_trace.cuts) return;
  g_trace.cuts = cuts;
  const size_t left = g_trace.file.left_by_cut();
  const size_t chunk = left - left % kTraceChunkBytes;
  if (chunk != left && chunk != 0) {
    g_trace.file.Write({{chunk, &kEmptyChunk, sizeof(kEmptyChunk)}});
  }
  WriteHeader();
}

// A chunk for the calling thread, with its room on the disk.
bool TakeChunk() {
  const Uncancelled uncancelled;
  Held held(g_trace.lock);
  if (g_trace.closed.load(std::memory_order_relaxed)) return false;
  Mend();
  const size_t next = g_trace.next;
  if (!g_trace.file.Write({{next, &kEmptyChunk, sizeof(kEmptyChunk)}})) {
    TellOfTrace();
    g_trace.file.Cut(next);  // of a chunk that there was no room for
    g_trace.closed.store(true, std::memory_order_release);
    return false;
  }
  g_trace.next += kTraceChunkBytes;
  t_trace.chunk = next;
  t_trace.cuts = g_trace.cuts;
  t_trace.count = 0;
  return true;
}

void CountLost() {
  const Uncancelled uncancelled;
  Held held(g_trace.lock);
  uint64_t& lost = g_trace.header.lost;
  ++lost;
  g_trace.file.Write({{offsetof(TraceHeader, lost), &lost, sizeof(lost)}});
}

// First the record, then the number that says that it is complete. False with errno.
bool Write(const TraceRecord& record) {
  struct Head {
    uint64_t thread;
    uint32_t count;
    uint32_t unused[5];
  };
  static_assert(sizeof(Head) == offsetof(TraceChunk, records));
  ThreadTrace& own = t_trace;
  const Head head = {own.thread, own.count + 1, {}};
  const size_t at = own.chunk + sizeof(head) + own.count * sizeof(record);
  if (!g_trace.file.Write({{at, &record, sizeof(record)}, {own.chunk, &head, sizeof(head)}},
                          own.cuts)) {
    return false;
  }
  ++own.count;
  return true;
}

void Record(const TraceRecord& record) {
  const int before = errno;
  ThreadTrace& own = t_trace;
  if (own.thread == 0) own.thread = static_cast<uint64_t>(syscall(SYS_gettid));
  bool has_chunk = own.chunk != 0 && own.count < TraceChunk::kRecords;
  for (;;) {
    if (!has_chunk && !TakeChunk()) break;
    if (Write(record)) {
      errno = before;
      return;
    }
    if (errno != ESTALE) {
      TellOfTrace();
      break;
    }
    has_chunk = false;  // with what else stood in it it is gone
  }
  CountLost();
  errno = before;
}

// The process ends. Threads that still run write into chunks that they have.
__attribute__((destructor)) void EndTrace() {
  if (!IsTraced()) return;
  Held held(g_trace.lock);
  g_trace.closed.store(true, std::memory_order_release);
  g_trace.header.ended = 1;
  if (!WriteHeader()) TellOfTrace();
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
  char path[kMaxPath];
  if (!ExpandPath(options.trace, path)) {
    WarnOfTrace(options.trace, "the name is too long");
    return false;
  }
  if (!g_trace.file.Make(path, kTraceMagic)) {
    WarnOfTrace(path, errno == EEXIST ? "a file that is not ours is there" : strerror(errno));
    return false;
  }
  TraceHeader& header = g_trace.header;
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
  // With room for a first record, or there is no trace.
  if (!g_trace.file.Write({{g_trace.next, &kEmptyChunk, sizeof(kEmptyChunk)}}) || !WriteHeader()) {
    WarnOfTrace(path, strerror(errno));
    g_trace.file.Remove();
    g_trace.file.Forget();
    return false;
  }
  g_traced.store(true, std::memory_order_release);
  return true;
}

void ForgetTrace() {
  g_traced.store(false, std::memory_order_release);
  g_trace.file.Forget();
  new (&g_trace) TraceState;
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
