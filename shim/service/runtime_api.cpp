#include "shim/service/runtime_api.h"

#include "shim/lookup/lookup.h"

namespace cmp {

int RuntimeApi::Allocate(const void* self, size_t bytes, bool last_resort, DeviceAddress* address) {
  const RuntimeApi& api = Of(self);
  const RuntimeCalls* real = api.real();
  const bool pending_error = !last_resort && !api.left_error_ && real != nullptr &&
                             real->cudaPeekAtLastError() != cudaSuccess;
  if (real == nullptr || pending_error) {
    CUdeviceptr pointer = 0;
    const CUresult status = api.driver_->mem_alloc(&pointer, bytes);
    *address = pointer;
    // The program sees any failure but this one, which releases may mend: then the real call's own.
    if (real == nullptr || status == CUDA_SUCCESS || status == CUDA_ERROR_OUT_OF_MEMORY) {
      return status;
    }
  }
  const InsideReal inside;
  void* pointer = nullptr;
  const cudaError_t status = real->cudaMalloc(&pointer, bytes);
  *address = reinterpret_cast<DeviceAddress>(pointer);
  if (status != cudaSuccess) api.left_error_ = true;
  return status;
}

void RuntimeApi::Recovered(const void* self) {
  const RuntimeApi& api = Of(self);
  if (!api.left_error_) return;
  api.real()->cudaGetLastError();
  api.left_error_ = false;
}

int RuntimeApi::Release(const void* self, DeviceAddress address) {
  const RuntimeApi& api = Of(self);
  if (api.real() == nullptr) return api.driver_->mem_free(address);
  const InsideReal inside;
  return api.real()->cudaFree(reinterpret_cast<void*>(address));
}

bool RuntimeApi::MemoryInfo(const void* self, size_t* free, size_t* total) {
  return Of(self).driver_->mem_get_info(free, total) == CUDA_SUCCESS;
}

}  // namespace cmp
