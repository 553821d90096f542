// A library that does what no preload sees, since it is loaded with RTLD_DEEPBIND: it frees what
// others allocated, and waits for a device.
#include <cuda.h>

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED int FreePastTheShim(CUdeviceptr address) { return cuMemFree(address); }
EXPORTED int SynchronizePastTheShim() { return cuCtxSynchronize(); }
