#include "shim/service/named_memory.h"

#include "shim/lookup/lookup.h"

namespace cmp {

bool IsRefusedAt(const Pool& pool, const Block& block, CUdeviceptr address, size_t bytes) {
  if (bytes == 0 || pool.FindAround(address) != &block || t_inside_real != 0) return false;
  // Of a context that has ended the driver may have given the address to somebody else,
  const DeviceAddress base = __atomic_load_n(&block.address, __ATOMIC_RELAXED);
  if (!pool.StillHas(&block, base)) return false;
  // and of a block that somebody freed past us: is it the one that the driver has there?
  const DriverCalls* real = RealDriver();
  CUdeviceptr start = 0;
  size_t whole = 0;
  if (real == nullptr || real->cuMemGetAddressRange_v2 == nullptr ||
      real->cuMemGetAddressRange_v2(&start, &whole, address) != CUDA_SUCCESS || start != base ||
      whole != __atomic_load_n(&block.bytes, __ATOMIC_RELAXED)) {
    return false;
  }
  return pool.FindAround(address) == &block && HasOf(block, address, bytes) == Has::kNotAll;
}

}  // namespace cmp
