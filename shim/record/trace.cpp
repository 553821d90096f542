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
#include "core/base/memory.h"
#include "core/base/statistics.h"
#include "core/base/thread_exit.h"
#include "core/base/warnings.h"
#include "core/pool/pool_instance.h"
#include "shim/record/own_files.h"
#include "shim/record/run.h"
#include "shim/record/writer.h"
#include "shim/state/settings.h"

namespace cmp {

namespace {

// What a thread records, and where that goes. Every thread that records has one; those of threads
// that ended are used again.
struct ThreadTrace {
  Mutex lock;  // the thread itself, and who writes for it
  TraceChunk chunk = {};
  size_t place = 0;                    // of the chunk in the file; 0: it has none
  uint32_t written = 0;                // records of it that the file has
  uint32_t cuts = 0;                   // of the file, when the place was taken
  ThreadTrace* next = nullptr;         // of all
  ThreadTrace* next_unused = nullptr;  // of those without a thread
};

// Lock order: that of a ThreadTrace before this one.
struct TraceState {
  Mutex lock;  // who takes chunks
  OpenFile file;
  TraceHeader header = {};
  size_t next = kTraceChunkBytes;  // where the next chunk begins
  uint32_t cuts = 0;               // of the file, when its header was written last
  uint64_t lost_written = 0;       // of header.lost, what the file has
  Arena arena;
  ThreadTrace* unused = nullptr;
  std::atomic<ThreadTrace*> threads{nullptr};  // all; written under the lock
  std::atomic<bool> closed{false};             // no chunk is given out any more
  std::atomic<bool> is_told{false};            // that something could not be written
  // Nobody writes later what is not written at once: the process ends, or has no thread for it.
  // Set under the lock.
  std::atomic<bool> at_once{false};
};
constinit TraceState g_trace;

thread_local constinit ThreadTrace* t_trace = nullptr;

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

// A place in the file for the next chunk of a thread, with its room on the disk.
// REQUIRES: own.lock is held
bool TakePlace(ThreadTrace& own) {
  own.place = 0;
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
  own.place = next;
  own.cuts = g_trace.cuts;
  return true;
}

// REQUIRES: the lock is held
void WriteLost() {
  const uint64_t& lost = g_trace.header.lost;
  if (lost == g_trace.lost_written) return;
  g_trace.file.Write({{offsetof(TraceHeader, lost), &lost, sizeof(lost)}});
  g_trace.lost_written = lost;
}

void CountLost(uint64_t calls) {
  const Uncancelled uncancelled;
  Held held(g_trace.lock);
  g_trace.header.lost += calls;
  if (g_trace.at_once.load(std::memory_order_relaxed)) WriteLost();
}

// Writes what the file does not have: first records, then the number that says that they are
// complete. REQUIRES: own.lock is held
void WriteRecords(ThreadTrace& own) {
  const Uncancelled uncancelled;
  TraceChunk& chunk = own.chunk;
  while (own.written != chunk.count) {
    const uint32_t count = chunk.count - own.written;
    const TraceRecord* records = chunk.records + own.written;
    const size_t at = own.place + offsetof(TraceChunk, records) + own.written * sizeof(*records);
    if (g_trace.file.Write({{at, records, count * sizeof(*records)},
                            {own.place, &chunk, offsetof(TraceChunk, records)}},
                           own.cuts)) {
      own.written = chunk.count;
      return;
    }
    const bool is_stale = errno == ESTALE;
    if (!is_stale) TellOfTrace();
    // Others have cut the file, and what it had of this chunk may be gone: the rest goes into
    // another one.
    if (!is_stale || !TakePlace(own)) {
      chunk.count = own.written;
      CountLost(count);
      return;
    }
    memmove(chunk.records, records, count * sizeof(*records));
    chunk.count = count;
    own.written = 0;
  }
}

// What all threads have recorded; true: something.
bool WriteAllRecords() {
  bool is_changed = false;
  ThreadTrace* own = g_trace.threads.load(std::memory_order_acquire);
  for (; own != nullptr; own = own->next) {
    Held held(own->lock);
    is_changed |= own->written != own->chunk.count;
    WriteRecords(*own);
  }
  return is_changed;
}

bool WriteTrace(bool* is_changed) {
  *is_changed = WriteAllRecords();
  Held held(g_trace.lock);
  WriteLost();
  return !g_trace.at_once.load(std::memory_order_relaxed);
}
constexpr Writer kTraceWriter = {"cmp-trace", &WriteTrace};

void LeaveThreadTrace() {
  ThreadTrace* own = t_trace;
  if (own == nullptr) return;
  t_trace = nullptr;
  {
    Held held(own->lock);
    WriteRecords(*own);
    own->place = 0;
    own->chunk.count = own->written = 0;
  }
  Held held(g_trace.lock);
  own->next_unused = g_trace.unused;
  g_trace.unused = own;
}
constinit ThreadExitHook g_trace_thread_ends(&LeaveThreadTrace);

// For the calling thread, which has none; nullptr: memory is exhausted.
ThreadTrace* TakeThreadTrace() {
  Held held(g_trace.lock);
  ThreadTrace* own = g_trace.unused;
  if (own != nullptr) {
    g_trace.unused = own->next_unused;
  } else {
    own = g_trace.arena.New<ThreadTrace>();
    if (own == nullptr) return nullptr;
    own->next = g_trace.threads.load(std::memory_order_relaxed);
    g_trace.threads.store(own, std::memory_order_release);
  }
  own->chunk.thread = static_cast<uint64_t>(syscall(SYS_gettid));
  return own;
}

void RecordInto(ThreadTrace& own, const TraceRecord& record) {
  Held held(own.lock);
  TraceChunk& chunk = own.chunk;
  if (own.place == 0 || chunk.count == TraceChunk::kRecords) [[unlikely]] {
    chunk.count = own.written = 0;
    if (!TakePlace(own)) return CountLost(1);
  }
  chunk.records[chunk.count++] = record;
  if (chunk.count == TraceChunk::kRecords || g_trace.at_once.load(std::memory_order_relaxed))
      [[unlikely]] {
    WriteRecords(own);
  }
}

void Record(const TraceRecord& record) {
  const int before = errno;
  bool is_last = false;
  if (t_trace == nullptr) [[unlikely]] {
    t_trace = TakeThreadTrace();
    is_last = !g_trace_thread_ends.Arm();  // there is no later moment
  }
  if (t_trace != nullptr) {
    RecordInto(*t_trace, record);
  } else {
    CountLost(1);
  }
  if (is_last) LeaveThreadTrace();
  errno = before;
}

// The process ends. Threads that still run write into chunks that they have.
__attribute__((destructor)) void EndTrace() {
  if (!IsTraced() || !g_trace.lock.LockSoon()) return;
  g_trace.at_once.store(true, std::memory_order_relaxed);
  g_trace.lock.Unlock();
  ThreadTrace* own = g_trace.threads.load(std::memory_order_acquire);
  for (; own != nullptr; own = own->next) {
    if (!own->lock.LockSoon()) continue;  // in a call that a signal handler has ended
    WriteRecords(*own);
    own->lock.Unlock();
  }
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
                TraceOutcome outcome, int status, uint64_t begin_ns, uint64_t end_ns,
                Traced memory) {
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
  record.outcome = static_cast<uint8_t>(outcome) & 31;
  record.page_locked = memory == Traced::kPageLocked ? 1 : 0;
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
  CopyNames(header.host, header.rank, header.command);
  memcpy(header.magic, kTraceMagic, sizeof(header.magic));
  // With room for a first record, or there is no trace.
  if (!g_trace.file.Write({{g_trace.next, &kEmptyChunk, sizeof(kEmptyChunk)}}) || !WriteHeader()) {
    WarnOfTrace(path, strerror(errno));
    g_trace.file.Remove();
    g_trace.file.Forget();
    return false;
  }
  g_trace.at_once.store(!StartWriter(kTraceWriter), std::memory_order_relaxed);
  g_traced.store(true, std::memory_order_release);
  return true;
}

void ForgetTrace() {
  g_traced.store(false, std::memory_order_release);
  g_trace.file.Forget();
  new (&g_trace) TraceState;
  t_trace = nullptr;
}

void TraceAlloc(const Driver* driver, const ContextPool* context, size_t bytes,
                const Allocation& made, uint64_t begin_ns, Traced memory) {
  const uint64_t end_ns = NowNs();
  ContextIdentity of;
  if (context != nullptr) {
    of = context->identity();
  } else if (driver != nullptr && (of.handle = CurrentContext(*driver)) != nullptr) {
    of.id = ContextId(*driver, of.handle);
    driver->context_device(&of.device);
  }
  RecordCall(of, bytes, made.address, OutcomeOf(made), made.status, begin_ns, end_ns, memory);
}

void TraceFree(const ContextIdentity& of, size_t bytes, DeviceAddress address, TraceOutcome outcome,
               int status, uint64_t begin_ns, Traced memory) {
  const uint64_t end_ns = NowNs();
  RecordCall(of, bytes, address, outcome, status, begin_ns, end_ns, memory);
}

}  // namespace cmp
