// CMP_PROGRAMS: which programs the shim serves.
#ifndef CMP_SHIM_STATE_PROGRAMS_H_
#define CMP_SHIM_STATE_PROGRAMS_H_

#include <cstddef>

namespace cmp {

inline constexpr unsigned kLongestGlob = 1024;  // four for each of a file's name

// Is `program` served under `globs`, which are separated by commas? `!glob` excludes; with only
// exclusions all others are served. A glob of kLongestGlob characters or more matches nothing. A
// glob matches the program's name or, where it has one, that of its `script`.
bool IsServed(const char* globs, const char* program, const char* script = nullptr);

// The script that an interpreter runs: `train.py` of `python3 -u src/train.py 5`, `app.train` of
// `python3 -m app.train`. `arguments`: those of the process, as in /proc/self/cmdline, each with a
// zero behind it. nullptr: `program` is no interpreter that is known, or runs no script; else into
// `arguments`.
const char* ScriptOf(const char* program, const char* arguments, size_t bytes);

// The same of this process; nullptr likewise. Written into `script`, without its folder.
const char* OwnScript(char (&script)[256]);

}  // namespace cmp

#endif  // CMP_SHIM_STATE_PROGRAMS_H_
