// A device without memory: it hands out made-up addresses that nobody may touch, up to a capacity,
// fails when told to, and counts.
//
// Addresses look like the driver's: 2 MiB and more at multiples of 2 MiB, less at multiples of 512
// inside chunks of 2 MiB; the address freed last is handed out first.
//
// Invariant: an address is handed out by Allocate and not yet released exactly while it is in
// live_. All functions are thread-safe.
#ifndef CMP_TESTS_CORE_FAKE_DEVICE_H_
#define CMP_TESTS_CORE_FAKE_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "core/driver/device_api.h"

namespace cmp::test {

inline constexpr int kInvalidValue = 1;  // in both layers: what a real free of a wild pointer gives

// One call of Allocate, in order.
struct AllocateCall {
  size_t bytes;
  bool last_resort;
  int status;
};

class FakeDevice {
 public:
  static constexpr size_t kPlenty = size_t{1} << 44;

  explicit FakeDevice(size_t capacity = kPlenty) : capacity_(capacity) {}

  // ---- What goes wrong

  void SetCapacity(size_t bytes) {
    const std::lock_guard guard(lock_);
    capacity_ = bytes;
  }
  // The next `count` calls of Allocate fail with `status`.
  void FailNext(unsigned count, int status = kOutOfMemory) {
    const std::lock_guard guard(lock_);
    fail_next_ = count;
    fail_status_ = status;
  }
  // Every call of Allocate fails with kOutOfMemory with this probability.
  void FailRandomly(double probability, uint64_t seed) {
    const std::lock_guard guard(lock_);
    fail_probability_ = probability;
    random_.seed(seed);
  }
  // Every call of Release fails with `status` and frees nothing; kSuccess: none does.
  void FailReleases(int status) {
    const std::lock_guard guard(lock_);
    release_status_ = status;
  }
  void SetMemoryInfo(bool works) {
    const std::lock_guard guard(lock_);
    memory_info_works_ = works;
  }
  // Called at the beginning of every Allocate, with its bytes and without the device's lock.
  void OnAllocate(std::function<void(size_t bytes)> hook) { on_allocate_ = std::move(hook); }
  // The same of Release.
  void OnRelease(std::function<void()> hook) { on_release_ = std::move(hook); }
  // Called at the end of every Release, without the device's lock.
  void AfterRelease(std::function<void()> hook) { after_release_ = std::move(hook); }
  // Puts memory aside that the pool does not know of.
  void UseByOthers(size_t bytes) {
    const std::lock_guard guard(lock_);
    used_by_others_ = bytes;
  }
  // The next address handed out.
  void SetNextAddress(DeviceAddress address) {
    const std::lock_guard guard(lock_);
    forced_address_ = address;
  }

  // ---- What happened

  size_t used() const {
    const std::lock_guard guard(lock_);
    return used_;
  }
  size_t live_count() const {
    const std::lock_guard guard(lock_);
    return live_.size();
  }
  bool IsLive(DeviceAddress address) const {
    const std::lock_guard guard(lock_);
    return live_.count(address) != 0;
  }
  size_t BytesAt(DeviceAddress address) const {
    const std::lock_guard guard(lock_);
    const auto found = live_.find(address);
    return found == live_.end() ? 0 : found->second;
  }
  std::vector<AllocateCall> calls() const {
    const std::lock_guard guard(lock_);
    return calls_;
  }
  size_t allocate_calls() const {
    const std::lock_guard guard(lock_);
    return allocate_count_;
  }
  // Addresses in the order in which they were released.
  std::vector<DeviceAddress> released() const {
    const std::lock_guard guard(lock_);
    return released_;
  }
  size_t release_calls() const {
    const std::lock_guard guard(lock_);
    return release_count_;
  }
  // Releases of addresses that were not live: the pool freed something twice, or what was never
  // its.
  size_t wrong_releases() const {
    const std::lock_guard guard(lock_);
    return wrong_releases_;
  }
  size_t recovered_calls() const {
    const std::lock_guard guard(lock_);
    return recovered_;
  }
  size_t memory_info_calls() const {
    const std::lock_guard guard(lock_);
    return memory_info_calls_;
  }
  void ForgetCalls() {
    const std::lock_guard guard(lock_);
    calls_.clear();
    released_.clear();
    allocate_count_ = release_count_ = recovered_ = memory_info_calls_ = 0;
  }
  // Frees behind the pool's back.
  void ReleaseBehindThePool(DeviceAddress address) { Release(address); }
  // For long runs: only counts, no lists.
  void KeepNoLists() { keep_lists_ = false; }

  // ---- The calls themselves, as FakeApi makes them

  int Allocate(size_t bytes, bool last_resort, DeviceAddress* address) {
    if (on_allocate_) on_allocate_(bytes);
    const std::lock_guard guard(lock_);
    const int status = Decide(bytes);
    ++allocate_count_;
    if (keep_lists_) calls_.push_back({bytes, last_resort, status});
    if (status != kSuccess) return status;
    *address = Place(bytes);
    live_[*address] = bytes;
    used_ += bytes;
    return kSuccess;
  }
  int Release(DeviceAddress address) {
    if (on_release_) on_release_();
    const int status = ReleaseLocked(address);
    if (after_release_) after_release_();
    return status;
  }
  void Recovered() {
    const std::lock_guard guard(lock_);
    ++recovered_;
  }
  bool MemoryInfo(size_t* free, size_t* total) {
    const std::lock_guard guard(lock_);
    ++memory_info_calls_;
    if (!memory_info_works_) return false;
    const size_t taken = used_ + used_by_others_;
    *free = taken < capacity_ ? capacity_ - taken : 0;
    *total = capacity_;
    return true;
  }

 private:
  int ReleaseLocked(DeviceAddress address) {
    const std::lock_guard guard(lock_);
    ++release_count_;
    if (release_status_ != kSuccess) return release_status_;
    const auto found = live_.find(address);
    if (found == live_.end()) {
      ++wrong_releases_;
      return kInvalidValue;
    }
    used_ -= found->second;
    free_[found->second].push_back(address);
    live_.erase(found);
    if (keep_lists_) released_.push_back(address);
    return kSuccess;
  }
  // REQUIRES for all: lock_ held
  int Decide(size_t bytes) {
    if (fail_next_ != 0) return --fail_next_, fail_status_;
    if (fail_probability_ > 0 && std::uniform_real_distribution<>()(random_) < fail_probability_) {
      return kOutOfMemory;
    }
    return used_ + used_by_others_ + bytes > capacity_ ? kOutOfMemory : kSuccess;
  }
  DeviceAddress Place(size_t bytes) {
    if (forced_address_ != 0) return std::exchange(forced_address_, 0);
    std::vector<DeviceAddress>& same = free_[bytes];
    if (!same.empty()) {
      const DeviceAddress address = same.back();
      same.pop_back();
      return address;
    }
    if (bytes >= kLargeGranule) {
      const DeviceAddress address = next_large_;
      next_large_ += (bytes + kLargeGranule - 1) / kLargeGranule * kLargeGranule;
      return address;
    }
    const size_t stride = (bytes + 511) / 512 * 512;
    if (small_left_ < stride) {
      next_small_ = next_large_;
      next_large_ += kLargeGranule;
      small_left_ = kLargeGranule;
    }
    const DeviceAddress address = next_small_;
    next_small_ += stride;
    small_left_ -= stride;
    return address;
  }

  mutable std::mutex lock_;
  std::function<void(size_t bytes)> on_allocate_;
  std::function<void()> on_release_;
  std::function<void()> after_release_;
  size_t capacity_;
  size_t used_ = 0;
  size_t used_by_others_ = 0;
  std::map<DeviceAddress, size_t> live_;
  std::map<size_t, std::vector<DeviceAddress>> free_;  // by size
  DeviceAddress next_large_ = DeviceAddress{0x7f} << 40;
  DeviceAddress next_small_ = 0;
  size_t small_left_ = 0;
  DeviceAddress forced_address_ = 0;
  unsigned fail_next_ = 0;
  int fail_status_ = kOutOfMemory;
  double fail_probability_ = 0;
  std::mt19937_64 random_;
  int release_status_ = kSuccess;
  bool memory_info_works_ = true;
  bool keep_lists_ = true;
  std::vector<AllocateCall> calls_;
  std::vector<DeviceAddress> released_;
  size_t allocate_count_ = 0;
  size_t release_count_ = 0;
  size_t wrong_releases_ = 0;
  size_t recovered_ = 0;
  size_t memory_info_calls_ = 0;
};

// The calls of a FakeDevice, as the pool makes them.
class FakeApi : public DeviceApi {
 public:
  explicit FakeApi(FakeDevice& device)
      : DeviceApi(&device, &Allocate, &Recovered, &Release, &MemoryInfo) {}

 private:
  static FakeDevice& Of(const void* self) {
    return *const_cast<FakeDevice*>(static_cast<const FakeDevice*>(self));
  }
  static int Allocate(const void* self, size_t bytes, bool last_resort, DeviceAddress* address) {
    return Of(self).Allocate(bytes, last_resort, address);
  }
  static void Recovered(const void* self) { Of(self).Recovered(); }
  static int Release(const void* self, DeviceAddress address) { return Of(self).Release(address); }
  static bool MemoryInfo(const void* self, size_t* free, size_t* total) {
    return Of(self).MemoryInfo(free, total);
  }
};

}  // namespace cmp::test

#endif  // CMP_TESTS_CORE_FAKE_DEVICE_H_
