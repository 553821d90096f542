// Is the caller one of NVIDIA's own libraries? What those share with the device for themselves the
// program cannot see. (Measured: cuDNN maps page-locked memory in every PyTorch process.)
//
// A file name proves nothing: libnpp_mine.so may be the program's. Where a library comes from
// stands in it: NVIDIA's define a symbol version of their own soname ("libcublas.so.13", read from
// CUDA 12 and 13, the toolkits' and the wheels' alike), but for NCCL, which is known by its
// functions.
#ifndef CMP_SHIM_LOADED_NVIDIA_LIBRARIES_H_
#define CMP_SHIM_LOADED_NVIDIA_LIBRARIES_H_

namespace cmp {

// `caller`: an address in its code.
bool IsNvidiaLibrary(const void* caller);

// For tests: is it the version that one of NVIDIA's libraries defines?
bool IsNvidiaVersion(const char* version);

}  // namespace cmp

#endif  // CMP_SHIM_LOADED_NVIDIA_LIBRARIES_H_
