// Copies and sets: what they read and write, and whether the host waits for them.
//
// What CUDA documents ("API synchronization behavior"), as measured: a synchronous copy to the host
// waits; one from pageable memory returns once the source was staged; device to device and sets of
// device memory wait for nothing; an asynchronous copy with a pageable side stages a little and
// otherwise waits.
//
// Copies with attributes, as measured: one that reads its source in the order of the stream waits
// if that is pageable. One that reads it at any time stages a little of a pageable source, and
// reads more than that after the call has returned; so does one that is to read it during the call,
// which waits with every other source. What is in pageable memory afterwards is not waited for.
//
// On whichever stream it is, a copy from or to the host runs in the context of the device memory;
// one between devices in that of its source if that has access to the target, otherwise in both
// (measured: tests/gpu/two_gpus_probe).
#ifndef CMP_TESTS_SIM_COPIES_H_
#define CMP_TESTS_SIM_COPIES_H_

#include "simulation.h"
#include "streams.h"

namespace cmp::sim {

// One side of a copy: rows at `pitch` from each other, slices of rows at `slice`.
struct CopySide {
  uintptr_t start = 0;
  // 1 for a device or managed address, 0 for a host address, -1 when the call does not say.
  int on_device = -1;
  size_t pitch = 0;
  size_t slice = 0;
  // From the device's address that the call names to `start`: the same memory (measured).
  size_t offset = 0;
};

enum class SourceRead { kAsUsual, kInOrder, kAnyTime, kDuringCall };

struct CopyRequest {
  CopySide to;
  CopySide from;
  size_t width = 0;  // bytes of a row
  size_t height = 1;
  size_t depth = 1;
  CUstream stream = nullptr;
  DefaultStream null_means = DefaultStream::kLegacy;
  bool synchronous = false;
  SourceRead source_read = SourceRead::kAsUsual;
};
CUresult Copy(Simulation& sim, Lock& lock, const CopyRequest& request);
// The same on this stream, whatever the request says.
CUresult CopyOn(Simulation& sim, Lock& lock, Stream* stream, const CopyRequest& request);

struct SetRequest {
  uintptr_t to = 0;
  size_t pitch = 0;
  uint32_t value = 0;
  size_t element_bytes = 1;
  size_t width = 0;  // in elements
  size_t height = 1;
  CUstream stream = nullptr;
  DefaultStream null_means = DefaultStream::kLegacy;
  bool synchronous = false;
};
CUresult Set(Simulation& sim, Lock& lock, const SetRequest& request);
CUresult SetOn(Simulation& sim, Lock& lock, Stream& stream, const SetRequest& request);

// A box as CUDA_MEMCPY2D, CUDA_MEMCPY3D and CUDA_MEMCPY3D_PEER describe it; the contexts of the
// last say nothing here.
CUresult ToRequest(const CUDA_MEMCPY2D& box, CopyRequest* request);
CUresult ToRequest(const CUDA_MEMCPY3D& box, CopyRequest* request);
CUresult ToRequest(const CUDA_MEMCPY3D_PEER& box, CopyRequest* request);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_COPIES_H_
