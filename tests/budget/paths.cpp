// The paths whose instructions are counted: each function named path_... is one path and makes one
// call. It is called once, after everything around it has reached its steady state; the counter
// (budget.py) starts when the function is entered and stops at path_done. paths PART runs one part
// of them: what needs an environment of its own.
#define __CUDA_API_VERSION_INTERNAL  // cuda.h declares every ABI version under its own name
#include <cuda.h>

#include <initializer_list>
#include <thread>

#include "core/cuda_memory_pool.h"
#include "tests/programs/program.h"

namespace {

constexpr size_t kBytes = 5000;  // beyond the first tiers, whose number is simpler to find
constexpr size_t kLargeBytes = size_t{8} << 20;
constexpr size_t kGlobalBytes = size_t{128} << 20;  // more than a thread keeps
void* g_pointer = nullptr;
void* g_page_locked = nullptr;
void* g_other_pointer = nullptr;
CUdeviceptr g_in_order = 0;
CUdeviceptr g_address = 0;
size_t g_pitch = 0;
cudaPitchedPtr g_pitched = {};
size_t g_free_bytes = 0;
size_t g_all_bytes = 0;
cudaPointerAttributes g_attributes = {};
CUstream g_stream = nullptr;
CUstream g_other_stream = nullptr;
CUevent g_event = nullptr;
char g_host[64];

SimWork g_work = {};
const SimWork* g_work_pointer = &g_work;
void* g_arguments[] = {&g_work_pointer};

int Launch(CUstream stream) {
  return cuLaunchKernel(simFunction(), 1, 1, 1, 1, 1, 1, 0, stream, g_arguments, nullptr);
}

int LaunchOnOwnStream() {
  return cuLaunchKernel_ptsz(simFunction(), 1, 1, 1, 1, 1, 1, 0, nullptr, g_arguments, nullptr);
}

void MustBe0(int status, const char* what) {
  program::Must(static_cast<cudaError_t>(status), what);
}
#define MUST_BE_0(call) MustBe0(call, #call)

}  // namespace

// The calls' results are looked at outside of the paths.
int g_status = 0;

extern "C" __attribute__((noinline, visibility("default"))) void path_done() {
  asm volatile("");  // so that calls of it are made
}

#define PATH(name) extern "C" __attribute__((noinline, visibility("default"))) void path_##name()

PATH(cudaMalloc_hit) { g_status = cudaMalloc(&g_pointer, kBytes); }
PATH(cudaFree_ready) { g_status = cudaFree(g_pointer); }
PATH(cudaMalloc_large_hit) { g_status = cudaMalloc(&g_pointer, kLargeBytes); }
PATH(cudaFree_large_ready) { g_status = cudaFree(g_pointer); }
PATH(cudaMalloc_global_hit) { g_status = cudaMalloc(&g_pointer, kGlobalBytes); }
PATH(cudaFree_global_ready) { g_status = cudaFree(g_pointer); }
PATH(cuMemAlloc_v2_hit) { g_status = cuMemAlloc_v2(&g_address, kBytes); }
PATH(cuMemFree_v2_ready) { g_status = cuMemFree_v2(g_address); }
PATH(cudaMallocPitch_hit) { g_status = cudaMallocPitch(&g_pointer, &g_pitch, 1000, 5); }
PATH(cudaMalloc3D_hit) { g_status = cudaMalloc3D(&g_pitched, {1000, 5, 1}); }
PATH(cuMemAllocPitch_v2_hit) { g_status = cuMemAllocPitch_v2(&g_address, &g_pitch, 1000, 5, 4); }

PATH(cudaMallocHost_hit) { g_status = cudaMallocHost(&g_pointer, kBytes); }
PATH(cudaFreeHost_ready) { g_status = cudaFreeHost(g_pointer); }
PATH(cuMemHostAlloc_hit) { g_status = cuMemHostAlloc(&g_pointer, kBytes, 0); }
PATH(cuMemFreeHost_ready) { g_status = cuMemFreeHost(g_pointer); }
PATH(cudaMallocHost_large_hit) { g_status = cudaMallocHost(&g_pointer, kGlobalBytes); }
PATH(cudaFreeHost_large_ready) { g_status = cudaFreeHost(g_pointer); }

// A thread that lives for ten pairs, where others have come and gone before.
PATH(thread_of_ten_pairs) {
  std::thread([] {
    for (int i = 0; i < 10; ++i) {
      void* pointer = nullptr;
      g_status = cudaMalloc(&pointer, kBytes) | cudaFree(pointer);
    }
  }).join();
}

PATH(cudaMemGetInfo) { g_status = cudaMemGetInfo(&g_free_bytes, &g_all_bytes); }
PATH(cudaPointerGetAttributes) { g_status = cudaPointerGetAttributes(&g_attributes, g_pointer); }
PATH(cudaStreamSynchronize_idle) { g_status = cudaStreamSynchronize(g_stream); }
PATH(cudaStreamSynchronize_busy) { g_status = cudaStreamSynchronize(g_stream); }

PATH(cudaFree_none_retired) { g_status = cudaFree(g_pointer); }
PATH(cudaFree_order_fence_shared) { g_status = cudaFree(g_pointer); }
PATH(cudaFree_order_fence_recorded) { g_status = cudaFree(g_pointer); }
PATH(cudaFree_auto_fence_recorded) { g_status = cudaFree(g_pointer); }
PATH(cudaFree_auto_fence_shared) { g_status = cudaFree(g_pointer); }
PATH(cudaMemcpyAsync_page_locked) {
  g_status = cudaMemcpyAsync(g_page_locked, g_pointer, 64, cudaMemcpyDeviceToHost, g_stream);
}

PATH(cuEventQuery_ready) { g_status = cuEventQuery(g_event); }
// It has asked before: nothing was skipped since.
PATH(cuEventQuery_not_ready) {
  g_status = cuEventQuery(g_event) == CUDA_ERROR_NOT_READY ? 0 : CUDA_ERROR_UNKNOWN;
}

PATH(cuLaunchKernel_quiet) { g_status = Launch(g_stream); }
PATH(cuLaunchKernel_quiet_several_streams) { g_status = Launch(g_stream); }
PATH(cuLaunchKernel_quiet_legacy_stream) { g_status = Launch(nullptr); }
PATH(cuLaunchKernel_ptsz_quiet) { g_status = LaunchOnOwnStream(); }
PATH(cudaMemcpyAsync_quiet) {
  g_status = cudaMemcpyAsync(g_pointer, g_host, sizeof(g_host), cudaMemcpyHostToDevice, g_stream);
}
PATH(cuMemcpyHtoD_v2_quiet) { g_status = cuMemcpyHtoD_v2(g_address, g_host, sizeof(g_host)); }
PATH(cuMemAllocAsync_kept) { g_status = cuMemAllocAsync(&g_in_order, kBytes, g_stream); }
PATH(cuMemFreeAsync_kept) { g_status = cuMemFreeAsync(g_in_order, g_stream); }
PATH(cuMemsetD8Async_quiet) { g_status = cuMemsetD8Async(g_address, 0, 64, g_stream); }
PATH(cuEventRecord_quiet) { g_status = cuEventRecord(g_event, g_stream); }
PATH(cuStreamWaitEvent) { g_status = cuStreamWaitEvent(g_stream, g_event, 0); }
PATH(cuLaunchKernel_first_after_fence) { g_status = Launch(g_stream); }
PATH(cuLaunchKernel_pays_order) { g_status = Launch(g_other_stream); }

PATH(cudaMalloc_hit_other_context) { g_status = cudaMalloc(&g_other_pointer, kBytes); }
PATH(cudaFree_ready_other_context) { g_status = cudaFree(g_other_pointer); }
PATH(cuLaunchKernel_quiet_two_contexts) { g_status = Launch(g_stream); }

PATH(CudaMemoryPool_Alloc_hit) { g_pointer = CudaMemoryPool::Instance().Alloc(kBytes); }
PATH(CudaMemoryPool_Free) { g_status = CudaMemoryPool::Instance().Free(g_pointer, kBytes) ? 0 : 1; }
PATH(CudaMemoryPool_Free_none) {
  g_status = CudaMemoryPool::Instance().Free(g_pointer, kBytes) ? 0 : 1;
}

namespace {

#define RUN(path)             \
  do {                        \
    path();                   \
    path_done();              \
    MustBe0(g_status, #path); \
  } while (false)

// Blocks on the thread's shelf, more than the paths take from it, and far from a full batch.
void FillShelf() {
  void* pointers[24] = {};
  for (void*& pointer : pointers) MUST(cudaMalloc(&pointer, kBytes));
  MUST(cudaDeviceSynchronize());
  for (void* pointer : pointers) MUST(cudaFree(pointer));
}

void PitchedHits() {
  void* pointers[24] = {};
  for (int round = 0; round < 2; ++round) {  // the first of a width is the driver's own
    for (void*& pointer : pointers) MUST(cudaMallocPitch(&pointer, &g_pitch, 1000, 5));
    MUST_BE_0(cuMemAllocPitch_v2(&g_address, &g_pitch, 1000, 5, 4));
    MUST_BE_0(cuMemFree_v2(g_address));
    for (void* pointer : pointers) MUST(cudaFree(pointer));
  }
  RUN(path_cudaMallocPitch_hit);
  RUN(path_cudaMalloc3D_hit);
  RUN(path_cuMemAllocPitch_v2_hit);
}

void MakeStreams() {
  g_stream = program::NonBlockingStream();
  g_other_stream = program::NonBlockingStream();
}

void LargeHits() {
  for (const size_t bytes : {kLargeBytes, kGlobalBytes}) {
    void* pointers[4] = {};
    for (void*& pointer : pointers) MUST(cudaMalloc(&pointer, bytes));
    for (void* pointer : pointers) MUST(cudaFree(pointer));
  }
  RUN(path_cudaMalloc_large_hit);
  RUN(path_cudaFree_large_ready);
  RUN(path_cudaMalloc_global_hit);
  RUN(path_cudaFree_global_ready);
}

// CMP_HOST=on
void PageLocked() {
  for (const size_t bytes : {kBytes, kGlobalBytes}) {
    void* pointers[24] = {};
    const size_t count = bytes == kBytes ? 24 : 1;
    for (int round = 0; round < 3; ++round) {
      for (size_t i = 0; i < count; ++i) MUST(cudaMallocHost(&pointers[i], bytes));
      for (size_t i = 0; i < count; ++i) MUST(cudaFreeHost(pointers[i]));
    }
  }
  RUN(path_cudaMallocHost_hit);
  RUN(path_cudaFreeHost_ready);
  RUN(path_cuMemHostAlloc_hit);
  RUN(path_cuMemFreeHost_ready);
  RUN(path_cudaMallocHost_large_hit);
  RUN(path_cudaFreeHost_large_ready);
}

void Threads() {
  FillShelf();
  for (int i = 0; i < 3; ++i) path_thread_of_ten_pairs();
  RUN(path_thread_of_ten_pairs);
}

void Questions() {
  MakeStreams();
  FillShelf();
  MUST(cudaMalloc(&g_pointer, kBytes));
  for (int i = 0; i < 2; ++i) {
    MUST(cudaMemGetInfo(&g_free_bytes, &g_all_bytes));
    MUST(cudaPointerGetAttributes(&g_attributes, g_pointer));
    MUST(cudaStreamSynchronize(g_stream));
  }
  RUN(path_cudaMemGetInfo);
  RUN(path_cudaPointerGetAttributes);
  RUN(path_cudaStreamSynchronize_idle);
  MUST_BE_0(Launch(g_stream));
  RUN(path_cudaStreamSynchronize_busy);
}

void Hits() {
  FillShelf();
  RUN(path_cudaMalloc_hit);
  RUN(path_cudaFree_ready);
  RUN(path_cuMemAlloc_v2_hit);
  RUN(path_cuMemFree_v2_ready);
  PitchedHits();
  LargeHits();
}

void FreesUnderNone() {
  MakeStreams();
  FillShelf();
  void* earlier = program::Allocate(kBytes);
  MUST(cudaMalloc(&g_pointer, kBytes));
  g_work.duration_ns = 1'000'000'000;
  MUST_BE_0(Launch(g_stream));
  MUST(cudaFree(earlier));
  RUN(path_cudaFree_none_retired);
}

// Under `auto` nothing that the host could see is pending, unlike before.
void FreesUnderOrder(bool is_auto) {
  MakeStreams();
  FillShelf();
  g_work.duration_ns = 1'000'000'000;
  void* pointers[6] = {};
  for (void*& pointer : pointers) MUST(cudaMalloc(&pointer, kBytes));
  // Fences that pass, whose events are then there for later ones.
  for (int i = 0; i < 3; ++i) {
    MUST_BE_0(Launch(g_stream));
    MUST(cudaFree(pointers[i]));
  }
  MUST(cudaDeviceSynchronize());
  MUST_BE_0(Launch(g_stream));
  MUST(cudaFree(pointers[3]));
  MUST_BE_0(Launch(g_stream));
  if (is_auto) {
    g_pointer = pointers[4];
    RUN(path_cudaFree_auto_fence_recorded);
    g_pointer = pointers[5];
    RUN(path_cudaFree_auto_fence_shared);
    MUST(cudaMallocHost(&g_page_locked, 64));
    MUST(cudaMalloc(&g_pointer, kBytes));
    RUN(path_cudaMemcpyAsync_page_locked);
    MUST(cudaDeviceSynchronize());
    MUST_BE_0(cuEventCreate(&g_event, CU_EVENT_DISABLE_TIMING));
    MUST_BE_0(cuEventQuery(g_event));
    RUN(path_cuEventQuery_ready);
    MUST_BE_0(Launch(g_stream));
    MUST_BE_0(cuEventRecord(g_event, g_stream));
    if (cuEventQuery(g_event) != CUDA_ERROR_NOT_READY) MUST_BE_0(CUDA_ERROR_UNKNOWN);
    RUN(path_cuEventQuery_not_ready);
    return;
  }
  g_pointer = pointers[4];
  RUN(path_cudaFree_order_fence_recorded);
  g_pointer = pointers[5];
  RUN(path_cudaFree_order_fence_shared);
}

// What a submission costs right after a free that recorded a fence.
void SlowSubmissions() {
  g_work.duration_ns = 1'000'000'000;
  void* earlier[4] = {};
  for (void*& pointer : earlier) MUST(cudaMalloc(&pointer, kBytes));
  MUST_BE_0(Launch(g_stream));
  MUST(cudaFree(earlier[0]));
  RUN(path_cuLaunchKernel_first_after_fence);
  MUST(cudaDeviceSynchronize());
  for (void* pointer : {earlier[1], earlier[2]}) {
    MUST_BE_0(Launch(g_stream));
    MUST(cudaFree(pointer));
    MUST_BE_0(Launch(g_other_stream));
    MUST(cudaDeviceSynchronize());
  }
  MUST_BE_0(Launch(g_stream));
  MUST(cudaFree(earlier[3]));
  RUN(path_cuLaunchKernel_pays_order);
}

void QuietSubmissions() {
  MUST(cudaMalloc(&g_pointer, kBytes));
  MUST_BE_0(cuMemAlloc_v2(&g_address, kBytes));
  MUST_BE_0(cuEventCreate(&g_event, 0));
  // A wait for all, then one stream alone: a stream is quiet once it has work.
  MUST(cudaDeviceSynchronize());
  MUST_BE_0(Launch(g_stream));
  RUN(path_cuLaunchKernel_quiet);
  MUST(cudaMemcpyAsync(g_pointer, g_host, 64, cudaMemcpyHostToDevice, g_stream));
  RUN(path_cudaMemcpyAsync_quiet);
  RUN(path_cuMemsetD8Async_quiet);
  RUN(path_cuEventRecord_quiet);
  for (int i = 0; i < 2; ++i) {  // the first is looked at
    MUST_BE_0(cuMemAllocAsync(&g_in_order, kBytes, g_stream));
    MUST_BE_0(cuMemFreeAsync(g_in_order, g_stream));
  }
  RUN(path_cuMemAllocAsync_kept);
  RUN(path_cuMemFreeAsync_kept);
  RUN(path_cuStreamWaitEvent);

  MUST(cudaDeviceSynchronize());
  MUST_BE_0(Launch(nullptr));
  RUN(path_cuLaunchKernel_quiet_legacy_stream);
  RUN(path_cuMemcpyHtoD_v2_quiet);

  MUST(cudaDeviceSynchronize());
  MUST_BE_0(LaunchOnOwnStream());
  RUN(path_cuLaunchKernel_ptsz_quiet);

  MUST_BE_0(Launch(g_other_stream));
  MUST_BE_0(Launch(g_stream));
  RUN(path_cuLaunchKernel_quiet_several_streams);
}

void Submissions() {
  MakeStreams();
  FillShelf();
  QuietSubmissions();
  MUST(cudaDeviceSynchronize());
  SlowSubmissions();
}

void TwoContexts() {
  CUstream streams[2] = {};
  for (int round = 0; round < 3; ++round) {
    for (int device = 0; device < 2; ++device) {
      MUST(cudaSetDevice(device));
      FillShelf();
      if (round == 0) streams[device] = program::NonBlockingStream();
      MUST_BE_0(Launch(streams[device]));
      MUST(cudaDeviceSynchronize());
    }
  }
  MUST(cudaSetDevice(0));
  MUST(cudaFree(program::Allocate(kBytes)));
  MUST(cudaSetDevice(1));
  RUN(path_cudaMalloc_hit_other_context);
  RUN(path_cudaFree_ready_other_context);
  MUST_BE_0(Launch(streams[1]));
  MUST_BE_0(Launch(streams[0]));
  g_stream = streams[1];
  RUN(path_cuLaunchKernel_quiet_two_contexts);
}

void Library() {
  CudaMemoryPool& pool = CudaMemoryPool::Instance();
  void* pointers[24] = {};
  for (void*& pointer : pointers) pointer = pool.Alloc(kBytes);
  for (void* pointer : pointers) MUST_BE_0(pool.Free(pointer) ? 0 : 1);
  // Where frees wait for nothing, the first of these make the blocks ready.
  for (int i = 0; i < 12; ++i) MUST_BE_0(pool.Alloc(kBytes) == nullptr ? 1 : 0);
  RUN(path_CudaMemoryPool_Alloc_hit);
  MUST_BE_0(g_pointer == nullptr ? 1 : 0);
}

}  // namespace

int main(int, char** arguments) {
  const char* part = arguments[1] == nullptr ? "" : arguments[1];
  if (strcmp(part, "hits") == 0) {
    Hits();
  } else if (strcmp(part, "page_locked") == 0) {
    PageLocked();
  } else if (strcmp(part, "threads") == 0) {
    Threads();
  } else if (strcmp(part, "questions") == 0) {
    Questions();
  } else if (strcmp(part, "none") == 0) {
    FreesUnderNone();
  } else if (strcmp(part, "order") == 0) {
    FreesUnderOrder(false);
  } else if (strcmp(part, "auto") == 0) {
    FreesUnderOrder(true);
  } else if (strcmp(part, "submissions") == 0) {
    Submissions();
  } else if (strcmp(part, "two_contexts") == 0) {
    TwoContexts();
  } else if (strcmp(part, "library") == 0) {
    Library();
    RUN(path_CudaMemoryPool_Free);
  } else if (strcmp(part, "library_none") == 0) {
    Library();
    RUN(path_CudaMemoryPool_Free_none);
  } else {
    fprintf(stderr, "paths PART; the parts are in budget.py\n");
    return 2;
  }
  return 0;
}
