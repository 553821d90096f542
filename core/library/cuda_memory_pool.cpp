#include "core/cuda_memory_pool.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

#include "core/library/pool_face.h"
#include "core/stream_allocator.h"

namespace {

thread_local constinit int t_last_status = 0;

// The preload's pool if it is there, else this library's own. Asked once; both answers are static.
const cmp::PoolFace& Face() {
  static constinit std::atomic<const cmp::PoolFace*> g_face{nullptr};
  const cmp::PoolFace* face = g_face.load(std::memory_order_acquire);
  if (face != nullptr) return *face;
  if (void* symbol = dlsym(RTLD_DEFAULT, cmp::kPreloadPoolSymbol)) {
    face = reinterpret_cast<const cmp::PoolFace* (*)()>(symbol)();
  }
  if (face == nullptr || face->version != cmp::kPoolFaceVersion) face = cmp::LibraryPoolFace();
  g_face.store(face, std::memory_order_release);
  return *face;
}

void* ResultOf(int status, void* pointer) {
  if (status == cmp::kSuccess) return pointer;
  t_last_status = status;
  return nullptr;
}

// Has the free that answered `status` succeeded? If not, says so.
bool IsFreed(int status, const void* pointer) {
  if (status == cmp::kSuccess) [[likely]]
    return true;
  char line[120];
  const int length =
      status == cmp::kInvalidValue
          ? snprintf(line, sizeof(line),
                     "cmp: Free(%p): not a block in use (foreign, interior or freed before)\n",
                     pointer)
          : snprintf(line, sizeof(line),
                     "cmp: Free(%p): still in use, CUDA refused (CUresult %d)\n", pointer, status);
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line, static_cast<size_t>(length));
  return false;
}

}  // namespace

constinit CudaMemoryPool CudaMemoryPool::instance_;

CudaMemoryPool& CudaMemoryPool::Instance() { return instance_; }

void* CudaMemoryPool::Alloc(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  void* pointer = nullptr;
  const int status = Face().alloc(bytes, &pointer);
  return ResultOf(status, pointer);
}

bool CudaMemoryPool::Free(void* pointer, std::size_t) {
  return pointer == nullptr || IsFreed(Face().free(pointer), pointer);
}

bool CudaMemoryPool::FreeWithoutWait(void* pointer) {
  return pointer == nullptr || IsFreed(Face().free_without_wait(pointer), pointer);
}

std::size_t CudaMemoryPool::ReleaseAll() { return Face().release_all(); }

std::size_t CudaMemoryPool::ReleaseThreadCaches() { return Face().release_thread_caches(); }

int CudaMemoryPool::last_status() const { return t_last_status; }

CudaMemoryPoolStatistics CudaMemoryPool::Statistics() const {
  CudaMemoryPoolStatistics statistics = {};
  Face().statistics(&statistics);
  return statistics;
}

CudaMemoryPoolStatistics CudaMemoryPool::Statistics(unsigned tier) const {
  CudaMemoryPoolStatistics statistics = {};
  if (tier < tier_count()) Face().tier_statistics(tier, &statistics);
  return statistics;
}

unsigned CudaMemoryPool::tier_count() const { return Face().tier_count(); }

std::size_t CudaMemoryPool::tier_bytes(unsigned tier) const { return Face().tier_bytes(tier); }

void* cmp_stream_alloc(ssize_t bytes, int device, CUstream_st*) {
  if (bytes <= 0) return nullptr;
  void* pointer = nullptr;
  const int status = Face().alloc_on(device, static_cast<size_t>(bytes), &pointer);
  if (status != cmp::kSuccess) {
    char line[120];
    const int length =
        snprintf(line, sizeof(line), "cmp: no memory for %zd bytes on device %d (CUresult %d)\n",
                 bytes, device, status);
    [[maybe_unused]] const ssize_t written =
        write(STDERR_FILENO, line, static_cast<size_t>(length));
  }
  return ResultOf(status, pointer);
}

void cmp_stream_free(void* pointer, ssize_t, int, CUstream_st*) {
  CudaMemoryPool::Instance().FreeWithoutWait(pointer);
}
