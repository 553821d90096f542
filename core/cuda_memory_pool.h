// The pool as a library: one include, one link target (cmp::cmp).
//
//   CudaMemoryPool& pool = CudaMemoryPool::Instance();
//   void* p = pool.Alloc(bytes);
//   pool.Free(p, bytes);
//   pool.ReleaseAll();
//
// One pool per process: where libcmp_preload.so is preloaded, this is a view of the preload's pool.
// No CUDA library is linked; the driver (libcuda.so.1) is loaded at the first use.
//
// Memory is plain device memory of the calling thread's current context (where there is none, the
// primary context of device 0 becomes current, as with the CUDA runtime). A pointer from here may
// be given to cudaFree under the preload, and one from cudaMalloc to Free.
//
// Settings: environment variables (scripts/docs/options.md), read at the first use: CMP_MAX_BLOCK,
// CMP_TIER_STEPS, CMP_THREAD_CACHE_MAX_BLOCK, CMP_THREAD_CACHE_BYTES, CMP_BATCH_BYTES, CMP_SLACK,
// CMP_RESERVE, CMP_DECAY (idle memory goes back in Free alone, as with oncall), CMP_FREE_SYNC
// (`auto` is `wait`) and CMP_FILL. The others are the preload's; without it a line on stderr says
// of each one that is set that it does nothing. Statistics() takes the place of CMP_STATS.
//
// All functions are thread-safe and throw nothing.
#ifndef CMP_CORE_CUDA_MEMORY_POOL_H_
#define CMP_CORE_CUDA_MEMORY_POOL_H_

#include <cstddef>
#include <cstdint>

#define CMP_PUBLIC __attribute__((visibility("default")))

// What a pool did so far. Counters of requests, then bytes of this moment. The values are read one
// after the other while other threads go on, so they need not add up to the unit.
struct CudaMemoryPoolStatistics {
  uint64_t requests;              // allocations served
  uint64_t thread_cache_hits;     // of these: from the calling thread's cache
  uint64_t global_pool_hits;      //           from the pool that all threads share
  uint64_t refills;               //           by a real allocation for the pool
  uint64_t oversized;             //           by a real allocation that is not pooled
  uint64_t frees;                 // frees that brought a block into the pool
  uint64_t real_frees;            // frees that were real ones
  uint64_t blocks_made;           // blocks that the pool got from real allocations
  uint64_t blocks_released;       // idle blocks that it really freed
  uint64_t real_malloc_calls;     // real allocation calls, failed ones included
  uint64_t real_free_calls;       // real free calls
  uint64_t real_calls_avoided;    // what the program called, less what was really called
  uint64_t failed_allocations;    // allocations that failed
  uint64_t live_blocks;           // blocks that the program has now
  uint64_t live_requested_bytes;  // what it asked for with these
  uint64_t live_block_bytes;      // and what they are, rounded up to their tiers
  uint64_t ready_bytes;           // idle blocks that may be handed out now
  uint64_t retired_bytes;         // idle blocks that must wait for the GPU first
  uint64_t reserved_bytes;        // live + ready + retired
  uint64_t reserved_peak_bytes;   // the most that it was
  uint64_t live_peak_bytes;       // the most that was live, sampled when batches move
};

class CMP_PUBLIC CudaMemoryPool {
 public:
  static CudaMemoryPool& Instance();

  // At least `bytes` bytes of device memory, aligned to 256 bytes or better; nullptr on failure
  // (last_status() says why) and for 0 bytes. Waits for the GPU only where memory is short.
  void* Alloc(std::size_t bytes);

  // Gives `pointer` back. Waits until the GPU is done with all work of its context, as cudaFree
  // does, so the memory may be handed out again at once. Any thread may free, under any current
  // context. nullptr does nothing. `bytes` is only a hint: the pool knows the size.
  // False, with one line on stderr, for a pointer that is not a block in use (foreign, interior,
  // freed before), or where CUDA allows no call (in a host function), and the block stays in use:
  // nothing else happens then. During a stream capture it is a real free, which leaves the capture
  // alone; but call it then only if the preload is there, as the wait would end the capture.
  bool Free(void* pointer, std::size_t bytes = 0);

  // The same without the wait, for who needs none: the memory is handed out again, to whatever
  // stream, only when the GPU is done with all work that its context had been given by now. What
  // follows is the caller's to order, whatever CMP_FREE_SYNC says. (It waits for older work where
  // the bound of CMP_RESERVE is reached; where it is a real free, of what is not pooled or during a
  // capture; and with drivers before CUDA 12.5, which cannot mark what the GPU was given.)
  bool FreeWithoutWait(void* pointer);

  // Really frees the idle blocks that all threads share; thread caches and blocks in use are not
  // touched. Leaves stream captures alone. Returns the bytes freed.
  std::size_t ReleaseAll();

  // Empties every thread's cache first, then does the same. Returns the bytes freed.
  std::size_t ReleaseThreadCaches();

  // The CUresult of this thread's last failed Alloc; 0 if none failed.
  int last_status() const;

  CudaMemoryPoolStatistics Statistics() const;
  // The same for one tier (the fields that are kept per tier; the others are 0). Tiers are numbered
  // from 0 in order of size.
  CudaMemoryPoolStatistics Statistics(unsigned tier) const;
  unsigned tier_count() const;
  // The largest request of a tier, in bytes.
  std::size_t tier_bytes(unsigned tier) const;

  CudaMemoryPool(const CudaMemoryPool&) = delete;
  CudaMemoryPool& operator=(const CudaMemoryPool&) = delete;

 private:
  constexpr CudaMemoryPool() = default;
  static CudaMemoryPool instance_;
};

#endif  // CMP_CORE_CUDA_MEMORY_POOL_H_
