#include "shim/record/own_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#include "core/base/memory.h"

namespace cmp {

namespace {

constexpr int kAwayFrom = 1000;  // descriptors below are the program's
constexpr size_t kHeldBytes = 4096;
// Of a write, while the program closes all descriptors that there are, one after the other.
constexpr int kMostTries = 1000;

// fstat, which C libraries before 2.33 have under another name. The kernel's structure is the
// library's on both architectures.
bool StatusOf(int file, struct stat* status) { return syscall(SYS_fstat, file, status) == 0; }

}  // namespace

const char* RankOfLauncher() {
  for (const char* name :
       {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID", "RANK"}) {
    if (const char* rank = secure_getenv(name)) return rank;
  }
  return nullptr;
}

bool ExpandPath(const char* pattern, char (&path)[kMaxPath]) {
  size_t length = 0;
  for (const char* at = pattern; *at != '\0'; ++at) {
    char number[16];
    char host[256];
    const char* piece = number;
    if (*at != '%' || at[1] == '\0') {
      snprintf(number, sizeof(number), "%c", *at);
    } else {
      switch (*++at) {
        case 'p':
          snprintf(number, sizeof(number), "%d", static_cast<int>(getpid()));
          break;
        case 'h':
          if (gethostname(host, sizeof(host)) != 0) strcpy(host, "host");
          host[sizeof(host) - 1] = '\0';
          piece = host;
          break;
        case 'r':
          piece = RankOfLauncher();
          if (piece == nullptr) piece = "0";
          break;
        case '%':
          strcpy(number, "%");
          break;
        default:
          snprintf(number, sizeof(number), "%%%c", *at);
          break;
      }
    }
    const size_t added = strlen(piece);
    if (length + added + 32 > kMaxPath) return false;
    memcpy(path + length, piece, added);
    length += added;
  }
  // A forked child has its own report: of the same name it would replace its parent's.
  if (g_is_forked_child && strstr(pattern, "%p") == nullptr) {
    length += static_cast<size_t>(snprintf(path + length, 32, ".%d", static_cast<int>(getpid())));
  }
  path[length] = '\0';
  return true;
}

bool IsOwnFile(const char* path, const char* beginning) {
  const int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return false;
  char found[32] = {};
  const size_t length = strlen(beginning);
  const bool ours = read(file, found, length) == static_cast<ssize_t>(length) &&
                    memcmp(found, beginning, length) == 0;
  close(file);
  return ours;
}

int MakeFile(const char* path, const char* beginning) {
  constexpr int kHow = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const int file = open(path, kHow, 0600);
  if (file >= 0 || errno != EEXIST) return file;
  if (!IsOwnFile(path, beginning)) {
    errno = EEXIST;
    return -1;
  }
  unlink(path);
  return open(path, kHow, 0600);
}

int OutOfTheWay(int file) {
  const int away = file < 0 ? -1 : fcntl(file, F_DUPFD_CLOEXEC, kAwayFrom);
  if (away < 0) return file;
  close(file);
  return away;
}

bool OpenFile::Make(const char* path, const char* beginning) {
  const int made = OutOfTheWay(MakeFile(path, beginning));
  if (made < 0) return false;
  struct stat status;
  if (!StatusOf(made, &status)) {
    close(made);
    return false;
  }
  // As long as the file is mapped no other one gets its number, whoever removes and closes it.
  void* held = mmap(nullptr, kHeldBytes, PROT_NONE, MAP_PRIVATE, made, 0);
  held_ = held == MAP_FAILED ? nullptr : held;
  snprintf(path_, sizeof(path_), "%s", path);
  device_ = status.st_dev;
  inode_ = status.st_ino;
  end_.store(0, std::memory_order_relaxed);
  file_.store(made, std::memory_order_release);
  return true;
}

bool OpenFile::Look() {
  const auto is_ours = [this](int file, struct stat* now) {
    return StatusOf(file, now) && now->st_dev == device_ && now->st_ino == inode_;
  };
  size_t end = end_.load(std::memory_order_acquire);  // before the look: others make it longer
  struct stat now;
  if (!is_ours(file_.load(std::memory_order_acquire), &now)) {
    const Uncancelled uncancelled;
    Held held(lock_);
    for (int tries = 0; !is_ours(file_.load(std::memory_order_relaxed), &now); ++tries) {
      const int again = open(path_, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
      const bool closed = again >= 0 && !StatusOf(again, &now);
      if (closed && tries < kMostTries) continue;
      if (again < 0 || closed || tries == kMostTries || !is_ours(again, &now)) {
        if (again >= 0 && !closed) close(again);
        errno = EBADF;
        return false;
      }
      file_.store(OutOfTheWay(again), std::memory_order_release);
    }
  }
  const auto size = static_cast<size_t>(now.st_size);
  // Once, where several threads see it.
  if (size < end && end_.compare_exchange_strong(end, size)) {
    left_by_cut_.store(size, std::memory_order_relaxed);
    cuts_.fetch_add(1, std::memory_order_release);
  }
  return true;
}

bool OpenFile::Write(std::initializer_list<Piece> pieces, uint32_t cuts) {
  size_t end = 0;
  for (const Piece& piece : pieces) end = std::max(end, piece.offset + piece.bytes);
  if (!Look()) return false;
  if (cuts < this->cuts()) {
    errno = ESTALE;
    return false;
  }
  rlimit most;
  if (getrlimit(RLIMIT_FSIZE, &most) != 0 || most.rlim_cur < end) {
    errno = EFBIG;
    return false;
  }
  for (const Piece& piece : pieces) {
    for (int tries = 0; !Put(piece); ++tries) {  // closed since the look?
      if (errno != EBADF || tries == kMostTries || !Look()) return false;
    }
  }
  size_t before = end_.load(std::memory_order_relaxed);
  while (before < end && !end_.compare_exchange_weak(before, end)) {
  }
  return true;
}

bool OpenFile::Put(const Piece& piece) {
  for (size_t done = 0; done < piece.bytes;) {
    // As a system call: no cancellation point, and no sanitizer that takes the counters of other
    // threads, which are atomic, for a race.
    const long written = syscall(SYS_pwrite64, file_.load(std::memory_order_relaxed),
                                 static_cast<const char*>(piece.data) + done, piece.bytes - done,
                                 piece.offset + done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      if (written == 0) errno = ENOSPC;
      return false;
    }
    done += static_cast<size_t>(written);
  }
  return true;
}

bool OpenFile::Cut(size_t bytes) {
  if (!Look()) return false;
  size_t end = end_.load(std::memory_order_relaxed);
  while (end > bytes && !end_.compare_exchange_weak(end, bytes)) {
  }
  return ftruncate(file_.load(std::memory_order_relaxed), static_cast<off_t>(bytes)) == 0;
}

void OpenFile::Remove() {
  if (file_.load(std::memory_order_relaxed) < 0) return;
  struct stat now;
  const int file = open(path_, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  const bool same = StatusOf(file, &now) && now.st_dev == device_ && now.st_ino == inode_;
  if (file >= 0) close(file);
  if (same) unlink(path_);
}

void OpenFile::Forget() {
  struct stat now;
  const int file = file_.load(std::memory_order_relaxed);
  if (file < 0) return;
  UnmapPages(held_, kHeldBytes);
  if (StatusOf(file, &now) && now.st_dev == device_ && now.st_ino == inode_) close(file);
  new (this) OpenFile;
}

}  // namespace cmp
