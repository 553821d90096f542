#include "shim/shake/sites.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shim/record/own_files.h"
#include "shim/record/shake_counts.h"

namespace cmp {

namespace {

constexpr char kBeginning[] = "#cmp-shake-sites 1\n";
constexpr char kEnd[] = "#end\n";  // of what a process saw that ended by itself
constexpr char kColumns[] =
    "#id\tkind\tthread\tcount\tholds\teffective\tearlier_call\tearlier_where\tearlier_stream\t"
    "free_where\tfree_thread\tfree_bytes\tlater_call\tlater_where\tlater_stream\n";

// 16 hexadecimal digits; 0 if there are none.
uint64_t HexAt(const char* text) {
  uint64_t value = 0;
  for (int i = 0; i < 16; ++i) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return 0;
    value = value << 4 | static_cast<uint64_t>(digit);
  }
  return value;
}

void PrintStream(StreamOrdinal stream, char (&text)[16]) {
  if (stream >= 0) {
    snprintf(text, sizeof(text), "%d", stream);
  } else {
    strcpy(text, stream == kOrdinalLegacy      ? "legacy"
                 : stream == kOrdinalPerThread ? "per-thread"
                                               : "-");
  }
}

struct PrintedCall {
  explicit PrintedCall(const ShakeCall& call) : name(call.name == nullptr ? "-" : call.name) {
    call.where->Print(where, sizeof(where));
    PrintStream(call.stream, stream);
  }
  const char* name;
  char where[512];
  char stream[16];
};

// Text for a file, some lines at once.
class Lines {
 public:
  explicit Lines(int file) : file_(file) {}
  char* Room(size_t bytes) {
    if (length_ + bytes > sizeof(text_)) Flush();
    return text_ + length_;
  }
  void Added(size_t bytes) { length_ += bytes; }
  void Add(const char* line) {
    const size_t bytes = strlen(line);
    memcpy(Room(bytes), line, bytes);
    Added(bytes);
  }
  bool Flush() {
    for (size_t done = 0; good_ && done < length_;) {
      const ssize_t written = write(file_, text_ + done, length_ - done);
      good_ = written > 0;
      if (good_) done += static_cast<size_t>(written);
    }
    length_ = 0;
    return good_;
  }

 private:
  int file_;
  bool good_ = true;
  size_t length_ = 0;
  char text_[8192];
};

}  // namespace

uint64_t ShakeSites::IdOf(ShakeKind kind, const ShakeCall& earlier) {
  uint64_t id = MixShake(static_cast<uint64_t>(kind), earlier.where->hash);
  id = MixShake(id, earlier.who);
  return id == 0 ? 1 : id;
}

ShakeSite* ShakeSites::Find(uint64_t id) {
  for (size_t i = id % kPlaces; places_[i].id != 0; i = (i + 1) % kPlaces) {
    if (places_[i].id == id) return &places_[i];
  }
  return nullptr;
}

ShakeSite* ShakeSites::Add(uint64_t id, ShakeKind kind) {
  if (count_ == kPlaces / 2) return nullptr;
  size_t i = id % kPlaces;
  while (places_[i].id != 0) i = (i + 1) % kPlaces;
  ++count_;
  places_[i].id = id;
  places_[i].kind = kind;
  return &places_[i];
}

ShakeSite* ShakeSites::Get(ShakeKind kind, const ShakeCall& earlier) {
  const uint64_t id = IdOf(kind, earlier);
  ShakeSite* site = Find(id);
  if (site == nullptr) site = Add(id, kind);
  if (site != nullptr && site->earlier.name == nullptr) site->earlier = earlier;
  return site;
}

void ShakeSites::Count(Counter& counter, uint64_t& of_site) {
  ++of_site;
  ++changes_;
  counter.AddShared(1);
  g_shake_counts.sites.Set(count_);
}

void ShakeSites::Freed(ShakeSite& site, const CallSite* where, uint32_t thread, size_t bytes) {
  site.free_where = where;
  site.free_thread = thread;
  site.free_bytes = bytes;
  ++changes_;
}

void ShakeSites::Later(ShakeSite& site, const ShakeCall& call) {
  site.later = call;
  ++changes_;
}

const char* ShakeSites::Read(const char* path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return strerror(errno);
  char text[4096];
  size_t length = 0;
  bool first = true;
  const char* wrong = nullptr;
  // Line by line; a line that is longer than the buffer is not of ours.
  for (ssize_t got = 1; wrong == nullptr;) {
    char* const end = static_cast<char*>(memchr(text, '\n', length));
    if (end == nullptr) {
      if (length == sizeof(text)) wrong = "a line is too long";
      got = wrong != nullptr ? 0 : read(file, text + length, sizeof(text) - length);
      if (got <= 0) break;
      length += static_cast<size_t>(got);
      continue;
    }
    *end = '\0';
    const bool is_beginning = strncmp(text, kBeginning, sizeof(kBeginning) - 2) == 0;
    if (first && !is_beginning) {
      wrong = "it is no file of sites";
    } else if (text[0] != '#' && text[0] != '\0') {
      const uint64_t id = HexAt(text);
      const bool is_host = strncmp(text + 16, "\thost\t", 6) == 0;
      if (id == 0 || (!is_host && strncmp(text + 16, "\torder\t", 7) != 0)) {
        wrong = "a line is no site";
      } else {
        ShakeSite* site = Find(id);
        if (site == nullptr) site = Add(id, is_host ? ShakeKind::kHost : ShakeKind::kOrder);
        if (site != nullptr) site->listed = true;
      }
    }
    first = false;
    const auto used = static_cast<size_t>(end + 1 - text);
    memmove(text, text + used, length - used);
    length -= used;
  }
  close(file);
  return first && wrong == nullptr ? "it is empty" : wrong;
}

void ShakeSites::Follow(const ShakeSites& later) {
  size_t left = count_ = later.count_;
  for (size_t i = 0; left > 0; ++i) {
    if (later.places_[i].id == 0) continue;
    places_[i] = later.places_[i];
    --left;
  }
}

bool ShakeSites::Write(const char* path, bool ends) const {
  if (access(path, F_OK) == 0 && !IsOwnFile(path, kBeginning)) {
    errno = EEXIST;
    return false;
  }
  // What a killed process leaves of it is in nobody's way, nor is what another one writes there.
  char fresh[kMaxPath + 32];
  snprintf(fresh, sizeof(fresh), "%s.%d.new", path, static_cast<int>(getpid()));
  const int file = OutOfTheWay(MakeFile(fresh, kBeginning));
  if (file < 0) return false;
  const bool written = WriteLines(file, ends) && rename(fresh, path) == 0;
  const int problem = errno;
  close(file);
  if (!written) unlink(fresh);
  errno = problem;
  return written;
}

bool ShakeSites::WriteLines(int file, bool ends) const {
  Lines lines(file);
  lines.Add(kBeginning);
  lines.Add(kColumns);
  for (const ShakeSite& site : places_) {
    if (site.id == 0) continue;
    const PrintedCall earlier(site.earlier);
    const PrintedCall later(site.later);
    char free_where[512];
    site.free_where->Print(free_where, sizeof(free_where));
    constexpr size_t kMost = 2048;
    const int bytes = snprintf(
        lines.Room(kMost), kMost,
        "%016llx\t%s\t%u\t%llu\t%llu\t%llu\t%s\t%s\t%s\t%s\t%u\t%zu\t%s\t%s\t%s\n",
        static_cast<unsigned long long>(site.id), site.kind == ShakeKind::kHost ? "host" : "order",
        site.earlier.thread, static_cast<unsigned long long>(site.count),
        static_cast<unsigned long long>(site.holds),
        static_cast<unsigned long long>(site.effective), earlier.name, earlier.where,
        earlier.stream, free_where, site.free_thread, site.free_bytes, later.name, later.where,
        later.stream);
    lines.Added(static_cast<size_t>(bytes));
  }
  if (ends) lines.Add(kEnd);
  return lines.Flush();
}

}  // namespace cmp
