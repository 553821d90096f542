// What the rooms above tell of a process whose order is tried (CMP_SHAKE). Where it is off, each
// is a load and a branch, and none is on the way of a usual submission, allocation or free: while
// it is on, no stream is quiet (work/context_work.h), so that every submission is seen.
#ifndef CMP_SHIM_SHAKE_SHAKE_H_
#define CMP_SHIM_SHAKE_SHAKE_H_

#include <cuda.h>

#include <cstddef>

#include "core/base/options.h"
#include "core/base/own_line.h"
#include "shim/shake/hold.h"
#include "shim/visible/streams.h"

namespace cmp {

class Shaker;
// nullptr: off. Set once, before the first submission that counts; nullptr again in a forked child.
inline constinit OwnLine<Shaker*> g_shaker{nullptr};
inline Shaker* TheShaker() { return g_shaker.load(std::memory_order_acquire); }

// As the options say; with a line where something cannot be. At the process's first allocation.
void BeginShake(const Options& options);
// The process ends: everything is let go, no CUDA call is made any more, the report is written.
void EndShake();
// In a forked child: nothing of it.
inline void ForgetShake() { g_shaker.store(nullptr, std::memory_order_release); }

// A submission on its way.
struct ShakenSubmission {
  const char* name;
  StreamName stream;
  bool works;    // it reads or writes memory: no record of an event, no wait for one
  bool visible;  // the host could see its end (visible_work.h)
  bool waits;    // it returns only once it is done
};
// Around its real call.
class [[nodiscard]] Shaken {
 public:
  // REQUIRES: TheShaker()
  explicit Shaken(const ShakenSubmission& submission);
  ~Shaken();
  Shaken(const Shaken&) = delete;
  Shaken& operator=(const Shaken&) = delete;

 private:
  friend class Shaker;
  Shaker& shaker_;
  bool is_later_ = false;  // is it the later work of a hold?
  HoldTarget later_of_;
  CUstream stream_ = nullptr;
  bool waits_ = false;
};
uint64_t ShakeWaitSlow(StreamName stream);
void ShakeWaitedSlow(StreamName stream, uint64_t begun);
void ShakeStreamEndsSlow(StreamName stream);
void ShakeContextEndsSlow();

// A free of so many bytes for which the real call would have waited, or perhaps.
// REQUIRES: TheShaker()
void ShakeFree(size_t bytes);
// A call that waits on the host for a stream's work, or asks about it: kSeveralStreams, or what is
// not known, is all. For ShakeWaited.
inline uint64_t ShakeWait(StreamName stream) {
  return TheShaker() == nullptr ? 0 : ShakeWaitSlow(stream);
}
// It found that all that was submitted to the stream before it is done.
inline void ShakeWaited(StreamName stream, uint64_t begun) {
  if (TheShaker() != nullptr) [[unlikely]]
    ShakeWaitedSlow(stream, begun);
}
// The handle may mean another stream from now on; kSeveralStreams: every handle.
inline void ShakeStreamEnds(StreamName stream) {
  if (TheShaker() != nullptr) [[unlikely]]
    ShakeStreamEndsSlow(stream);
}
// A context is about to end.
inline void ShakeContextEnds() {
  if (TheShaker() != nullptr) [[unlikely]]
    ShakeContextEndsSlow();
}

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_SHAKE_H_
