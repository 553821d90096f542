// The interposed entry points of the driver that look up functions, allocate and free. Whatever
// runtime a program has, shared or static, and the math libraries, arrive here.
#include "core/driver/driver_api.h"
#include "shim/entry/process.h"
#include "shim/lookup/entry_points.h"
#include "shim/record/held_up.h"
#include "shim/service/pitches.h"
#include "shim/service/service.h"
#include "shim/service/verified.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/owed.h"
#include "shim/work/submission.h"

namespace cmp {

namespace {

[[gnu::noinline]] CUresult MemAllocSlow(CUdeviceptr* pointer, size_t bytes) {
  CMP_REAL(cuMemAlloc_v2);
  Pool* pool = PoolForAlloc(pointer == nullptr || bytes == 0);
  if (pool == nullptr) return real->cuMemAlloc_v2(pointer, bytes);
  const DriverApi api(*LoadedDriver());
  const Allocation made = pool->options().mode == Mode::kObserve
                              ? AllocObserved(*pool, bytes, api)
                              : AllocInContext(*pool, *LoadedDriver(), bytes, api);
  // Like the real call, a failed one leaves 0 (measured: an impossible size does).
  *pointer = made.address;
  return static_cast<CUresult>(made.status);
}

[[gnu::noinline]] CUresult MemAllocNoSmallHit(CUdeviceptr* pointer, size_t bytes) {
  const Driver* driver = LoadedDriver();
  if (pointer != nullptr && driver != nullptr && t_inside_real == 0) {
    Pool* pool = g_hit_pool.load(std::memory_order_acquire);
    if (const DeviceAddress hit = AllocLargeHit(pool, bytes, driver)) {
      *pointer = hit;
      return CUDA_SUCCESS;
    }
  }
  return MemAllocSlow(pointer, bytes);
}

struct PitchedRequest {
  CUdeviceptr* pointer;
  size_t* pitch;
  size_t width;
  size_t height;
  unsigned element;
};

// The real calls for it; they give their own pitch.
class PitchedApi : public DeviceApi {
 public:
  explicit PitchedApi(const PitchedRequest& request)
      : DeviceApi(
            &request, &Allocate, [](const void*) {}, &Release,
            [](const void*, size_t*, size_t*) { return false; }) {}

 private:
  static int Allocate(const void* self, size_t, bool, DeviceAddress* address) {
    const PitchedRequest& request = *static_cast<const PitchedRequest*>(self);
    CUdeviceptr pointer = 0;
    const CUresult status = RealDriver()->cuMemAllocPitch_v2(&pointer, request.pitch, request.width,
                                                             request.height, request.element);
    *address = pointer;
    return status;
  }
  static int Release(const void*, DeviceAddress address) {
    return RealDriver()->cuMemFree_v2(address);
  }
};

// The real call, whose pitch is remembered.
CUresult MemAllocPitchReal(const DriverCalls& real, const PitchedRequest& request, CUdevice device,
                           Pool* pool) {
  const Driver* driver = LoadedDriver();
  const uint64_t epoch = PitchesOfContexts::Now();
  const uint64_t begin = NowNs();
  const CUresult status = real.cuMemAllocPitch_v2(request.pointer, request.pitch, request.width,
                                                  request.height, request.element);
  if (pool == nullptr) return status;
  const bool made = status == CUDA_SUCCESS;
  if (made) {
    g_pitches.Add(device, request.width, request.element, *request.pitch);
    g_context_pitches.Add(CurrentContext(*driver), request.width, request.element, *request.pitch,
                          epoch);
  }
  if (IsTraced()) {
    const size_t bytes = (made ? *request.pitch : request.width) * request.height;
    TraceAlloc(driver, nullptr, bytes, {status, made ? *request.pointer : 0}, begin);
  }
  return status;
}

// The pitch is the driver's: asked for once per device, width and element size, then remembered.
[[gnu::noinline]] CUresult MemAllocPitchSlow(const PitchedRequest& request) {
  CMP_REAL(cuMemAllocPitch_v2);
  const bool odd = request.pointer == nullptr || request.pitch == nullptr || request.width == 0 ||
                   request.height == 0;
  Pool* pool = PoolForAlloc(odd);
  const Driver* driver = LoadedDriver();
  const uint64_t epoch = PitchesOfContexts::Now();
  CUdevice device = 0;
  if (pool == nullptr || driver->context_device(&device) != CUDA_SUCCESS) {
    return MemAllocPitchReal(*real, request, device, nullptr);
  }
  if (pool->options().mode == Mode::kObserve) {
    const Allocation made =
        AllocObserved(*pool, request.width * request.height, PitchedApi(request));
    if (made.status == CUDA_SUCCESS) *request.pointer = made.address;
    return static_cast<CUresult>(made.status);
  }
  // A thread that captures makes this very call, whose error is the program's to see.
  const bool capturing = g_captures.UnderWay() && g_captures.OfThisThread();
  const size_t pitch =
      capturing || IsAside() ? 0 : g_pitches.Find(device, request.width, request.element);
  size_t bytes = 0;
  if (pitch != 0 && !__builtin_mul_overflow(pitch, request.height, &bytes)) {
    const Allocation made = AllocInContext(*pool, *driver, bytes, DriverApi(*driver));
    if (made.status == CUDA_SUCCESS) {
      g_context_pitches.Add(CurrentContext(*driver), request.width, request.element, pitch, epoch);
      *request.pointer = made.address;
      *request.pitch = pitch;
      return CUDA_SUCCESS;
    }
    // Another thread's capture refused it, and was invalidated by that: the same call would
    // succeed.
    if (made.status == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) {
      return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
  }
  // Not known yet, or what fails: what the call leaves behind is its own.
  return MemAllocPitchReal(*real, request, device, pool);
}

[[gnu::noinline]] CUresult MemFreeSlow(Pool& pool, Block* block, DeviceAddress address, bool live) {
  if (live && FreeHitElsewhere(pool, block)) return CUDA_SUCCESS;
  const Driver& driver = *LoadedDriver();  // where there is a block there is one
  const DriverApi api(driver);
  return static_cast<CUresult>(FreeBlock(pool, driver, block, address, live, api));
}

// The real call. It waits by itself, but for stream-ordered memory (measured), which the pool never
// frees; managed memory is the program's no more.
CUresult MemFreeOther(const DriverCalls& real, CUdeviceptr pointer) {
  if (pointer != 0 && t_inside_real == 0) PayBeforeDestruction();
  const EndOfRange end(pointer);
  return end.Done(real.cuMemFree_v2(pointer));
}

// A pointer that is not ours: the real call, untouched. And every pointer, where calls are traced.
[[gnu::noinline]] CUresult MemFreeForeign(CUdeviceptr pointer) {
  if (Block* block = t_inside_real != 0 ? nullptr : TracedBlock(pointer)) {
    Pool& pool = *g_started.load(std::memory_order_acquire);
    const Driver& driver = *LoadedDriver();
    const BlockState taken = pool.Take(block, pointer);
    return static_cast<CUresult>(FreeTaken(pool, driver, block, pointer, taken, DriverApi(driver)));
  }
  CMP_REAL(cuMemFree_v2);
  Pool* pool = g_started.load(std::memory_order_acquire);
  if (pool == nullptr || pointer == 0 || t_inside_real != 0 || pool->options().mode == Mode::kOff) {
    return MemFreeOther(*real, pointer);
  }
  const Driver* driver = LoadedDriver();
  int observed = CUDA_SUCCESS;
  if (driver != nullptr && FreeObserved(*pool, pointer, DriverApi(*driver), &observed)) {
    return static_cast<CUresult>(observed);
  }
  const InsideAllocation observing;
  const uint64_t begin = NowNs();
  const CUresult status = MemFreeOther(*real, pointer);
  CountForeignFree(*pool, pointer, status, begin);
  return status;
}

// The program frees `pointer` in the order of a stream, by `free`. A block of ours is forgotten,
// or, where that is refused, stays as it was. One that was freed before: `free` says so, of the
// next byte, so that it cannot touch the idle block.
template <typename Free>
CUresult FreeInOrder(const Free& free, CUdeviceptr pointer, CUstream stream) {
  Pool* pool = g_pool.load(std::memory_order_acquire);
  Block* block = pool == nullptr ? nullptr : pool->Find(pointer);
  if (block == nullptr) return free(pointer, stream);
  const HeldContext context(*block->owner());
  const size_t bytes = block->requested;
  const uint64_t begin = IsTraced() ? NowNs() : 0;
  const BlockState taken = Pool::BeginFreeElsewhere(block, pointer);
  if (taken != BlockState::kLive && taken != BlockState::kUnpooled) {
    if (!pool->StillHas(block, pointer)) return free(pointer, stream);
    pool->statistics().process().double_frees.AddShared(1);
    return free(pointer + 1, stream);
  }
  const Uncancelled uncancelled;
  const CUresult status = free(pointer, stream);
  pool->EndFreeElsewhere(block, taken, status == CUDA_SUCCESS);
  if (begin != 0 && status == CUDA_SUCCESS) {
    TraceFree(context->identity(), bytes, pointer, TraceOutcome::real_free, status, begin);
  }
  return status;
}

}  // namespace

}  // namespace cmp

// ---- Lookups

CUresult Driver_cuGetProcAddress(const char* symbol, void** function, int version,
                                 cuuint64_t flags) {
  CMP_REAL(cuGetProcAddress);
  const CUresult status = real->cuGetProcAddress(symbol, function, version, flags);
  if (status == CUDA_SUCCESS && function != nullptr) {
    *function = cmp::Answer(symbol, version, flags, *function, CMP_CALLER);
  }
  return status;
}

CUresult Driver_cuGetProcAddress_v2(const char* symbol, void** function, int version,
                                    cuuint64_t flags, void* lookup_status) {
  CMP_REAL(cuGetProcAddress_v2);
  const CUresult status =
      real->cuGetProcAddress_v2(symbol, function, version, flags, lookup_status);
  if (status == CUDA_SUCCESS && function != nullptr) {
    *function = cmp::Answer(symbol, version, flags, *function, CMP_CALLER);
  }
  return status;
}

// ---- Allocations

CUresult Driver_cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
  if (pointer != nullptr && cmp::t_inside_real == 0) [[likely]] {
    const cmp::Driver* driver = cmp::LoadedDriver();
    cmp::Pool* pool = driver == nullptr ? nullptr : cmp::g_hit_pool.load(std::memory_order_acquire);
    if (const cmp::DeviceAddress address = cmp::AllocHit(pool, bytes, driver)) [[likely]] {
      *pointer = address;
      return CUDA_SUCCESS;
    }
  }
  return cmp::MemAllocNoSmallHit(pointer, bytes);
}

CUresult Driver_cuMemFree_v2(CUdeviceptr pointer) {
  cmp::Pool* pool = cmp::g_hit_pool.load(std::memory_order_acquire);
  if (pool != nullptr && cmp::t_inside_real == 0) [[likely]] {
    if (cmp::Block* block = pool->Find(pointer)) [[likely]] {
      bool live = false;
      if (cmp::FreeHit(*pool, block, pointer, &live)) [[likely]]
        return CUDA_SUCCESS;
      return cmp::MemFreeSlow(*pool, block, pointer, live);
    }
  }
  return cmp::MemFreeForeign(pointer);
}

CUresult Driver_cuMemAllocPitch_v2(CUdeviceptr* pointer, size_t* pitch, size_t width, size_t height,
                                   unsigned element) {
  if (pointer != nullptr && pitch != nullptr && cmp::t_inside_real == 0) [[likely]] {
    cmp::Pool* pool = cmp::g_hit_pool.load(std::memory_order_acquire);
    if (const cmp::DeviceAddress address =
            cmp::AllocPitchedHit(pool, width, height, element, pitch)) [[likely]] {
      *pointer = address;
      return CUDA_SUCCESS;
    }
  }
  return cmp::MemAllocPitchSlow({pointer, pitch, width, height, element});
}

CUresult Driver_cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) {
  CMP_REAL(cuMemFreeAsync);
  const cmp::Submission submission(cmp::Explicit(stream));
  return cmp::FreeInOrder(real->cuMemFreeAsync, pointer, stream);
}

CUresult Driver_cuMemFreeAsync_ptsz(CUdeviceptr pointer, CUstream stream) {
  CMP_REAL(cuMemFreeAsync_ptsz);
  const cmp::Submission submission(cmp::PerThread(stream));
  return cmp::FreeInOrder(real->cuMemFreeAsync_ptsz, pointer, stream);
}
