#include "core/cuda_memory_pool.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

#include "core/library/pool_face.h"

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

void ReportWrongFree(const void* pointer) {
  char line[120];
  const int length =
      snprintf(line, sizeof(line),
               "cmp: Free(%p): not a block in use (foreign, interior or freed before)\n", pointer);
  if (write(STDERR_FILENO, line, static_cast<size_t>(length)) < 0) return;
}

}  // namespace

constinit CudaMemoryPool CudaMemoryPool::instance_;

CudaMemoryPool& CudaMemoryPool::Instance() { return instance_; }

void* CudaMemoryPool::Alloc(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  void* pointer = nullptr;
  const int status = Face().alloc(bytes, &pointer);
  if (status == cmp::kSuccess) return pointer;
  t_last_status = status;
  return nullptr;
}

bool CudaMemoryPool::Free(void* pointer, std::size_t) {
  if (pointer == nullptr || Face().free(pointer)) return true;
  ReportWrongFree(pointer);
  return false;
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
