// A program that has filled the device and freed all of it again asks for memory in other ways than
// by cudaMalloc: what fits without a pool must fit with one. The same results without and with it.
//
//   out_of_memory WAY   stack | heap | local | lazy | stream | event | context | module | async |
//                       physical | array | page-locked | refused | graph
//
// refused: a launch of too many threads for its registers, which no memory helps. graph: one
// that allocates, whose launch is not tried again: says which of its nodes ran where that fails.
#include <cuda.h>
#include <dlfcn.h>

#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "../sim/create_context.h"
#include "program.h"

namespace {

using namespace cmp::gpu;

constexpr char kPtx[] = R"(
.version 6.0
.target sm_50
.address_size 64
.extern .func (.param .b64 result) malloc (.param .b64 bytes);
.extern .func free (.param .b64 pointer);

.visible .entry use_heap(.param .u64 out)
{
  .reg .u64 %p, %out, %bytes;
  .reg .u32 %v;
  .reg .pred %none;
  mov.u64 %bytes, 16;
  {
    .param .b64 bytes;
    .param .b64 result;
    st.param.b64 [bytes], %bytes;
    call.uni (result), malloc, (bytes);
    ld.param.b64 %p, [result];
  }
  setp.eq.u64 %none, %p, 0;
  selp.u32 %v, 0, 7, %none;
  ld.param.u64 %out, [out];
  cvta.to.global.u64 %out, %out;
  st.global.u32 [%out], %v;
  {
    .param .b64 pointer;
    st.param.b64 [pointer], %p;
    call.uni free, (pointer);
  }
  ret;
}

.visible .entry use_local(.param .u64 out)
{
  .local .align 16 .b8 room[40960];
  .reg .u64 %base, %at, %out;
  .reg .u32 %i, %step, %word, %v;
  .reg .pred %more;
  mov.u64 %base, room;
  mov.u32 %step, %ntid.x;
  mov.u32 %i, 0;
again:
  mul.lo.u32 %word, %i, %step;
  rem.u32 %word, %word, 10240;
  mul.wide.u32 %at, %word, 4;
  add.u64 %at, %at, %base;
  st.local.u32 [%at], %i;
  add.u32 %i, %i, 1;
  setp.lt.u32 %more, %i, 10240;
  @%more bra again;
  mul.lo.u32 %word, %step, 3;
  mul.wide.u32 %at, %word, 4;
  add.u64 %at, %at, %base;
  ld.local.u32 %v, [%at];
  ld.param.u64 %out, [out];
  cvta.to.global.u64 %out, %out;
  st.global.u32 [%out], %v;
  ret;
}

.visible .entry write(.param .u64 out)
{
  .reg .u64 %out;
  .reg .u32 %v;
  mov.u32 %v, 7;
  ld.param.u64 %out, [out];
  cvta.to.global.u64 %out, %out;
  st.global.u32 [%out], %v;
  ret;
}
)";

// A function of the driver's that the simulated one lacks.
template <typename Function>
Function* Driver(const char* name) {
  auto* found = reinterpret_cast<Function*>(dlsym(dlopen("libcuda.so.1", RTLD_LAZY), name));
  if (found == nullptr) Fail(name, 0);
  return found;
}

void Must(CUresult status, const char* call) {
  if (status != CUDA_SUCCESS) Fail(call, static_cast<int>(status));
}
#define MUST(call) Must(call, #call)

// A kernel that keeps 100 values at once: too many registers for a block of 1024 threads.
std::string ManyRegisters() {
  std::string loads;
  std::string uses;
  for (int i = 0; i < 100; ++i) {
    const std::string number = std::to_string(i);
    loads += "  ld.volatile.global.u32 %v" + number + ", [%out + " + std::to_string(4 * i) + "];\n";
    uses = "  mad.lo.u32 %sum, %sum, 3, %v" + number + ";\n" + uses;
  }
  return ".version 6.0\n.target sm_50\n.address_size 64\n"
         ".visible .entry many_registers(.param .u64 out)\n{\n"
         "  .reg .u64 %out;\n  .reg .u32 %sum, %v<100>;\n"
         "  ld.param.u64 %out, [out];\n  cvta.to.global.u64 %out, %out;\n  mov.u32 %sum, 0;\n" +
         loads + uses + "  st.global.u32 [%out], %sum;\n  ret;\n}\n";
}

CUfunction Kernel(const char* name, const char* ptx = kPtx) {
  CUmodule module = nullptr;
  CUfunction kernel = nullptr;
  MUST(cuModuleLoadData(&module, ptx));
  MUST(Driver<CUresult(CUfunction*, CUmodule, const char*)>("cuModuleGetFunction")(&kernel, module,
                                                                                   name));
  return kernel;
}

uint32_t* g_out = nullptr;

// What the launch and the wait for it answered, and what the kernel wrote.
void Launch(const char* what, CUfunction kernel, unsigned blocks = 1, unsigned threads = 1) {
  void* parameters[] = {&g_out};
  const CUresult launched =
      cuLaunchKernel(kernel, blocks, 1, 1, threads, 1, 1, 0, nullptr, parameters, nullptr);
  std::printf("%s: launch %d, ", what, int{launched});
  std::printf("wait %d, ", int{cudaDeviceSynchronize()});
  std::printf("wrote %u\n", ReadBack(g_out));
}

size_t Free() {
  size_t free = 0;
  size_t total = 0;
  CHECK(cudaMemGetInfo(&free, &total));
  return free;
}

// Fills the device with blocks, the last ones small, and frees them all.
void FillAndFree() {
  std::vector<void*> blocks;
  for (const size_t bytes : {512 * kMiB, 32 * kMiB, 2 * kMiB, 64 * kKiB}) {
    for (void* block = nullptr; cudaMalloc(&block, bytes) == cudaSuccess;) blocks.push_back(block);
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation ? cudaSuccess : cudaErrorUnknown);
  }
  for (void* block : blocks) CHECK(cudaFree(block));
  std::fprintf(stderr, "out_of_memory: %zu blocks, then %zu MiB free\n", blocks.size(),
               Free() / kMiB);
}

// ---- The ways. What a way needs of the driver before the device is full it asks for at once, and
// returns what is to be done afterwards.
using Then = std::function<void()>;

Then Stack() {
  return [] {
    int processors = 0;
    int threads = 0;
    CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    CHECK(cudaDeviceGetAttribute(&threads, cudaDevAttrMaxThreadsPerMultiProcessor, 0));
    const size_t each = Free() / 2 / static_cast<size_t>(processors) / static_cast<size_t>(threads);
    std::printf("set %d\n", int{cuCtxSetLimit(CU_LIMIT_STACK_SIZE, each / 1024 * 1024)});
  };
}

Then Heap() {
  const CUfunction kernel = Kernel("use_heap");
  return [kernel] {
    std::printf("set %d\n", int{cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, Free() / 4)});
    Launch("heap", kernel);
  };
}

Then Local() {
  const CUfunction kernel = Kernel("use_local");
  return [kernel] { Launch("local memory", kernel, 132 * 16, 128); };
}

// A kernel of a library is loaded by its first launch.
Then Lazy() {
  using Load = CUresult(void**, const void*, void*, void*, unsigned, void*, void*, unsigned);
  void* library = nullptr;
  CUfunction kernel = nullptr;
  MUST(Driver<Load>("cuLibraryLoadData")(&library, kPtx, nullptr, nullptr, 0, nullptr, nullptr, 0));
  MUST(Driver<CUresult(CUfunction*, void*, const char*)>("cuLibraryGetKernel")(&kernel, library,
                                                                               "write"));
  return [kernel] { Launch("lazy", kernel); };
}

Then Streams() {
  return [] {
    for (int i = 0; i < 64; ++i) {
      cudaStream_t stream = nullptr;
      std::printf("stream %d", int{cudaStreamCreate(&stream)});
      std::printf(", set %d\n", int{cudaMemsetAsync(g_out, 0, 4, stream)});
    }
  };
}

Then Events() {
  return [] {
    for (int i = 0; i < 2000; ++i) {
      cudaEvent_t event = nullptr;
      if (const cudaError_t made = cudaEventCreate(&event)) std::printf("event %d\n", int{made});
    }
  };
}

Then Context() {
  return [] {
    CUcontext context = nullptr;
    std::printf("context %d\n", int{CreateContext(&context)});
    CUdeviceptr block = 0;
    std::printf("its block %d\n", int{cuMemAlloc(&block, 64 * kMiB)});
  };
}

Then Module() {
  return [] {
    const std::string ptx =
        ".version 7.0\n.target sm_50\n.address_size 64\n"
        ".visible .global .align 16 .b8 big[" +
        std::to_string(Free() / 2) + "];\n";
    CUmodule module = nullptr;
    std::printf("module %d\n", int{cuModuleLoadData(&module, ptx.c_str())});
  };
}

Then Async() {
  return [] {
    void* pointer = nullptr;
    std::printf("cudaMallocAsync %d\n", int{cudaMallocAsync(&pointer, Free() / 2, nullptr)});
    std::printf("set %d, ", int{cudaMemsetAsync(pointer, 0, 4096, nullptr)});
    std::printf("wait %d\n", int{cudaDeviceSynchronize()});
  };
}

Then Physical() {
  return [] {
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    CUmemGenericAllocationHandle handle = 0;
    const size_t bytes = Free() / 2 / (2 * kMiB) * (2 * kMiB);
    std::printf("cuMemCreate %d\n", int{cuMemCreate(&handle, bytes, &properties, 0)});
  };
}

Then Array() {
  return [] {
    const cudaChannelFormatDesc words = {32, 0, 0, 0, cudaChannelFormatKindUnsigned};
    const size_t rows = std::min<size_t>(Free() / 2 / (32768 * 4), 32768);
    cudaArray_t array = nullptr;
    std::printf("cudaMallocArray %d\n", int{cudaMallocArray(&array, &words, 32768, rows, 0)});
  };
}

Then PageLocked() {
  return [] {
    void* pointer = nullptr;
    std::printf("cudaMallocHost %d\n", int{cudaMallocHost(&pointer, 512 * kMiB)});
  };
}

Then Refused() {
  const CUfunction kernel = Kernel("many_registers", ManyRegisters().c_str());
  return [kernel] {
    for (int i = 0; i < 100; ++i) {
      void* parameters[] = {&g_out};
      const CUresult launched =
          cuLaunchKernel(kernel, 1, 1, 1, 1024, 1, 1, 0, nullptr, parameters, nullptr);
      if (i % 50 == 0) std::printf("launch %d\n", int{launched});
    }
  };
}

// A kernel beside an allocation of half of the memory, neither of which needs the other.
Then Graph() {
  const CUfunction kernel = Kernel("write");
  return [kernel] {
    CUgraph graph = nullptr;
    CUgraphNode nodes[3] = {};
    MUST(cuGraphCreate(&graph, 0));
    void* parameters[] = {&g_out};
    CUDA_KERNEL_NODE_PARAMS_v1 launch = {};
    launch.func = kernel;
    launch.gridDimX = launch.gridDimY = launch.gridDimZ = 1;
    launch.blockDimX = launch.blockDimY = launch.blockDimZ = 1;
    launch.kernelParams = parameters;
    MUST(Driver<CUresult(CUgraphNode*, CUgraph, const CUgraphNode*, size_t,
                         const CUDA_KERNEL_NODE_PARAMS_v1*)>("cuGraphAddKernelNode")(
        &nodes[0], graph, nullptr, 0, &launch));
    CUDA_MEM_ALLOC_NODE_PARAMS allocation = {};
    allocation.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    allocation.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    allocation.bytesize = Free() / 2;
    MUST(Driver<CUresult(CUgraphNode*, CUgraph, const CUgraphNode*, size_t,
                         CUDA_MEM_ALLOC_NODE_PARAMS*)>("cuGraphAddMemAllocNode")(
        &nodes[1], graph, nullptr, 0, &allocation));
    MUST(Driver<CUresult(CUgraphNode*, CUgraph, const CUgraphNode*, size_t, CUdeviceptr)>(
        "cuGraphAddMemFreeNode")(&nodes[2], graph, &nodes[1], 1, allocation.dptr));
    CUgraphExec executable = nullptr;
    std::printf("instantiate %d, ", int{cuGraphInstantiateWithFlags(&executable, graph, 0)});
    std::printf("launch %d, ", int{cuGraphLaunch(executable, nullptr)});
    std::printf("wait %d, ", int{cudaDeviceSynchronize()});
    std::printf("the kernel %s\n", ReadBack(g_out) == 7 ? "ran" : "did not run");
  };
}

const std::map<std::string, Then (*)()>& Ways() {
  static const std::map<std::string, Then (*)()> ways = {
      {"stack", Stack},       {"heap", Heap},      {"local", Local},
      {"lazy", Lazy},         {"stream", Streams}, {"event", Events},
      {"context", Context},   {"module", Module},  {"async", Async},
      {"physical", Physical}, {"array", Array},    {"page-locked", PageLocked},
      {"refused", Refused},   {"graph", Graph},
  };
  return ways;
}

}  // namespace

int main(int argc, char** argv) {
  const auto way = Ways().find(argc > 1 ? argv[1] : "");
  if (way == Ways().end()) return 2;
  StartCudaOrSkip();
  Watchdog watchdog(60);
  g_out = AllocateZeros<uint32_t>(1024);
  const Then then = way->second();
  FillAndFree();
  then();
  std::printf("last error %d\n", int{cudaGetLastError()});
  return 0;
}
