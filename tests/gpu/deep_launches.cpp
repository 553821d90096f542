// What deep.cpp loads.
#include "../demo/kernels.h"

extern "C" __attribute__((visibility("default"))) void deep_write_late(cudaStream_t stream,
                                                                       uint32_t* word,
                                                                       uint32_t value,
                                                                       uint64_t nanoseconds) {
  static const cmp::demo::Kernels kernels;
  kernels.WriteLate(stream, word, value, nanoseconds);
}
