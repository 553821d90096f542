#include "shim/named_memory.h"

#include "shim/lookup.h"

namespace cmp {

bool IsRefusedAt(const Pool& pool, const Block& block, CUdeviceptr address, size_t bytes) {
  if (bytes == 0 || pool.FindAround(address) != &block || t_inside_real != 0) return false;
  // Of a context that has ended the driver may have given the address to somebody else.
  if (!pool.StillHas(&block, __atomic_load_n(&block.address, __ATOMIC_RELAXED))) return false;
  return pool.FindAround(address) == &block && HasOf(block, address, bytes) == Has::kNotAll;
}

}  // namespace cmp
