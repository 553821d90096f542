// What CudaMemoryPool asks of the pool behind it: a table of functions, so that the library and a
// preloaded shim, two files that may be of different versions, share one pool.
#ifndef CMP_CORE_LIBRARY_POOL_FACE_H_
#define CMP_CORE_LIBRARY_POOL_FACE_H_

#include <cstddef>
#include <cstdint>

#include "core/cuda_memory_pool.h"
#include "core/pool/pool.h"

namespace cmp {

inline constexpr uint32_t kPoolFaceVersion = 3;

struct PoolFace {
  uint32_t version;
  int (*alloc)(size_t bytes, void** pointer);  // a CUresult
  // Of a device, whose primary context it is made in if none of it is current.
  int (*alloc_on)(int device, size_t bytes, void** pointer);
  // CUDA_SUCCESS; CUDA_ERROR_INVALID_VALUE: not a block in use; else the driver refused.
  int (*free)(void* pointer);
  int (*free_without_wait)(void* pointer);
  size_t (*release_all)();
  size_t (*release_thread_caches)();
  void (*statistics)(CudaMemoryPoolStatistics* statistics);
  void (*tier_statistics)(unsigned tier, CudaMemoryPoolStatistics* statistics);
  unsigned (*tier_count)();
  size_t (*tier_bytes)(unsigned tier);
};

// The symbol by which a preloaded shim offers its pool: const PoolFace* cmp_preload_pool().
inline constexpr char kPreloadPoolSymbol[] = "cmp_preload_pool";

// The face over this file's own pool and the driver's calls; library_pool.cpp.
const PoolFace* LibraryPoolFace();

// Statistics of `pool` in the library's form; shared by both faces.
CudaMemoryPoolStatistics StatisticsOf(Pool& pool);
CudaMemoryPoolStatistics StatisticsOf(Pool& pool, unsigned tier);

// What the contexts of one device hold now, in bytes; of those that ended nothing is known.
struct DeviceStatistics {
  unsigned contexts = 0;
  size_t live = 0;       // with what tiers and slack add
  size_t ready = 0;      // idle, and may be handed out now
  size_t retired = 0;    // idle, but must wait for the GPU first
  size_t reserved = 0;   // live + ready + retired
  size_t live_peak = 0;  // of each context, sampled when batches move
  size_t bound = 0;      // no more is kept
};
DeviceStatistics StatisticsOfDevice(Pool& pool, int device);
// One more than the greatest ordinal of a device that has a context.
int DeviceEnd(Pool& pool);

}  // namespace cmp

#endif  // CMP_CORE_LIBRARY_POOL_FACE_H_
