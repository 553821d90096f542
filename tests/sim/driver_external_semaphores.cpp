// Driver entry points for semaphores that another API made, and that are imported here.
//
// A file descriptor stands for one: the first eight bytes of any file of the program's whose pages
// can be mapped are its value. A timeline semaphore's value is set, and waited for, as it is; of
// another one a signal makes it 1, and a wait that ends 0.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver_entry.h"

namespace cmp::sim {
namespace {

// Other processes and the program itself change it meanwhile.
uint64_t Load(const uint64_t& value) { return __atomic_load_n(&value, __ATOMIC_ACQUIRE); }
void Set(uint64_t* value, uint64_t to) { __atomic_store_n(value, to, __ATOMIC_RELEASE); }

Work WorkOn(const ExternalSemaphore& semaphore, CUexternalSemaphore handle) {
  Work work;
  work.objects = {{AddressOf(handle), semaphore.alive}};
  return work;
}

Work SignalOf(const ExternalSemaphore& semaphore, CUexternalSemaphore handle, uint64_t value) {
  Work work = WorkOn(semaphore, handle);
  work.what = "signal of an external semaphore";
  work.writes = {{AddressOf(semaphore.value.get()), sizeof value}};
  work.effect = [at = semaphore.value, to = semaphore.timeline ? value : 1](CUresult) {
    Set(at.get(), to);
  };
  return work;
}

Work WaitOf(const ExternalSemaphore& semaphore, CUexternalSemaphore handle, uint64_t value) {
  Work work = WorkOn(semaphore, handle);
  work.what = "wait for an external semaphore";
  work.reads = {{AddressOf(semaphore.value.get()), sizeof value}};
  work.until = [at = semaphore.value, least = semaphore.timeline ? value : 1] {
    return Load(*at) >= least;
  };
  if (!semaphore.timeline) {
    work.effect = [at = semaphore.value](CUresult) { Set(at.get(), 0); };
  }
  return work;
}

// All or none. `work_of(semaphore, handle, parameters)` is one's work.
template <typename Parameters, typename WorkOf>
CUresult SubmitAll(Simulation& sim, const CUexternalSemaphore* handles,
                   const Parameters* parameters, unsigned count, CUstream stream_handle,
                   DefaultStream null_means, WorkOf work_of) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, stream_handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (handles == nullptr || parameters == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < count; ++i) {
    if (sim.semaphores.Find(handles[i]) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (parameters[i].flags != 0) return CUDA_ERROR_INVALID_VALUE;
  }
  for (unsigned i = 0; i < count; ++i) {
    const CUresult submitted = SubmitWork(
        sim, *stream,
        work_of(*sim.semaphores.Find(handles[i]), handles[i], parameters[i].params.fence.value));
    if (submitted != CUDA_SUCCESS) return submitted;
  }
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

// On success the descriptor is the driver's.
CUresult cuImportExternalSemaphore(CUexternalSemaphore* handle,
                                   const CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC* description) {
  return Enter("cuImportExternalSemaphore", [&](Simulation& sim, Lock&) -> CUresult {
    if (handle == nullptr || description == nullptr || description->flags != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    const bool timeline =
        description->type == CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD;
    if (!timeline && description->type != CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD) {
      return CUDA_ERROR_NOT_SUPPORTED;
    }
    const int file = description->handle.fd;
    struct stat status {};
    if (fstat(file, &status) != 0 || status.st_size < static_cast<off_t>(sizeof(uint64_t))) {
      return CUDA_ERROR_OPERATING_SYSTEM;
    }
    void* page = mmap(nullptr, kHostPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) return CUDA_ERROR_OPERATING_SYSTEM;
    close(file);
    auto semaphore = std::make_unique<ExternalSemaphore>();
    semaphore->value = {static_cast<uint64_t*>(page), [](uint64_t* at) { munmap(at, kHostPage); }};
    semaphore->timeline = timeline;
    *handle = sim.semaphores.Add(std::move(semaphore));
    return CUDA_SUCCESS;
  });
}

// Waits for nothing.
CUresult cuDestroyExternalSemaphore(CUexternalSemaphore handle) {
  return Enter("cuDestroyExternalSemaphore", [&](Simulation& sim, Lock&) -> CUresult {
    return sim.semaphores.Remove(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
  });
}

CUresult cuSignalExternalSemaphoresAsync(const CUexternalSemaphore* semaphores,
                                         const CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS* parameters,
                                         unsigned int count, CUstream stream) {
  return Enter("cuSignalExternalSemaphoresAsync", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, semaphores, parameters, count, stream, kLegacy, SignalOf);
  });
}

CUresult cuSignalExternalSemaphoresAsync_ptsz(
    const CUexternalSemaphore* semaphores, const CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS* parameters,
    unsigned int count, CUstream stream) {
  return Enter("cuSignalExternalSemaphoresAsync_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, semaphores, parameters, count, stream, kPerThread, SignalOf);
  });
}

CUresult cuWaitExternalSemaphoresAsync(const CUexternalSemaphore* semaphores,
                                       const CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS* parameters,
                                       unsigned int count, CUstream stream) {
  return Enter("cuWaitExternalSemaphoresAsync", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, semaphores, parameters, count, stream, kLegacy, WaitOf);
  });
}

CUresult cuWaitExternalSemaphoresAsync_ptsz(const CUexternalSemaphore* semaphores,
                                            const CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS* parameters,
                                            unsigned int count, CUstream stream) {
  return Enter("cuWaitExternalSemaphoresAsync_ptsz", [&](Simulation& sim, Lock&) {
    return SubmitAll(sim, semaphores, parameters, count, stream, kPerThread, WaitOf);
  });
}

}  // extern "C"
