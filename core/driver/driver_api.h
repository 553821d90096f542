// The real calls of the driver's layer.
#ifndef CMP_CORE_DRIVER_DRIVER_API_H_
#define CMP_CORE_DRIVER_DRIVER_API_H_

#include "core/driver/device_api.h"
#include "core/driver/driver.h"

namespace cmp {

class DriverApi : public DeviceApi {
 public:
  // `driver` must outlive the object; tables of LoadDriver do.
  explicit constexpr DriverApi(const Driver& driver)
      : DeviceApi(&driver, &Allocate, &Recovered, &Release, &MemoryInfo) {}

 private:
  static const Driver& Of(const void* self) { return *static_cast<const Driver*>(self); }

  static int Allocate(const void* self, size_t bytes, bool, DeviceAddress* address) {
    CUdeviceptr pointer = 0;
    const CUresult status = Of(self).mem_alloc(&pointer, bytes);
    *address = pointer;
    return status;
  }
  // A failed driver call leaves nothing behind.
  static void Recovered(const void*) {}
  static int Release(const void* self, DeviceAddress address) { return Of(self).mem_free(address); }
  static bool MemoryInfo(const void* self, size_t* free, size_t* total) {
    return Of(self).mem_get_info(free, total) == CUDA_SUCCESS;
  }
};

}  // namespace cmp

#endif  // CMP_CORE_DRIVER_DRIVER_API_H_
