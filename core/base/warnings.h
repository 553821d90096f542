// The one way in which the pool speaks when something is wrong: a line on stderr.
#ifndef CMP_CORE_BASE_WARNINGS_H_
#define CMP_CORE_BASE_WARNINGS_H_

namespace cmp {

// "cmp: " and `line` and a newline, in one write. Thread-safe.
void PrintWarning(const char* line);

}  // namespace cmp

#endif  // CMP_CORE_BASE_WARNINGS_H_
