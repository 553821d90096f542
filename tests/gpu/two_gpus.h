// What the programs for several GPUs share: the devices, with the kernels of each, and who may
// touch whose memory.
#ifndef CMP_TESTS_GPU_TWO_GPUS_H_
#define CMP_TESTS_GPU_TWO_GPUS_H_

#include <vector>

#include "../demo/kernels.h"
#include "program.h"

namespace cmp::gpu {

inline void Use(int device) { CHECK(cudaSetDevice(device)); }

// At most `most` devices; skips the program where there are fewer than two.
inline int DevicesOrSkip(int most) {
  StartCudaOrSkip();
  int count = 0;
  CHECK(cudaGetDeviceCount(&count));
  count = std::min(count, most);
  if (count >= 2) return count;
  std::fprintf(stderr, "%s: fewer than two devices\n", program_invocation_short_name);
  std::exit(kNoDevice);
}

inline bool CanAccess(int device, int peer) {
  int can = 0;
  CHECK(cudaDeviceCanAccessPeer(&can, device, peer));
  return can != 0;
}

// Kernels on `device` may use the memory of `peer` from now on.
inline void EnableAccess(int device, int peer) {
  Use(device);
  CHECK(cudaDeviceEnablePeerAccess(peer, 0));
}

// All devices' memory for all devices' kernels. False: some cannot.
inline bool EnableAllAccess(int devices) {
  bool all = true;
  for (int device = 0; device < devices; ++device) {
    for (int peer = 0; peer < devices; ++peer) {
      if (device == peer) continue;
      if (CanAccess(device, peer)) {
        EnableAccess(device, peer);
      } else {
        all = false;
      }
    }
  }
  return all;
}

// The kernels of each device; leaves device 0 current.
inline std::vector<demo::Kernels> LoadKernels(int devices) {
  std::vector<demo::Kernels> kernels;
  for (int device = devices; device-- > 0;) {
    Use(device);
    CHECK(cudaFree(nullptr));
    kernels.insert(kernels.begin(), demo::Kernels());
  }
  return kernels;
}

inline cudaStream_t MakeStreamOn(int device, unsigned flags) {
  Use(device);
  return MakeStream(flags);
}

}  // namespace cmp::gpu

#endif  // CMP_TESTS_GPU_TWO_GPUS_H_
