#include "shim/rescue.h"

#include <algorithm>
#include <utility>

#include "core/device_links.h"
#include "core/driver_api.h"
#include "core/pool_instance.h"
#include "shim/aside.h"
#include "shim/captures.h"
#include "shim/lookup.h"
#include "shim/service.h"

namespace cmp {

namespace {

constexpr uint64_t kUnknownBytes = uint64_t{1} << 30;
constexpr uint64_t kAnyBytes = ~uint64_t{0};
// By which the driver may take more than it was asked for: it reserves in chunks.
constexpr uint64_t kChunkBytes = uint64_t{32} << 20;

uint64_t Sum(uint64_t one, uint64_t other) {
  uint64_t sum = 0;
  return __builtin_add_overflow(one, other, &sum) ? kAnyBytes : sum;
}
uint64_t Product(uint64_t one, uint64_t other) {
  uint64_t product = 0;
  return __builtin_mul_overflow(one, other, &product) ? kAnyBytes : product;
}

// Calls body() with a context of `device` current: the thread's own, or one that has a pool. Not at
// all, if there is none.
template <typename Body>
void OnDevice(Pool& pool, const Driver& driver, int device, Body body) {
  CUdevice current = -1;
  if (driver.context_device(&current) == CUDA_SUCCESS && current == device) return body();
  bool done = false;
  pool.ForEachContext([&](ContextPool& context) {
    if (done || context.identity().device != device) return;
    const ContextPool::User user(context);
    const ContextPool::Unasked unasked(context, ContextPool::When::kAtOnce);
    auto* handle = static_cast<CUcontext>(context.identity().handle);
    if (!unasked.allowed() || driver.push_current(handle) != CUDA_SUCCESS) return;
    body();
    CUcontext popped = nullptr;
    driver.pop_current(&popped);
    done = true;
  });
}

template <typename Visitor>
void ForEachDevice(Devices devices, Visitor visit) {
  for (int device = 0; device < 64; ++device) {
    if ((devices & DeviceBit(device)) != 0) visit(device);
  }
}

// Of the current context's device. Another preload that limits the memory says what is free of its
// limit. Where it cannot be told, nothing lacks.
struct DeviceBytes {
  size_t free = ~size_t{0};
  size_t total = ~size_t{0};
};
DeviceBytes CurrentMemory() {
  DeviceBytes bytes;
  const bool known = RealDriver()->cuMemGetInfo_v2(&bytes.free, &bytes.total) == CUDA_SUCCESS;
  return known ? bytes : DeviceBytes{};
}

// How many threads the device holds at once: what a stack of one byte takes.
uint64_t DeviceThreads(const Driver& driver) {
  CUdevice device = 0;
  int processors = 0;
  int threads = 0;
  if (driver.device_attribute == nullptr || driver.context_device(&device) != CUDA_SUCCESS ||
      driver.device_attribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device) !=
          CUDA_SUCCESS ||
      driver.device_attribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,
                              device) != CUDA_SUCCESS) {
    return kAnyBytes;
  }
  return Product(static_cast<uint64_t>(processors), static_cast<uint64_t>(threads));
}

// What the call asked for; kAnyBytes: that cannot be told.
uint64_t KnownBytes(Need need, CUresult status, const RescuedArguments& arguments,
                    const Driver& driver) {
  switch (need) {
    case Need::kBytes:
      return arguments.second;
    case Need::kLimit: {
      const bool stack = static_cast<CUlimit>(arguments.first) == CU_LIMIT_STACK_SIZE;
      return stack ? Product(arguments.second, DeviceThreads(driver)) : arguments.second;
    }
    case Need::kLaunch: {
      size_t heap = 0;
      if (status == CUDA_ERROR_OUT_OF_MEMORY) return kAnyBytes;
      if (driver.get_limit != nullptr) driver.get_limit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE);
      return heap;
    }
    case Need::kAny:
      return kAnyBytes;
    default:
      return 0;
  }
}

}  // namespace

// Not from inside a real call of ours (the pool does it itself), nor once the process exits. During
// captures only for what has nothing to do with them: a release in relaxed mode leaves them alone
// (measured), and what the first try did to them the second does not make worse.
bool Rescue::Allowed() const {
  if (pool_ == nullptr || driver_ == nullptr || t_inside_real != 0 || IsAside() ||
      g_exiting.load(std::memory_order_acquire)) {
    return false;
  }
  if (!g_captures.UnderWay()) return true;
  if (g_captures.OfThisThread()) return false;
  const auto captures = [&](CUstream stream) {
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    return driver_->stream_is_capturing(stream, &status) != CUDA_SUCCESS ||
           status != CU_STREAM_CAPTURE_STATUS_NONE;
  };
  if (!arguments_.has_stream) return true;
  // 0 may mean either default stream.
  return !captures(arguments_.stream) &&
         (arguments_.stream != nullptr || !captures(CU_STREAM_PER_THREAD));
}

Rescue::Rescue(Need need, CUresult status, const RescuedArguments& arguments,
               std::atomic<uint64_t>& in_vain)
    : need_(need),
      status_(status),
      arguments_(arguments),
      in_vain_(in_vain),
      pool_(g_pool.load(std::memory_order_acquire)),
      driver_(LoadedDriver()) {
  if (!Allowed()) return;
  const Uncancelled uncancelled;
  releases_ = pool_->releases();
  by_others_ = pool_->OthersMadeRoomJustNow();
  const bool idle = Look();
  // What stands behind the pointers of kAny may be another each time. Relaxed: who misses what
  // another thread found out tries once too often.
  const bool vain = idle && need != Need::kAny && in_vain_.load(std::memory_order_relaxed) == call_;
  if (vain) here_ = elsewhere_ = 0;
  if ((here_ | elsewhere_) != 0) {
    step_ = known_ == 0 ? kMostHere : kKnownHere;
  } else if (by_others_) {
    step_ = kByOthers;
  } else if (!vain && status == CUDA_ERROR_OUT_OF_MEMORY) {
    step_ = kWait;  // all that it lacks may be in others' hands
  }
}

// Which devices that have idle blocks lack memory? False: none has any.
bool Rescue::Look() {
  here_ = elsewhere_ = 0;
  const Devices idle = pool_->DevicesWithIdle();
  if (idle == 0) return false;
  const RelaxedCaptureMode relaxed(*driver_);
  CUdevice current = -1;
  driver_->context_device(&current);
  const uint64_t known = KnownBytes(need_, status_, arguments_, *driver_);
  most_ = Sum(known, kUnknownBytes);
  known_ = need_ == Need::kBytes || need_ == Need::kLimit ? Sum(known, kChunkBytes) : 0;
  call_ = Mixed(arguments_.all, static_cast<uint64_t>(status_));
  const bool anywhere = need_ != Need::kLimit && need_ != Need::kLaunch;
  ForEachDevice(idle, [&](int device) {
    if (device != current && !anywhere) return;
    OnDevice(*pool_, *driver_, device, [&] {
      const auto [free, total] = CurrentMemory();
      const bool possible = known == kAnyBytes || known <= total;
      if (free >= most_ || !possible) return;
      (device == current ? here_ : elsewhere_) |= DeviceBit(device);
      call_ = Mixed(call_, free + pool_->ReleasableBytes(device));  // what is free without the pool
    });
  });
  return true;
}

// Until so much is free on each of the devices, or nothing is idle there. What small blocks take
// goes back to the driver only with all of their chunk: then twice as much is released.
void Rescue::Release(Devices devices, uint64_t needed) {
  const DriverApi api(*driver_);
  const RelaxedCaptureMode relaxed(*driver_);
  ForEachDevice(devices, [&](int device) {
    OnDevice(*pool_, *driver_, device, [&] {
      for (uint64_t wanted = 0;;) {
        const uint64_t free = needed == kAnyBytes ? 0 : CurrentMemory().free;
        if (free >= needed) return;
        wanted = std::max(needed - free, Product(wanted, 2));
        const uint64_t released = pool_->ReleaseForRetry(api, device, wanted);
        released_ |= released != 0;
        if (released < wanted) return;
      }
    });
  });
}

void Rescue::Take(Step step) {
  switch (step) {
    case kKnownHere:
    case kKnownElsewhere:
      return Release(step == kKnownHere ? here_ : elsewhere_, known_);
    case kMostHere:
    case kMostElsewhere:
      return Release(step == kMostHere ? here_ : elsewhere_, most_);
    case kByOthers:
      return;
    default:
      pool_->AwaitTakers(kAllDevices);
      Look();
      return Release(here_ | elsewhere_, most_);
  }
}

bool Rescue::MakesRoom(CUresult status) {
  if (!MayLackMemory(need_, status)) return false;
  const Uncancelled uncancelled;
  while (step_ < kGiveUp) {
    const Step step = static_cast<Step>(step_++);
    Take(step);
    // Before the next try: what is freed during it makes one more worth it.
    const uint64_t releases = pool_->releases();
    const bool changed = releases != std::exchange(releases_, releases);
    if (!changed && step >= kWait) step_ = kGiveUp;
    if (!changed && (step != kByOthers || !by_others_)) continue;
    ++tries_;
    return true;
  }
  return false;
}

CUresult Rescue::Done(CUresult status) {
  if (tries_ == 0) return status;
  if (status == CUDA_SUCCESS) pool_->statistics().process().out_of_memory_rescues.AddShared(1);
  if (need_ != Need::kAny && released_ && MayLackMemory(need_, status)) {
    in_vain_.store(call_, std::memory_order_relaxed);
  }
  return status;
}

}  // namespace cmp
