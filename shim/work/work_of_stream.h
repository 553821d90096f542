// Which context a stream belongs to, and so whose work a submission to it is.
#ifndef CMP_SHIM_WORK_WORK_OF_STREAM_H_
#define CMP_SHIM_WORK_WORK_OF_STREAM_H_

#include <cuda.h>

#include "shim/work/work_owner.h"

namespace cmp {

// Where there are several contexts: the owner of this stream's work. A context without a pool gets
// one. One of several where that cannot be: a stream of a green context says neither its own nor
// the primary context's handle. None for what is no stream: the real call will say so.
WorkOwner FindOwner(StreamName stream);
inline WorkOwner OwnerOf(StreamName stream) {
  const WorkOwner of_all = g_owner_of_all.load(std::memory_order_acquire);
  return of_all.IsOneOfSeveral() ? FindOwner(stream) : of_all;
}

// Gives every context that the program made a pool, as far as that can be.
void OpenAllContexts();

// The stream is about to be destroyed.
void StreamEnds(CUstream stream);
// Streams are about to be destroyed, and which is not known.
void SomeStreamsEnd();
// A context begins or ends, and with it streams: where streams belong is looked up anew. Before the
// change shows in g_owner_of_all.
void ForgetStreams();
// What is known of a stream's handle is of now as long as this stays. acquire.
uint64_t StreamEpoch();

}  // namespace cmp

#endif  // CMP_SHIM_WORK_WORK_OF_STREAM_H_
