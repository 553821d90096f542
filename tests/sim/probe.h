// What the parts of the probe (probe.cpp) share: saying an answer, keeping a stream busy.
#ifndef CMP_TESTS_SIM_PROBE_H_
#define CMP_TESTS_SIM_PROBE_H_

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "sim.h"

namespace cmp::sim {

inline bool g_simulated = false;
inline decltype(&simSubmit) g_submit = nullptr;
inline CUcontext g_context = nullptr;

inline const char* Name(CUresult result) {
  const char* name = nullptr;
  return cuGetErrorName(result, &name) == CUDA_SUCCESS ? name + 5 : "?";
}

inline void Say(const std::string& what, const std::string& answer) {
  std::printf("%s: %s\n", what.c_str(), answer.c_str());
  std::fflush(stdout);
}
inline void Say(const std::string& what, CUresult result) { Say(what, Name(result)); }
inline void Say(const std::string& what, cudaError_t result) {
  Say(what, cudaGetErrorName(result));
}
inline void Say(const std::string& what, const char* answer) { Say(what, std::string(answer)); }
inline void Say(const std::string& what, bool answer) {
  Say(what, std::string(answer ? "yes" : "no"));
}

inline std::atomic<bool> g_done{false};

// The stream is busy until much later than any call that does not wait returns.
inline void Busy(CUstream stream) {
  g_done = false;
  if (g_simulated) {
    SimWork work{};
    work.duration_ns = 1000000000;
    g_submit(stream, &work);
  }
  cuLaunchHostFunc(
      stream,
      [](void*) {
        if (!g_simulated) usleep(30000);
        g_done = true;
      },
      nullptr);
}

inline void SayWaits(const std::string& what, CUstream stream,
                     const std::function<CUresult()>& call) {
  Busy(stream);
  const CUresult result = call();
  Say(what, std::string(Name(result)) + (g_done ? ", waited" : ", did not wait"));
  cuCtxSynchronize();
}

template <typename F>
auto OnOtherThread(F f) {
  decltype(f()) result{};
  std::thread([&] {
    cuCtxSetCurrent(g_context);
    result = f();
  }).join();
  return result;
}

inline const char* StatusOf(CUstream stream);

// The order matters: what the call did, then what became of the stream.
inline void SayThenStatus(const std::string& what, CUstream stream,
                          const std::function<CUresult()>& call) {
  const std::string result = Name(call());
  Say(what, result + " -> " + StatusOf(stream));
}

inline const char* StatusOf(CUstream stream) {
  CUstreamCaptureStatus status{};
  if (cuStreamIsCapturing(stream, &status) != CUDA_SUCCESS) return "unknown";
  return status == CU_STREAM_CAPTURE_STATUS_ACTIVE        ? "alive"
         : status == CU_STREAM_CAPTURE_STATUS_INVALIDATED ? "invalidated"
                                                          : "none";
}

// A kernel of a real driver, "" for one that does nothing. Loaded once.
inline CUfunction KernelFromPtx(const char* body) {
  static std::map<std::string, CUfunction> kernels;
  CUfunction& function = kernels[body];
  if (function != nullptr) return function;
  const std::string ptx =
      std::string(".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry t() { ") + body +
      " ret; }\n";
  const auto load =
      reinterpret_cast<decltype(&cuModuleLoadData)>(dlsym(RTLD_DEFAULT, "cuModuleLoadData"));
  const auto get =
      reinterpret_cast<decltype(&cuModuleGetFunction)>(dlsym(RTLD_DEFAULT, "cuModuleGetFunction"));
  CUmodule module = nullptr;
  load(&module, ptx.c_str());
  get(&function, module, "t");
  return function;
}

// Launches a kernel that fails.
inline void Trap() {
  if (g_simulated) {
    SimWork work{};
    work.flags = SIM_WORK_TRAP;
    g_submit(nullptr, &work);
    return;
  }
  cuLaunchKernel(KernelFromPtx("trap;"), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
}

// Whatever was launched has ended, and nobody has asked about it.
inline void LetPass() {
  if (!g_simulated) {
    usleep(200000);
    return;
  }
  reinterpret_cast<decltype(&simAdvance)>(dlsym(RTLD_DEFAULT, "simAdvance"))(1000000000);
}

void ProbeCaptureCalls();
void ProbeCaptureEnds();
void ProbePointers();
void ProbeRules();
void ProbeCrashes(char* self);
void ProbeCrash(const char* name);

}  // namespace cmp::sim

#endif  // CMP_TESTS_SIM_PROBE_H_
