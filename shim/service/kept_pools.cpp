#include "shim/service/kept_pools.h"

#include <algorithm>
#include <iterator>
#include <new>

#include "core/base/lock.h"
#include "core/contexts/reserve.h"
#include "core/pool/pool_instance.h"
#include "shim/service/verified.h"
#include "shim/state/aside.h"
#include "shim/state/captures.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/work_of_stream.h"

namespace cmp {

namespace {

constexpr size_t kMostPools = 63;  // more are left alone
constexpr uint64_t kPlaceOfNone = kMostPools;
constexpr int64_t kNeverLook = INT64_MAX;
constexpr int64_t kLeastBetweenLooks = 64 * kMiB;

enum class Kind : uint8_t { kUnknown, kKnown, kRaised, kLeftAlone };

// Under g_lock.
struct PoolState {
  CUmemoryPool handle = nullptr;
  int ending = 0;             // calls that may end it are on their way
  bool gone = false;          // one was made: it may be there no more
  cuuint64_t ours = 0;        // the threshold that it was given; 0: its own
  bool was_raised = false;    // it was given one at least once
  int64_t unlooked_then = 0;  // at the last look
  int64_t unasked = 0;        // what may be allocated before free memory is asked for again
  bool has_room = false;      // memory was not scarce then
  size_t peak = 0;            // the most that was seen in use
  size_t bytes = 0;           // what CMP_RESERVE adds to that
  cuuint64_t used[Ageing::kTicks] = {};  // the most that was seen in use, by tick
};

struct KeptPool : PoolState {
  // What may be allocated before it is looked at. Relaxed, as `kind` and `device` are where no lock
  // is held: hints.
  std::atomic<int64_t> unlooked{0};
  std::atomic<Kind> kind{Kind::kUnknown};  // kUnknown: a free place
  std::atomic<int> device{0};              // -1: not known

  bool may_be_asked() const { return ending == 0 && !gone; }
  Kind Is() const { return kind.load(std::memory_order_relaxed); }
  int Device() const { return device.load(std::memory_order_relaxed); }
};

constinit Mutex g_lock;
constinit KeptPool g_pools[kMostPools + 1];  // the last stands for those that are left alone
constinit unsigned g_tick = 0;
constinit std::atomic<uint64_t> g_next_tick_ns{0};  // where allocations are to see to it
// Which pool a stream, or a context's default stream, allocated from, or which it named: all but
// the last 6 bits are of its handle and the epoch, these are the pool's place. What is in such a
// word is right or for another one. (Threads have no memory of their own for it: libraries that are
// loaded late have little.)
constexpr size_t kMostKnown = 256;
constinit std::atomic<uint64_t> g_known[kMostKnown];
// With StreamEpoch(): changes when that may be wrong. acquire, release.
constinit std::atomic<uint64_t> g_epoch{1};

bool Get(const KeptPool& pool, CUmemPool_attribute attribute, cuuint64_t* value) {
  return RealDriver()->cuMemPoolGetAttribute(pool.handle, attribute, value) == CUDA_SUCCESS;
}

bool SetThreshold(KeptPool& pool, cuuint64_t bytes) {
  if (RealDriver()->cuMemPoolSetAttribute(pool.handle, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &bytes) !=
      CUDA_SUCCESS) {
    return false;
  }
  pool.ours = bytes;
  return true;
}

void LeaveAlone(KeptPool& pool) {
  pool.ours = 0;
  pool.kind.store(Kind::kLeftAlone, std::memory_order_relaxed);
  pool.unlooked.store(kNeverLook, std::memory_order_relaxed);
}

// Gives back what it keeps beyond `least`, or beyond what is in use; returns how much.
size_t Trim(const KeptPool& pool, cuuint64_t least) {
  cuuint64_t used = 0;
  cuuint64_t reserved = 0;
  if (!Get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) ||
      !Get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved)) {
    return 0;
  }
  least = std::max(least, used);
  cuuint64_t left = 0;
  Pool* started = g_started.load(std::memory_order_acquire);
  if (reserved <= least || started == nullptr) return 0;
  BlockSource::Releasing releasing = started->BeginRelease();
  if (LoadedDriver()->trim_pool(pool.handle, static_cast<size_t>(least)) != CUDA_SUCCESS ||
      !Get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &left) || left >= reserved) {
    return 0;
  }
  releasing.Done();
  return static_cast<size_t>(reserved - left);
}

void CountReleased(size_t bytes) {
  Pool* started = g_started.load(std::memory_order_acquire);
  if (started == nullptr) return;
  ProcessCounters& process = started->statistics().process();
  process.kept_released_bytes.AddShared(bytes);
  process.kept_peak_bytes.RaiseTo(bytes);
}

// Its threshold may have fallen to 0 again; what it kept by then goes with a synchronisation.
bool MayKeep(const KeptPool& pool) {
  return pool.Is() == Kind::kRaised && pool.was_raised && pool.may_be_asked();
}

// ---- Which pool. REQUIRES for all: g_lock held

KeptPool* Find(CUmemoryPool handle) {
  for (KeptPool& pool : g_pools) {
    if (pool.Is() != Kind::kUnknown && pool.handle == handle) return &pool;
  }
  return nullptr;
}

void Clear(KeptPool& pool) {
  static_cast<PoolState&>(pool) = PoolState{};
  pool.kind.store(Kind::kUnknown, std::memory_order_relaxed);
  pool.unlooked.store(0, std::memory_order_relaxed);
}

// nullptr: there is no place.
KeptPool* Add(CUmemoryPool handle, int device) {
  KeptPool* pool = Find(handle);
  for (KeptPool& place : g_pools) {
    const bool free = place.Is() == Kind::kUnknown && &place != &g_pools[kPlaceOfNone];
    if (pool == nullptr && free) pool = &place;
  }
  if (pool == nullptr) return nullptr;
  Clear(*pool);
  pool->handle = handle;
  pool->device.store(device, std::memory_order_relaxed);
  pool->kind.store(Kind::kKnown, std::memory_order_relaxed);
  return pool;
}

bool IsDefault(CUstream stream) {
  return stream == nullptr || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD;
}

bool DeviceOf(const Driver& driver, CUstream stream, CUdevice* device) {
  CUcontext context = nullptr;
  if (IsDefault(stream)) return driver.context_device(device) == CUDA_SUCCESS;
  if (driver.stream_context(stream, &context) != CUDA_SUCCESS ||
      driver.push_current(context) != CUDA_SUCCESS) {
    return false;
  }
  const bool known = driver.context_device(device) == CUDA_SUCCESS;
  driver.pop_current(&context);
  return known;
}

// The device whose default pool it is; -1: it is none.
int DeviceWithDefault(const Driver& driver, CUmemoryPool handle) {
  int count = 0;
  if (driver.device_count == nullptr || driver.device_count(&count) != CUDA_SUCCESS) return -1;
  for (int device = 0; device < count; ++device) {
    CUmemoryPool pool = nullptr;
    if (driver.default_pool(&pool, device) == CUDA_SUCCESS && pool == handle) return device;
  }
  return -1;
}

// The pool that something was just allocated from; nullptr: not now.
KeptPool* FindUsed(const Driver& driver, CUstream stream, CUmemoryPool handle) {
  if (handle == nullptr) {
    CUdevice device = -1;
    if (!DeviceOf(driver, stream, &device) ||
        driver.current_pool(&handle, device) != CUDA_SUCCESS) {
      return nullptr;
    }
  }
  KeptPool* pool = Find(handle);
  if (pool != nullptr && pool->Device() >= 0) return pool;
  const int device = DeviceWithDefault(driver, handle);
  if (pool != nullptr) pool->device.store(device, std::memory_order_relaxed);
  if (pool == nullptr && device >= 0) pool = Add(handle, device);
  return pool != nullptr ? pool : &g_pools[kPlaceOfNone];
}

// ---- How much

// Asks how much is free on the pool's device, if that is the current one. Managed memory that the
// process has may come there.
void AskForMemory(const Driver& driver, const Options& options, KeptPool& pool) {
  CUdevice device = -1;
  size_t free = 0;
  size_t total = 0;
  pool.unasked = kLeastBetweenLooks;
  if (driver.context_device(&device) != CUDA_SUCCESS || device != pool.Device() ||
      driver.mem_get_info(&free, &total) != CUDA_SUCCESS) {
    return;
  }
  const size_t managed = g_visible_memory.managed_bytes();
  free -= std::min(free, managed);
  pool.has_room = !IsScarce(free, total);
  pool.bytes = BytesWith(options.reserve, free);
  const size_t eighth = free > total / 10 ? (free - total / 10) / 8 : 0;
  pool.unasked = static_cast<int64_t>(std::max(eighth, total / 1024));
}

cuuint64_t WantedThreshold(const Options& options, const KeptPool& pool) {
  if (options.async_keep != kByReserve) return options.async_keep;
  if (!pool.has_room) return 0;
  return static_cast<size_t>(static_cast<double>(pool.peak) * options.reserve.ratio) + pool.bytes;
}

// The first allocation from it, or the first since it may have ended. False: it is left alone.
bool IsToBeRaised(KeptPool& pool) {
  if (pool.Is() == Kind::kRaised && !pool.gone) return true;
  if (pool.Is() == Kind::kLeftAlone && !pool.gone) return LeaveAlone(pool), false;
  cuuint64_t threshold = 0;
  if (!Get(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold)) return false;
  pool.gone = false;
  const bool programs = threshold != 0 && threshold != pool.ours;
  if (programs) return LeaveAlone(pool), false;
  pool.ours = threshold;
  pool.kind.store(Kind::kRaised, std::memory_order_relaxed);
  return true;
}

// After an allocation. REQUIRES: g_lock held
void LookAt(const Driver& driver, Pool& started, KeptPool& pool) {
  const Options& options = started.options();
  cuuint64_t used = 0;
  pool.unlooked.store(kLeastBetweenLooks, std::memory_order_relaxed);
  if (pool.ending != 0 || !IsToBeRaised(pool) ||
      !Get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used)) {
    return;
  }
  cuuint64_t& now = pool.used[g_tick % Ageing::kTicks];
  now = std::max(now, used);
  pool.unasked -= pool.unlooked_then;
  const bool rose = used > pool.peak;
  if (rose) pool.peak = static_cast<size_t>(used);
  if (options.async_keep == kByReserve && (rose || pool.unasked <= 0)) {
    AskForMemory(driver, options, pool);
  }
  const cuuint64_t wanted = WantedThreshold(options, pool);
  if (wanted != pool.ours && SetThreshold(pool, wanted) && wanted != 0 && !pool.was_raised) {
    pool.was_raised = true;
    started.statistics().process().kept_pools.AddShared(1);
  }
  // So the peak is known to an eighth, which the ratio of CMP_RESERVE=auto makes up for.
  pool.unlooked_then = std::max(kLeastBetweenLooks, static_cast<int64_t>(pool.peak / 8));
  pool.unlooked.store(pool.unlooked_then, std::memory_order_relaxed);
}

// As the driver would have it.
void Lower(KeptPool& pool) {
  if (MayKeep(pool)) {
    if (!SetThreshold(pool, 0)) return;
    Trim(pool, 0);
  }
  LeaveAlone(pool);
}

void LookSoon(const Driver& driver, Pool& started, KeptPool& pool) {
  const Uncancelled uncancelled;
  if (g_captures.UnderWay() || !g_lock.TryLock()) return;
  const RelaxedCaptureMode relaxed(driver);  // one may begin meanwhile
  IsAside() ? Lower(pool) : LookAt(driver, started, pool);
  g_lock.Unlock();
}

// The pool that something was just allocated from.
KeptPool& UsedPoolOf(const Driver& driver, CUstream stream, CUmemoryPool from) {
  const auto key = reinterpret_cast<uintptr_t>(from != nullptr     ? from
                                               : IsDefault(stream) ? CurrentOrNone(driver)
                                                                   : stream);
  // Both only grow: so does their sum with either.
  const uint64_t epoch = g_epoch.load(std::memory_order_acquire) + StreamEpoch();
  const uint64_t name = (key + epoch * 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 | kPlaceOfNone;
  std::atomic<uint64_t>& known = g_known[(name >> 48) % kMostKnown];
  const uint64_t found = known.load(std::memory_order_relaxed);
  if ((found | kPlaceOfNone) == name) [[likely]]
    return g_pools[found & kPlaceOfNone];
  const Uncancelled uncancelled;
  if (g_captures.UnderWay() || !g_lock.TryLock()) return g_pools[kPlaceOfNone];
  KeptPool* pool = FindUsed(driver, stream, from);
  g_lock.Unlock();
  if (pool == nullptr) return g_pools[kPlaceOfNone];
  known.store((name ^ kPlaceOfNone) | static_cast<uint64_t>(pool - g_pools),
              std::memory_order_relaxed);
  return *pool;
}

// Nothing is kept on other devices. Their bits go once that is so, not before: who finds none asks
// nothing. And come back where somebody allocated meanwhile, who found his.
void ForgetDevicesBut(Devices devices) {
  const Devices gone = g_devices_with_kept.fetch_and(devices, std::memory_order_seq_cst) & ~devices;
  for (const KeptPool& pool : g_pools) {
    cuuint64_t reserved = 0;
    const Devices device = DeviceBit(pool.Device());
    if ((gone & device) == 0 || !MayKeep(pool)) continue;
    if (!Get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved) || reserved != 0) {
      g_devices_with_kept.fetch_or(device, std::memory_order_seq_cst);
    }
  }
}

// What ticks would do, where no thread makes them.
void TickInCalls(const Options& options) {
  const uint64_t now = NowNs();
  uint64_t due = g_next_tick_ns.load(std::memory_order_relaxed);
  const uint64_t next = now + options.decay_ns / Ageing::kTicks;
  if (now < due || !g_next_tick_ns.compare_exchange_strong(due, next, std::memory_order_relaxed)) {
    return;
  }
  if (due != 0) AgeKept();  // 0: the time begins
}

}  // namespace

void DecideAsyncUse(Pool* started) {
  const Driver* driver = LoadedDriver();
  const DriverCalls* real = RealDriver();
  if (started == nullptr || driver == nullptr || real == nullptr) return;
  const Options& options = started->options();
  if (options.mode == Mode::kPool) VerifyLookups();
  const bool known = driver->default_pool != nullptr && driver->current_pool != nullptr &&
                     real->cuMemPoolGetAttribute != nullptr &&
                     real->cuMemPoolSetAttribute != nullptr && driver->trim_pool != nullptr;
  const bool keeps = options.mode == Mode::kPool && options.async_keep != 0 && known && !IsAside();
  g_async_use.store(keeps                        ? AsyncUse::kKept
                    : options.mode != Mode::kOff ? AsyncUse::kCounted
                                                 : AsyncUse::kLeftAlone,
                    std::memory_order_release);
}

void NoteAllocatedInOrder(CUstream stream, CUmemoryPool from, size_t bytes) {
  Pool* started = g_started.load(std::memory_order_acquire);
  if (started == nullptr || g_exiting.load(std::memory_order_acquire)) return;
  started->statistics().process().async_allocations.AddShared(1);
  if (g_async_use.load(std::memory_order_relaxed) != AsyncUse::kKept) return;
  const Driver& driver = *LoadedDriver();
  KeptPool& pool = UsedPoolOf(driver, stream, from);
  if (pool.Is() == Kind::kUnknown) return;
  const auto taken = static_cast<int64_t>(bytes);
  if (pool.unlooked.fetch_sub(taken, std::memory_order_relaxed) < taken) [[unlikely]]
    LookSoon(driver, *started, pool);
  if (pool.Is() == Kind::kLeftAlone) return;
  const Devices device = DeviceBit(pool.Device());
  if ((g_devices_with_kept.load(std::memory_order_seq_cst) & device) == 0) {
    g_devices_with_kept.fetch_or(device, std::memory_order_seq_cst);
  }
  started->ageing().MemoryIsIdle();
  if (started->ageing().IsInCalls()) [[unlikely]]
    TickInCalls(started->options());
}

size_t ReleaseKeptSlow(int device) {
  const Devices wanted = device == kAllDevices ? kAnyDevice : DeviceBit(device);
  if ((DevicesWithKept() & wanted) == 0) return 0;
  const Driver* driver = LoadedDriver();
  if (driver == nullptr || g_exiting.load(std::memory_order_acquire)) return 0;
  const Uncancelled uncancelled;
  const RelaxedCaptureMode relaxed(*driver);
  size_t bytes = 0;
  {
    const Held held(g_lock);
    for (const KeptPool& pool : g_pools) {
      const bool meant = (DeviceBit(pool.Device()) & wanted) != 0;
      if (meant && MayKeep(pool)) bytes += Trim(pool, 0);
    }
  }
  CountReleased(bytes);
  return bytes;
}

bool AgeKept() {
  Pool* started = g_started.load(std::memory_order_acquire);
  const Driver* driver = LoadedDriver();
  if (DevicesWithKept() == 0 || started == nullptr || driver == nullptr) return false;
  const Uncancelled uncancelled;
  const RelaxedCaptureMode relaxed(*driver);
  size_t aged = 0;
  Devices devices = 0;
  const Held held(g_lock);
  ++g_tick;
  for (KeptPool& pool : g_pools) {
    if (!MayKeep(pool)) continue;
    if (IsAside()) {
      Lower(pool);
      continue;
    }
    cuuint64_t used = 0;
    cuuint64_t reserved = 0;
    if (!Get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used)) continue;
    pool.used[g_tick % Ageing::kTicks] = used;
    pool.unlooked.store(0, std::memory_order_relaxed);  // the next allocation tells what is used
    aged += Trim(pool, *std::max_element(std::begin(pool.used), std::end(pool.used)));
    if (!Get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved)) continue;
    if (reserved != 0) devices |= DeviceBit(pool.Device());
    if (reserved > used) {
      started->statistics().process().kept_peak_bytes.RaiseTo(reserved - used);
    }
  }
  ForgetDevicesBut(devices);
  if (aged != 0) started->statistics().process().kept_aged_bytes.AddShared(aged);
  return DevicesWithKept() != 0;
}

void PoolMade(CUmemoryPool pool, const CUmemPoolProps& properties) {
  if (properties.allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
      properties.location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
      properties.handleTypes != CU_MEM_HANDLE_TYPE_NONE || properties.maxSize != 0) {
    return;
  }
  const Uncancelled uncancelled;
  const Held held(g_lock);
  Add(pool, properties.location.id);
  g_epoch.fetch_add(1, std::memory_order_acq_rel);
}

void CurrentPoolsChange() { g_epoch.fetch_add(1, std::memory_order_acq_rel); }

PoolInHand::PoolInHand(CUmemoryPool pool) : held_(g_lock), handle_(pool) {}

bool PoolInHand::raised() const {
  const KeptPool* pool = Find(handle_);
  return pool != nullptr && MayKeep(*pool);
}

void PoolInHand::GiveBack() {
  const Driver* driver = LoadedDriver();
  if (!raised() || driver == nullptr || g_exiting.load(std::memory_order_acquire)) return;
  const RelaxedCaptureMode relaxed(*driver);
  CountReleased(Trim(*Find(handle_), 0));
}

void PoolInHand::SetByTheProgram() {
  KeptPool* pool = Find(handle_);
  if (pool == nullptr) pool = Add(handle_, -1);
  if (pool != nullptr) LeaveAlone(*pool);
}

void PoolInHand::Forget() {
  if (KeptPool* pool = Find(handle_)) Clear(*pool);
  g_epoch.fetch_add(1, std::memory_order_acq_rel);
}

// The threshold outlives the context, and with it what the pool keeps (measured, H200): so both go
// before. If the context stays, the next allocation raises it again.
PoolsEnding::PoolsEnding(CUdevice device) : device_(device) {
  const Driver* driver = LoadedDriver();
  const bool may_ask = driver != nullptr && !g_exiting.load(std::memory_order_acquire);
  const Uncancelled uncancelled;
  const Held held(g_lock);
  for (KeptPool& pool : g_pools) {
    if (pool.Device() != device_) continue;
    if (may_ask && MayKeep(pool)) {
      const RelaxedCaptureMode relaxed(*driver);
      if (SetThreshold(pool, 0)) Trim(pool, 0);
      pool.unlooked.store(0, std::memory_order_relaxed);
    }
    ++pool.ending;
  }
}

PoolsEnding::~PoolsEnding() {
  const Uncancelled uncancelled;
  const Held held(g_lock);
  for (KeptPool& pool : g_pools) {
    const bool is_of_device = pool.Device() == device_;
    if (is_of_device && pool.ending != 0) --pool.ending;
    if (!ended_ || (!is_of_device && pool.Device() >= 0)) continue;
    pool.gone = true;
    pool.unlooked.store(0, std::memory_order_relaxed);
  }
  if (ended_) g_epoch.fetch_add(1, std::memory_order_acq_rel);
}

void ForgetKeptPools() {
  new (&g_lock) Mutex;
  for (KeptPool& pool : g_pools) Clear(pool);
  g_devices_with_kept.store(0, std::memory_order_relaxed);
  g_async_use.store(AsyncUse::kUnknown, std::memory_order_relaxed);
  g_epoch.fetch_add(1, std::memory_order_acq_rel);
}

}  // namespace cmp
