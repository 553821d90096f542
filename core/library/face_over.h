// The face of a pool, written once for its two hosts: the library by itself and the preloaded shim.
// The host says how the pool starts and what a free owes:
//
//   struct Host {
//     static Pool* Started();                          // as StartPool
//     static constexpr bool kSeesContextsEnd;         // resets and destructions drop the pool
//     static bool Capturing();                         // this thread captures, as far as is known
//     static Allocation Alloc(...);                    // AllocFilled, watched
//     // A CUresult; not CUDA_SUCCESS: the driver refused, and the program has the block still.
//     static int FreeTaken(Pool&, const Driver&, Block*, BlockState taken, Wait, const DeviceApi&);
//   };
#ifndef CMP_CORE_LIBRARY_FACE_OVER_H_
#define CMP_CORE_LIBRARY_FACE_OVER_H_

#include "core/driver/driver_api.h"
#include "core/library/pool_face.h"
#include "core/pool/fill.h"
#include "core/pool/pool_instance.h"

namespace cmp {

// What a free owes besides that the memory is not handed out too early.
enum class Wait : uint8_t { kAsFreeSync, kNever };

template <typename Host>
class FaceOver {
 public:
  static const PoolFace* Face() {
    static constexpr PoolFace kFace = {
        kPoolFaceVersion,
        &Alloc,
        &AllocOn,
        &Free<Wait::kAsFreeSync>,
        &Free<Wait::kNever>,
        [] { return Release(&Pool::ReleaseAll); },
        [] { return Release(&Pool::ReleaseThreadCaches); },
        [](CudaMemoryPoolStatistics* statistics) {
          if (Pool* pool = Host::Started()) *statistics = StatisticsOf(*pool);
        },
        [](unsigned tier, CudaMemoryPoolStatistics* statistics) {
          if (Pool* pool = Host::Started()) *statistics = StatisticsOf(*pool, tier);
        },
        []() -> unsigned {
          Pool* pool = Host::Started();
          return pool == nullptr ? 0 : pool->statistics().tier_count();
        },
        [](unsigned tier) -> size_t {
          Pool* pool = Host::Started();
          const bool known = pool != nullptr && tier < pool->statistics().tier_count();
          return known ? pool->tiers().SizeOf(tier) : 0;
        },
    };
    return &kFace;
  }

 private:
  static int Alloc(size_t bytes, void** pointer) {
    Pool* pool = g_hit_pool.load(std::memory_order_acquire);
    const Driver* driver = LoadedDriver();
    if (pool != nullptr && driver != nullptr && !Host::Capturing()) [[likely]] {
      const ContextHandle context = CurrentContext(*driver);
      if constexpr (!Host::kSeesContextsEnd) pool->DropIfGone(*driver, context);
      if (const DeviceAddress address = pool->AllocHit(context, bytes)) [[likely]] {
        *pointer = reinterpret_cast<void*>(address);
        return kSuccess;
      }
    }
    return AllocSlow(bytes, pointer);
  }

  static int AllocSlow(size_t bytes, void** pointer) {
    Pool* pool = Host::Started();
    if (pool == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    const Driver* driver = LoadDriver(DriverSource::kLoad);
    if (driver == nullptr) return CUDA_ERROR_NOT_FOUND;
    if (const int status = EnsureContext(*driver); status != kSuccess) return status;
    WatchExit();
    const DriverApi api(*driver);
    const HeldContext context = pool->CurrentContextPool(*driver);
    const bool real = pool->options().mode != Mode::kPool || Host::Capturing() ||
                      g_exiting.load(std::memory_order_acquire);
    const Allocation made = Host::Alloc(*pool, *driver, context.get(), real, bytes, api);
    if (made.status == kSuccess) *pointer = reinterpret_cast<void*>(made.address);
    return made.status;
  }

  static int AllocOn(int device, size_t bytes, void** pointer) {
    const Driver* driver = LoadDriver(DriverSource::kLoad);
    if (driver == nullptr) return CUDA_ERROR_NOT_FOUND;
    CUdevice current = -1;
    if (driver->context_device(&current) == CUDA_SUCCESS && current == device) {
      return Alloc(bytes, pointer);
    }
    if (const CUresult status = driver->init(0); status != CUDA_SUCCESS) return status;
    unsigned flags = 0;
    int active = 0;
    if (const CUresult status = driver->primary_state(device, &flags, &active);
        status != CUDA_SUCCESS) {
      return status;
    }
    CUcontext primary = nullptr;
    if (const CUresult status = driver->primary_retain(&primary, device); status != CUDA_SUCCESS) {
      return status;
    }
    int status = driver->push_current(primary);
    if (status == kSuccess) {
      status = Alloc(bytes, pointer);
      driver->pop_current(&primary);
    }
    if (active != 0) driver->primary_release(device);  // else it would end, and the memory with it
    return status;
  }

  template <Wait wait>
  static int Free(void* pointer) {
    Pool* pool = g_started.load(std::memory_order_acquire);
    const Driver* driver = LoadedDriver();
    if (pool == nullptr || driver == nullptr) return kInvalidValue;
    const auto address = reinterpret_cast<DeviceAddress>(pointer);
    Block* block = pool->Find(address);
    if (block == nullptr) {
      // With the pool off nothing is in the side table, and the driver knows what is its own.
      if (pool->options().mode == Mode::kPool) return kInvalidValue;
      const RelaxedCaptureMode relaxed(*driver);
      return driver->mem_free(address);
    }
    if (g_exiting.load(std::memory_order_acquire)) return kSuccess;  // no CUDA call any more
    if constexpr (!Host::kSeesContextsEnd) {
      pool->DropIfGone(*driver, CurrentContext(*driver));
      if (pool->Find(address) != block) return kInvalidValue;
    }
    const DriverApi api(*driver);
    const BlockState taken = pool->Take(block, address);
    if (taken == BlockState::kLive || taken == BlockState::kUnpooled) {
      return Host::FreeTaken(*pool, *driver, block, taken, wait, api);
    }
    pool->statistics().process().double_frees.AddShared(1);
    return kInvalidValue;
  }

  static size_t Release(size_t (Pool::*release)(const DeviceApi& api)) {
    Pool* pool = g_pool.load(std::memory_order_acquire);
    const Driver* driver = LoadedDriver();
    if (pool == nullptr || driver == nullptr) return 0;
    if (g_exiting.load(std::memory_order_acquire)) return 0;
    const RelaxedCaptureMode relaxed(*driver);
    return (pool->*release)(DriverApi(*driver));
  }

  // A current context as the CUDA runtime would give a thread that has none: the primary context of
  // device 0.
  static int EnsureContext(const Driver& driver) {
    if (CurrentContext(driver) != nullptr) return kSuccess;
    if (const CUresult status = driver.init(0); status != CUDA_SUCCESS) return status;
    CUcontext primary = nullptr;
    if (const CUresult status = driver.primary_retain(&primary, 0); status != CUDA_SUCCESS) {
      return status;
    }
    return driver.set_current(primary);
  }
};

}  // namespace cmp

#endif  // CMP_CORE_LIBRARY_FACE_OVER_H_
