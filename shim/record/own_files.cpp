#include "shim/record/own_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <initializer_list>

#include "core/base/lock.h"

namespace cmp {

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

bool IsOurs(const char* path, const char* beginning) {
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
  if (!IsOurs(path, beginning)) {
    errno = EEXIST;
    return -1;
  }
  unlink(path);
  return open(path, kHow, 0600);
}

void* MapMore(int file, size_t offset, size_t bytes) {
  const Uncancelled uncancelled;  // under the lock of the trace
  rlimit most;
  const bool fits = getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur >= offset + bytes;
  const auto from = static_cast<off_t>(offset);
  errno = fits ? posix_fallocate(file, from, static_cast<off_t>(bytes)) : EFBIG;
  if (errno != 0) return nullptr;
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, from);
  return pages == MAP_FAILED ? nullptr : pages;
}

}  // namespace cmp
