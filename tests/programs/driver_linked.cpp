// Links libcuda and no runtime: the driver's functions by their symbols.
#include "driver_calls.h"

int main() {
  program::UseDriver({&cuInit, &cuDevicePrimaryCtxRetain, &cuCtxSetCurrent, &cuMemAlloc, &cuMemFree,
                      &cuMemGetInfo});
  return 0;
}
