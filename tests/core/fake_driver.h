// A driver whose work is done when told: context events complete in the order in which they were
// recorded, by Finish, or by whoever waits for one.
//
// One at a time in a process, since the driver's table holds plain functions. What the real driver
// would not forgive is counted as an error: an event recorded again before it completed, asked
// before it was recorded, or used after its end. All functions are thread-safe.
#ifndef CMP_TESTS_CORE_FAKE_DRIVER_H_
#define CMP_TESTS_CORE_FAKE_DRIVER_H_

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/contexts/context_pool.h"
#include "core/driver/driver.h"
#include "core/driver/host.h"
#include "fake_device.h"

namespace cmp::test {

class FakeDriver {
 public:
  FakeDriver() {
    only_ = this;
    table_.get_current = [](CUcontext* context) { return *context = t_current, CUDA_SUCCESS; };
    table_.push_current = [](CUcontext context) {
      if (only_->push_status != CUDA_SUCCESS) return only_->push_status.load();
      t_pushed.push_back(t_current);
      t_current = context;
      return CUDA_SUCCESS;
    };
    table_.pop_current = [](CUcontext* context) {
      *context = t_current;
      t_current = t_pushed.back();
      t_pushed.pop_back();
      return CUDA_SUCCESS;
    };
    table_.synchronize = [] { return only_->Synchronize(); };
    table_.record_context = [](CUcontext context, CUevent event) {
      return only_->Record(context, reinterpret_cast<Event*>(event));
    };
    table_.wait_event = [](CUcontext context, CUevent event) {
      return only_->Order(context, reinterpret_cast<Event*>(event));
    };
    table_.event_create = [](CUevent* event, unsigned) { return only_->Create(event); };
    table_.event_query = [](CUevent event) {
      return only_->Query(reinterpret_cast<Event*>(event));
    };
    table_.event_synchronize = [](CUevent event) {
      return only_->WaitFor(reinterpret_cast<Event*>(event));
    };
    table_.exchange_capture_mode = [](CUstreamCaptureMode*) { return CUDA_SUCCESS; };
    table_.stream_is_capturing = [](CUstream, CUstreamCaptureStatus* status) {
      ++only_->capture_questions;
      *status =
          only_->stream_captures ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
      return CUDA_SUCCESS;
    };
    table_.stream_context = [](CUstream stream, CUcontext* context) {
      return only_->on_stream_context(stream, context);
    };
  }
  ~FakeDriver() { only_ = nullptr; }
  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;

  const Driver& table() const { return table_; }
  // As drivers before 12.5.
  void HasNoContextEvents() { table_.record_context = nullptr; }
  // As drivers that free memory of `device` without a wait.
  void FreesQuietly(FakeDevice& device) {
    freed_from_ = &device;
    table_.stream_create = [](CUstream* stream, unsigned) {
      *stream = reinterpret_cast<CUstream>(only_);
      return CUDA_SUCCESS;
    };
    table_.stream_synchronize = [](CUstream) { return CUDA_SUCCESS; };
    table_.mem_alloc = [](CUdeviceptr* address, size_t bytes) {
      DeviceAddress made = 0;
      const int status = only_->freed_from_->Allocate(bytes, false, &made);
      *address = made;
      return static_cast<CUresult>(status);
    };
    table_.mem_get_info = [](size_t* free, size_t* total) {
      return only_->freed_from_->MemoryInfo(free, total) ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
    };
    table_.mem_free_async = [](CUdeviceptr address, CUstream) {
      if (only_->free_status != CUDA_SUCCESS) return only_->free_status.load();
      ++only_->quiet_frees;
      only_->freed_from_->Release(address);
      return CUDA_SUCCESS;
    };
  }
  static FakeDriver* only() { return only_; }
  static void SetCurrent(ContextHandle context) { t_current = static_cast<CUcontext>(context); }

  // All work recorded so far is done; or of the oldest `events` records alone.
  void Finish(size_t events = ~size_t{0}) {
    const std::lock_guard guard(lock_);
    for (; events != 0 && !pending_.empty(); --events) CompleteOldest();
  }

  // A context ends, and all events with it.
  void DestroyEvents() {
    const std::lock_guard guard(lock_);
    pending_.clear();
    for (const std::unique_ptr<Event>& event : events_) event->destroyed = true;
  }

  // What the next calls return in place of success; kSuccess: they work.
  std::atomic<CUresult> record_status{CUDA_SUCCESS};
  std::atomic<CUresult> query_status{CUDA_SUCCESS};
  std::atomic<CUresult> create_status{CUDA_SUCCESS};
  std::atomic<CUresult> order_status{CUDA_SUCCESS};
  std::atomic<CUresult> synchronize_status{CUDA_SUCCESS};
  std::atomic<CUresult> push_status{CUDA_SUCCESS};
  std::atomic<CUresult> free_status{CUDA_SUCCESS};  // of those without a wait
  // Called at the beginning of a call, without the driver's lock.
  std::function<void()> on_record = [] {};
  std::function<void()> on_query = [] {};
  std::function<void()> on_wait = [] {};
  std::function<void()> on_order = [] {};
  std::function<void()> on_synchronize = [] {};
  std::function<CUresult(CUstream, CUcontext*)> on_stream_context = [](CUstream, CUcontext*) {
    return CUDA_ERROR_INVALID_HANDLE;
  };

  // The answer of every stream.
  std::atomic<bool> stream_captures{false};

  // How often each call was made.
  std::atomic<unsigned> creates{0};
  std::atomic<unsigned> records{0};
  std::atomic<unsigned> queries{0};
  std::atomic<unsigned> waits{0};
  std::atomic<unsigned> orders{0};
  std::atomic<unsigned> synchronizes{0};
  std::atomic<unsigned> quiet_frees{0};
  std::atomic<unsigned> capture_questions{0};
  std::atomic<unsigned> errors{0};

 private:
  struct Event {
    bool recorded = false;
    bool done = false;
    bool destroyed = false;
  };

  // REQUIRES: lock_ held
  void CompleteOldest() {
    pending_.front()->done = true;
    pending_.erase(pending_.begin());
  }
  CUresult Create(CUevent* event) {
    ++creates;
    if (create_status != CUDA_SUCCESS) return create_status;
    const std::lock_guard guard(lock_);
    events_.push_back(std::make_unique<Event>());
    *event = reinterpret_cast<CUevent>(events_.back().get());
    return CUDA_SUCCESS;
  }
  CUresult Record(CUcontext, Event* event) {
    ++records;
    on_record();
    if (record_status != CUDA_SUCCESS) return record_status;
    const std::lock_guard guard(lock_);
    if ((event->recorded && !event->done) || event->destroyed) ++errors;
    *event = Event{true, false, event->destroyed};
    pending_.push_back(event);
    return CUDA_SUCCESS;
  }
  CUresult Query(const Event* event) {
    ++queries;
    on_query();
    if (query_status != CUDA_SUCCESS) return query_status;
    const std::lock_guard guard(lock_);
    if (!event->recorded || event->destroyed) ++errors;
    return event->done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  }
  CUresult WaitFor(const Event* event) {
    ++waits;
    on_wait();
    if (query_status != CUDA_SUCCESS) return query_status;
    const std::lock_guard guard(lock_);
    if (!event->recorded || event->destroyed) ++errors;
    while (!event->done) CompleteOldest();
    return CUDA_SUCCESS;
  }
  CUresult Order(CUcontext, const Event* event) {
    ++orders;
    on_order();
    const std::lock_guard guard(lock_);
    if (!event->recorded || event->destroyed) ++errors;
    return order_status;
  }
  CUresult Synchronize() {
    ++synchronizes;
    on_synchronize();
    if (synchronize_status == CUDA_SUCCESS) Finish();
    return synchronize_status;
  }

  static inline FakeDriver* only_ = nullptr;
  FakeDevice* freed_from_ = nullptr;
  static inline thread_local CUcontext t_current = nullptr;
  static inline thread_local std::vector<CUcontext> t_pushed;
  Driver table_;
  std::mutex lock_;
  std::vector<std::unique_ptr<Event>> events_;
  std::vector<Event*> pending_;  // oldest first
};

// A host over the fake driver, that sees what it is told: `capturing`, and work by SetWorkSince.
struct FakeHost {
  static inline std::atomic<bool> capturing{false};
  static inline std::atomic<int> recording{0};
  static inline std::atomic<unsigned> failed{0};
  // Called where the pool asks whether frees are seen.
  static inline std::function<void()> on_question = [] {};
  static bool Enter() {
    if (capturing) return false;
    ++recording;
    return true;
  }
  static void Leave() { --recording; }
  static inline const PoolHost table = {
      [] { return FakeDriver::only() == nullptr ? nullptr : &FakeDriver::only()->table(); },
      &Enter,
      &Leave,
      &Enter,
      &Leave,
      [](ContextPool& context, uint64_t, FencePurpose) { context.fences().SetWorkSince(false); },
      [](ContextPool& context) {
        ++failed;
        context.fences().SetWorkSince(true);
      },
      [] { return on_question(), true; },
      [] { return size_t{0}; },
      kBlindHost.devices_with_kept,
      kBlindHost.release_kept,
      kBlindHost.age_kept,
      true,
      true,
      [](ContextPool&) {},
      [](ContextPool&) {},
  };
};

}  // namespace cmp::test

#endif  // CMP_TESTS_CORE_FAKE_DRIVER_H_
