// What the workloads of against.cpp allocate with: one small interface over every alternative.
//
// An adaptor is a shared library with MakeAllocator, so that a missing alternative breaks nothing:
// those of other projects are compiled by tests/gpu/compare_all.py where their headers are found.
#ifndef CMP_TESTS_GPU_AGAINST_ALLOCATOR_H_
#define CMP_TESTS_GPU_AGAINST_ALLOCATOR_H_

#include <cuda_runtime_api.h>

#include <cstddef>

namespace cmp::against {

class Allocator {
 public:
  virtual ~Allocator() = default;

  // Memory for work on `stream`; nullptr where it fails, or an exception, which ends the program.
  virtual void* Allocate(size_t bytes, cudaStream_t stream) = 0;
  // `stream` is where the memory was used last; `bytes` is what was asked for. False: it failed.
  virtual bool Free(void* block, size_t bytes, cudaStream_t stream) = 0;
};

struct Made {
  Allocator* allocator;  // lives as long as the process
  const char* missing;   // without one, why
};

}  // namespace cmp::against

// `reserve_bytes`: what an allocator takes at its start, if it takes memory then.
extern "C" cmp::against::Made MakeAllocator(const char* name, size_t reserve_bytes);

#endif  // CMP_TESTS_GPU_AGAINST_ALLOCATOR_H_
