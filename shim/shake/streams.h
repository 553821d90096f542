// The streams that got work, and which is which in every run.
//
// Not thread-safe.
#ifndef CMP_SHIM_SHAKE_STREAMS_H_
#define CMP_SHIM_SHAKE_STREAMS_H_

#include <cstddef>
#include <cstdint>

#include "shim/shake/sites.h"
#include "shim/visible/streams.h"

namespace cmp {

struct ShakeStream {
  StreamName name = kNoStream;  // kNoStream: nobody's
  StreamOrdinal ordinal = kOrdinalUnknown;
  uint64_t who = 0;  // the same in every run: whose it is, and which of those
  bool blocking = false;
};

// Two that order themselves, the legacy one and one that blocks with it, are one here.
bool AreOrdered(const ShakeStream& one, const ShakeStream& other);
// Does who waits for `name`, or kSeveralStreams, wait for this one's work?
bool IsWaitedFor(StreamName name, const ShakeStream& stream);

class ShakeStreams {
 public:
  static constexpr size_t kMost = 256;

  // nullptr: nothing was submitted to it.
  ShakeStream* Find(StreamName name);
  // The stream, made if it is new; nullptr: there are too many. `owner`: the name of the thread.
  ShakeStream* Add(StreamName name, bool blocking, uint64_t owner);
  // Those behind were never anybody's.
  ShakeStream* begin() { return streams_; }
  ShakeStream* end() { return streams_ + places_; }
  size_t IndexOf(const ShakeStream& stream) const {
    return static_cast<size_t>(&stream - streams_);
  }

 private:
  size_t places_ = 0;
  ShakeStream streams_[kMost] = {};
};

}  // namespace cmp

#endif  // CMP_SHIM_SHAKE_STREAMS_H_
