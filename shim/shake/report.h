// The file of CMP_SHAKE_REPORT: the sites, written from time to time, as the process may be killed.
#ifndef CMP_SHIM_SHAKE_REPORT_H_
#define CMP_SHIM_SHAKE_REPORT_H_

#include "core/base/lock.h"
#include "shim/record/own_files.h"
#include "shim/record/writer.h"
#include "shim/shake/sites.h"

namespace cmp {

// Thread-safe. Its lock is taken before that of the sites, for moments: files are not written under
// that.
class ShakeReport {
 public:
  ShakeReport(const ShakeSites& sites, Mutex& lock_of_sites)
      : sites_(sites), lock_of_sites_(lock_of_sites) {}

  // From now on, and from time to time by `writer`, which calls Write(false).
  void Begin(const char* pattern, const Writer& writer);
  // Writes it, if it has changed. `ends`: for the last time. False: it was, or it cannot be
  // written, which was told.
  bool Write(bool ends);

 private:
  const ShakeSites& sites_;
  Mutex& lock_of_sites_;
  Mutex lock_;
  char path_[kMaxPath] = {};         // empty: there is none, or no more is written
  uint64_t written_ = ~uint64_t{0};  // changes that it has
  ShakeSites copy_;                  // what it has
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_REPORT_H_
