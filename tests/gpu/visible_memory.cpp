// Memory that the host, another process or another device sees by itself, whatever is submitted.
#include "visible.h"
#include "visible_ptx.h"

namespace cmp::gpu {

namespace {

// A kernel writes the word, which the host reads without a call.
bool HostSeesWord(Stage& stage, uint32_t* word) {
  stage.WriteLate(word);
  stage.Free();
  return Seen(word) == stage.value;
}

void RequireConcurrentManagedAccess(const Stage& stage) {
  if (!IsDevice(cudaDevAttrConcurrentManagedAccess)) {
    stage.Skip("no access to managed memory while a kernel runs");
  }
}

bool Managed(Stage& stage) {
  RequireConcurrentManagedAccess(stage);
  uint32_t* word = nullptr;
  CHECK(cudaMallocManaged(reinterpret_cast<void**>(&word), sizeof(uint32_t)));
  *word = 0;
  return HostSeesWord(stage, word);
}

const char* ManagedImage(const Stage& stage) {
  return stage.kernels.simulated() ? "managed managed_word 4" : kManagedPtx;
}

bool ManagedVariableOfModule(Stage& stage) {
  RequireConcurrentManagedAccess(stage);
  CUmodule module = nullptr;
  CUdeviceptr word = 0;
  size_t bytes = 0;
  MUST(DRIVER(stage, cuModuleLoadData)(&module, ManagedImage(stage)));
  MUST(DRIVER(stage, cuModuleGetGlobal)(&word, &bytes, module, "managed_word"));
  return HostSeesWord(stage, reinterpret_cast<uint32_t*>(word));
}

bool ManagedVariableOfLibrary(Stage& stage) {
  RequireConcurrentManagedAccess(stage);
  CUlibrary library = nullptr;
  CUdeviceptr word = 0;
  size_t bytes = 0;
  MUST(DRIVER(stage, cuLibraryLoadData)(&library, ManagedImage(stage), nullptr, nullptr, 0, nullptr,
                                        nullptr, 0));
  MUST(DRIVER(stage, cuLibraryGetManaged)(&word, &bytes, library, "managed_word"));
  return HostSeesWord(stage, reinterpret_cast<uint32_t*>(word));
}

bool Mapped(Stage& stage) { return HostSeesWord(stage, PageLocked(1, cudaHostAllocMapped)); }

bool MappedByRegistration(Stage& stage) {
  constexpr size_t kPageBytes = 65536;
  void* const memory = std::aligned_alloc(kPageBytes, kPageBytes);
  std::memset(memory, 0, kPageBytes);
  CHECK(cudaHostRegister(memory, kPageBytes, cudaHostRegisterMapped));
  return HostSeesWord(stage, static_cast<uint32_t*>(memory) + 100);
}

bool MappedDevicePointer(Stage& stage) {
  uint32_t* const word = PageLocked(1);
  void* device = nullptr;
  CHECK(cudaHostGetDevicePointer(&device, word, 0));
  stage.WriteLate(static_cast<uint32_t*>(device));
  stage.Free();
  return Seen(word) == stage.value;
}

bool MappedDevicePointerAsAttribute(Stage& stage) {
  uint32_t* const word = PageLocked(1);
  cudaPointerAttributes attributes = {};
  CHECK(cudaPointerGetAttributes(&attributes, word));
  stage.WriteLate(static_cast<uint32_t*>(attributes.devicePointer));
  stage.Free();
  return Seen(word) == stage.value;
}

bool Pageable(Stage& stage) {
  if (!IsDevice(cudaDevAttrPageableMemoryAccess)) stage.Skip("no access to pageable memory");
  return HostSeesWord(stage, new uint32_t(0));
}

bool LocatedOnHost(Stage& stage) {
#if CUDA_VERSION >= 12020
  return HostSeesWord(stage, Map(stage, CU_MEM_LOCATION_TYPE_HOST_NUMA).words());
#else
  stage.Skip("memory of the host as CUDA 12.2 declares it");
#endif
}

bool PoolOnHost(Stage& stage) {
#if CUDA_VERSION >= 12020
  CUmemPoolProps properties = {};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
  CUmemoryPool pool = nullptr;
  if (DRIVER(stage, cuMemPoolCreate)(&pool, &properties) != CUDA_SUCCESS) {
    stage.Skip("no memory pool on the host");
  }
  CUmemAccessDesc access = {};
  access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  MUST(DRIVER(stage, cuMemPoolSetAccess)(pool, &access, 1));
  CUdeviceptr memory = 0;
  MUST(DRIVER(stage, cuMemAllocFromPoolAsync)(&memory, 4096, pool, stage.other));
  CHECK(cudaStreamSynchronize(stage.other));
  auto* const word = reinterpret_cast<uint32_t*>(memory);
  *word = 0;
  return HostSeesWord(stage, word);
#else
  stage.Skip("memory of the host as CUDA 12.2 declares it");
#endif
}

// ---- Other processes

// Long enough for a process that shares the device by turns.
bool OtherProcessSeesWord(Stage& stage, const OtherProcess& other, uint32_t* word) {
  uint32_t before = 1;
  other.Receive(&before, sizeof(before));
  stage.KeepBusy();
  stage.WriteLate(word);
  stage.Free();
  return before == 0 && other.Look() == stage.value;
}

bool Exported(Stage& stage) {
  cudaIpcMemHandle_t handle = {};
  CHECK(cudaIpcGetMemHandle(&handle, stage.word));
  const OtherProcess other("exported");
  other.Send(&handle, sizeof(handle));
  return OtherProcessSeesWord(stage, other, stage.word);
}

bool Imported(Stage& stage) {
  const OtherProcess other("imported");
  cudaIpcMemHandle_t handle = {};
  other.Receive(&handle, sizeof(handle));
  void* memory = nullptr;
  CHECK(cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess));
  return OtherProcessSeesWord(stage, other, static_cast<uint32_t*>(memory));
}

bool ExportedMapping(Stage& stage) {
  const Mapping mapping = Map(stage, CU_MEM_LOCATION_TYPE_DEVICE);
  const OtherProcess other("shareable", Export(stage, mapping));
  return OtherProcessSeesWord(stage, other, mapping.words());
}

// ---- Nobody here could look: that a wait happens

bool WaitsAtLeast(Stage& stage) {
  stage.KeepBusy();
  stage.Free();
  return stage.Waited();
}

bool DmaBuffer(Stage& stage) {
  const CUdeviceptr memory = Address(Allocate<char>(2 * kMiB));
  int file = -1;
  if (DRIVER(stage, cuMemGetHandleForAddressRange)(
          &file, memory, 2 * kMiB, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0) != CUDA_SUCCESS) {
    stage.Skip("no dma-buf");
  }
  return WaitsAtLeast(stage);
}

bool StickyAttribute(Stage& stage) {
  const unsigned on = 1;
  MUST(DRIVER(stage, cuPointerSetAttribute)(&on, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
                                            Address(stage.word)));
  return WaitsAtLeast(stage);
}

}  // namespace

std::vector<Scenario> VisibleMemory() {
  constexpr auto kWrong = WithoutWait::kWrong;
  return {
      {"managed memory", kWrong, "visible_managed", &Managed},
      {"managed variable of a module", kWrong, "visible_managed", &ManagedVariableOfModule},
      {"managed variable of a library", kWrong, "visible_managed", &ManagedVariableOfLibrary},
      {"mapped host memory", kWrong, "visible_mapped", &Mapped},
      {"mapped by registration", kWrong, "visible_mapped", &MappedByRegistration},
      {"device pointer of host memory", kWrong, "visible_mapped", &MappedDevicePointer},
      {"device pointer as an attribute", kWrong, "visible_mapped", &MappedDevicePointerAsAttribute},
      {"pageable memory", kWrong, "visible_pageable_access", &Pageable},
      {"memory located on the host", kWrong, "", &LocatedOnHost},
      {"memory pool located on the host", kWrong, "", &PoolOnHost},
      {"memory exported by IPC", kWrong, "visible_exports", &Exported},
      {"memory imported by IPC", kWrong, "visible_imports", &Imported},
      {"mapping exported as a file", kWrong, "visible_exports", &ExportedMapping},
      {"block exported as a dma-buf", kWrong, "visible_exports", &DmaBuffer},
      {"sticky attribute of a pointer", kWrong, "visible_attributes", &StickyAttribute},
  };
}

}  // namespace cmp::gpu
