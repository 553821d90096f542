// The allocators that need no library: CUDA's own calls, and the host's malloc.
#ifndef CMP_TESTS_GPU_AGAINST_CALLS_H_
#define CMP_TESTS_GPU_AGAINST_CALLS_H_

#include "allocator.h"

namespace cmp::against {

// real       cudaMalloc and cudaFree: the pool's where it is preloaded
// async      cudaMallocAsync and cudaFreeAsync
// async-max  the same, and the device's pool keeps what it gets
// malloc     malloc and free, whoever defines them: what a host allocator takes, as a limit
Made MakeCalls(const char* name);

}  // namespace cmp::against

#endif  // CMP_TESTS_GPU_AGAINST_CALLS_H_
