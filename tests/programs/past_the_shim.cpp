// A library that frees what others allocated, loaded so that no preload sees it (RTLD_DEEPBIND).
#include <cuda.h>

extern "C" __attribute__((visibility("default"))) int FreePastTheShim(CUdeviceptr address) {
  return cuMemFree(address);
}
