// The interposed entry points of the driver by which the host, other processes or other devices
// come to share memory with kernels. They are the real calls, noted (visible_memory.h); those that
// end page-locked memory wait by themselves (measured).
#include "core/contexts/device_links.h"
#include "shim/loaded/nvidia_libraries.h"
#include "shim/lookup/entry_points.h"
#include "shim/lookup/lookup.h"
#include "shim/service/kept_pools.h"
#include "shim/service/service.h"
#include "shim/shake/shake.h"
#include "shim/visible/copied_memory.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/owed.h"

using cmp::Visible;

namespace {

cmp::Devices DeviceOfCurrent() {
  const cmp::Driver* driver = cmp::LoadedDriver();
  CUdevice device = -1;
  const bool known = driver != nullptr && driver->context_device(&device) == CUDA_SUCCESS;
  return known ? cmp::DeviceBit(device) : cmp::kAnyDevice;
}
cmp::Devices DeviceOfContext(CUcontext context) {
  const cmp::Driver* driver = cmp::LoadedDriver();
  if (context == nullptr || driver == nullptr || driver->push_current(context) != CUDA_SUCCESS) {
    return cmp::kAnyDevice;
  }
  const cmp::Devices device = DeviceOfCurrent();
  CUcontext popped = nullptr;
  driver->pop_current(&popped);
  return device;
}

uintptr_t AddressOf(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

// Page-locked memory: kernels use it if it was made for them (a flag of both calls), or once its
// device pointer was asked for.
static_assert(CU_MEMHOSTALLOC_DEVICEMAP == CU_MEMHOSTREGISTER_DEVICEMAP);
CUresult AddPageLocked(CUresult status, const void* pointer, size_t bytes, unsigned flags,
                       const void* caller) {
  const bool mapped = (flags & CU_MEMHOSTALLOC_DEVICEMAP) != 0;
  if (status == CUDA_SUCCESS) {
    cmp::AddRange(mapped ? Visible::kMapped : Visible::kCopies, AddressOf(pointer), bytes, caller);
  }
  return status;
}

// A variable of a module: of managed memory, too, as it may be (CUDA C, __managed__).
CUresult AfterGetGlobal(CUresult status, const CUdeviceptr* address, const void* caller) {
  const cmp::DriverCalls* real = cmp::RealDriver();
  unsigned managed = 0;
  if (status == CUDA_SUCCESS && address != nullptr && real->cuPointerGetAttribute != nullptr &&
      real->cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, *address) ==
          CUDA_SUCCESS &&
      managed != 0) {
    cmp::NoteShared(Visible::kManaged, caller);
  }
  return status;
}

void NoteAccesses(const void* accesses, size_t count, const void* caller) {
  const auto* access = static_cast<const CUmemAccessDesc*>(accesses);
  for (size_t i = 0; access != nullptr && i < count; ++i) {
    cmp::NotePlace(0, access[i].location, caller);
  }
}

}  // namespace

// ---- Page-locked memory

CUresult Driver_cuMemHostRegister(void* pointer, size_t bytes, unsigned flags) {
  CMP_REAL(cuMemHostRegister);
  const CUresult status = real->cuMemHostRegister(pointer, bytes, flags);
  return AddPageLocked(status, pointer, bytes, flags, CMP_CALLER);
}

CUresult Driver_cuMemHostRegister_v2(void* pointer, size_t bytes, unsigned flags) {
  CMP_REAL(cuMemHostRegister_v2);
  const CUresult status = real->cuMemHostRegister_v2(pointer, bytes, flags);
  return AddPageLocked(status, pointer, bytes, flags, CMP_CALLER);
}

CUresult Driver_cuMemHostUnregister(void* pointer) {
  CMP_REAL(cuMemHostUnregister);
  cmp::ShakeWait(cmp::kSeveralStreams);
  const cmp::EndOfRange end(AddressOf(pointer));
  return end.Done(real->cuMemHostUnregister(pointer));
}

// ---- Managed variables, and memory that lies with the host

CUresult Driver_cuModuleGetGlobal_v2(CUdeviceptr* address, size_t* bytes, CUmodule module,
                                     const char* name) {
  CMP_REAL(cuModuleGetGlobal_v2);
  const CUresult status = real->cuModuleGetGlobal_v2(address, bytes, module, name);
  return AfterGetGlobal(status, address, CMP_CALLER);
}

CUresult Driver_cuLibraryGetGlobal(CUdeviceptr* address, size_t* bytes, void* library,
                                   const char* name) {
  CMP_REAL(cuLibraryGetGlobal);
  const CUresult status = real->cuLibraryGetGlobal(address, bytes, library, name);
  return AfterGetGlobal(status, address, CMP_CALLER);
}

CUresult Driver_cuLibraryGetManaged(CUdeviceptr* address, size_t* bytes, void* library,
                                    const char* name) {
  CMP_REAL(cuLibraryGetManaged);
  const CUresult status = real->cuLibraryGetManaged(address, bytes, library, name);
  if (status == CUDA_SUCCESS) cmp::NoteShared(Visible::kManaged, CMP_CALLER);
  return status;
}

CUresult Driver_cuMemPoolCreate(void* pool, const void* properties) {
  CMP_REAL(cuMemPoolCreate);
  if (properties != nullptr) {
    const auto* of_pool = static_cast<const CUmemPoolProps*>(properties);
    cmp::NotePlace(static_cast<int>(of_pool->allocType), of_pool->location, CMP_CALLER);
  }
  const CUresult status = real->cuMemPoolCreate(pool, properties);
  if (status == CUDA_SUCCESS) {
    cmp::PoolMade(*static_cast<CUmemoryPool*>(pool),
                  *static_cast<const CUmemPoolProps*>(properties));
  }
  return status;
}

CUresult Driver_cuMemGetDefaultMemPool(void* pool, void* location, int type) {
  CMP_REAL(cuMemGetDefaultMemPool);
  if (location != nullptr) {
    cmp::NotePlace(type, *static_cast<const CUmemLocation*>(location), CMP_CALLER);
  }
  return real->cuMemGetDefaultMemPool(pool, location, type);
}

CUresult Driver_cuMemGetMemPool(void* pool, void* location, int type) {
  CMP_REAL(cuMemGetMemPool);
  if (location != nullptr) {
    cmp::NotePlace(type, *static_cast<const CUmemLocation*>(location), CMP_CALLER);
  }
  return real->cuMemGetMemPool(pool, location, type);
}

// Takes access away, too, as the next one does.
CUresult Driver_cuMemPoolSetAccess(CUmemoryPool pool, const void* accesses, size_t count) {
  CMP_REAL(cuMemPoolSetAccess);
  NoteAccesses(accesses, count, CMP_CALLER);
  cmp::PayBeforeDestruction();
  return real->cuMemPoolSetAccess(pool, accesses, count);
}

CUresult Driver_cuMemSetAccess(CUdeviceptr pointer, size_t bytes, const void* accesses,
                               size_t count) {
  CMP_REAL(cuMemSetAccess);
  NoteAccesses(accesses, count, CMP_CALLER);
  cmp::PayBeforeDestruction();
  return real->cuMemSetAccess(pointer, bytes, accesses, count);
}

// ---- Exports and imports. `arguments` are those of the entry point, in parentheses.

#define CMP_NOTE_AND_CALL(what, name, arguments) \
  CMP_REAL(name);                                \
  cmp::NoteShared(what, CMP_CALLER);             \
  return real->name arguments

CUresult Driver_cuIpcGetEventHandle(CUipcEventHandle* handle, CUevent event) {
  CMP_NOTE_AND_CALL(Visible::kExports, cuIpcGetEventHandle, (handle, event));
}

CUresult Driver_cuMemExportToShareableHandle(void* shareable, unsigned long long handle, int type,
                                             unsigned long long flags) {
  CMP_NOTE_AND_CALL(Visible::kExports, cuMemExportToShareableHandle,
                    (shareable, handle, type, flags));
}

CUresult Driver_cuMemPoolExportToShareableHandle(void* shareable, CUmemoryPool pool, int type,
                                                 unsigned long long flags) {
  CMP_NOTE_AND_CALL(Visible::kExports, cuMemPoolExportToShareableHandle,
                    (shareable, pool, type, flags));
}

CUresult Driver_cuMemPoolExportPointer(void* shared, CUdeviceptr pointer) {
  CMP_NOTE_AND_CALL(Visible::kExports, cuMemPoolExportPointer, (shared, pointer));
}

// May enable peer access with the memory's device (cuda.h: "as if the user called
// cuCtxEnablePeerAccess").
static CUresult LinkImported(CUresult status, const CUdeviceptr* pointer) {
  if (status == CUDA_SUCCESS) {
    cmp::g_device_links.Link(DeviceOfCurrent() | cmp::DeviceOf(*pointer));
  }
  return status;
}

CUresult Driver_cuIpcOpenMemHandle(CUdeviceptr* pointer, CUipcMemHandle handle, unsigned flags) {
  CMP_REAL(cuIpcOpenMemHandle);
  cmp::NoteShared(Visible::kImports, CMP_CALLER);
  return LinkImported(real->cuIpcOpenMemHandle(pointer, handle, flags), pointer);
}

CUresult Driver_cuIpcOpenMemHandle_v2(CUdeviceptr* pointer, CUipcMemHandle handle, unsigned flags) {
  CMP_REAL(cuIpcOpenMemHandle_v2);
  cmp::NoteShared(Visible::kImports, CMP_CALLER);
  return LinkImported(real->cuIpcOpenMemHandle_v2(pointer, handle, flags), pointer);
}

CUresult Driver_cuIpcOpenEventHandle(CUevent* event, CUipcEventHandle handle) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuIpcOpenEventHandle, (event, handle));
}

CUresult Driver_cuMemImportFromShareableHandle(void* handle, void* shareable, int type) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuMemImportFromShareableHandle, (handle, shareable, type));
}

CUresult Driver_cuMemPoolImportFromShareableHandle(void* pool, void* shareable, int type,
                                                   unsigned long long flags) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuMemPoolImportFromShareableHandle,
                    (pool, shareable, type, flags));
}

CUresult Driver_cuMemPoolImportPointer(CUdeviceptr* pointer, CUmemoryPool pool, void* shared) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuMemPoolImportPointer, (pointer, pool, shared));
}

CUresult Driver_cuImportExternalMemory(void* memory, const void* descriptor) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuImportExternalMemory, (memory, descriptor));
}

CUresult Driver_cuImportExternalSemaphore(void* semaphore, const void* descriptor) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuImportExternalSemaphore, (semaphore, descriptor));
}

CUresult Driver_cuLogicalEndpointExport(void* handle, unsigned endpoint, int type) {
  CMP_NOTE_AND_CALL(Visible::kExports, cuLogicalEndpointExport, (handle, endpoint, type));
}

CUresult Driver_cuLogicalEndpointImport(unsigned endpoint, const void* handle, int type) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuLogicalEndpointImport, (endpoint, handle, type));
}

CUresult Driver_cuGraphicsGLRegisterBuffer(void* resource, unsigned buffer, unsigned flags) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuGraphicsGLRegisterBuffer, (resource, buffer, flags));
}

CUresult Driver_cuGraphicsGLRegisterImage(void* resource, unsigned image, unsigned target,
                                          unsigned flags) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuGraphicsGLRegisterImage, (resource, image, target, flags));
}

CUresult Driver_cuGLRegisterBufferObject(unsigned buffer) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuGLRegisterBufferObject, (buffer));
}

CUresult Driver_cuGraphicsEGLRegisterImage(void* resource, void* image, unsigned flags) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuGraphicsEGLRegisterImage, (resource, image, flags));
}

CUresult Driver_cuGraphicsVDPAURegisterVideoSurface(void* resource, unsigned surface,
                                                    unsigned flags) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuGraphicsVDPAURegisterVideoSurface,
                    (resource, surface, flags));
}

CUresult Driver_cuGraphicsVDPAURegisterOutputSurface(void* resource, unsigned surface,
                                                     unsigned flags) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuGraphicsVDPAURegisterOutputSurface,
                    (resource, surface, flags));
}

CUresult Driver_cuEGLStreamConsumerConnect(void* connection, void* stream) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuEGLStreamConsumerConnect, (connection, stream));
}

CUresult Driver_cuEGLStreamConsumerConnectWithFlags(void* connection, void* stream,
                                                    unsigned flags) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuEGLStreamConsumerConnectWithFlags,
                    (connection, stream, flags));
}

CUresult Driver_cuEGLStreamProducerConnect(void* connection, void* stream, int width, int height) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuEGLStreamProducerConnect,
                    (connection, stream, width, height));
}

CUresult Driver_cuEventCreateFromEGLSync(CUevent* event, void* sync, unsigned flags) {
  CMP_NOTE_AND_CALL(Visible::kImports, cuEventCreateFromEGLSync, (event, sync, flags));
}

// ---- Devices of this process that use each other's memory

CUresult Driver_cuCtxEnablePeerAccess(CUcontext peer, unsigned flags) {
  CMP_REAL(cuCtxEnablePeerAccess);
  cmp::g_device_links.Link(DeviceOfCurrent() | DeviceOfContext(peer));  // before anybody uses it
  return real->cuCtxEnablePeerAccess(peer, flags);
}

// Of which devices is said later.
CUresult Driver_cuMulticastCreate(void* handle, const void* properties) {
  CMP_REAL(cuMulticastCreate);
  cmp::g_device_links.Link(cmp::kAnyDevice);
  return real->cuMulticastCreate(handle, properties);
}

CUresult Driver_cuLogicalEndpointCreate(unsigned endpoint, const void* properties) {
  CMP_REAL(cuLogicalEndpointCreate);
  cmp::g_device_links.Link(cmp::kAnyDevice);
  return real->cuLogicalEndpointCreate(endpoint, properties);
}
