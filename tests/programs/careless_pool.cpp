// A small pool to preload in place of ours, which keeps some of what cudaFree gives and not the
// rest: what the random schedules must find out. CARELESS says what it leaves away:
//
//   reuse   a freed block is handed out while earlier work may still touch it
//   order   not that, but later work is not ordered behind earlier work
//   host    nor that, but the free returns before the work is done
//   stamp   with shared fences: a free is stamped with a fence that another thread is recording
//   early   with shared fences: a fence is announced before it is recorded
//   fences  nothing of that kind; like `order`
//   nothing
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <sim.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

namespace {

struct Idle {
  CUdeviceptr pointer;
  CUevent event;  // null: nothing to wait for, but the fence
  uint64_t fence = 0;
};

std::mutex g_lock;
std::map<CUdeviceptr, size_t> g_sizes;
std::map<size_t, std::vector<Idle>> g_idle;

bool Leaves(const char* what) {
  const char* leaves = getenv("CARELESS");
  return leaves != nullptr && strcmp(leaves, what) == 0;
}

// Fences that all threads share, numbered: at most one is being recorded.
std::mutex g_recording;
uint64_t g_started = 0;
uint64_t g_announced = 0;
CUevent g_event = nullptr;  // of g_announced
uint64_t g_passed = 0;

bool SharedFences() { return Leaves("stamp") || Leaves("early") || Leaves("fences"); }

// What a block that is freed now has to wait for. REQUIRES: g_lock is held
uint64_t NextFence() { return (Leaves("stamp") ? g_announced : g_started) + 1; }

void RecordFence() {
  const std::unique_lock<std::mutex> recording(g_recording, std::try_to_lock);
  if (!recording.owns_lock()) return;
  CUcontext context = nullptr;
  cuCtxGetCurrent(&context);
  CUevent event = nullptr;
  cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
  uint64_t number = 0;
  const auto announce = [&] {
    const std::lock_guard<std::mutex> guard(g_lock);
    g_announced = number;
    g_event = event;
  };
  {
    const std::lock_guard<std::mutex> guard(g_lock);
    number = ++g_started;
  }
  if (Leaves("early")) announce();
  cuCtxRecordEvent(context, event);
  announce();
}

void AskFence() {
  uint64_t number = 0;
  CUevent event = nullptr;
  {
    const std::lock_guard<std::mutex> guard(g_lock);
    number = g_announced;
    event = g_event;
  }
  if (event == nullptr || cuEventQuery(event) != CUDA_SUCCESS) return;
  const std::lock_guard<std::mutex> guard(g_lock);
  g_passed = std::max(g_passed, number);
}

CUresult Allocate(CUdeviceptr* pointer, size_t bytes) {
  static const auto real =
      reinterpret_cast<decltype(&cuMemAlloc_v2)>(dlsym(RTLD_NEXT, "cuMemAlloc_v2"));
  if (SharedFences()) AskFence();
  {
    const std::lock_guard<std::mutex> guard(g_lock);
    std::vector<Idle>& idle = g_idle[bytes];
    for (size_t i = idle.size(); i-- > 0;) {
      if (idle[i].fence > g_passed) continue;
      if (idle[i].event != nullptr && cuEventQuery(idle[i].event) != CUDA_SUCCESS) continue;
      if (idle[i].event != nullptr) cuEventDestroy(idle[i].event);
      *pointer = idle[i].pointer;
      idle.erase(idle.begin() + static_cast<std::ptrdiff_t>(i));
      return CUDA_SUCCESS;
    }
  }
  const CUresult result = real(pointer, bytes);
  const std::lock_guard<std::mutex> guard(g_lock);
  if (result == CUDA_SUCCESS) g_sizes[*pointer] = bytes;
  return result;
}

CUresult Free(CUdeviceptr pointer) {
  std::unique_lock<std::mutex> lock(g_lock);
  const auto found = g_sizes.find(pointer);
  if (found == g_sizes.end()) return pointer == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  Idle idle{pointer, nullptr};
  if (SharedFences()) {
    idle.fence = NextFence();
    g_idle[found->second].push_back(idle);
    lock.unlock();
    RecordFence();
    return CUDA_SUCCESS;
  }
  if (Leaves("nothing")) {
    cuCtxSynchronize();
  } else if (!Leaves("reuse")) {
    CUcontext context = nullptr;
    cuCtxGetCurrent(&context);
    cuEventCreate(&idle.event, CU_EVENT_DISABLE_TIMING);
    cuCtxRecordEvent(context, idle.event);
    if (Leaves("host")) cuCtxWaitEvent(context, idle.event);
  }
  g_idle[found->second].push_back(idle);
  return CUDA_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) { return Allocate(pointer, bytes); }
CUresult cuMemFree_v2(CUdeviceptr pointer) { return Free(pointer); }

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  cudaFree(nullptr);  // the thread gets its context
  CUdeviceptr made = 0;
  const CUresult result = Allocate(&made, bytes);
  *pointer = reinterpret_cast<void*>(made);
  return static_cast<cudaError_t>(result);
}
cudaError_t cudaFree(void* pointer) {
  static const auto real = reinterpret_cast<decltype(&cudaFree)>(dlsym(RTLD_NEXT, "cudaFree"));
  if (pointer == nullptr) return real(nullptr);
  return static_cast<cudaError_t>(Free(reinterpret_cast<CUdeviceptr>(pointer)));
}

}  // extern "C"
#pragma GCC visibility pop
