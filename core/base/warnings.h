// The one way in which the pool speaks when something is wrong: a line on stderr.
#ifndef CMP_CORE_BASE_WARNINGS_H_
#define CMP_CORE_BASE_WARNINGS_H_

namespace cmp {

// "cmp: " and `line`, in one write of one line, whatever a name or value in it has. Thread-safe.
void PrintWarning(const char* line);

// Makes one line of a text with names or values of the program's: no control characters.
void MakeOneLine(char* text);

}  // namespace cmp

#endif  // CMP_CORE_BASE_WARNINGS_H_
