#include "shim/state/settings.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/warnings.h"
#include "core/pool/pool_instance.h"

namespace cmp {

bool IsServed(const char* globs, const char* program) {
  bool served = true;
  bool any_inclusion = false;
  bool included = false;
  for (const char* at = globs; *at != '\0';) {
    const size_t length = strcspn(at, ",");
    char glob[256];
    snprintf(glob, sizeof(glob), "%.*s", static_cast<int>(length), at);
    const bool excludes = glob[0] == '!';
    const bool matches = fnmatch(glob + (excludes ? 1 : 0), program, 0) == 0;
    if (excludes) {
      if (matches) served = false;
    } else if (glob[0] != '\0') {
      any_inclusion = true;
      included |= matches || strcmp(glob, "all") == 0;
    }
    at += length;
    if (*at == ',') ++at;
  }
  return served && (included || !any_inclusion);
}

Options ReadShimOptions() {
  WarnOfMisspelledOptions(environ, &PrintWarning);
  // secure_getenv: a set-user-id program takes no settings from its caller.
  Options options = ReadOptions([](const char* name) -> const char* { return secure_getenv(name); },
                                &PrintWarning);
  if (options.programs != nullptr && !IsServed(options.programs, ProgramName())) {
    if (options.verbose) PrintWarning("CMP_PROGRAMS leaves this program out: every call is real");
    options.mode = Mode::kOff;
    options.stats = options.trace = nullptr;
  }
  // compute-sanitizer watches every allocation by itself; blocks that the pool keeps would hide
  // from it what happens after a free.
  if (options.mode == Mode::kPool && secure_getenv("NV_SANITIZER_INJECTION_PORT_BASE") != nullptr) {
    PrintWarning("compute-sanitizer is attached: every call is real, so that it sees all errors");
    options.mode = Mode::kOff;
  }
  return options;
}

}  // namespace cmp
