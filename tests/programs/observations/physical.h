// Memory of cuMemCreate, mapped.
#ifndef CMP_TESTS_PROGRAMS_OBSERVATIONS_PHYSICAL_H_
#define CMP_TESTS_PROGRAMS_OBSERVATIONS_PHYSICAL_H_

#include "scene.h"

namespace observations {

constexpr size_t kPhysicalBytes = size_t{2} << 20;

inline CUmemAllocationProp PhysicalProperties() {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  return properties;
}

inline CUmemGenericAllocationHandle MakePhysical() {
  const CUmemAllocationProp properties = PhysicalProperties();
  CUmemGenericAllocationHandle handle = 0;
  MUST_DRIVER(cuMemCreate(&handle, kPhysicalBytes, &properties, 0));
  return handle;
}

inline void SetAccess(CUdeviceptr start, CUmemAccess_flags flags) {
  CUmemAccessDesc access = {};
  access.location = PhysicalProperties().location;
  access.flags = flags;
  MUST_DRIVER(cuMemSetAccess(start, kPhysicalBytes, &access, 1));
}

inline char* MapPhysical(CUmemGenericAllocationHandle handle) {
  CUdeviceptr start = 0;
  MUST_DRIVER(cuMemAddressReserve(&start, kPhysicalBytes, 0, 0, 0));
  MUST_DRIVER(cuMemMap(start, kPhysicalBytes, 0, handle, 0));
  SetAccess(start, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  return reinterpret_cast<char*>(start);
}

inline int ExportPhysical(CUmemGenericAllocationHandle handle) {
  int file = -1;
  MUST_DRIVER(
      cuMemExportToShareableHandle(&file, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  return file;
}

inline CUmemGenericAllocationHandle ImportPhysical(int file) {
  CUmemGenericAllocationHandle handle = 0;
  MUST_DRIVER(cuMemImportFromShareableHandle(&handle,
                                             reinterpret_cast<void*>(static_cast<intptr_t>(file)),
                                             CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  return handle;
}

}  // namespace observations

#endif  // CMP_TESTS_PROGRAMS_OBSERVATIONS_PHYSICAL_H_
