// The files that the shim writes: CMP_STATS and CMP_TRACE.
//
// They are made privately (mode 0600), follow no symbolic link and replace nothing that the shim
// did not write. One that cannot be written costs a line of warning and nothing else: never a
// signal, on a full disk or beyond the process's limit.
#ifndef CMP_SHIM_RECORD_OWN_FILES_H_
#define CMP_SHIM_RECORD_OWN_FILES_H_

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "core/base/lock.h"

namespace cmp {

inline constexpr size_t kMaxPath = 1024;

// Set in a forked child, whose files are its own: of the same name they would replace its parent's.
inline constinit bool g_is_forked_child = false;

// Of this process among those that a launcher started, as text; nullptr: no launcher says.
const char* RankOfLauncher();

// `pattern` with %p (process), %h (host), %r (rank) and %% replaced. False if it does not fit.
bool ExpandPath(const char* pattern, char (&path)[kMaxPath]);

// Does the file begin as one that the shim wrote?
bool IsOwnFile(const char* path, const char* beginning);

// A new file; an older one that begins with `beginning` is replaced. -1 with errno.
int MakeFile(const char* path, const char* beginning);

// The same file under a number out of the way of programs that count on low ones; where that cannot
// be, as it is.
int OutOfTheWay(int file);

// A file of ours that stays open and is written to while the process runs, from private memory. It
// is never mapped: a page of a mapped file that somebody truncates kills the process that touches
// it, and anybody with the name and the right to write can truncate it.
//
// The program may close the descriptor, and have a file of its own under that number: every write
// looks first, and opens ours again by its name. What is truncated grows again with the next write;
// what is removed is written to all the same.
class OpenFile {
 public:
  constexpr OpenFile() = default;

  // MakeFile, which then is this. False with errno.
  bool Make(const char* path, const char* beginning);
  struct Piece {
    size_t offset;
    const void* data;
    size_t bytes;
  };
  // All of them, one after the other. False with errno: EBADF where the program closed the file and
  // it has no name any more, EFBIG beyond the process's limit (without its signal), ESTALE where
  // others cut it more often than `cuts`. Thread-safe.
  bool Write(std::initializer_list<Piece> pieces, uint32_t cuts = ~0u);
  // Takes away what is behind `bytes`. Thread-safe.
  bool Cut(size_t bytes);
  // Looks whether the file is as it was left. False with errno EBADF, as above. Thread-safe.
  bool Look();
  // How often somebody else was found to have cut it. Thread-safe.
  uint32_t cuts() const { return cuts_.load(std::memory_order_acquire); }
  // What the last of them left.
  size_t left_by_cut() const { return left_by_cut_.load(std::memory_order_relaxed); }
  // Removes the file, if its name still is its.
  void Remove();
  // In a forked child, which leaves the file to its parent.
  void Forget();

  const char* path() const { return path_; }

 private:
  bool Put(const Piece& piece);

  Mutex lock_;  // who opens it again
  char path_[kMaxPath] = {};
  dev_t device_ = 0;
  ino_t inode_ = 0;
  void* held_ = nullptr;  // a page that nobody may touch
  std::atomic<int> file_{-1};
  std::atomic<size_t> end_{0};  // what was written reaches so far
  std::atomic<size_t> left_by_cut_{0};
  std::atomic<uint32_t> cuts_{0};
};

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_OWN_FILES_H_
