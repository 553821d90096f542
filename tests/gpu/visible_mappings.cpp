// Virtual memory of the driver, as the scenarios need it: one granule of a kind.
#include "visible.h"

namespace cmp::gpu {

namespace {

CUmemAllocationProp Properties(CUmemLocationType location) {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = location;
  if (location == CU_MEM_LOCATION_TYPE_DEVICE) {
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  }
  return properties;
}

size_t Granularity(const Stage& stage, const CUmemAllocationProp& properties) {
  size_t bytes = 0;
  if (DRIVER(stage, cuMemGetAllocationGranularity)(
          &bytes, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) != CUDA_SUCCESS) {
    stage.Skip("no granularity of such memory");
  }
  return bytes;
}

// For the device, and for the host where the memory is.
void MapAtNewAddress(const Stage& stage, Mapping* mapping, CUmemLocationType location) {
  MUST(DRIVER(stage, cuMemAddressReserve)(&mapping->start, mapping->bytes, 0, 0, 0));
  MUST(DRIVER(stage, cuMemMap)(mapping->start, mapping->bytes, 0, mapping->handle, 0));
  CUmemAccessDesc access[2] = {};
  access[0].location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access[0].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  access[1].location.type = location;
  access[1].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  const size_t count = location == CU_MEM_LOCATION_TYPE_DEVICE ? 1 : 2;
  MUST(DRIVER(stage, cuMemSetAccess)(mapping->start, mapping->bytes, access, count));
}

}  // namespace

Mapping Map(const Stage& stage, CUmemLocationType location) {
  const CUmemAllocationProp properties = Properties(location);
  Mapping mapping = {0, 0, Granularity(stage, properties)};
  if (DRIVER(stage, cuMemCreate)(&mapping.handle, mapping.bytes, &properties, 0) != CUDA_SUCCESS) {
    stage.Skip("no such memory");
  }
  MapAtNewAddress(stage, &mapping, location);
  MUST(DRIVER(stage, cuMemsetD8)(mapping.start, 0, mapping.bytes));
  CHECK(cudaDeviceSynchronize());
  return mapping;
}

Mapping MapAgain(const Stage& stage, const Mapping& mapping) {
  Mapping again = mapping;
  MapAtNewAddress(stage, &again, CU_MEM_LOCATION_TYPE_DEVICE);
  return again;
}

int Export(const Stage& stage, const Mapping& mapping) {
  int file = -1;
  MUST(DRIVER(stage, cuMemExportToShareableHandle)(&file, mapping.handle,
                                                   CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  return file;
}

Mapping Import(const Stage& stage, int file) {
  const CUmemAllocationProp properties = Properties(CU_MEM_LOCATION_TYPE_DEVICE);
  Mapping mapping = {0, 0, Granularity(stage, properties)};
  MUST(DRIVER(stage, cuMemImportFromShareableHandle)(
      &mapping.handle, reinterpret_cast<void*>(static_cast<intptr_t>(file)),
      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  MapAtNewAddress(stage, &mapping, CU_MEM_LOCATION_TYPE_DEVICE);
  return mapping;
}

}  // namespace cmp::gpu
