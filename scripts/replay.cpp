// cmp-replay: the allocations and frees of a trace (CMP_TRACE), made again by as many threads, and
// how long they took, as JSON. Under the preload they are the pool's.
//
//   cmp-replay [--backend sync|async] [--order start|call|thread] FILE
//
//   sync    cuMemAlloc and cuMemFree
//   async   cuMemAllocAsync and cuMemFreeAsync, each thread on a stream of its own
//   start   calls start in the order in which they happened, and may overlap (default)
//   call    calls are made one after the other in that order
//   thread  each thread's own order; a free waits for its allocation
//
// What the trace does not know (what kernels did meanwhile, the time between calls) is left out.
#include <cuda.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "replay_trace.h"

namespace {

using cmp::replay::Call;
using cmp::replay::kFailed;
using cmp::replay::kNotYet;
using cmp::replay::Object;
using cmp::replay::Trace;
using Count = unsigned long long;

[[noreturn, gnu::format(printf, 1, 2)]] void Fail(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fputs("cmp-replay: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  std::exit(1);
}

// ---- The driver: the one library that every machine with a GPU has

#define CMP_REPLAY_CALLS(X)                                                  \
  X(cuInit, (unsigned flags))                                                \
  X(cuDeviceGetCount, (int* count))                                          \
  X(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))        \
  X(cuCtxSetCurrent, (CUcontext context))                                    \
  X(cuCtxSynchronize, (void))                                                \
  X(cuStreamCreate, (CUstream * stream, unsigned flags))                     \
  X(cuMemAlloc_v2, (CUdeviceptr * pointer, size_t bytes))                    \
  X(cuMemFree_v2, (CUdeviceptr pointer))                                     \
  X(cuMemAllocAsync, (CUdeviceptr * pointer, size_t bytes, CUstream stream)) \
  X(cuMemFreeAsync, (CUdeviceptr pointer, CUstream stream))                  \
  X(cuDeviceGetDefaultMemPool, (CUmemoryPool * pool, CUdevice device))       \
  X(cuMemPoolSetAttribute, (CUmemoryPool pool, CUmemPool_attribute name, void* value))

struct Driver {
#define CMP_DECLARE(name, parameters) CUresult(*name) parameters = nullptr;
  CMP_REPLAY_CALLS(CMP_DECLARE)
#undef CMP_DECLARE

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == nullptr) Fail("%s", dlerror());
#define CMP_FIND(name, parameters) \
  name = reinterpret_cast<CUresult(*) parameters>(dlsym(library, #name));
    CMP_REPLAY_CALLS(CMP_FIND)
#undef CMP_FIND
  }
};

void Check(CUresult status, const char* what) {
  if (status != CUDA_SUCCESS) Fail("%s: error %d", what, static_cast<int>(status));
}

// ---- The file

Trace ReadTrace(const char* path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const off_t end = file < 0 ? -1 : lseek(file, 0, SEEK_END);
  if (end < 0) Fail("%s: %s", path, std::strerror(errno));
  const auto size = static_cast<size_t>(end);
  void* data = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  if (data == MAP_FAILED) Fail("%s: %s", path, std::strerror(errno));
  close(file);
  Trace trace;
  const cmp::replay::Wrong wrong = cmp::replay::ReadTrace(data, size, &trace);
  if (!wrong.empty()) Fail("%s: %s", path, wrong.text);
  if (data != nullptr) munmap(data, size);
  return trace;
}

// ---- Playing it again

uint64_t Now() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

enum class Order { kStart, kCall, kThread };

class Replay;

struct alignas(64) ThreadState {
  Replay* replay = nullptr;
  pthread_t handle{};
  std::atomic<uint32_t> turn{0};  // plus one: the call that may start
  std::vector<uint64_t> allocation_ns;
  std::vector<uint64_t> free_ns;
  Count failures = 0;
};

class Replay {
 public:
  Replay(const Driver& driver, Trace& trace, bool async, Order order)
      : driver_(driver), trace_(trace), async_(async), order_(order) {
    Check(driver_.cuInit(0), "cuInit");
    int devices = 0;
    Check(driver_.cuDeviceGetCount(&devices), "cuDeviceGetCount");
    if (devices == 0) Fail("there is no device");
    for (unsigned i = 0; i < trace_.devices; ++i) {
      const CUdevice device = static_cast<int>(i) < devices ? static_cast<int>(i) : 0;
      CUcontext context = nullptr;
      Check(driver_.cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
      contexts_.push_back(context);
      if (async_) KeepMemory(device);
    }
  }

  void Run() {
    pthread_barrier_init(&ready_, nullptr, static_cast<unsigned>(states().size()) + 1);
    for (ThreadState& state : states()) {
      state.replay = this;
      if (pthread_create(&state.handle, nullptr, RunThread, &state) != 0) Fail("no more threads");
    }
    pthread_barrier_wait(&ready_);  // all have what they need
    PassTurn(0);
    const uint64_t begin = Now();
    pthread_barrier_wait(&ready_);
    for (ThreadState& state : states()) pthread_join(state.handle, nullptr);
    wall_ns_ = Now() - begin;
  }

  void Print(const char* backend) {
    std::vector<uint64_t> allocation_ns;
    std::vector<uint64_t> free_ns;
    Count failures = 0;
    for (const ThreadState& state : states()) {
      failures += state.failures;
      allocation_ns.insert(allocation_ns.end(), state.allocation_ns.begin(),
                           state.allocation_ns.end());
      free_ns.insert(free_ns.end(), state.free_ns.begin(), state.free_ns.end());
    }
    using Version = const char* (*)();
    const auto version = reinterpret_cast<Version>(dlsym(RTLD_DEFAULT, "cmp_preload_version"));
    std::printf("{\"cmp_replay\": 1, \"backend\": \"%s\", \"threads\": %zu, ", backend,
                states().size());
    std::printf("\"preload\": \"%s\", ", version == nullptr ? "" : version());
    std::printf("\"failures\": %llu, \"skipped\": %llu, \"peak_bytes\": %llu, ", failures,
                Count{trace_.skipped}, Count{peak_.load()});
    std::printf("\"wall_ns\": %llu, ", Count{wall_ns_});
    PrintLatencies("allocations", allocation_ns);
    std::printf(", ");
    PrintLatencies("frees", free_ns);
    std::printf("}\n");
  }

 private:
  std::vector<ThreadState>& states() { return states_; }

  static void* RunThread(void* argument) {
    ThreadState& state = *static_cast<ThreadState*>(argument);
    Replay& replay = *state.replay;
    replay.UseDevice(0);
    const std::vector<CUstream> streams = replay.MakeStreams();
    pthread_barrier_wait(&replay.ready_);
    pthread_barrier_wait(&replay.ready_);
    replay.Play(static_cast<unsigned>(&state - replay.states().data()), streams);
    return nullptr;
  }

  static void PrintLatencies(const char* name, std::vector<uint64_t>& ns) {
    std::sort(ns.begin(), ns.end());
    uint64_t sum = 0;
    for (const uint64_t one : ns) sum += one;
    const auto quantile = [&](size_t percent) -> Count {
      return ns.empty() ? 0 : ns[std::min(ns.size() - 1, ns.size() * percent / 100)];
    };
    std::printf("\"%s\": {\"calls\": %zu, \"ns\": %llu, ", name, ns.size(), Count{sum});
    std::printf("\"p50_ns\": %llu, \"p99_ns\": %llu, \"max_ns\": %llu}", quantile(50), quantile(99),
                quantile(100));
  }

  // The driver's own pool gives memory back at every synchronisation unless it is told otherwise.
  void KeepMemory(CUdevice device) {
    if (driver_.cuMemAllocAsync == nullptr || driver_.cuMemFreeAsync == nullptr) {
      Fail("this driver has no cuMemAllocAsync");
    }
    CUmemoryPool pool = nullptr;
    uint64_t everything = ~uint64_t{0};
    if (driver_.cuDeviceGetDefaultMemPool != nullptr && driver_.cuMemPoolSetAttribute != nullptr &&
        driver_.cuDeviceGetDefaultMemPool(&pool, device) == CUDA_SUCCESS) {
      driver_.cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &everything);
    }
  }

  void UseDevice(unsigned device) {
    Check(driver_.cuCtxSetCurrent(contexts_[device]), "cuCtxSetCurrent");
  }

  std::vector<CUstream> MakeStreams() {
    std::vector<CUstream> streams(contexts_.size(), nullptr);
    for (unsigned i = 0; async_ && i < contexts_.size(); ++i) {
      UseDevice(i);
      Check(driver_.cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    }
    UseDevice(0);
    return streams;
  }

  void PassTurn(uint32_t call) {
    if (call >= trace_.calls.size()) return;
    std::atomic<uint32_t>& turn = states()[trace_.calls[call].thread].turn;
    turn.store(call + 1, std::memory_order_release);
    turn.notify_one();
  }
  void AwaitTurn(ThreadState& state, uint32_t call) {
    constexpr int kSpins = 200;
    for (int i = 0; i < kSpins; ++i) {
      if (state.turn.load(std::memory_order_acquire) == call + 1) return;
    }
    for (uint32_t now = 0; (now = state.turn.load(std::memory_order_acquire)) != call + 1;) {
      state.turn.wait(now, std::memory_order_acquire);
    }
  }

  void Play(unsigned thread, const std::vector<CUstream>& streams) {
    ThreadState& state = states()[thread];
    unsigned device = 0;
    for (const uint32_t index : trace_.of_thread[thread]) {
      const Call& call = trace_.calls[index];
      Object& object = trace_.objects[call.object];
      if (object.device != device) UseDevice(device = object.device);
      if (order_ != Order::kThread) AwaitTurn(state, index);
      if (order_ == Order::kStart) PassTurn(index + 1);
      if (call.allocates) {
        Allocate(state, object, streams[device]);
      } else {
        Free(state, object, streams[device]);
      }
      if (order_ == Order::kCall) PassTurn(index + 1);
    }
  }

  void Allocate(ThreadState& state, Object& object, CUstream stream) {
    CUdeviceptr pointer = 0;
    const uint64_t begin = Now();
    const CUresult status = async_ ? driver_.cuMemAllocAsync(&pointer, object.bytes, stream)
                                   : driver_.cuMemAlloc_v2(&pointer, object.bytes);
    state.allocation_ns.push_back(Now() - begin);
    if (status != CUDA_SUCCESS) {
      ++state.failures;
      pointer = kFailed;
    } else {
      const size_t live = live_.fetch_add(object.bytes) + object.bytes;
      size_t peak = peak_.load();
      while (peak < live && !peak_.compare_exchange_weak(peak, live)) {
      }
    }
    object.address.store(pointer, std::memory_order_release);
    object.address.notify_all();
  }

  void Free(ThreadState& state, Object& object, CUstream stream) {
    object.address.wait(kNotYet, std::memory_order_acquire);
    const CUdeviceptr pointer = object.address.load(std::memory_order_acquire);
    if (pointer == kFailed) return;
    live_.fetch_sub(object.bytes);
    const uint64_t begin = Now();
    const CUresult status =
        async_ ? driver_.cuMemFreeAsync(pointer, stream) : driver_.cuMemFree_v2(pointer);
    state.free_ns.push_back(Now() - begin);
    if (status != CUDA_SUCCESS) ++state.failures;
  }

  const Driver& driver_;
  Trace& trace_;
  const bool async_;
  const Order order_;
  std::vector<CUcontext> contexts_;
  std::vector<ThreadState> states_{trace_.of_thread.size()};
  std::atomic<size_t> live_{0};
  std::atomic<size_t> peak_{0};
  pthread_barrier_t ready_{};
  uint64_t wall_ns_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  const char* backend = "sync";
  const char* order = "start";
  const char* path = nullptr;
  bool right = true;
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "--backend" && i + 1 < count) {
      backend = arguments[++i];
    } else if (argument == "--order" && i + 1 < count) {
      order = arguments[++i];
    } else {
      right = right && path == nullptr && !argument.starts_with('-');
      path = arguments[i];
    }
  }
  const bool async = std::strcmp(backend, "async") == 0;
  const bool starts = std::strcmp(order, "start") == 0;
  const bool calls = std::strcmp(order, "call") == 0;
  right = right && path != nullptr && (async || std::strcmp(backend, "sync") == 0) &&
          (starts || calls || std::strcmp(order, "thread") == 0);
  if (!right) {
    std::fputs("usage: cmp-replay [--backend sync|async] [--order start|call|thread] FILE\n",
               stderr);
    return 2;
  }
  Trace trace = ReadTrace(path);
  const Driver driver;
  Replay replay(driver, trace, async,
                starts  ? Order::kStart
                : calls ? Order::kCall
                        : Order::kThread);
  replay.Run();
  replay.Print(backend);
  return 0;
}
