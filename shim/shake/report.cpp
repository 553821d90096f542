#include "shim/shake/report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/warnings.h"

namespace cmp {

void ShakeReport::Begin(const char* pattern, const Writer& writer) {
  if (pattern == nullptr) return;
  if (!ExpandPath(pattern, path_)) {
    path_[0] = '\0';
    return PrintWarning("the name of CMP_SHAKE_REPORT is too long");
  }
  if (!Write(false)) return;
  if (!StartWriter(writer)) {
    PrintWarning("no thread can be made: CMP_SHAKE_REPORT is written at the end alone");
  }
}

bool ShakeReport::Write(bool ends) {
  if (!lock_.LockSoon()) return true;
  const Held held(lock_, Taken::kYes);
  if (path_[0] == '\0') return false;
  {
    const Held held_too(lock_of_sites_);
    if (sites_.changes() == written_ && !ends) return true;
    written_ = sites_.changes();
    copy_.Follow(sites_);
  }
  const bool written = copy_.Write(path_, ends);
  if (!written) {
    char line[kMaxPath + 64];
    snprintf(line, sizeof(line), "CMP_SHAKE_REPORT=%s cannot be written: %s", path_,
             strerror(errno));
    PrintWarning(line);
  }
  if (ends || !written) path_[0] = '\0';
  return written;
}

}  // namespace cmp
