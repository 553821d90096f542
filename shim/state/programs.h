// CMP_PROGRAMS: which programs the shim serves.
#ifndef CMP_SHIM_STATE_PROGRAMS_H_
#define CMP_SHIM_STATE_PROGRAMS_H_

namespace cmp {

inline constexpr unsigned kLongestGlob = 1024;  // four for each of a file's name

// Is `program` served under `globs`, which are separated by commas? `!glob` excludes; with only
// exclusions all others are served. A glob of kLongestGlob characters or more matches nothing.
bool IsServed(const char* globs, const char* program);

}  // namespace cmp

#endif  // CMP_SHIM_STATE_PROGRAMS_H_
