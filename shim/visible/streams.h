// Names of streams within their context: the handle, kLegacyStream, or an odd number for the
// default stream of one thread.
#ifndef CMP_SHIM_VISIBLE_STREAMS_H_
#define CMP_SHIM_VISIBLE_STREAMS_H_

#include <cuda.h>

#include <cstdint>

namespace cmp {

using StreamName = uintptr_t;
inline constexpr StreamName kNoStream = 0;
inline constexpr StreamName kLegacyStream = 2;
inline constexpr StreamName kSeveralStreams = ~uintptr_t{0};

// The thread's own default stream: named when a submission to it is noted first, which one that
// is quiet never is. Thread numbers are never reused, as addresses would be.
inline constexpr StreamName kUnnamedStream = 1;
inline thread_local constinit StreamName t_thread_stream = kUnnamedStream;
inline StreamName ThreadStream() { return t_thread_stream; }
// Has the stream this name in every context, so that the current one's is meant? Several streams
// are the current context's, too.
static_assert(kSeveralStreams % 2 == 1);
inline bool IsOfCurrentContext(StreamName stream) {
  return stream % 2 == 1 || stream == kLegacyStream;
}
inline bool IsDefaultStream(CUstream stream) { return reinterpret_cast<uintptr_t>(stream) <= 2; }
// The stream that a handle means in the entry points of the legacy default stream...
inline StreamName Explicit(CUstream stream) {
  if (!IsDefaultStream(stream)) [[likely]]
    return reinterpret_cast<StreamName>(stream);
  return stream == CU_STREAM_PER_THREAD ? ThreadStream() : kLegacyStream;
}
// ... and in those of the per-thread one.
inline StreamName PerThread(CUstream stream) {
  return stream == nullptr ? ThreadStream() : Explicit(stream);
}

}  // namespace cmp

#endif  // CMP_SHIM_VISIBLE_STREAMS_H_
