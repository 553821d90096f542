#include "shim/state/settings.h"

#include <stdlib.h>
#include <unistd.h>

#include "core/base/warnings.h"
#include "core/pool/pool_instance.h"
#include "shim/state/programs.h"

namespace cmp {

Options ReadShimOptions() {
  WarnOfMisspelledOptions(environ, &PrintWarning);
  // secure_getenv: a set-user-id program takes no settings from its caller.
  Options options = ReadOptions([](const char* name) -> const char* { return secure_getenv(name); },
                                &PrintWarning);
  char script[256];
  if (options.programs != nullptr &&
      !IsServed(options.programs, ProgramName(), OwnScript(script))) {
    if (options.verbose) PrintWarning("CMP_PROGRAMS leaves this program out: every call is real");
    options.mode = Mode::kOff;
    options.trace = nullptr;
    g_left_out = true;
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
