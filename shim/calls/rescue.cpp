#include "shim/calls/rescue.h"

#include <algorithm>
#include <utility>

#include "core/contexts/device_links.h"
#include "core/driver/driver_api.h"
#include "core/pool/pool_instance.h"
#include "shim/calls/real_call.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"

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
// For about how long something is remembered that need not be true for ever.
constexpr uint64_t kWhileNs = 1'000'000'000;

template <typename Visitor>
void ForEachDevice(Devices devices, Visitor visit) {
  for (int device = 0; device < 64; ++device) {
    if ((devices & DeviceBit(device)) != 0) visit(device);
  }
}

// Those with contexts of which anything may be idle, on the way between two lists, or leaving; or
// with stream-ordered pools that may keep something.
Devices DevicesWithIdle(Pool& pool) {
  Devices devices = pool.DevicesWithKept();
  pool.ForEachContext([&](ContextPool& context) {
    if (context.open() && pool.MayHaveIdle(context))
      devices |= DeviceBit(context.identity().device);
  });
  return devices;
}

// Of the current context's device. Another preload that limits the memory says what is free of its
// limit. Where it cannot be told, nothing lacks.
struct DeviceBytes {
  size_t free = ~size_t{0};
  size_t total = ~size_t{0};
};
DeviceBytes CurrentMemory(const Driver& driver) {
  DeviceBytes bytes;
  const bool known = driver.mem_get_info(&bytes.free, &bytes.total) == CUDA_SUCCESS;
  return known ? bytes : DeviceBytes{};
}

// The same of `device`, with a context of it current: the thread's own, or one that has a pool.
// Another one is current, and may not end, for the question alone: who ends it does not wait for
// what is released after it.
DeviceBytes MemoryOf(Pool& pool, const Driver& driver, int device) {
  CUdevice current = -1;
  if (driver.context_device(&current) == CUDA_SUCCESS && current == device)
    return CurrentMemory(driver);
  DeviceBytes bytes;
  bool asked = false;
  pool.ForEachContext([&](ContextPool& context) {
    if (asked || context.identity().device != device) return;
    const ContextPool::User user(context);
    const ContextPool::Unasked unasked(context, ContextPool::When::kAtOnce);
    auto* handle = static_cast<CUcontext>(context.identity().handle);
    if (!unasked.allowed() || driver.push_current(handle) != CUDA_SUCCESS) return;
    bytes = CurrentMemory(driver);
    CUcontext popped = nullptr;
    driver.pop_current(&popped);
    asked = true;
  });
  return bytes;
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
  return SaturatedProduct(static_cast<uint64_t>(processors), static_cast<uint64_t>(threads));
}

// What the call asked for; kAnyBytes: that cannot be told.
uint64_t KnownBytes(Need need, CUresult status, const RescuedArguments& arguments,
                    const Driver& driver) {
  switch (need) {
    case Need::kBytes:
      return arguments.second;
    case Need::kLimit: {
      const bool stack = static_cast<CUlimit>(arguments.first) == CU_LIMIT_STACK_SIZE;
      return stack ? SaturatedProduct(arguments.second, DeviceThreads(driver)) : arguments.second;
    }
    case Need::kLaunch: {
      size_t heap = 0;
      if (status == CUDA_ERROR_OUT_OF_MEMORY) return kAnyBytes;
      if (driver.get_limit != nullptr) driver.get_limit(&heap, CU_LIMIT_MALLOC_HEAP_SIZE);
      return heap;
    }
    case Need::kSized:  // that of an overflow is impossible, too
      return std::min(arguments.least_bytes, kAnyBytes - 1);
    case Need::kAny:
    case Need::kGraph:
    case Need::kDescribed:
    case Need::kDescribedHere:
      return kAnyBytes;
    default:
      return 0;
  }
}

// Has another device than the current one a context with a pool, whose work a graph may hold?
bool IsWithOtherDevices(Pool& pool, const Driver& driver) {
  CUdevice current = -1;
  driver.context_device(&current);
  bool others = false;
  pool.ForEachContext([&](ContextPool& context) {
    others |= context.open() && context.identity().device != current;
  });
  return others;
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
  // That a graph which failed ran no node is measured on one device.
  if (need_ == Need::kGraph && IsWithOtherDevices(*pool_, *driver_)) return false;
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
  if (need_ == Need::kHost) host_bytes_ = arguments_.second;
  releases_ = pool_->releases();
  Look();
  // After the look, which may have waited for them.
  by_others_ = pool_->OthersReleaseJustNow();
  if (Lacks() && IsVain()) here_ = elsewhere_ = 0;
  if (Lacks()) {
    step_ = known_ == 0 ? kMostHere : kKnownHere;
  } else if (by_others_) {
    step_ = kByOthers;
  }
}

// The number of a call for which a rescue did not help, `whiles` before now.
static uint64_t InVain(Need need, uint64_t call, uint64_t whiles) {
  return RememberedOf(need) == Remembered::kForEver ? call
                                                    : Mixed(call, NowNs() / kWhileNs - whiles);
}

// Relaxed: who misses what another thread found out tries once too often.
bool Rescue::IsVain() const {
  if (RememberedOf(need_) == Remembered::kNever) return false;
  const uint64_t in_vain = in_vain_.load(std::memory_order_relaxed);
  return in_vain == InVain(need_, call_, 0) || in_vain == InVain(need_, call_, 1);
}

// Which devices on which anything is idle, or in other threads' hands, lack memory?
void Rescue::Look() {
  here_ = elsewhere_ = 0;
  const Devices idle = DevicesWithIdle(*pool_);
  if (idle == 0) return;
  const RelaxedCaptureMode relaxed(*driver_);
  CUdevice current = -1;
  driver_->context_device(&current);
  const uint64_t known = KnownBytes(need_, status_, arguments_, *driver_);
  const bool sized = need_ == Need::kSized;
  most_ = sized ? kAnyBytes : Sum(known, kUnknownBytes);
  const bool is_known = need_ == Need::kBytes || need_ == Need::kLimit || (sized && known != 0);
  known_ = is_known ? Sum(known, kChunkBytes) : 0;
  call_ = Mixed(arguments_.all, static_cast<uint64_t>(status_));
  ForEachDevice(idle, [&](int device) {
    if (device != current && IsHere(need_)) return;
    const auto [free, total] = MemoryOf(*pool_, *driver_, device);
    const bool possible = known == kAnyBytes || known <= total;
    if (free >= most_ || !possible) return;
    (device == current ? here_ : elsewhere_) |= DeviceBit(device);
    call_ = Mixed(call_, free + pool_->ReleasableBytes(device));  // what is free without the pool
  });
}

// Until so much is free on each of the devices, or nothing is idle there. What small blocks take
// goes back to the driver only with all of their chunk: then twice as much is released.
void Rescue::Release(Devices devices, uint64_t needed) {
  const DriverApi api(*driver_);
  const RelaxedCaptureMode relaxed(*driver_);
  ForEachDevice(devices, [&](int device) {
    for (uint64_t wanted = 0;;) {
      const uint64_t free = needed == kAnyBytes ? 0 : MemoryOf(*pool_, *driver_, device).free;
      if (free >= needed) return;
      wanted = std::max(needed - free, SaturatedProduct(wanted, 2));
      const uint64_t released = pool_->ReleaseForRetry(api, device, wanted);
      released_ |= released != 0;
      if (released < wanted) return;
    }
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
      waited_ = true;
      ForEachDevice(here_ | elsewhere_, [&](int device) { pool_->AwaitTakers(device); });
      Look();
      return Release(here_ | elsewhere_, most_);
  }
}

// As much as the call needs, then all; where there is nothing, what other threads are freeing.
bool Rescue::MakesRoomInHost() {
  PageLockedPool* page_locked = pool_ == nullptr ? nullptr : pool_->page_locked();
  if (page_locked == nullptr || host_bytes_ == 0) return false;
  const RelaxedCaptureMode relaxed(*driver_);
  const bool released =
      page_locked->ReleaseForMemory(host_bytes_) != 0 || page_locked->AwaitReleases();
  host_bytes_ = released && host_bytes_ != kAnyBytes ? kAnyBytes : 0;
  return released;
}

bool Rescue::MakesRoom(CUresult status) {
  if (!MayLackMemory(need_, status)) return false;
  const Uncancelled uncancelled;
  if (MakesRoomInHost()) return ++tries_, true;
  while (step_ < kGiveUp) {
    if (step_ >= kWait && !Lacks()) return false;  // it fails for a reason of its own
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
  if (tries_ != 0 && status == CUDA_SUCCESS) {
    pool_->statistics().process().out_of_memory_rescues.AddShared(1);
  }
  if ((released_ || waited_) && MayLackMemory(need_, status)) {
    in_vain_.store(InVain(need_, call_, 0), std::memory_order_relaxed);
  }
  return status;
}

}  // namespace cmp
