#include "shim/state/programs.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

namespace cmp {

bool IsServed(const char* globs, const char* program) {
  bool served = true;
  bool any_inclusion = false;
  bool included = false;
  for (const char* at = globs; *at != '\0';) {
    const size_t length = strcspn(at, ",");
    const bool excludes = *at == '!';
    char glob[kLongestGlob];
    const bool is_whole = length < sizeof(glob);
    snprintf(glob, sizeof(glob), "%.*s", static_cast<int>(is_whole ? length : 0), at);
    const bool matches = is_whole && fnmatch(glob + (excludes ? 1 : 0), program, 0) == 0;
    if (excludes) {
      served &= !matches;
    } else if (length != 0) {
      any_inclusion = true;
      included |= matches || strcmp(glob, "all") == 0;
    }
    at += length;
    if (*at == ',') ++at;
  }
  return served && (included || !any_inclusion);
}

}  // namespace cmp
