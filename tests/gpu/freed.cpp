// What copies, sets, nodes of graphs and stream memory operations answer about memory that was
// freed, and about one byte too many. It knows nothing of the pool: on the same machine its output
// must be the same without and with the preload.
//
//   freed             calls that are told what kind of memory it is
//   freed untyped     calls that find out by themselves: the real ones take what was freed for the
//                     host's, and crash
//   freed captured    during captures, and what becomes of those
//   freed nodes       nodes of graphs (a GPU alone)
//   freed rate        nanoseconds that a copy and a set of live memory take the host
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace {

void Must(CUresult status, const char* call) {
  if (status == CUDA_SUCCESS) return;
  std::fprintf(stderr, "freed: %s: %d\n", call, static_cast<int>(status));
  std::exit(1);
}
#define MUST(call) Must(call, #call)

constexpr size_t kMiB = size_t{1} << 20;

CUdeviceptr Allocate(size_t bytes) {
  CUdeviceptr address = 0;
  MUST(cuMemAlloc(&address, bytes));
  return address;
}

struct Memory {
  const char* what;
  CUdeviceptr address;
  size_t bytes;  // from there on, that a call may name
};

// Live memory, and what is not, or not all.
std::vector<Memory> AllMemory() {
  std::vector<Memory> all;
  std::vector<CUdeviceptr> freed;
  for (const size_t bytes : {size_t{8192}, size_t{10000}, 3 * kMiB, 2 * kMiB + 512}) {
    CUdeviceptr three[3];
    for (CUdeviceptr& block : three) block = Allocate(bytes);
    freed.push_back(three[1]);
    all.push_back({"live", three[0], bytes});
    all.push_back({"one byte too many", three[2], bytes + 1});
    all.push_back({"from the last byte on", three[2] + bytes - 1, 4096});
    all.push_back({"freed", three[1], 4096});
    all.push_back({"inside of freed", three[1] + bytes / 2 / 512 * 512, 4096});
  }
  // Served from what is larger.
  MUST(cuMemFree(Allocate(18 * kMiB)));
  const CUdeviceptr smaller = Allocate(16 * kMiB);
  all.push_back({"live, after a larger one", smaller, 16 * kMiB});
  all.push_back({"too much, after a larger one", smaller, 16 * kMiB + 512});
  all.push_back({"nothing of freed", all[3].address, 0});
  for (const CUdeviceptr block : freed) MUST(cuMemFree(block));
  return all;
}

struct Place {
  CUdeviceptr other = 0;  // live, and large enough
  void* pinned = nullptr;
  void* pageable = nullptr;
  CUstream stream = nullptr;
  CUcontext context = nullptr;
};

CUDA_MEMCPY2D Box2D(CUdeviceptr from, CUdeviceptr to, size_t bytes) {
  CUDA_MEMCPY2D box{};
  box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = from;
  box.dstDevice = to;
  box.Height = bytes < 4 ? 1 : 4;
  box.srcPitch = box.dstPitch = bytes / box.Height;
  box.WidthInBytes = bytes - (box.Height - 1) * box.srcPitch;  // the last row ends at the end
  if (box.WidthInBytes > box.srcPitch) {
    box.srcY = box.dstY = box.Height - 1;
    box.Height = 1;
    box.srcPitch = box.dstPitch = box.WidthInBytes;
    box.srcY = box.dstY = 0;
    box.srcXInBytes = box.dstXInBytes = bytes - box.WidthInBytes;
    box.srcPitch = box.dstPitch = bytes;
  }
  return box;
}

CUDA_MEMCPY3D Box3D(CUdeviceptr from, CUdeviceptr to, size_t bytes) {
  CUDA_MEMCPY3D box{};
  box.srcMemoryType = box.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  box.srcDevice = from;
  box.dstDevice = to;
  box.WidthInBytes = bytes / 4 < 1 ? bytes : bytes / 4;
  box.Height = box.Depth = bytes / 4 < 1 ? 1 : 2;
  box.srcPitch = box.dstPitch = box.WidthInBytes;
  box.srcHeight = box.dstHeight = box.Height;
  if (bytes % 4 != 0 && box.Height == 2) {  // the rest
    box.srcXInBytes = box.dstXInBytes = bytes % 4;
    box.srcPitch = box.dstPitch = box.WidthInBytes;
  }
  return box;
}

using Call = std::function<CUresult(CUdeviceptr, size_t)>;
using Calls = std::vector<std::pair<const char*, Call>>;

Calls Typed(const Place& place) {
  const auto p = place;
  const auto boxed = [p](bool to, size_t bytes, CUdeviceptr m) {
    return to ? Box2D(p.other, m, bytes) : Box2D(m, p.other, bytes);
  };
  const auto cube = [p](bool to, size_t bytes, CUdeviceptr m) {
    return to ? Box3D(p.other, m, bytes) : Box3D(m, p.other, bytes);
  };
  Calls calls = {
      {"HtoD", [=](auto m, auto n) { return cuMemcpyHtoD(m, p.pageable, n); }},
      {"DtoH", [=](auto m, auto n) { return cuMemcpyDtoH(p.pageable, m, n); }},
      {"DtoD to", [=](auto m, auto n) { return cuMemcpyDtoD(m, p.other, n); }},
      {"DtoD from", [=](auto m, auto n) { return cuMemcpyDtoD(p.other, m, n); }},
      {"HtoDAsync", [=](auto m, auto n) { return cuMemcpyHtoDAsync(m, p.pinned, n, p.stream); }},
      {"DtoHAsync", [=](auto m, auto n) { return cuMemcpyDtoHAsync(p.pinned, m, n, p.stream); }},
      {"DtoDAsync to", [=](auto m, auto n) { return cuMemcpyDtoDAsync(m, p.other, n, p.stream); }},
      {"DtoDAsync from",
       [=](auto m, auto n) { return cuMemcpyDtoDAsync(p.other, m, n, p.stream); }},
      {"Peer to",
       [=](auto m, auto n) { return cuMemcpyPeer(m, p.context, p.other, p.context, n); }},
      {"PeerAsync from",
       [=](auto m, auto n) {
         return cuMemcpyPeerAsync(p.other, p.context, m, p.context, n, p.stream);
       }},
      {"D8", [=](auto m, auto n) { return cuMemsetD8(m, 1, n); }},
      {"D8Async", [=](auto m, auto n) { return cuMemsetD8Async(m, 1, n, p.stream); }},
      {"D2D8",
       [=](auto m, auto n) {
         return n < 4 ? cuMemsetD2D8(m, n, 1, n, 1) : cuMemsetD2D8(m, n - 3, 1, 3, 2);
       }},
      {"D2D8Async",
       [=](auto m, auto n) {
         return n < 4 ? cuMemsetD2D8Async(m, n, 1, n, 1, p.stream)
                      : cuMemsetD2D8Async(m, n - 3, 1, 3, 2, p.stream);
       }},
      {"runtime to the host",
       [=](auto m, auto n) {
         return static_cast<CUresult>(
             cudaMemcpy(p.pageable, reinterpret_cast<void*>(m), n, cudaMemcpyDeviceToHost));
       }},
      {"runtime set",
       [=](auto m, auto n) {
         return static_cast<CUresult>(cudaMemset(reinterpret_cast<void*>(m), 1, n));
       }},
  };
  for (const bool to : {false, true}) {
    calls.push_back({to ? "2D to" : "2D from", [=](auto m, auto n) {
                       const CUDA_MEMCPY2D box = boxed(to, n, m);
                       return cuMemcpy2D(&box);
                     }});
    calls.push_back({to ? "2DUnaligned to" : "2DUnaligned from", [=](auto m, auto n) {
                       const CUDA_MEMCPY2D box = boxed(to, n, m);
                       return cuMemcpy2DUnaligned(&box);
                     }});
    calls.push_back({to ? "2DAsync to" : "2DAsync from", [=](auto m, auto n) {
                       const CUDA_MEMCPY2D box = boxed(to, n, m);
                       return cuMemcpy2DAsync(&box, p.stream);
                     }});
    calls.push_back({to ? "3D to" : "3D from", [=](auto m, auto n) {
                       const CUDA_MEMCPY3D box = cube(to, n, m);
                       return cuMemcpy3D(&box);
                     }});
    calls.push_back({to ? "3DAsync to" : "3DAsync from", [=](auto m, auto n) {
                       const CUDA_MEMCPY3D box = cube(to, n, m);
                       return cuMemcpy3DAsync(&box, p.stream);
                     }});
  }
  return calls;
}

// Of one word.
Calls Words(const Place& p) {
  return {
      {"WriteValue32", [=](auto m, auto) { return cuStreamWriteValue32(p.stream, m, 1, 0); }},
      {"WriteValue64", [=](auto m, auto) { return cuStreamWriteValue64(p.stream, m, 1, 0); }},
      {"WaitValue32",
       [=](auto m, auto) { return cuStreamWaitValue32(p.stream, m, 0, CU_STREAM_WAIT_VALUE_GEQ); }},
      {"BatchMemOp",
       [=](auto m, auto) {
         CUstreamBatchMemOpParams both[2] = {};
         for (auto& one : both) {
           one.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
           one.writeValue.address = p.other;
         }
         both[1].writeValue.address = m;
         return cuStreamBatchMemOp(p.stream, 2, both, 0);
       }},
      {"D16Async", [=](auto m, auto) { return cuMemsetD16Async(m, 1, 2, p.stream); }},
      {"D32", [=](auto m, auto) { return cuMemsetD32(m, 1, 1); }},
      {"D2D32Async", [=](auto m, auto) { return cuMemsetD2D32Async(m, 4, 1, 1, 1, p.stream); }},
  };
}

Calls Untyped(const Place& p) {
  const auto runtime = [=](void* to, const void* from, size_t n) {
    return static_cast<CUresult>(cudaMemcpy(to, from, n, cudaMemcpyDefault));
  };
  return {
    {"cuMemcpy to", [=](auto m, auto n) { return cuMemcpy(m, p.other, n); }},
        {"cuMemcpy from", [=](auto m, auto n) { return cuMemcpy(p.other, m, n); }},
        {"cuMemcpyAsync", [=](auto m, auto n) { return cuMemcpyAsync(p.other, m, n, p.stream); }},
        {"runtime to",
         [=](auto m, auto n) { return runtime(reinterpret_cast<void*>(m), p.pageable, n); }},
        {"runtime from",
         [=](auto m, auto n) { return runtime(p.pageable, reinterpret_cast<void*>(m), n); }},
#if CUDA_VERSION >= 13000
        {"BatchAsync", [=](auto m, auto n) {
           CUdeviceptr to[2] = {p.other, p.other};
           CUdeviceptr from[2] = {p.other + 32 * kMiB, m};
           size_t bytes[2] = {n, n};
           CUmemcpyAttributes attributes{};
           attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
           size_t of = 0;
           return cuMemcpyBatchAsync(to, from, bytes, 2, &attributes, &of, 1, p.stream);
         }},
#endif
  };
}

void Ask(const Calls& calls, const std::vector<Memory>& all) {
  for (const auto& [name, call] : calls) {
    std::printf("%s:", name);
    for (const Memory& memory : all) std::printf(" %d", call(memory.address, memory.bytes));
    std::printf(", done %d\n", cuCtxSynchronize());
    cudaGetLastError();
  }
}

// Words at the end, too.
std::vector<Memory> WordsOf(const std::vector<Memory>& all) {
  std::vector<Memory> words;
  for (const Memory& memory : all) {
    words.push_back({memory.what, memory.address & ~CUdeviceptr{7}, 8});
    if (std::strcmp(memory.what, "live") == 0) {
      words.push_back({"just beyond", (memory.address + memory.bytes + 7) & ~CUdeviceptr{7}, 8});
    }
  }
  return words;
}

void Captured(const Calls& calls, const std::vector<Memory>& all, CUstream stream) {
  for (const auto& [name, call] : calls) {
    std::printf("%s:\n", name);
    for (const Memory& memory : all) {
      MUST(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
      const CUresult status = call(memory.address, memory.bytes);
      CUgraph graph = nullptr;
      const CUresult end = cuStreamEndCapture(stream, &graph);
      size_t nodes = 0;
      CUgraphExec exec = nullptr;
      int made = -1;
      int launched = -1;
      if (graph != nullptr) {
        MUST(cuGraphGetNodes(graph, nullptr, &nodes));
        made = cuGraphInstantiateWithFlags(&exec, graph, 0);
        if (made == CUDA_SUCCESS) launched = cuGraphLaunch(exec, stream);
        cuCtxSynchronize();
        if (exec != nullptr && made == CUDA_SUCCESS) MUST(cuGraphExecDestroy(exec));
        MUST(cuGraphDestroy(graph));
      }
      std::printf("  %s: %d, end %d, nodes %zu, made %d, launched %d\n", memory.what, status, end,
                  nodes, made, launched);
    }
  }
}

void Nodes(const std::vector<Memory>& all, const Place& place) {
  CUgraph graph = nullptr;
  MUST(cuGraphCreate(&graph, 0));
  CUDA_MEMCPY3D copy = Box3D(all[0].address, place.other, all[0].bytes);
  CUDA_MEMSET_NODE_PARAMS set{};
  set.dst = all[0].address;
  set.elementSize = 1;
  set.width = all[0].bytes;
  set.height = 1;
  CUgraphNode copy_node = nullptr;
  CUgraphNode set_node = nullptr;
  MUST(cuGraphAddMemcpyNode(&copy_node, graph, nullptr, 0, &copy, place.context));
  MUST(cuGraphAddMemsetNode(&set_node, graph, nullptr, 0, &set, place.context));
  CUgraphExec exec = nullptr;
  MUST(cuGraphInstantiateWithFlags(&exec, graph, 0));
  for (const Memory& memory : all) {
    if (memory.bytes == 0) continue;
    copy = Box3D(memory.address, place.other, memory.bytes);
    set.dst = memory.address;
    set.width = memory.bytes;
    CUgraphNode made = nullptr;
    const auto add_copy = cuGraphAddMemcpyNode(&made, graph, nullptr, 0, &copy, place.context);
    if (add_copy == CUDA_SUCCESS) MUST(cuGraphDestroyNode(made));
    const auto add_set = cuGraphAddMemsetNode(&made, graph, nullptr, 0, &set, place.context);
    if (add_set == CUDA_SUCCESS) MUST(cuGraphDestroyNode(made));
    std::printf("%s: add %d %d, change %d %d, change what is made %d %d\n", memory.what, add_copy,
                add_set, cuGraphMemcpyNodeSetParams(copy_node, &copy),
                cuGraphMemsetNodeSetParams(set_node, &set),
                cuGraphExecMemcpyNodeSetParams(exec, copy_node, &copy, place.context),
                cuGraphExecMemsetNodeSetParams(exec, set_node, &set, place.context));
#if CUDA_VERSION >= 13000
    CUgraphNodeParams of_copy{};
    of_copy.type = CU_GRAPH_NODE_TYPE_MEMCPY;
    of_copy.memcpy.copyParams = copy;
    of_copy.memcpy.copyCtx = place.context;
    CUgraphNodeParams of_set{};
    of_set.type = CU_GRAPH_NODE_TYPE_MEMSET;
    of_set.memset.dst = memory.address;
    of_set.memset.elementSize = 1;
    of_set.memset.width = memory.bytes;
    of_set.memset.height = 1;
    of_set.memset.ctx = place.context;
    std::printf("  by any node's: add");
    for (CUgraphNodeParams* node : {&of_copy, &of_set}) {
      const CUresult added = cuGraphAddNode(&made, graph, nullptr, nullptr, 0, node);
      if (added == CUDA_SUCCESS) MUST(cuGraphDestroyNode(made));
      std::printf(" %d", added);
    }
    std::printf(", change %d %d, what is made %d %d\n", cuGraphNodeSetParams(copy_node, &of_copy),
                cuGraphNodeSetParams(set_node, &of_set),
                cuGraphExecNodeSetParams(exec, copy_node, &of_copy),
                cuGraphExecNodeSetParams(exec, set_node, &of_set));
#endif
  }
  MUST(cuGraphExecDestroy(exec));
  MUST(cuGraphDestroy(graph));
}

void Rate(const Place& place) {
  constexpr int kTimes = 2000;
  std::vector<CUdeviceptr> blocks(64);
  for (CUdeviceptr& block : blocks) block = Allocate(70000);
  const auto time = [&](const char* what, auto call) {
    double best = 1e9;
    for (int round = 0; round < 30; ++round) {
      MUST(cuCtxSynchronize());
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < kTimes / 10; ++i) MUST(call(blocks[i % blocks.size()] + 4096));
      const std::chrono::duration<double, std::nano> took =
          std::chrono::steady_clock::now() - begin;
      best = std::min(best, took.count() / (kTimes / 10));
    }
    std::fprintf(stderr, "%s %.1f\n", what, best);
  };
  time("copy",
       [&](CUdeviceptr m) { return cuMemcpyDtoDAsync(m, place.other + 4096, 256, place.stream); });
  time("set", [&](CUdeviceptr m) { return cuMemsetD8Async(m, 1, 256, place.stream); });
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = count > 1 ? arguments[1] : "";
  if (cudaFree(nullptr) != cudaSuccess) {
    std::fprintf(stderr, "freed: no CUDA device\n");
    return 77;
  }
  Place place;
  place.other = Allocate(64 * kMiB);
  MUST(cuMemAllocHost(&place.pinned, 32 * kMiB));
  place.pageable = std::calloc(1, 32 * kMiB);
  MUST(cuStreamCreate(&place.stream, CU_STREAM_NON_BLOCKING));
  MUST(cuCtxGetCurrent(&place.context));
  if (what == "rate") {
    Rate(place);
    return 0;
  }
  const std::vector<Memory> all = AllMemory();
  for (const Memory& memory : all) std::printf("%s, %zu\n", memory.what, memory.bytes);
  if (what == "untyped") {
    Ask(Untyped(place), all);
  } else if (what == "nodes") {
    Nodes(all, place);
  } else if (what == "captured") {
    Calls calls = Words(place);
    calls.resize(2);
    for (auto& call : Typed(place)) {
      if (std::strstr(call.first, "Async") != nullptr) calls.push_back(call);
    }
    Captured(calls, all, place.stream);
  } else {
    Ask(Typed(place), all);
    Ask(Words(place), WordsOf(all));
  }
  return 0;
}
