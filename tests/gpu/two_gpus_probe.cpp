// What do the real calls wait for when another device works on the memory? Not a test: prints
// tables, for the assumptions of the others: small blocks have 64 KiB, large ones 64 MiB (--large).
// Run it without a preload.
//
//   two_gpus_probe [--from ROW] [--large MEBIBYTES]
//
// free: one row for each way in which a block of device 0 (the owner) may be in use while it is
// freed. Every row's work takes 20 ms. `waited`: the call ended after the work on that stream;
// `busy`: the work on it was still pending; `-`: there was none.
// fences: which context's fence (cuCtxRecordEvent) covers a peer copy or a kernel of the other
// device, and whether one context can wait for the other's fence on the device.
// others: calls around memory of the owner, with 20 ms of work pending somewhere.
//
// A row that breaks the context says so, and the program starts itself again for the next.
#include <cuda.h>
#include <dlfcn.h>

#include <functional>
#include <string>

#include "two_gpus.h"

namespace {

using cmp::demo::Corruptions;
using cmp::demo::Kernels;
using namespace cmp::gpu;

constexpr int kOwner = 0;
constexpr int kOther = 1;
constexpr uint64_t kWorkNs = 20000000;
constexpr size_t kSmall = 64 * kKiB;  // of a chunk that other blocks keep mapped
size_t g_large = 64 * kMiB;           // unmapped when it is freed

struct DriverCalls {
  decltype(&::cuMemFree_v2) mem_free;
  decltype(&::cuCtxGetCurrent) get_current;
  decltype(&::cuEventCreate) event_create;
  decltype(&::cuEventSynchronize) event_synchronize;
  decltype(&::cuEventDestroy_v2) event_destroy;
  CUresult (*record_context)(CUcontext, CUevent);
  CUresult (*wait_context)(CUcontext, CUevent);
  decltype(&::cuCtxDisablePeerAccess) disable_access;
};

template <typename Function>
void Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function == nullptr) std::printf("the driver has no %s\n", name);
}

struct Bench {
  std::vector<Kernels> kernels;
  DriverCalls driver = {};
  std::vector<CUcontext> contexts;
  std::vector<cudaStream_t> streams;  // non-blocking, one of each device
  std::vector<Corruptions*> corruptions;
  void* page_locked = nullptr;   // of g_large
  void* kept = nullptr;          // the owner's, of g_large: not what is freed
  void* keeps_chunk[2][2] = {};  // small blocks, so that a chunk stays when a small one is freed

  cudaStream_t owner_stream() const { return streams[kOwner]; }
  cudaStream_t other_stream() const { return streams[kOther]; }
  void Settle() const {
    for (const int device : {kOther, kOwner}) {
      Use(device);
      CHECK(cudaDeviceSynchronize());
    }
  }
};

Bench MakeBench() {
  Bench bench;
  bench.kernels = LoadKernels(2);
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  Find(library, "cuMemFree_v2", &bench.driver.mem_free);
  Find(library, "cuCtxGetCurrent", &bench.driver.get_current);
  Find(library, "cuEventCreate", &bench.driver.event_create);
  Find(library, "cuEventSynchronize", &bench.driver.event_synchronize);
  Find(library, "cuEventDestroy_v2", &bench.driver.event_destroy);
  Find(library, "cuCtxRecordEvent", &bench.driver.record_context);
  Find(library, "cuCtxWaitEvent", &bench.driver.wait_context);
  Find(library, "cuCtxDisablePeerAccess", &bench.driver.disable_access);
  for (const int device : {kOwner, kOther}) {
    Use(device);
    bench.contexts.push_back(nullptr);
    bench.driver.get_current(&bench.contexts.back());
    bench.streams.push_back(MakeStream(cudaStreamNonBlocking));
    bench.corruptions.push_back(AllocateZeros<Corruptions>(1));
    for (void*& block : bench.keeps_chunk[device]) block = Allocate<char>(kSmall);
    // What is done for the first time takes longer.
    bench.kernels[static_cast<size_t>(device)].Delay(bench.streams.back(), 1000);
    bench.kernels[static_cast<size_t>(device)].Empty(bench.streams.back());
    CHECK(cudaDeviceSynchronize());
  }
  CHECK(cudaHostAlloc(&bench.page_locked, g_large, cudaHostAllocPortable));
  Use(kOwner);
  bench.kept = Allocate<char>(g_large);
  return bench;
}

void DisableAccess(const Bench& bench, int device, int peer) {
  Use(device);
  const CUresult status = bench.driver.disable_access(bench.contexts[static_cast<size_t>(peer)]);
  if (status != CUDA_SUCCESS) Fail("cuCtxDisablePeerAccess", status);
}

bool CanAccessBoth() { return CanAccess(kOther, kOwner) && CanAccess(kOwner, kOther); }
void EnableBoth() {
  EnableAccess(kOther, kOwner);
  EnableAccess(kOwner, kOther);
}
void DisableBoth(const Bench& bench) {
  DisableAccess(bench, kOther, kOwner);
  DisableAccess(bench, kOwner, kOther);
}

// ---- Work that uses a block of the owner. Submitted with the right device current.

struct Pending {
  const char* name;
  bool needs_access;
  int device;  // on whose stream it is
  // `block` is the owner's, `landing` the other device's, of the same size.
  std::function<void(const Bench&, void* block, void* landing, size_t bytes)> submit;
  bool once = false;  // freed by one call, from one device
};

void DelayOn(const Bench& bench, int device) {
  Use(device);
  bench.kernels[static_cast<size_t>(device)].Delay(bench.streams[static_cast<size_t>(device)],
                                                   kWorkNs);
}

void StampOn(const Bench& bench, int device, void* words, size_t bytes) {
  Use(device);
  const auto at = static_cast<size_t>(device);
  bench.kernels[at].Stamp(bench.streams[at], words, static_cast<uint32_t>(bytes / 4), 7, true,
                          kWorkNs, bench.corruptions[at]);
}

// Behind a delay on the stream of `device`.
void CopyOn(const Bench& bench, int device, void* to, int to_device, const void* from,
            int from_device, size_t bytes) {
  DelayOn(bench, device);
  CHECK(cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes,
                            bench.streams[static_cast<size_t>(device)]));
}

// What the owner's stream is given from now on runs after what the other device's was.
void OwnerAfterOther(const Bench& bench) {
  cudaEvent_t event = nullptr;
  Use(kOther);
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  CHECK(cudaEventRecord(event, bench.other_stream()));
  Use(kOwner);
  CHECK(cudaStreamWaitEvent(bench.owner_stream(), event, 0));
  CHECK(cudaEventDestroy(event));
}

const std::vector<Pending>& Kinds() {
  static const std::vector<Pending> kinds = {
      {"kernel of the owner, not on the block", false, kOwner,
       [](const Bench& b, void*, void*, size_t) { DelayOn(b, kOwner); }},
      {"kernel of the owner on the block", false, kOwner,
       [](const Bench& b, void* block, void*, size_t n) { StampOn(b, kOwner, block, n); }},
      {"kernel of the other, not on the block", false, kOther,
       [](const Bench& b, void*, void*, size_t) { DelayOn(b, kOther); }},
      {"kernel of the other on the block", true, kOther,
       [](const Bench& b, void* block, void*, size_t n) { StampOn(b, kOther, block, n); }},
      {"peer copy from the block, owner's stream", false, kOwner,
       [](const Bench& b, void* block, void* landing, size_t n) {
         CopyOn(b, kOwner, landing, kOther, block, kOwner, n);
       }},
      {"peer copy from the block, other's stream", false, kOther,
       [](const Bench& b, void* block, void* landing, size_t n) {
         CopyOn(b, kOther, landing, kOther, block, kOwner, n);
       }},
      {"peer copy to the block, owner's stream", false, kOwner,
       [](const Bench& b, void* block, void* landing, size_t n) {
         CopyOn(b, kOwner, block, kOwner, landing, kOther, n);
       }},
      {"peer copy to the block, other's stream", false, kOther,
       [](const Bench& b, void* block, void* landing, size_t n) {
         CopyOn(b, kOther, block, kOwner, landing, kOther, n);
       }},
      {"cudaMemcpyAsync (default) from the block, other's stream", false, kOther,
       [](const Bench& b, void* block, void* landing, size_t n) {
         DelayOn(b, kOther);
         CHECK(cudaMemcpyAsync(landing, block, n, cudaMemcpyDefault, b.other_stream()));
       }},
      {"copy from the block to page-locked memory, other's stream", false, kOther,
       [](const Bench& b, void* block, void*, size_t n) {
         DelayOn(b, kOther);
         CHECK(cudaMemcpyAsync(b.page_locked, block, n, cudaMemcpyDeviceToHost, b.other_stream()));
       }},
      {"copy to the block from page-locked memory, other's stream", false, kOther,
       [](const Bench& b, void* block, void*, size_t n) {
         DelayOn(b, kOther);
         CHECK(cudaMemcpyAsync(block, b.page_locked, n, cudaMemcpyHostToDevice, b.other_stream()));
       }},
      {"peer copy from other memory of the owner, other's stream", false, kOther,
       [](const Bench& b, void*, void* landing, size_t n) {
         CopyOn(b, kOther, landing, kOther, b.kept, kOwner, n);
       }},
      {"peer copy to other memory of the owner, other's stream", false, kOther,
       [](const Bench& b, void*, void* landing, size_t n) {
         CopyOn(b, kOther, b.kept, kOwner, landing, kOther, n);
       }},
      {"copy from other memory of the owner to page-locked memory, other's stream", false, kOther,
       [](const Bench& b, void*, void*, size_t n) {
         DelayOn(b, kOther);
         CHECK(cudaMemcpyAsync(b.page_locked, b.kept, n, cudaMemcpyDeviceToHost, b.other_stream()));
       }},
      {"kernel of the owner on the block, after one of the other", false, kOwner,
       [](const Bench& b, void* block, void*, size_t n) {
         DelayOn(b, kOther);
         OwnerAfterOther(b);
         StampOn(b, kOwner, block, n);
       },
       true},
      {"peer copy to the block, other's stream; a kernel of the owner after it", false, kOwner,
       [](const Bench& b, void* block, void* landing, size_t n) {
         CopyOn(b, kOther, block, kOwner, landing, kOther, n);
         OwnerAfterOther(b);
         StampOn(b, kOwner, block, n);
       },
       true},
      {"peer copy to the block and a kernel of the owner after it, owner's stream", false, kOwner,
       [](const Bench& b, void* block, void* landing, size_t n) {
         CopyOn(b, kOwner, block, kOwner, landing, kOther, n);
         StampOn(b, kOwner, block, n);
       },
       true},
      {"set of the block, other's stream", true, kOther,
       [](const Bench& b, void* block, void*, size_t n) {
         DelayOn(b, kOther);
         CHECK(cudaMemsetAsync(block, 1, n, b.other_stream()));
       }},
  };
  return kinds;
}

// ---- Rows, which can begin anywhere again.

class Rows {
 public:
  Rows(int from, char** argv) : from_(from), argv_(argv) { g_rows = this; }

  // Is the next row to be measured?
  bool Next() { return ++row_ >= from_; }
  void Header(const char* text) const {
    if (row_ + 1 >= from_) std::printf("\n%s", text);
  }
  // The context is broken: the rest in a new process.
  [[noreturn]] static void Broken(const char* what, int error) {
    std::printf(" | BROKEN: %s: error %d |\n", what, error);
    std::fflush(stdout);
    const std::string next = std::to_string(g_rows->row_ + 1);
    execl("/proc/self/exe", g_rows->argv_[0], "--from", next.c_str(), nullptr);
    _exit(1);
  }

 private:
  static inline Rows* g_rows = nullptr;
  int from_;
  char** argv_;
  int row_ = -1;
};

void CheckRow(int status, const char* call) {
  if (status != 0 && status != cudaErrorNotReady) Rows::Broken(call, status);
}
#define ROW(call) CheckRow(static_cast<int>(call), #call)

const char* After(const Pending& kind, int device, bool busy) {
  if (kind.device != device) return "-";
  return busy ? "busy" : "waited";
}

bool QueryRow(cudaStream_t stream) {
  const cudaError_t status = cudaStreamQuery(stream);
  ROW(status);
  cudaGetLastError();
  return status == cudaErrorNotReady;
}

void FreeRow(const Bench& bench, const Pending& kind, bool access, size_t bytes, int current,
             bool driver) {
  Use(kOther);
  void* landing = Allocate<char>(bytes);
  Use(kOwner);
  void* block = Allocate<char>(bytes);
  bench.Settle();
  std::printf("| %s | %s | %s | %s | %s", kind.name, access ? "both ways" : "none",
              bytes == kSmall ? "small" : "large", current == kOwner ? "owner" : "other",
              driver ? "cuMemFree" : "cudaFree");
  std::fflush(stdout);
  const auto submitted = Clock::now();
  kind.submit(bench, block, landing, bytes);
  const double submit_ms = SecondsSince(submitted) * 1e3;
  Use(current);
  const auto begin = Clock::now();
  const int status =
      driver ? static_cast<int>(bench.driver.mem_free(reinterpret_cast<CUdeviceptr>(block)))
             : static_cast<int>(cudaFree(block));
  const double ms = SecondsSince(begin) * 1e3;
  const bool owner_busy = QueryRow(bench.owner_stream());
  const bool other_busy = QueryRow(bench.other_stream());
  ROW(status);
  ROW(cudaStreamSynchronize(bench.owner_stream()));
  ROW(cudaStreamSynchronize(bench.other_stream()));
  std::printf(" | %.2f | %.2f | %s | %s |\n", submit_ms, ms, After(kind, kOwner, owner_busy),
              After(kind, kOther, other_busy));
  std::fflush(stdout);
  Use(kOther);
  CHECK(cudaFree(landing));
  bench.Settle();
}

void FreeTable(const Bench& bench, Rows& rows) {
  rows.Header(
      "| work | peer access | block | current | call | submitted in ms | call took ms | "
      "owner's stream | other's stream |\n|---|---|---|---|---|---|---|---|---|\n");
  const bool can = CanAccessBoth();
  for (const bool access : {false, true}) {
    if (access && !can) break;
    if (access) EnableBoth();
    for (const Pending& kind : Kinds()) {
      if (kind.needs_access && !access) continue;
      for (const size_t bytes : {kSmall, g_large}) {
        for (const int current : {kOwner, kOther}) {
          for (const bool driver : {false, true}) {
            if (kind.once && (driver || current != kOwner)) continue;
            if (rows.Next()) FreeRow(bench, kind, access, bytes, current, driver);
          }
        }
      }
    }
    if (access) DisableBoth(bench);
  }
}

// ---- Fences

struct Fence {
  CUevent event = nullptr;
  CUresult status = CUDA_ERROR_NOT_SUPPORTED;
};

Fence RecordFence(const Bench& bench, int device) {
  Fence fence;
  Use(device);
  fence.status = bench.driver.event_create(&fence.event, CU_EVENT_DISABLE_TIMING);
  if (fence.status != CUDA_SUCCESS || bench.driver.record_context == nullptr) return fence;
  fence.status =
      bench.driver.record_context(bench.contexts[static_cast<size_t>(device)], fence.event);
  return fence;
}

// Does the fence of `device`, recorded right after the work, pass no sooner than it?
void FenceRow(const Bench& bench, const Pending& kind, bool access, size_t bytes, int device) {
  Use(kOther);
  void* landing = Allocate<char>(bytes);
  Use(kOwner);
  void* block = Allocate<char>(bytes);
  bench.Settle();
  std::printf("| %s | %s | %s | %s", kind.name, access ? "both ways" : "none",
              bytes == kSmall ? "small" : "large", device == kOwner ? "owner's" : "other's");
  std::fflush(stdout);
  kind.submit(bench, block, landing, bytes);
  const Fence fence = RecordFence(bench, device);
  if (fence.status != CUDA_SUCCESS) {
    std::printf(" | record: error %d | |\n", static_cast<int>(fence.status));
  } else {
    const auto begin = Clock::now();
    ROW(bench.driver.event_synchronize(fence.event));
    const double ms = SecondsSince(begin) * 1e3;
    const bool busy = QueryRow(kind.device == kOwner ? bench.owner_stream() : bench.other_stream());
    std::printf(" | %.2f | %s |\n", ms, busy ? "no" : "yes");
  }
  std::fflush(stdout);
  ROW(cudaStreamSynchronize(bench.owner_stream()));
  ROW(cudaStreamSynchronize(bench.other_stream()));
  if (fence.event != nullptr) ROW(bench.driver.event_destroy(fence.event));
  CHECK(cudaFree(block));
  Use(kOther);
  CHECK(cudaFree(landing));
  bench.Settle();
}

// One context waits for the other's fence: later work of its streams runs after it.
void WaitRow(const Bench& bench, int waiting) {
  const int working = waiting == kOwner ? kOther : kOwner;
  bench.Settle();
  std::printf("| cuCtxWaitEvent of device %d's context for device %d's fence | none | | | ",
              waiting, working);
  DelayOn(bench, working);
  const Fence fence = RecordFence(bench, working);
  if (fence.status != CUDA_SUCCESS || bench.driver.wait_context == nullptr) {
    std::printf("record: error %d | |\n", static_cast<int>(fence.status));
    return;
  }
  Use(waiting);
  const auto begin = Clock::now();
  const CUresult status =
      bench.driver.wait_context(bench.contexts[static_cast<size_t>(waiting)], fence.event);
  const double microseconds = SecondsSince(begin) * 1e6;
  bench.kernels[static_cast<size_t>(waiting)].Empty(bench.streams[static_cast<size_t>(waiting)]);
  ROW(cudaStreamSynchronize(bench.streams[static_cast<size_t>(waiting)]));
  const bool busy = QueryRow(bench.streams[static_cast<size_t>(working)]);
  std::printf("status %d in %.2f us | %s |\n", static_cast<int>(status), microseconds,
              busy ? "no" : "yes");
  std::fflush(stdout);
  bench.Settle();
  ROW(bench.driver.event_destroy(fence.event));
}

void FenceTable(const Bench& bench, Rows& rows) {
  rows.Header(
      "| work | peer access | block | fence of context | passed after ms | covers the work |\n"
      "|---|---|---|---|---|---|\n");
  const bool can = CanAccessBoth();
  for (const bool access : {false, true}) {
    if (access && !can) break;
    if (access) EnableBoth();
    for (const Pending& kind : Kinds()) {
      if (kind.needs_access && !access) continue;
      for (const size_t bytes : {kSmall, g_large}) {
        for (const int device : {kOwner, kOther}) {
          if (rows.Next()) FenceRow(bench, kind, access, bytes, device);
        }
      }
    }
    if (access) DisableBoth(bench);
  }
  for (const int waiting : {kOwner, kOther}) {
    if (rows.Next()) WaitRow(bench, waiting);
  }
}

// ---- Other calls

struct OtherCall {
  const char* name;
  int working;  // whose non-blocking stream is busy
  int current;
  std::function<cudaError_t(void* owners, void* others)> call;
};

void OtherRow(const Bench& bench, const OtherCall& row, void* owners, void* others) {
  bench.Settle();
  std::printf("| %s | %s | %s", row.name, row.working == kOwner ? "owner" : "other",
              row.current == kOwner ? "owner" : "other");
  std::fflush(stdout);
  DelayOn(bench, row.working);
  Use(row.current);
  const auto begin = Clock::now();
  const cudaError_t status = row.call(owners, others);
  const double ms = SecondsSince(begin) * 1e3;
  const bool busy = QueryRow(bench.streams[static_cast<size_t>(row.working)]);
  std::printf(" | %d | %.2f | %s |\n", static_cast<int>(status), ms, busy ? "busy" : "waited");
  std::fflush(stdout);
  ROW(status);
  bench.Settle();
}

void OtherTable(const Bench& bench, Rows& rows) {
  rows.Header(
      "| call | busy device | current | status | call took ms | the busy stream |\n"
      "|---|---|---|---|---|---|\n");
  static void* made = nullptr;
  static char word[4] = {};
  const std::vector<std::pair<const char*, std::function<cudaError_t(void*, void*)>>> calls = {
      {"cudaMalloc, large", [](void*, void*) { return cudaMalloc(&made, g_large); }},
      {"cudaMemcpy of the owner's memory to the host",
       [](void* owners, void*) { return cudaMemcpy(word, owners, 4, cudaMemcpyDeviceToHost); }},
      {"cudaMemcpy of the other's memory to the host",
       [](void*, void* others) { return cudaMemcpy(word, others, 4, cudaMemcpyDeviceToHost); }},
      {"cudaMemcpy (default) from the owner's to the other's memory",
       [](void* owners, void* others) {
         return cudaMemcpy(others, owners, kSmall, cudaMemcpyDefault);
       }},
      {"cudaMemcpyPeer from the owner's to the other's memory",
       [](void* owners, void* others) {
         return cudaMemcpyPeer(others, kOther, owners, kOwner, kSmall);
       }},
      {"cudaDeviceSynchronize", [](void*, void*) { return cudaDeviceSynchronize(); }},
      {"cudaDeviceEnablePeerAccess",
       [](void*, void*) {
         int device = 0;
         cudaGetDevice(&device);
         return cudaDeviceEnablePeerAccess(kOwner + kOther - device, 0);
       }},
  };
  Use(kOther);
  void* others = Allocate<char>(kSmall);
  Use(kOwner);
  void* owners = Allocate<char>(kSmall);
  const bool can = CanAccessBoth();
  for (const auto& [name, call] : calls) {
    const bool enables = std::strstr(name, "Enable") != nullptr;
    if (enables && !can) continue;
    for (const int working : {kOwner, kOther}) {
      for (const int current : {kOwner, kOther}) {
        if (!rows.Next()) continue;
        OtherRow(bench, {name, working, current, call}, owners, others);
        if (made != nullptr) CHECK(cudaFree(made));
        made = nullptr;
        if (enables) DisableAccess(bench, current, kOwner + kOther - current);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Rows rows(std::atoi(Argument(argc, argv, "--from", "0")), argv);
  g_large = static_cast<size_t>(std::atoi(Argument(argc, argv, "--large", "64"))) * kMiB;
  DevicesOrSkip(2);
  const Bench bench = MakeBench();
  std::string access = "device 0 can access device 1: ";
  access += CanAccess(0, 1) ? "yes" : "no";
  access += CanAccess(1, 0) ? ", and back: yes\n" : ", and back: no\n";
  rows.Header(access.c_str());
  FreeTable(bench, rows);
  FenceTable(bench, rows);
  OtherTable(bench, rows);
  return 0;
}
