#include "core/driver/driver.h"

#include <dlfcn.h>
#include <string.h>

#include <initializer_list>

#include "core/base/dynamic_symbols.h"
#include "core/base/memory.h"

namespace cmp {

const Driver* LoadDriverSlow(DriverSource source) {
  const int how = source == DriverSource::kLoaded ? RTLD_LAZY | RTLD_NOLOAD : RTLD_LAZY;
  void* library = dlopen("libcuda.so.1", how);
  if (library == nullptr) return nullptr;
  Driver found;
  bool complete = true;
#define CMP_FIND(name, symbol, needed, parameters)                                          \
  found.name = reinterpret_cast<decltype(found.name)>(FindDriverFunction(library, symbol)); \
  if (needed && found.name == nullptr) complete = false;
  CMP_DRIVER_CALLS(CMP_FIND)
#undef CMP_FIND
  if (!complete) return nullptr;
  void* memory = MapPages(sizeof(Driver));
  if (memory == nullptr) return nullptr;
  const Driver* expected = nullptr;
  const Driver* driver = new (memory) Driver(found);
  g_driver.compare_exchange_strong(expected, driver, std::memory_order_acq_rel,
                                   std::memory_order_acquire);
  return expected != nullptr ? expected : driver;
}

bool IsPatched(const void* function) {
  unsigned char code[16];
  memcpy(code, function, sizeof(code));
  struct Jump {
    size_t bytes;
    unsigned char begin[8];
  };
#if defined(__x86_64__)
  static constexpr Jump kJumps[] = {{1, {0xe9}},         // jmp relative
                                    {2, {0xff, 0x25}},   // jmp [address]
                                    {2, {0x48, 0xb8}},   // mov rax, address; jmp rax
                                    {2, {0x49, 0xba}},   // mov r10
                                    {2, {0x49, 0xbb}}};  // mov r11
#else
  static constexpr Jump kJumps[] = {{4, {0x50, 0x00, 0x00, 0x58}},   // ldr x16, address; br x16
                                    {4, {0x51, 0x00, 0x00, 0x58}}};  // ldr x17
#endif
  for (const Jump& jump : kJumps) {
    if (memcmp(code, jump.begin, jump.bytes) == 0) return true;
  }
  return false;
}

bool IsInDriversLibrary(const void* function) {
  Dl_info info;
  if (function == nullptr || dladdr(function, &info) == 0) return false;
  const char* name = strrchr(info.dli_fname, '/');
  name = name == nullptr ? info.dli_fname : name + 1;
  return strncmp(name, "libcuda.so", 10) == 0;
}

uint64_t ContextId(const Driver& driver, ContextHandle handle) {
  if (driver.context_id == nullptr) return reinterpret_cast<uintptr_t>(handle);
  unsigned long long id = 0;
  return driver.context_id(static_cast<CUcontext>(handle), &id) == CUDA_SUCCESS ? id : 0;
}

bool IdentifyCurrent(const Driver& driver, ContextIdentity* identity) {
  identity->handle = CurrentContext(driver);
  if (identity->handle == nullptr) return false;
  identity->id = ContextId(driver, identity->handle);
  if (identity->id == 0) return false;
  CUdevice device = 0;
  if (driver.context_device(&device) != CUDA_SUCCESS) return false;
  identity->device = device;
  if (driver.device_memory == nullptr ||
      driver.device_memory(&identity->device_bytes, device) != CUDA_SUCCESS) {
    identity->device_bytes = 0;
  }
  int reaches = 0;
  identity->reaches_host_memory =
      driver.device_attribute != nullptr &&
      driver.device_attribute(&reaches, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, device) ==
          CUDA_SUCCESS &&
      reaches != 0;
  // Whether it is the device's primary one: only asked while that is active, since a retain would
  // create it otherwise.
  unsigned flags = 0;
  int active = 0;
  if (driver.primary_state(device, &flags, &active) != CUDA_SUCCESS) return false;
  identity->primary = false;
  if (active != 0) {
    CUcontext primary = nullptr;
    if (driver.primary_retain(&primary, device) != CUDA_SUCCESS) return false;
    identity->primary = primary == identity->handle;
    driver.primary_release(device);
  }
  return true;
}

}  // namespace cmp
