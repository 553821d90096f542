/* The pool as two functions of C, with the signatures that PyTorch's CUDAPluggableAllocator and
   others ask for. libcmp.so exports them; where libcmp_preload.so is preloaded, they use its pool.

   Memory from here may be used on any stream at once. A free waits for nothing. What it frees is
   handed out again, to whatever stream, only when the GPU is done with all work that its context
   had been given by then, on all of its streams: which stream is named, and whether the memory was
   used on others as well, does not matter. (It waits where CudaMemoryPool::FreeWithoutWait does.)

   Thread-safe; neither throws. Without the preload not to be called while a stream is captured. */
#ifndef CMP_CORE_STREAM_ALLOCATOR_H_
#define CMP_CORE_STREAM_ALLOCATOR_H_

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* of which a cudaStream_t is a pointer */

/* `bytes` of device `device`: of the current context if that is of this device, else of the
   device's primary one, and what is current stays so. Aligned to 256 bytes or better. NULL for 0 or
   fewer, and when there is no memory: then a line on stderr says so, since some callers do not
   look. */
__attribute__((visibility("default"))) void* cmp_stream_alloc(ssize_t bytes, int device,
                                                              struct CUstream_st* stream);

/* Gives `pointer` back; the other arguments are not looked at. NULL does nothing. A pointer that is
   not a block in use is left alone, and so is every one where CUDA allows no call (in a host
   function); a line on stderr says so. */
__attribute__((visibility("default"))) void cmp_stream_free(void* pointer, ssize_t bytes,
                                                            int device, struct CUstream_st* stream);

#ifdef __cplusplus
}
#endif

#endif /* CMP_CORE_STREAM_ALLOCATOR_H_ */
