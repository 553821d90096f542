#include "shim/rescue.h"

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
    auto* handle = static_cast<CUcontext>(context.identity().handle);
    if (!user.entered() || driver.push_current(handle) != CUDA_SUCCESS) return;
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

// Its address names the thread.
thread_local constinit char t_thread_name = 0;

// Who made room last, and when: a call of another thread may have failed just before. Relaxed: the
// two are a hint, and one more try is harmless.
constexpr uint64_t kJustNowNs = 1'000'000'000;
constinit std::atomic<const void*> g_room_by{nullptr};
constinit std::atomic<uint64_t> g_room_at{0};
void NoteRoom() {
  g_room_by.store(&t_thread_name, std::memory_order_relaxed);
  g_room_at.store(NowNs(), std::memory_order_relaxed);
}
bool OthersMadeRoomJustNow() {
  return g_room_by.load(std::memory_order_relaxed) != &t_thread_name &&
         g_room_at.load(std::memory_order_relaxed) + kJustNowNs > NowNs();
}

constexpr int kMostTries = 64;  // while other threads go on releasing

}  // namespace

// Not from inside a real call of ours (the pool does it itself), nor once the process exits. During
// captures only for what has nothing to do with them: a release in relaxed mode leaves them alone
// (measured), and what the first try did to them the second does not make worse.
bool Rescue::Allowed(const RescuedArguments& arguments) const {
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
  if (!arguments.has_stream) return true;
  // 0 may mean either default stream.
  return !captures(arguments.stream) &&
         (arguments.stream != nullptr || !captures(CU_STREAM_PER_THREAD));
}

Rescue::Rescue(Need need, CUresult status, const RescuedArguments& arguments,
               std::atomic<uint64_t>& in_vain)
    : need_(need),
      in_vain_(in_vain),
      pool_(g_pool.load(std::memory_order_acquire)),
      driver_(LoadedDriver()) {
  if (!Allowed(arguments)) return;
  const Uncancelled uncancelled;
  releases_ = pool_->releases();
  by_others_ = OthersMadeRoomJustNow();
  const Devices idle = pool_->DevicesWithIdle();
  if (idle == 0) {
    may_wait_ = status == CUDA_ERROR_OUT_OF_MEMORY;
    return;
  }
  const RelaxedCaptureMode relaxed(*driver_);
  CUdevice current = -1;
  driver_->context_device(&current);
  const uint64_t known = KnownBytes(need, status, arguments, *driver_);
  most_ = Sum(known, kUnknownBytes);
  call_ = Mixed(arguments.all, static_cast<uint64_t>(status));
  const bool anywhere = need != Need::kLimit && need != Need::kLaunch;
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
  // What stands behind the pointers of the others may be another each time. Relaxed: who misses
  // what another thread found out tries once too often.
  tells_ = need != Need::kAny;
  if (tells_ && in_vain_.load(std::memory_order_relaxed) == call_) here_ = elsewhere_ = 0;
  may_wait_ = (here_ | elsewhere_) != 0;
}

// What the call can need of the current context's device; everything, where it is not known how
// much that is, or where small blocks did not give back what they take.
bool Rescue::Release(int device) {
  const DriverApi api(*driver_);
  const uint64_t free = CurrentMemory().free;
  if (free >= most_) return true;  // others made room
  const bool made = pool_->ReleaseForRetry(api, device, most_ - free);
  const bool enough = most_ == kAnyBytes || CurrentMemory().free >= most_;
  return (!enough && pool_->ReleaseForRetry(api, device)) || made;
}

bool Rescue::MakesRoom(CUresult status) {
  if (!MayLackMemory(need_, status)) return false;
  const Uncancelled uncancelled;
  for (Devices* lacking : {&here_, &elsewhere_}) {
    if (*lacking == 0) continue;
    bool made = false;
    NoteRoom();
    ForEachDevice(std::exchange(*lacking, 0), [&](int device) {
      const RelaxedCaptureMode relaxed(*driver_);
      OnDevice(*pool_, *driver_, device, [&] { made |= Release(device); });
    });
    if (!made) continue;
    NoteRoom();
    releases_ = pool_->releases();
    released_ = true;
    ++tries_;
    return true;
  }
  if (tries_ == kMostTries || !OthersMakeRoom()) return false;
  releases_ = pool_->releases();
  ++tries_;
  return true;
}

// Have other threads released memory since the latest try, or do they just now?
bool Rescue::OthersMakeRoom() {
  if (std::exchange(by_others_, false)) return true;
  return may_wait_ && (pool_->releases() != releases_ || pool_->AwaitReleases());
}

CUresult Rescue::Done(CUresult status) {
  if (tries_ == 0) return status;
  if (status == CUDA_SUCCESS) pool_->statistics().process().out_of_memory_rescues.AddShared(1);
  if (tells_ && released_ && MayLackMemory(need_, status)) {
    in_vain_.store(call_, std::memory_order_relaxed);
  }
  return status;
}

}  // namespace cmp
