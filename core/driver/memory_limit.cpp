#include "core/driver/memory_limit.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "core/base/options.h"

namespace cmp {

namespace {

constexpr size_t kLongestPath = 4096;

// The file's beginning as a text. False: it cannot be read.
bool ReadText(const char* path, char* text, size_t room) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  size_t length = 0;
  ssize_t got = 0;
  while (length + 1 < room && (got = read(file, text + length, room - 1 - length)) > 0) {
    length += static_cast<size_t>(got);
  }
  close(file);
  text[length] = '\0';
  return got >= 0;
}

// The number in the file; "max" is no number, and version 1 writes almost 2^63 where there is none.
size_t LimitIn(const char* path) {
  char text[32];
  if (!ReadText(path, text, sizeof(text)) || text[0] < '0' || text[0] > '9') return kNoMemoryLimit;
  const uint64_t limit = NumberAt(text);
  return limit < uint64_t{1} << 62 ? limit : kNoMemoryLimit;
}

// Of the group and of those above it. In a container the group may be the root of what is mounted,
// whatever its name: what is not there is passed by.
size_t TightestLimit(const char* mount, char* group, const char* name) {
  size_t limit = kNoMemoryLimit;
  for (;;) {
    char path[2 * kLongestPath];
    snprintf(path, sizeof(path), "%s%s/%s", mount, group, name);
    limit = std::min(limit, LimitIn(path));
    char* last = strrchr(group, '/');
    if (last == nullptr) return limit;
    *last = '\0';
  }
}

// Is `word` one of those in a list with commas, up to `end`?
bool Lists(const char* list, const char* end, const char* word) {
  const size_t length = strlen(word);
  for (const char* at = list; at < end; ++at) {
    const char* comma = static_cast<const char*>(memchr(at, ',', static_cast<size_t>(end - at)));
    const char* const last = comma == nullptr ? end : comma;
    if (static_cast<size_t>(last - at) == length && memcmp(at, word, length) == 0) return true;
    at = last;
  }
  return false;
}

}  // namespace

size_t ControlGroupLimit(const char* groups, const char* root) {
  char text[2 * kLongestPath];
  if (!ReadText(groups, text, sizeof(text))) return kNoMemoryLimit;
  size_t limit = kNoMemoryLimit;
  // Lines of number:controllers:/group; version 2 has no controllers.
  for (char* line = text; line != nullptr && *line != '\0';) {
    char* next = strchr(line, '\n');
    if (next != nullptr) *next++ = '\0';
    char* controllers = strchr(line, ':');
    char* group = controllers == nullptr ? nullptr : strchr(++controllers, ':');
    if (group != nullptr) {
      char mount[kLongestPath];
      char path[kLongestPath];
      snprintf(path, sizeof(path), "%s", strcmp(group + 1, "/") == 0 ? "" : group + 1);
      if (controllers == group) {
        snprintf(mount, sizeof(mount), "%.4000s", root);
        limit = std::min(limit, TightestLimit(mount, path, "memory.max"));
      } else if (Lists(controllers, group, "memory")) {
        snprintf(mount, sizeof(mount), "%.4000s/memory", root);
        limit = std::min(limit, TightestLimit(mount, path, "memory.limit_in_bytes"));
      }
    }
    line = next;
  }
  return limit;
}

namespace {
// The number behind "NAME:" in /proc/self/status; false: it is not there.
bool StatusOf(const char* name, int base, uint64_t* value) {
  char text[8192];
  if (!ReadText("/proc/self/status", text, sizeof(text))) return false;
  const char* at = strstr(text, name);
  if (at == nullptr) return false;
  at += strlen(name);
  while (*at == ' ' || *at == '\t') ++at;
  uint64_t number = 0;
  for (;; ++at) {
    const char c = *at;
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
    if (digit >= base) break;
    number = number * static_cast<uint64_t>(base) + static_cast<uint64_t>(digit);
  }
  *value = number;
  return true;
}
}  // namespace

size_t LockedMemoryLimit() {
  constexpr int kIpcLock = 14;  // CAP_IPC_LOCK
  uint64_t capabilities = 0;
  if (StatusOf("\nCapEff:", 16, &capabilities) && (capabilities >> kIpcLock & 1) != 0) {
    return kNoMemoryLimit;
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return kNoMemoryLimit;
  }
  return static_cast<size_t>(limit.rlim_cur);
}

size_t LockedMemory() {
  uint64_t kilobytes = 0;
  return StatusOf("\nVmLck:", 10, &kilobytes) ? static_cast<size_t>(kilobytes) * kKiB : 0;
}

}  // namespace cmp
