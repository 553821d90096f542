// What the scenarios of the program `visible` share. Each brings something that the host can see
// behind a long kernel on a non-blocking stream, frees a block that has nothing to do with it, and
// looks at once: right only if cudaFree waited, as the real one does.
#ifndef CMP_TESTS_GPU_VISIBLE_H_
#define CMP_TESTS_GPU_VISIBLE_H_

#include <cuda.h>
#include <dlfcn.h>

#include "../demo/kernels.h"
#include "program.h"

namespace cmp::gpu {

// Large enough that no driver sends the data along with the command.
inline constexpr size_t kWords = 1 << 18;
inline constexpr size_t kBytes = kWords * sizeof(uint32_t);
inline constexpr uint64_t kLateNs = 100000000;  // how long the kernel runs

// What CMP_FREE_SYNC=none gives.
enum class WithoutWait {
  kWrong,    // always
  kUnknown,  // what the hardware makes of it; the simulated one makes it wrong
  kRight,    // the host can see nothing: no free may wait
};

// The current scenario, and what it works with. One per process: what is visible stays so.
class Stage {
 public:
  explicit Stage(const char* scenario);

  // Ends the process: this machine cannot show it.
  [[noreturn]] void Skip(const char* why) const;
  // Frees a small block that has nothing to do with the rest, or lets `free` do it, and takes time.
  void Free();
  template <typename FreeFunction>
  void Free(const FreeFunction& free) {
    const double begin = Now();
    free();
    free_seconds_ = Now() - begin;
  }
  // Whether the last free waited for the kernel.
  bool Waited() const { return free_seconds_ > 0.2e-9 * kLateNs; }
  void ReportFree() const;

  void KeepBusy() const { kernels.Delay(busy, kLateNs); }
  // *to = value, late on the busy stream.
  void WriteLate(uint32_t* to) const { kernels.WriteLate(busy, to, value, kLateNs); }

  const demo::Kernels kernels;
  const cudaStream_t busy;   // with the long kernel
  const cudaStream_t other;  // idle
  uint32_t* const word;      // on the device, 0
  const uint32_t value = 4242;

  void* driver() const { return driver_; }

 private:
  double Now() const;  // in seconds; the simulated CUDA has a time of its own

  const char* scenario_;
  void* driver_;
  uint64_t (*simulated_now_)();
  void* block_;
  double free_seconds_ = 0;
};

struct Scenario {
  const char* name;
  WithoutWait without_wait;
  const char* rule;  // of CMP_FREE_SYNC=auto, as core/base/rules.h has it; "": several, or none
  bool (*is_right)(Stage&);  // runs it
};

std::vector<Scenario> PendingWork();     // visible_work.cpp
std::vector<Scenario> VisibleMemory();   // visible_memory.cpp
std::vector<Scenario> Afterwards();      // visible_afterwards.cpp
std::vector<Scenario> NothingVisible();  // visible_nothing.cpp

// A process that shares memory with this one and looks at it when asked. (visible_processes.cpp)
class OtherProcess {
 public:
  // `file`: a file descriptor that it gets, or -1.
  explicit OtherProcess(const char* kind, int file = -1);
  void Send(const void* data, size_t bytes) const;
  void Receive(void* data, size_t bytes) const;
  // What it sees of the shared word now; then it ends.
  uint32_t Look() const;

 private:
  int socket_ = -1;
};
int BeOtherProcess(const char* kind);

// Virtual memory that the driver maps, of kind `location`; may be exported if that is the device.
// (visible_mappings.cpp)
struct Mapping {
  CUmemGenericAllocationHandle handle;
  CUdeviceptr start;
  size_t bytes;
  uint32_t* words() const { return reinterpret_cast<uint32_t*>(start); }
};
Mapping Map(const Stage& stage, CUmemLocationType location);
// The same memory at another address.
Mapping MapAgain(const Stage& stage, const Mapping& mapping);
int Export(const Stage& stage, const Mapping& mapping);
Mapping Import(const Stage& stage, int file);

// What the host reads while the device may write.
inline uint32_t Seen(const uint32_t* word) { return *static_cast<const volatile uint32_t*>(word); }

template <typename T = uint32_t>
T* PageLocked(size_t count, unsigned flags = cudaHostAllocDefault) {
  void* pointer = nullptr;
  CHECK(cudaHostAlloc(&pointer, count * sizeof(T), flags));
  std::memset(pointer, 0, count * sizeof(T));
  return static_cast<T*>(pointer);
}

inline CUdeviceptr Address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }

inline bool IsDevice(cudaDeviceAttr attribute) {
  int value = 0;
  CHECK(cudaDeviceGetAttribute(&value, attribute, 0));
  return value != 0;
}

// A function of the driver under the name that the headers give it. Found by name: the program is
// linked to no driver, and the simulated one lacks some.
#define CMP_SYMBOL_TEXT(symbol) #symbol
#define CMP_SYMBOL(name) CMP_SYMBOL_TEXT(name)
#define DRIVER(stage, name) DriverFunction<decltype(name)>(stage, CMP_SYMBOL(name))
template <typename Function>
Function* DriverFunction(const Stage& stage, const char* symbol) {
  void* const found = dlsym(stage.driver(), symbol);
  if (found == nullptr) stage.Skip(symbol);
  return reinterpret_cast<Function*>(found);
}

inline void Must(CUresult status, const char* call, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE()) {
  if (status != CUDA_SUCCESS) Fail(call, static_cast<int>(status), file, line);
}
#define MUST(call) ::cmp::gpu::Must(call, #call)

}  // namespace cmp::gpu

#endif  // CMP_TESTS_GPU_VISIBLE_H_
