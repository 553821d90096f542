// What the host could see the end of: submitted work whose effects show without asking CUDA, as far
// as it is not known to be done. A free under CMP_FREE_SYNC=auto waits for it.
//
//   Add              a submission to a stream, before and after its real call
//   FenceBegins      all that was added is done once this fence has passed
//   Finished         a synchronisation ended: what was added before it began is done
//
// Stream by stream, since a program that synchronises one stream is done with it while others run.
// The newest submission of a stream stands for all of that stream: they end in order.
#ifndef CMP_SHIM_VISIBLE_VISIBLE_WORK_H_
#define CMP_SHIM_VISIBLE_VISIBLE_WORK_H_

#include <cstddef>
#include <cstdint>

#include "shim/visible/streams.h"

namespace cmp {

// Why a free waits, in the order of CMP_WAIT_REASONS.
enum class Visible : uint8_t {
  // Pending work.
  kCopies,         // copies and sets of page-locked memory
  kHostFunctions,  // functions of the host's
  kGraphs,         // graphs, which may hold all of these
  kStreamMemory,   // waits for, and writes of, values in memory
  kUnknown,        // any of these, from before the pool
  // What exists.
  kManaged,         // managed memory and variables
  kMapped,          // memory of the host that kernels can use, and the other way round
  kPageableAccess,  // the device can use all memory of the host
  kExports,         // memory that others were given
  kImports,         // memory and semaphores of others
  kAttributes,      // attributes set on memory: somebody else uses it
  kWatched,         // another thread that asks whether work is done (watch.h)
  kNothing,
};

// Of one context. Not thread-safe.
class VisibleWork {
 public:
  // Starts with work from before anybody looked.
  constexpr VisibleWork() { streams_[0] = {kSeveralStreams, 1, 0, 0, Visible::kUnknown, false}; }

  // `after_legacy`: a wait for the legacy stream waits for this one, too.
  void Add(StreamName stream, Visible what, bool after_legacy);
  void FenceBegins(uint64_t number);
  void FenceFailed();
  // The stream's work (kSeveralStreams: all) up to submission `last` is done.
  void Finished(StreamName stream, uint64_t last);
  // The handle may mean another stream from now on; kSeveralStreams: every handle.
  void StreamEnds(StreamName stream);
  void Clear() { count_ = 0; }
  // Of another context from now on, of which nothing is known either. Submissions are numbered on:
  // whoever heard of an earlier one finishes nothing of this context.
  void Restart() {
    streams_[0] = {kSeveralStreams, ++last_, 0, 0, Visible::kUnknown, false};
    count_ = 1;
  }

  // As it was said of pending work of the stream; false if there is none.
  bool IsAfterLegacy(StreamName stream) const;
  // The newest submission.
  uint64_t last() const { return last_; }
  size_t count() const { return count_; }

  // The newest fence that is to be waited for, given which have passed, and for what; 0: none.
  // Work that no fence covers yet was submitted after the fence of who asks.
  struct Pending {
    uint64_t fence = 0;
    Visible what = Visible::kNothing;
  };
  Pending Until(uint64_t passed);

 private:
  static constexpr size_t kMost = 32;
  struct Stream {
    StreamName name;  // kSeveralStreams: not known, or more than fit
    uint64_t submission;
    uint64_t fence;   // 0: none has begun since
    uint64_t before;  // then: the fence of its work from before the newest submission, or 0
    Visible what;
    bool after_legacy;
  };

  static uint64_t Newest(const Stream& stream) {
    return stream.fence != 0 ? stream.fence : stream.before;
  }
  void Remove(size_t at) { streams_[at] = streams_[--count_]; }
  Stream* Find(StreamName name);

  Stream streams_[kMost] = {};
  size_t count_ = 1;
  uint64_t last_ = 1;
  uint64_t begun_ = 0;
};

}  // namespace cmp

#endif  // CMP_SHIM_VISIBLE_VISIBLE_WORK_H_
