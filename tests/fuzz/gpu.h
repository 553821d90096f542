// Two devices with three contexts, whose work is a number: how much was submitted to a context, and
// how much of that is done. It is done when an input says so, when somebody waits for it, and when
// somebody has asked often enough.
//
// Fails where the pool makes a call that a real driver would not forgive.
#ifndef CMP_TESTS_FUZZ_GPU_H_
#define CMP_TESTS_FUZZ_GPU_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "core/driver/device_api.h"
#include "core/driver/driver.h"
#include "fake_device.h"
#include "fuzz.h"

namespace cmp::fuzz {

inline constexpr size_t kContexts = 3;
// Of each context, how much work there was at some time.
using Moment = std::array<uint64_t, kContexts>;

class Gpu {
 public:
  explicit Gpu(size_t device_bytes) : devices_{Device(device_bytes), Device(device_bytes)} {
    only_ = this;
    for (test::FakeDevice* device : {&devices_[0], &devices_[1]}) device->KeepNoLists();
    for (size_t i = 0; i < kContexts; ++i) {
      contexts_[i].device = i == kContexts - 1 ? 1 : 0;
      contexts_[i].id = ++ids_;
    }
    FillTable();
  }
  ~Gpu() { only_ = nullptr; }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  static Gpu& Only() { return *only_; }
  Driver& table() { return table_; }
  test::FakeDevice& DeviceOf(size_t context) { return devices_[contexts_[context].device]; }

  // ---- Contexts

  static ContextHandle HandleOf(size_t context) {
    return reinterpret_cast<ContextHandle>((context + 1) << 12);
  }
  int device(size_t context) const { return contexts_[context].device; }
  uint64_t id(size_t context) const { return contexts_[context].id; }
  size_t current() const { return current_; }
  void SetCurrent(size_t context) { current_ = context; }
  // It ends, and is followed by another of the same handle: memory and events are gone.
  void End(size_t context) {
    contexts_[context].done = contexts_[context].submitted;
    contexts_[context].id = ++ids_;
    for (auto block = blocks_.begin(); block != blocks_.end();) {
      if (block->second == context) {
        DeviceOf(context).ReleaseBehindThePool(OnDevice(block->first));
        block = blocks_.erase(block);
      } else {
        ++block;
      }
    }
  }

  // ---- Work

  void Submit(size_t context) { ++contexts_[context].submitted; }
  void Finish(size_t context, uint64_t most = ~uint64_t{0}) {
    Context& its = contexts_[context];
    its.done += std::min(most, its.submitted - its.done);
  }
  uint64_t submitted(size_t context) const { return contexts_[context].submitted; }
  bool IsDone(size_t context, uint64_t work) const { return contexts_[context].done >= work; }
  // How often somebody waited for work that was not done.
  unsigned waits() const { return waits_; }
  // After so many questions whether work is done it is.
  void SetPatience(unsigned questions) { patience_ = questions; }

  // ---- Memory

  bool IsBlock(DeviceAddress address) const { return blocks_.count(address) != 0; }
  size_t ContextOf(DeviceAddress address) const { return blocks_.at(address); }
  size_t BytesAt(DeviceAddress address) {
    return DeviceOf(ContextOf(address)).BytesAt(OnDevice(address));
  }
  unsigned failures() const { return failures_; }  // of Allocate
  size_t used() const { return devices_[0].used() + devices_[1].used(); }
  // Called before memory goes back; `waits`: until the work of its context is done.
  std::function<void(DeviceAddress address, bool waits)> on_release = [](DeviceAddress, bool) {};

  int Allocate(size_t bytes, bool last_resort, DeviceAddress* address) {
    const int status = DeviceOf(current_).Allocate(bytes, last_resort, address);
    if (status != kSuccess) return ++failures_, status;
    if (device(current_) == 1) *address -= kOtherDevice;
    CMP_EXPECT(blocks_.emplace(*address, current_).second);
    return kSuccess;
  }
  // As cuMemFree, or cuMemFreeAsync and a wait for its stream.
  int Release(DeviceAddress address, bool waits) {
    const auto block = blocks_.find(address);
    if (block == blocks_.end()) return kInvalidValue;
    on_release(address, waits);
    const size_t context = block->second;
    if (waits) WaitFor(context, contexts_[context].submitted);
    blocks_.erase(block);
    return DeviceOf(context).Release(OnDevice(address));
  }
  bool MemoryInfo(size_t* free, size_t* total) {
    return DeviceOf(current_).MemoryInfo(free, total);
  }

  bool capturing = false;  // no fence may be recorded, and nobody may wait for a whole context

 private:
  static constexpr DeviceAddress kOtherDevice = DeviceAddress{1} << 44;
  struct Context {
    int device = 0;
    uint64_t id = 0;
    uint64_t submitted = 0;
    uint64_t done = 0;
  };
  struct Event {
    size_t context;
    uint64_t id;  // of its context
    uint64_t work;
    bool recorded;
  };
  struct Device : test::FakeDevice {
    using FakeDevice::FakeDevice;
  };

  static DeviceAddress OnDevice(DeviceAddress address) {
    return address < DeviceAddress{0x7f} << 40 ? address + kOtherDevice : address;
  }
  static size_t IndexOf(CUcontext handle) {
    const size_t context = (reinterpret_cast<uintptr_t>(handle) >> 12) - 1;
    CMP_EXPECT(context < kContexts);
    return context;
  }
  // One that exists still.
  Event& EventOf(CUevent handle) {
    auto& event = *reinterpret_cast<Event*>(handle);
    CMP_EXPECT(event.id == contexts_[event.context].id);
    return event;
  }
  CUresult Record(CUcontext handle, CUevent recorded) {
    Event& event = EventOf(recorded);
    CMP_EXPECT(!capturing && event.context == IndexOf(handle));
    CMP_EXPECT(!event.recorded || IsDone(event.context, event.work));  // else somebody waits for it
    event.work = contexts_[event.context].submitted;
    event.recorded = true;
    return CUDA_SUCCESS;
  }
  CUresult Query(CUevent asked) {
    Event& event = EventOf(asked);
    CMP_EXPECT(event.recorded);
    Context& context = contexts_[event.context];
    if (++questions_ % patience_ == 0) context.done = std::max(context.done, event.work);
    return IsDone(event.context, event.work) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  }
  void WaitFor(size_t context, uint64_t work) {
    if (IsDone(context, work)) return;
    ++waits_;
    contexts_[context].done = work;
  }

  void FillTable() {
    table_.get_current = [](CUcontext* context) {
      *context = static_cast<CUcontext>(HandleOf(only_->current_));
      return CUDA_SUCCESS;
    };
    table_.push_current = [](CUcontext context) {
      only_->pushed_.push_back(only_->current_);
      only_->current_ = IndexOf(context);
      return CUDA_SUCCESS;
    };
    table_.pop_current = [](CUcontext* context) {
      CMP_EXPECT(!only_->pushed_.empty());
      *context = static_cast<CUcontext>(HandleOf(only_->current_));
      only_->current_ = only_->pushed_.back();
      only_->pushed_.pop_back();
      return CUDA_SUCCESS;
    };
    table_.synchronize = [] {
      CMP_EXPECT(!only_->capturing);
      only_->WaitFor(only_->current_, only_->submitted(only_->current_));
      return CUDA_SUCCESS;
    };
    table_.record_context = [](CUcontext context, CUevent event) {
      return only_->Record(context, event);
    };
    table_.wait_event = [](CUcontext, CUevent event) {
      CMP_EXPECT(!only_->capturing && only_->EventOf(event).recorded);
      return CUDA_SUCCESS;
    };
    table_.event_create = [](CUevent* event, unsigned) {
      const size_t context = only_->current_;
      only_->events_.push_back({context, only_->contexts_[context].id, 0, false});
      *event = reinterpret_cast<CUevent>(&only_->events_.back());
      return CUDA_SUCCESS;
    };
    table_.event_query = [](CUevent event) { return only_->Query(event); };
    table_.event_synchronize = [](CUevent event) {
      const Event& its = only_->EventOf(event);
      CMP_EXPECT(its.recorded);
      only_->WaitFor(its.context, its.work);
      return CUDA_SUCCESS;
    };
    table_.exchange_capture_mode = [](CUstreamCaptureMode*) { return CUDA_SUCCESS; };
    table_.mem_alloc = [](CUdeviceptr* address, size_t bytes) {
      DeviceAddress made = 0;
      const auto status = static_cast<CUresult>(only_->Allocate(bytes, false, &made));
      *address = made;
      return status;
    };
    table_.mem_free = [](CUdeviceptr address) {
      return static_cast<CUresult>(only_->Release(address, true));
    };
    table_.mem_get_info = [](size_t* free, size_t* total) {
      return only_->MemoryInfo(free, total) ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
    };
    table_.stream_create = [](CUstream* stream, unsigned) {
      *stream = reinterpret_cast<CUstream>(HandleOf(only_->current_));
      return CUDA_SUCCESS;
    };
    table_.stream_synchronize = [](CUstream) { return CUDA_SUCCESS; };
    table_.mem_free_async = [](CUdeviceptr address, CUstream) {
      CMP_EXPECT(
          only_->IsBlock(address));  // else a real one hangs (core/driver/release_stream.cpp)
      return static_cast<CUresult>(only_->Release(address, false));
    };
  }

  static inline Gpu* only_ = nullptr;
  Driver table_;
  Device devices_[2];
  Context contexts_[kContexts];
  uint64_t ids_ = 0;
  size_t current_ = 0;
  std::vector<size_t> pushed_;
  std::deque<Event> events_;
  std::map<DeviceAddress, size_t> blocks_;  // to the context
  unsigned patience_ = 1;
  unsigned questions_ = 0;
  unsigned waits_ = 0;
  unsigned failures_ = 0;
};

// The calls of the Gpu, as the pool makes them.
class GpuApi : public DeviceApi {
 public:
  explicit GpuApi(Gpu& gpu) : DeviceApi(&gpu, &Allocate, &Recovered, &Release, &MemoryInfo) {}

 private:
  static Gpu& Of(const void* self) { return *const_cast<Gpu*>(static_cast<const Gpu*>(self)); }
  static int Allocate(const void* self, size_t bytes, bool last_resort, DeviceAddress* address) {
    return Of(self).Allocate(bytes, last_resort, address);
  }
  static void Recovered(const void*) {}
  static int Release(const void* self, DeviceAddress address) {
    return Of(self).Release(address, true);
  }
  static bool MemoryInfo(const void* self, size_t* free, size_t* total) {
    return Of(self).MemoryInfo(free, total);
  }
};

}  // namespace cmp::fuzz

#endif  // CMP_TESTS_FUZZ_GPU_H_
