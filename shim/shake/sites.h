// The sites: where a free would owe order, or a wait, for work that was submitted before it. What
// stands in the files of CMP_SHAKE_SITES and CMP_SHAKE_REPORT
// (scripts/docs/formats/shake-sites.md).
//
// Not thread-safe.
#ifndef CMP_SHIM_SHAKE_SITES_H_
#define CMP_SHIM_SHAKE_SITES_H_

#include <cstddef>
#include <cstdint>

#include "core/base/statistics.h"
#include "shim/shake/call_sites.h"

namespace cmp {

enum class ShakeKind : uint8_t {
  kOrder,  // later work of another stream may run before it
  kHost,   // the host may go on before it
};

// A stream among those of the process, in the order of their first submission. One that is
// destroyed leaves its number to the next; so does a thread that ends.
using StreamOrdinal = int;
inline constexpr StreamOrdinal kOrdinalLegacy = -1;
inline constexpr StreamOrdinal kOrdinalPerThread = -2;
inline constexpr StreamOrdinal kOrdinalUnknown = -3;

// A call that submitted something.
struct ShakeCall {
  const char* name = nullptr;
  const CallSite* where = &kUnknownCallSite;
  uint32_t thread = 0;  // in the order of their first call, from 1 on; 0: not known
  StreamOrdinal stream = kOrdinalUnknown;
  uint64_t who = 0;  // thread and stream once more, the same in every run (threads.h)
};

struct ShakeSite {
  uint64_t id = 0;
  ShakeKind kind = ShakeKind::kOrder;
  bool listed = false;  // in CMP_SHAKE_SITES
  uint64_t count = 0;   // executions: as the last submission before a free, or all in shaken runs
  uint64_t holds = 0;
  uint64_t effective = 0;
  uint32_t in_vain = 0;  // holds since one was effective
  ShakeCall earlier;
  ShakeCall later;
  const CallSite* free_where = &kUnknownCallSite;
  uint32_t free_thread = 0;
  size_t free_bytes = 0;
};

class ShakeSites {
 public:
  static uint64_t IdOf(ShakeKind kind, const ShakeCall& earlier);
  // The site, made if it is new; nullptr where there are too many.
  ShakeSite* Get(ShakeKind kind, const ShakeCall& earlier);
  // nullptr: it is not there.
  ShakeSite* Find(uint64_t id);

  // What is noted of a site: one more of what `of_site` and the statistics count; the free and the
  // call that came last.
  void Count(Counter& counter, uint64_t& of_site);
  void Freed(ShakeSite& site, const CallSite* where, uint32_t thread, size_t bytes);
  void Later(ShakeSite& site, const ShakeCall& call);
  uint64_t changes() const { return changes_; }

  // Reads which sites may be held. Why it cannot be, or nullptr.
  const char* Read(const char* path);
  // Becomes as `later`, which had all of these sites already: what is there is copied, not all
  // room.
  void Follow(const ShakeSites& later);
  // A new file in place of the one that was written there before, at once: whoever reads, and
  // whenever the process is killed, has one of the two. `ends`: nothing changes any more. False
  // with errno.
  bool Write(const char* path, bool ends) const;

  size_t count() const { return count_; }

 private:
  ShakeSite* Add(uint64_t id, ShakeKind kind);
  bool WriteLines(int file, bool ends) const;

  static constexpr size_t kPlaces = 8192;
  size_t count_ = 0;
  uint64_t changes_ = 0;
  ShakeSite places_[kPlaces] = {};
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_SITES_H_
