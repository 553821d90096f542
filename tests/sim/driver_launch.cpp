// Driver entry points that launch kernels and host functions.
#include <cstring>

#include "driver_entry.h"
#include "events.h"
#include "launches.h"

namespace cmp::sim {
namespace {

struct FunctionObject {
  char unused;
} g_function;

std::vector<Range> CopyRanges(const SimRange* ranges, size_t count) {
  std::vector<Range> copy;
  for (size_t i = 0; i < count; ++i)
    copy.push_back({AddressOf(ranges[i].pointer), ranges[i].bytes});
  return copy;
}

// The default effect: the written ranges become a function of the id and of what was read.
void FillWithHash(uint64_t id, const std::vector<Range>& reads, const std::vector<Range>& writes) {
  uint64_t hash = Mix(id + 1);
  for (const Range& range : reads) hash = HashBytes(PointerTo(range.start), range.bytes, hash);
  for (const Range& range : writes) {
    auto* at = static_cast<unsigned char*>(PointerTo(range.start));
    size_t left = range.bytes;
    for (; left >= sizeof hash; left -= sizeof hash, at += sizeof hash) {
      std::memcpy(at, &hash, sizeof hash);
      hash = hash * 6364136223846793005 + 1442695040888963407;
    }
    std::memcpy(at, &hash, left);
    hash = Mix(hash);
  }
}

CUresult Launch(Simulation& sim, CUfunction function, CUstream stream, DefaultStream null_means,
                void** parameters) {
  const SimWork* work = WorkIn(function, parameters);
  return work == nullptr ? CUDA_ERROR_INVALID_HANDLE : LaunchWork(sim, stream, null_means, work);
}

// The event that an attribute records, and whether it does so when the kernel begins. A
// programmatic one that no block triggers early stands for the kernel's end.
struct LaunchEvent {
  CUevent event = nullptr;
  int flags = 0;
  bool at_begin = false;
};

bool EventOf(const CUlaunchAttribute& attribute, LaunchEvent* of) {
  if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT) {
    const auto& programmatic = attribute.value.programmaticEvent;
    *of = {programmatic.event, programmatic.flags, programmatic.triggerAtBlockStart != 0};
    return true;
  }
  if (attribute.id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT) {
    const auto& completion = attribute.value.launchCompletionEvent;
    *of = {completion.event, completion.flags, true};
    return true;
  }
  return false;
}

CUresult LaunchWith(Simulation& sim, const CUlaunchConfig& config, CUfunction function,
                    DefaultStream null_means, void** parameters) {
  const SimWork* work = WorkIn(function, parameters);
  if (work == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  std::vector<LaunchEvent> events;
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    LaunchEvent recorded;
    if (!EventOf(config.attrs[i], &recorded)) continue;
    const CUresult checked = CheckLaunchEvent(sim, recorded.event, recorded.flags);
    if (checked != CUDA_SUCCESS) return checked;
    events.push_back(recorded);
  }
  const auto record = [&](bool at_begin) {
    for (const LaunchEvent& each : events) {
      if (each.at_begin != at_begin) continue;
      const CUresult recorded = RecordEvent(sim, each.event, config.hStream, null_means);
      if (recorded != CUDA_SUCCESS) return recorded;
    }
    return CUDA_SUCCESS;
  };
  CUresult result = record(true);
  if (result == CUDA_SUCCESS) result = LaunchWork(sim, config.hStream, null_means, work);
  return result == CUDA_SUCCESS ? record(false) : result;
}

CUresult LaunchHostFunction(Simulation& sim, CUstream handle, DefaultStream null_means,
                            CUhostFn function, void* data) {
  if (function == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  Work work;
  work.what = "host function";
  work.host_side = true;
  work.effect = [=](CUresult) { function(data); };
  return SubmitWork(sim, *stream, std::move(work));
}

CUresult AddCallback(Simulation& sim, CUstream handle, DefaultStream null_means,
                     CUstreamCallback callback, void* data, unsigned flags) {
  if (callback == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (stream->capture != nullptr) return Invalidate(*stream->capture);
  Work work;
  work.what = "stream callback";
  work.host_side = true;
  work.runs_after_error = true;
  work.effect = [=](CUresult status) { callback(handle, status, data); };
  return SubmitWork(sim, *stream, std::move(work));
}

}  // namespace

Work WorkOf(const Simulation& sim, const SimWork& description) {
  Work work;
  work.what = "kernel";
  work.id = description.id;
  work.duration_ns = description.duration_ns;
  work.reads = CopyRanges(description.reads, description.read_count);
  work.writes = CopyRanges(description.writes, description.write_count);
  work.trap = (description.flags & SIM_WORK_TRAP) != 0;
  work.spin_until_id = description.spin_until_id;
  for (size_t i = 0; i < description.object_count; ++i) {
    const auto* object = sim.device_objects.Find(description.objects[i]);
    work.objects.push_back({description.objects[i], object == nullptr ? nullptr : object->alive});
  }
  if (description.print != nullptr) work.print = description.print;
  if (description.effect != nullptr) {
    work.host_side = true;
    work.effect = [effect = description.effect, data = description.data](CUresult) {
      effect(data);
    };
  } else {
    work.effect = [id = work.id, reads = work.reads, writes = work.writes](CUresult) {
      FillWithHash(id, reads, writes);
    };
  }
  return work;
}

CUresult LaunchWork(Simulation& sim, CUstream handle, DefaultStream null_means,
                    const SimWork* work) {
  if (work == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  return result != CUDA_SUCCESS ? result : SubmitWork(sim, *stream, WorkOf(sim, *work));
}

const SimWork* WorkIn(CUfunction function, void** parameters) {
  if (function != simFunction() || parameters == nullptr || parameters[0] == nullptr) {
    return nullptr;
  }
  return *static_cast<const SimWork* const*>(parameters[0]);
}

}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUfunction simFunction(void) { return reinterpret_cast<CUfunction>(&g_function); }

CUresult cuLaunchKernel(CUfunction function, unsigned int, unsigned int, unsigned int, unsigned int,
                        unsigned int, unsigned int, unsigned int, CUstream stream,
                        void** parameters, void**) {
  return Enter("cuLaunchKernel", [&](Simulation& sim, Lock&) {
    return Launch(sim, function, stream, kLegacy, parameters);
  });
}

CUresult cuLaunchKernel_ptsz(CUfunction function, unsigned int, unsigned int, unsigned int,
                             unsigned int, unsigned int, unsigned int, unsigned int,
                             CUstream stream, void** parameters, void**) {
  return Enter("cuLaunchKernel_ptsz", [&](Simulation& sim, Lock&) {
    return Launch(sim, function, stream, kPerThread, parameters);
  });
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters,
                          void**) {
  return Enter("cuLaunchKernelEx", [&](Simulation& sim, Lock&) -> CUresult {
    if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return LaunchWith(sim, *config, function, kLegacy, parameters);
  });
}

CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig* config, CUfunction function, void** parameters,
                               void**) {
  return Enter("cuLaunchKernelEx_ptsz", [&](Simulation& sim, Lock&) -> CUresult {
    if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return LaunchWith(sim, *config, function, kPerThread, parameters);
  });
}

CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned int, unsigned int, unsigned int,
                                   unsigned int, unsigned int, unsigned int, unsigned int,
                                   CUstream stream, void** parameters) {
  return Enter("cuLaunchCooperativeKernel", [&](Simulation& sim, Lock&) {
    return Launch(sim, function, stream, kLegacy, parameters);
  });
}

CUresult cuLaunchCooperativeKernel_ptsz(CUfunction function, unsigned int, unsigned int,
                                        unsigned int, unsigned int, unsigned int, unsigned int,
                                        unsigned int, CUstream stream, void** parameters) {
  return Enter("cuLaunchCooperativeKernel_ptsz", [&](Simulation& sim, Lock&) {
    return Launch(sim, function, stream, kPerThread, parameters);
  });
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* data) {
  return Enter("cuLaunchHostFunc", [&](Simulation& sim, Lock&) {
    return LaunchHostFunction(sim, stream, kLegacy, function, data);
  });
}

CUresult cuLaunchHostFunc_ptsz(CUstream stream, CUhostFn function, void* data) {
  return Enter("cuLaunchHostFunc_ptsz", [&](Simulation& sim, Lock&) {
    return LaunchHostFunction(sim, stream, kPerThread, function, data);
  });
}

CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void* data,
                             unsigned int flags) {
  return Enter("cuStreamAddCallback", [&](Simulation& sim, Lock&) {
    return AddCallback(sim, stream, kLegacy, callback, data, flags);
  });
}

CUresult cuStreamAddCallback_ptsz(CUstream stream, CUstreamCallback callback, void* data,
                                  unsigned int flags) {
  return Enter("cuStreamAddCallback_ptsz", [&](Simulation& sim, Lock&) {
    return AddCallback(sim, stream, kPerThread, callback, data, flags);
  });
}

}  // extern "C"
