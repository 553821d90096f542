// The real calls of the runtime's layer, for one interposed call.
//
// Invariant: the thread's last error is, after a call that succeeds, what it would be without the
// shim. The runtime can clear it but not set it, so: while an error of the program's is pending,
// attempts that the program must not see go through the driver, which leaves no trace.
#ifndef CMP_SHIM_SERVICE_RUNTIME_API_H_
#define CMP_SHIM_SERVICE_RUNTIME_API_H_

#include "core/driver/device_api.h"
#include "core/driver/driver.h"
#include "core/pool/pool.h"
#include "shim/lookup/runtime_calls.h"

namespace cmp {

class RuntimeApi : public DeviceApi {
 public:
  // For a call from `caller` (a return address). `driver` may be nullptr where only attempts of
  // last resort and frees are made.
  RuntimeApi(const Driver* driver, const void* caller)
      : DeviceApi(this, &Allocate, &Recovered, &Release, &MemoryInfo),
        driver_(driver),
        caller_(caller) {}
  RuntimeApi(const RuntimeApi&) = delete;
  RuntimeApi& operator=(const RuntimeApi&) = delete;

  // The real runtime calls; looked up when first needed, which a hit never does. nullptr: the
  // caller has no runtime of its own and the driver's calls serve.
  const RuntimeCalls* real() const {
    if (real_ == nullptr) real_ = RuntimeOf(caller_);
    return real_;
  }

 private:
  static const RuntimeApi& Of(const void* self) { return *static_cast<const RuntimeApi*>(self); }
  static int Allocate(const void* self, size_t bytes, bool last_resort, DeviceAddress* address);
  static void Recovered(const void* self);
  static int Release(const void* self, DeviceAddress address);
  static bool MemoryInfo(const void* self, size_t* free, size_t* total);

  const Driver* driver_;
  const void* caller_;
  mutable const RuntimeCalls* real_ = nullptr;
  mutable bool left_error_ = false;
};

}  // namespace cmp

#endif  // CMP_SHIM_SERVICE_RUNTIME_API_H_
