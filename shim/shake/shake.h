// What the rooms above tell of a process whose order is tried (CMP_SHAKE). Where it is off, each of
// these is a load and a branch, and none is on the way of a usual submission, allocation or free:
// while it is on, no stream is quiet (work/context_work.h), so that every submission is seen.
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
class [[nodiscard]] Shaken {
 public:
  Shaken() = default;
  explicit Shaken(const ShakenSubmission& submission) { Begin(submission); }
  ~Shaken() {
    if (shaker_ != nullptr) [[unlikely]]
      End();
  }
  Shaken(const Shaken&) = delete;
  Shaken& operator=(const Shaken&) = delete;

 private:
  friend class Shaker;
  void Begin(const ShakenSubmission& submission);
  void End();

  Shaker* shaker_ = nullptr;  // nullptr: nothing is to be done after the real call
  HoldTarget later_of_;       // it is the later work of this hold
  CUstream stream_ = nullptr;
  bool waits_ = false;
};

// A free of so many bytes for which the real call would have waited, or perhaps.
void ShakeFree(size_t bytes);
// A call that waits on the host for a stream's work, or kSeveralStreams, or what is not known.
void ShakeWait(StreamName stream);
// What such a call found: all that was submitted to the stream before ShakeWaitBegins is done.
uint64_t ShakeWaitBegins();
void ShakeWaited(StreamName stream, uint64_t begun);
// The handle may mean another stream from now on.
void ShakeStreamEnds(StreamName stream);
// A context is about to end.
void ShakeContextEnds();

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_SHAKE_H_
