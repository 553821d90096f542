// The real calls for the page-locked memory of one heap.
#ifndef CMP_CORE_POOL_PAGE_LOCKED_API_H_
#define CMP_CORE_POOL_PAGE_LOCKED_API_H_

#include "core/driver/device_api.h"
#include "core/driver/host.h"
#include "core/pool/page_locked_pool.h"

namespace cmp {

class PageLockedApi : public DeviceApi {
 public:
  PageLockedApi(const PageLockedCalls& calls, const PageLockedHeap& heap)
      : DeviceApi(
            this,
            [](const void* self, size_t bytes, bool, DeviceAddress* address) {
              const PageLockedApi& api = *static_cast<const PageLockedApi*>(self);
              return api.calls_.allocate(api.heap_.context(), api.heap_.flags(), bytes, address);
            },
            [](const void*) {},
            [](const void* self, DeviceAddress address) {
              return static_cast<const PageLockedApi*>(self)->calls_.release(address);
            },
            [](const void*, size_t*, size_t*) { return false; }),
        calls_(calls),
        heap_(heap) {}
  PageLockedApi(const PageLockedApi&) = delete;
  PageLockedApi& operator=(const PageLockedApi&) = delete;

 private:
  const PageLockedCalls& calls_;
  const PageLockedHeap& heap_;
};

}  // namespace cmp

#endif  // CMP_CORE_POOL_PAGE_LOCKED_API_H_
