// The files that the shim writes: CMP_STATS and CMP_TRACE.
//
// They are made privately (mode 0600), follow no symbolic link and replace nothing that the shim
// did not write. One that cannot be written costs a line of warning and nothing else: never a
// signal, on a full disk or beyond the process's limit.
#ifndef CMP_SHIM_RECORD_OWN_FILES_H_
#define CMP_SHIM_RECORD_OWN_FILES_H_

#include <cstddef>

namespace cmp {

inline constexpr size_t kMaxPath = 1024;

// Set in a forked child, whose files are its own: of the same name they would replace its parent's.
inline constinit bool g_is_forked_child = false;

// Of this process among those that a launcher started, as text; nullptr: no launcher says.
const char* RankOfLauncher();

// `pattern` with %p (process), %h (host), %r (rank) and %% replaced. False if it does not fit.
bool ExpandPath(const char* pattern, char (&path)[kMaxPath]);

// Does the file begin as one that the shim wrote?
bool IsOurs(const char* path, const char* beginning);

// A new file; an older one that begins with `beginning` is replaced. -1 with errno.
int MakeFile(const char* path, const char* beginning);

// `bytes` more of `file`, from `offset` on (whole pages), mapped and zero; nullptr with errno. All
// of their room on the disk is taken now: a page that it has no room for would kill the process
// when it is written to.
void* MapMore(int file, size_t offset, size_t bytes);

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_OWN_FILES_H_
