#include "core/pool/fill.h"

namespace cmp {

void FillNewBlock(Pool& pool, const Driver& driver, ContextPool& context, DeviceAddress address,
                  size_t bytes) {
  if (pool.options().fill < 0) return;
  ThreadCache* cache = pool.CacheFor(context);
  if (cache == nullptr) return;
  const RelaxedCaptureMode relaxed(driver);
  if (cache->fill_stream == nullptr) {
    CUstream stream = nullptr;
    if (driver.stream_create(&stream, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS) return;
    cache->fill_stream = stream;
  }
  auto* stream = static_cast<CUstream>(cache->fill_stream);
  const auto value = static_cast<unsigned char>(pool.options().fill);
  if (driver.memset_async(address, value, bytes, stream) == CUDA_SUCCESS) {
    driver.stream_synchronize(stream);
  }
}

}  // namespace cmp
