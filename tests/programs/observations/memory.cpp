// Memory that others than the device see for as long as it exists: what kernels wrote to it is
// there when a free has returned.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "peer.h"
#include "physical.h"

namespace observations {
namespace {

uint64_t HostLooks(const char* word) { return HostWord(word); }

// Kernels write `word`, and somebody looks at it after a free.
void KernelWrites(char* word, const std::function<uint64_t()>& look) {
  const cudaStream_t streams[] = {NonBlockingStream(), NonBlockingStream(), nullptr};
  for (const cudaStream_t stream : streams) {
    const uint64_t value = NextValue();
    WriteWord(stream, word, value, kLong);
    FreeUnrelated();
    See("word", look(), value);
    MUST(cudaDeviceSynchronize());
  }
}
void KernelWrites(char* word) {
  KernelWrites(word, [word] { return HostLooks(word); });
}

// Kernels read `word`, which the host overwrites after a free.
void KernelReads(char* word) {
  char* device = DeviceWord();
  const cudaStream_t stream = NonBlockingStream();
  const uint64_t value = NextValue();
  SetHostWord(word, value);
  program::LaunchWord(stream, {0, word, device}, kLong);
  FreeUnrelated();
  SetHostWord(word, 0);
  MUST(cudaDeviceSynchronize());
  See("word that was read", WordOf(device), value);
}

char* Managed() {
  void* memory = nullptr;
  MUST(cudaMallocManaged(&memory, 4096, cudaMemAttachGlobal));
  return static_cast<char*>(memory);
}

void ManagedMemory() {
  char* memory = Managed();
  KernelWrites(memory);
  KernelReads(memory + 64);
}

// Some of it is gone, the rest counts.
void ManagedRest() {
  char* first = Managed();
  char* second = Managed();
  char* third = Managed();
  MUST(cudaFree(first));
  MUST(cudaFree(third));
  KernelWrites(second);
}

void ManagedDriver() {
  CUdeviceptr memory = 0;
  MUST_DRIVER(cuMemAllocManaged(&memory, 4096, CU_MEM_ATTACH_GLOBAL));
  KernelWrites(reinterpret_cast<char*>(memory));
}

// What `__managed__` makes.
void ManagedVariable() {
  CUlibrary library = nullptr;
  MUST_DRIVER(
      cuLibraryLoadData(&library, "managed y 64", nullptr, nullptr, 0, nullptr, nullptr, 0));
  CUdeviceptr variable = 0;
  MUST_DRIVER(cuLibraryGetManaged(&variable, nullptr, library, "y"));
  KernelWrites(reinterpret_cast<char*>(variable));
  KernelReads(reinterpret_cast<char*>(variable) + 8);
}

void ManagedVariableOfModule() {
  CUmodule module = nullptr;
  MUST_DRIVER(cuModuleLoadData(&module, "global x 64; managed y 64"));
  CUdeviceptr variable = 0;
  MUST_DRIVER(cuModuleGetGlobal_v2(&variable, nullptr, module, "y"));
  KernelWrites(reinterpret_cast<char*>(variable));
}

// Mapped for the device when it was made; asked about here only by kernels.
void Mapped() {
  KernelWrites(PageLocked(4096, cudaHostAllocMapped));
  KernelReads(PageLocked(4096, cudaHostAllocMapped | cudaHostAllocPortable));
}

std::vector<char> g_registered(3 * 4096);

char* Registered(unsigned flags) {
  MUST(cudaHostRegister(g_registered.data(), g_registered.size(), flags));
  return g_registered.data() + 4096;
}

void RegisteredMapped() {
  char* word = Registered(cudaHostRegisterMapped);
  KernelWrites(word);
  KernelReads(word + 64);
}

void DevicePointer() {
  char* host = PageLocked();
  void* device = nullptr;
  MUST(cudaHostGetDevicePointer(&device, host + 64, 0));
  KernelWrites(static_cast<char*>(device), [host] { return HostLooks(host + 64); });
}

void DevicePointerOfRegistered() {
  char* host = Registered(cudaHostRegisterDefault);
  CUdeviceptr device = 0;
  MUST_DRIVER(cuMemHostGetDevicePointer_v2(&device, host, 0));
  KernelWrites(reinterpret_cast<char*>(device), [host] { return HostLooks(host); });
}

void DevicePointerAttribute() {
  char* host = PageLocked();
  CUdeviceptr device = 0;
  MUST_DRIVER(cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, Address(host)));
  KernelWrites(reinterpret_cast<char*>(device), [host] { return HostLooks(host); });
}

void DevicePointerAttributes() {
  char* host = PageLocked();
  int type = 0;
  CUdeviceptr device = 0;
  CUpointer_attribute asked[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                 CU_POINTER_ATTRIBUTE_DEVICE_POINTER};
  void* answers[] = {&type, &device};
  MUST_DRIVER(cuPointerGetAttributes(2, asked, answers, Address(host)));
  KernelWrites(reinterpret_cast<char*>(device), [host] { return HostLooks(host); });
}

void DevicePointerRuntimeAttributes() {
  char* host = PageLocked();
  cudaPointerAttributes attributes = {};
  MUST(cudaPointerGetAttributes(&attributes, host));
  KernelWrites(static_cast<char*>(attributes.devicePointer), [host] { return HostLooks(host); });
}

// The device can use all memory of the host. REQUIRES: the device says so (CMPSIM_PAGEABLE_ACCESS)
void Pageable() {
  int accessible = 0;
  MUST(cudaDeviceGetAttribute(&accessible, cudaDevAttrPageableMemoryAccess, 0));
  printf("pageable access: %d\n", accessible);
  std::vector<char> memory(4096);
  KernelWrites(memory.data());
  KernelReads(memory.data() + 64);
}

// ---- Other processes, other devices, other interfaces

void IpcExport() {
  Peer peer;
  char* block = DeviceWord();
  cudaIpcMemHandle_t handle = {};
  MUST(cudaIpcGetMemHandle(&handle, block));
  peer.Open(handle);
  KernelWrites(block, [&] { return peer.Look(); });
}

void IpcImport() {
  Peer peer;
  void* block = nullptr;
  MUST(cudaIpcOpenMemHandle(&block, peer.Export(), cudaIpcMemLazyEnablePeerAccess));
  KernelWrites(static_cast<char*>(block), [&] { return peer.Look(); });
}

void ShareableExport() {
  Peer peer;
  const CUmemGenericAllocationHandle physical = MakePhysical();
  char* block = MapPhysical(physical);
  peer.OpenShareable(ExportPhysical(physical));
  KernelWrites(block, [&] { return peer.Look(); });
}

void ShareableImport() {
  Peer peer;
  char* block = MapPhysical(ImportPhysical(peer.ExportShareable()));
  KernelWrites(block, [&] { return peer.Look(); });
}

// Another device reads the memory by itself; here it is the host's memory, too.
void DmaBufExport() {
  char* block = program::Allocate(size_t{2} << 20);  // whole pages
  int file = -1;
  MUST_DRIVER(cuMemGetHandleForAddressRange(&file, Address(block), 4096,
                                            CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0));
  KernelWrites(block);
}
void SynchronousOperations() {
  char* block = DeviceWord();
  const unsigned yes = 1;
  MUST_DRIVER(cuPointerSetAttribute(&yes, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, Address(block)));
  KernelWrites(block);
}

// Another process would wait for the event, and look then.
void IpcEventExport() {
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventInterprocess));
  CUipcEventHandle handle = {};
  MUST_DRIVER(cuIpcGetEventHandle(&handle, event));
  KernelWrites(DeviceWord());
}

// Memory that another interface allocated, and sees.
struct External {
  static constexpr size_t kBytes = size_t{2} << 20;
  int file = memfd_create("external", MFD_CLOEXEC);
  char* seen = nullptr;

  External() {
    void* mapped = MAP_FAILED;
    if (ftruncate(file, static_cast<off_t>(kBytes)) == 0) {
      mapped = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, file, 0);
    }
    MUST(mapped == MAP_FAILED ? cudaErrorMemoryAllocation : cudaSuccess);
    seen = static_cast<char*>(mapped);
  }
};

void ExternalMemory() {
  const External external;
  CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = {};
  description.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD;
  description.handle.fd = external.file;
  description.size = External::kBytes;
  CUexternalMemory memory = nullptr;
  MUST_DRIVER(cuImportExternalMemory(&memory, &description));
  CUDA_EXTERNAL_MEMORY_BUFFER_DESC part = {};
  part.size = External::kBytes;
  CUdeviceptr buffer = 0;
  MUST_DRIVER(cuExternalMemoryGetMappedBuffer(&buffer, memory, &part));
  KernelWrites(reinterpret_cast<char*>(buffer), [&] { return HostLooks(external.seen); });
}

// The other interface sees the semaphore's value, which follows the work.
void ExternalSemaphore() {
  const External external;
  CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC description = {};
  description.type = CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD;
  description.handle.fd = external.file;
  CUexternalSemaphore semaphore = nullptr;
  MUST_DRIVER(cuImportExternalSemaphore(&semaphore, &description));
  char* device = DeviceWord();
  for (const cudaStream_t stream : {NonBlockingStream(), cudaStream_t{nullptr}}) {
    CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS parameters = {};
    parameters.params.fence.value = NextValue();
    WriteWord(stream, device, 1, kLong);
    MUST_DRIVER(cuSignalExternalSemaphoresAsync(&semaphore, &parameters, 1, stream));
    FreeUnrelated();
    See("semaphore", HostLooks(external.seen), parameters.params.fence.value);
    MUST(cudaDeviceSynchronize());
  }
}

// ---- Memory of the host that the driver makes, and that kernels use

void PhysicalOfHost() {
  CUmemAllocationProp properties = PhysicalProperties();
  properties.location.type = CU_MEM_LOCATION_TYPE_HOST;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
  CUmemGenericAllocationHandle handle = 0;
  CUdeviceptr start = 0;
  MUST_DRIVER(cuMemCreate(&handle, kPhysicalBytes, &properties, 0));
  MUST_DRIVER(cuMemAddressReserve(&start, kPhysicalBytes, 0, 0, 0));
  MUST_DRIVER(cuMemMap(start, kPhysicalBytes, 0, handle, 0));
  CUmemAccessDesc access[2] = {};
  access[0].location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access[1].location = properties.location;
  access[0].flags = access[1].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  MUST_DRIVER(cuMemSetAccess(start, kPhysicalBytes, access, 2));
  KernelWrites(reinterpret_cast<char*>(start));
}

CUmemoryPool NewPool(CUmemLocationType place, CUmemAllocationHandleType shared_as) {
  CUmemPoolProps properties = {};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = place;
  properties.handleTypes = shared_as;
  CUmemoryPool pool = nullptr;
  MUST_DRIVER(cuMemPoolCreate(&pool, &properties));
  return pool;
}

char* FromPool(CUmemoryPool pool) {
  CUdeviceptr block = 0;
  MUST_DRIVER(cuMemAllocFromPoolAsync(&block, 4096, pool, nullptr));
  MUST(cudaDeviceSynchronize());
  return reinterpret_cast<char*>(block);
}

void PoolOfHost() {
  KernelWrites(FromPool(NewPool(CU_MEM_LOCATION_TYPE_HOST, CU_MEM_HANDLE_TYPE_NONE)));
}

void PoolExport() {
  const auto kShared = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  CUmemoryPool pool = NewPool(CU_MEM_LOCATION_TYPE_DEVICE, kShared);
  int file = -1;
  MUST_DRIVER(cuMemPoolExportToShareableHandle(&file, pool, kShared, 0));
  KernelWrites(FromPool(pool));
}

}  // namespace

std::vector<Scenario> MemoryScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const char* rule, const char* name, void (*run)(), bool from_start = false) {
    scenarios.push_back({Expect::kVisible, rule, name, run, from_start});
  };
  add("visible_managed", "managed", ManagedMemory);
  add("visible_managed", "managed-rest", ManagedRest);
  add("visible_managed", "managed-driver", ManagedDriver);
  add("visible_managed", "managed-before-first-block", ManagedMemory, true);
  add("visible_managed", "managed-variable", ManagedVariable);
  add("visible_managed", "managed-variable-before-first-block", ManagedVariable, true);
  add("visible_managed", "managed-variable-of-module", ManagedVariableOfModule);
  add("visible_mapped", "mapped", Mapped);
  add("visible_mapped", "mapped-before-first-block", Mapped, true);
  add("visible_mapped", "registered-mapped", RegisteredMapped);
  add("visible_mapped", "device-pointer", DevicePointer);
  add("visible_mapped", "device-pointer-before-first-block", DevicePointer, true);
  add("visible_mapped", "device-pointer-of-registered", DevicePointerOfRegistered);
  add("visible_mapped", "device-pointer-attribute", DevicePointerAttribute);
  add("visible_mapped", "device-pointer-attributes", DevicePointerAttributes);
  add("visible_mapped", "device-pointer-runtime-attributes", DevicePointerRuntimeAttributes);
  add("visible_pageable_access", "pageable-access", Pageable);
  add("visible_exports", "ipc-export", IpcExport);
  add("visible_exports", "shareable-export", ShareableExport);
  add("visible_exports", "dma-buf-export", DmaBufExport);
  add("visible_imports", "ipc-import", IpcImport);
  add("visible_imports", "shareable-import", ShareableImport);
  add("visible_exports", "ipc-event-export", IpcEventExport);
  add("visible_exports", "pool-export", PoolExport);
  add("visible_imports", "external-memory", ExternalMemory);
  add("visible_imports", "external-semaphore", ExternalSemaphore);
  add("visible_mapped", "physical-of-host", PhysicalOfHost);
  add("visible_mapped", "pool-of-host", PoolOfHost);
  add("visible_attributes", "synchronous-operations", SynchronousOperations);
  return scenarios;
}

}  // namespace observations
