// Whether threads may serve calls from what they remember.
#ifndef CMP_CORE_CONTEXTS_HITS_H_
#define CMP_CORE_CONTEXTS_HITS_H_

#include <atomic>
#include <cstdint>

#include "core/base/own_line.h"

namespace cmp {

// Grows whenever a context was closed, is about to end or may have ended, one without a pool, too,
// or the process forked: what is remembered of contexts may be stale.
inline constinit OwnLine<uint64_t> g_context_epoch{1};
inline void ForgetWhatIsKnownOfContexts() {
  g_context_epoch.fetch_add(1, std::memory_order_seq_cst);
}

// Grows with that one, and when hits are barred: the caches that threads remember are not to be
// used until they were asked for anew. Read on every hit, written almost never.
inline constinit OwnLine<uint64_t> g_hit_epoch{1};
// For how many reasons no thread may remember a cache now.
inline constinit std::atomic<int> g_hits_barred{0};

// Sequentially consistent, here and where a cache is remembered: the epoch is read there before it
// is asked whether hits are barred, so that a bar between the two leaves the epoch behind.
inline void ForgetWhatThreadsRemember() {
  ForgetWhatIsKnownOfContexts();
  g_hit_epoch.fetch_add(1, std::memory_order_seq_cst);
}
inline void BarHits() {
  g_hits_barred.fetch_add(1, std::memory_order_seq_cst);
  g_hit_epoch.fetch_add(1, std::memory_order_seq_cst);
}
inline void UnbarHits() { g_hits_barred.fetch_sub(1, std::memory_order_seq_cst); }
// From before a call that may end contexts until those that have ended are dropped: another thread
// may make one of the same handle meanwhile, and is to look for that one's pool. Around both times
// that what is known of contexts is forgotten.
class [[nodiscard]] HitsBarred {
 public:
  HitsBarred() { BarHits(); }
  ~HitsBarred() { UnbarHits(); }
  HitsBarred(const HitsBarred&) = delete;
  HitsBarred& operator=(const HitsBarred&) = delete;
};

}  // namespace cmp

#endif  // CMP_CORE_CONTEXTS_HITS_H_
