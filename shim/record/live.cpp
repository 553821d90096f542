#include "shim/record/live.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <atomic>
#include <new>

#include "core/base/warnings.h"
#include "shim/record/own_files.h"
#include "shim/record/writer.h"

namespace cmp {

namespace {

struct Live {
  Mutex lock;  // who writes
  OpenFile file;
  const Statistics* statistics = nullptr;  // nullptr: there is no file, or it cannot be written
  uint64_t written = 0;                    // a sum over what the file has
  uint32_t cuts = 0;                       // of the file, when that was written
};
constinit Live g_live;
constinit std::atomic<bool> g_is_told{false};  // that something could not be written

// Of the header: all behind it stands before there is a file, but the names of GPUs, which are
// complete when their number changes.
constexpr size_t kSummedHeader = offsetof(StatisticsHeader, run) + offsetof(StatisticsRun, host);

// Differs where any counter does, all but certainly.
uint64_t SumOf(const Statistics& statistics) {
  uint64_t sum = 0;
  statistics.VisitPieces([&](size_t offset, const void* data, size_t bytes) {
    if (offset < kSummedHeader && bytes > kSummedHeader - offset) bytes = kSummedHeader - offset;
    const auto* words = static_cast<const uint64_t*>(data);
    for (size_t i = 0; i < bytes / sizeof(*words); ++i) {
      sum = sum * 31 + __atomic_load_n(words + i, __ATOMIC_RELAXED);
    }
    return true;
  });
  return sum;
}

// Writes what has changed, if anything has. REQUIRES: the lock is held. False with errno.
bool Write(Live& live, bool* is_changed) {
  const uint64_t sum = SumOf(*live.statistics);
  if (!live.file.Look()) return false;
  const uint32_t cuts = live.file.cuts();
  *is_changed = sum != live.written || cuts != live.cuts;
  if (!*is_changed) return true;
  live.written = sum;
  live.cuts = cuts;
  return live.statistics->VisitPieces([&](size_t offset, const void* data, size_t bytes) {
    return live.file.Write({{offset, data, bytes}});
  });
}

// False: no more, for a reason that was told or because there is no file.
bool WriteOrTell(bool* is_changed) {
  Held held(g_live.lock);
  if (g_live.statistics == nullptr) return false;
  if (Write(g_live, is_changed)) return true;
  WarnOfStatistics(g_live.file.path(),
                   errno == EBADF ? "the program has closed it" : strerror(errno));
  g_live.statistics = nullptr;
  return false;
}

constexpr Writer kWriter = {"cmp-live", &WriteOrTell};

}  // namespace

void WarnOfStatistics(const char* path, const char* problem) {
  if (g_is_told.exchange(true, std::memory_order_relaxed)) return;
  char line[400];
  snprintf(line, sizeof(line), "cannot write statistics to %.256s: %s", path, problem);
  PrintWarning(line);
}

bool BeginLive(const char* path, const Statistics& statistics) {
  Held held(g_live.lock);
  if (!g_live.file.Make(path, kStatisticsMagic)) return false;
  g_live.statistics = &statistics;
  bool is_changed = false;
  if (!Write(g_live, &is_changed)) {
    const int problem = errno;
    g_live.statistics = nullptr;
    g_live.file.Remove();
    errno = problem;
    return false;
  }
  if (!StartWriter(kWriter)) {
    PrintWarning("no thread can be made: FILE.live of CMP_STATS is written at the end alone");
  }
  return true;
}

void WriteLive() {
  Held held(g_live.lock);
  bool is_changed = false;
  if (g_live.statistics != nullptr) Write(g_live, &is_changed);
}

void RemoveLive() {
  Held held(g_live.lock);
  g_live.statistics = nullptr;
  g_live.file.Remove();
}

void ForgetLive() {
  g_is_told.store(false, std::memory_order_relaxed);
  g_live.file.Forget();
  new (&g_live) Live;
}

}  // namespace cmp
