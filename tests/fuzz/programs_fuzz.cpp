// CMP_PROGRAMS: whether a program is served under some globs.
//
// An input is the globs, and in a second line the program's name.
#include <fnmatch.h>

#include <algorithm>
#include <string>

#include "fuzz.h"
#include "shim/state/programs.h"

namespace {

bool Matches(const std::string& glob, const std::string& program) {
  return fnmatch(glob.c_str(), program.c_str(), 0) == 0;
}

// What the documentation says.
bool ShouldBeServed(const std::string& globs, const std::string& program) {
  bool any = false;
  bool included = false;
  bool excluded = false;
  for (size_t begin = 0; begin <= globs.size();) {
    const size_t end = std::min(globs.find(',', begin), globs.size());
    const std::string glob = globs.substr(begin, end - begin);
    begin = end + 1;
    if (glob.empty()) continue;
    const bool is_short = glob.size() < cmp::kLongestGlob;
    if (glob[0] == '!') {
      excluded |= is_short && Matches(glob.substr(1), program);
    } else {
      any = true;
      included |= glob == "all" || (is_short && Matches(glob, program));
    }
  }
  return !excluded && (included || !any);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t line = std::min(text.find('\n'), text.size());
  const std::string globs = text.substr(0, line).c_str();  // to the first zero
  std::string program = line < text.size() ? text.substr(line + 1).c_str() : "";
  program.resize(std::min<size_t>(program.size(), 255));  // a file's name is no longer
  CMP_EXPECT(cmp::IsServed(globs.c_str(), program.c_str()) == ShouldBeServed(globs, program));
  return 0;
}
