// For programs that load it with RTLD_DEEPBIND: it launches by libcuda's own function then.
#include <sim.h>

extern "C" __attribute__((visibility("default"))) int blind_launch(CUstream stream,
                                                                   const SimWork* work) {
  void* arguments[] = {&work};
  return cuLaunchKernel(simFunction(), 1, 1, 1, 1, 1, 1, 0, stream, arguments, nullptr);
}
