// The probe's questions about a kernel that failed, each in a process of its own: what a call says
// that comes after the failure and before anybody was told, whether it is known from then on, and
// what the call says once it is. (`probe crashes`)
#include <spawn.h>
#include <sys/wait.h>

#include <utility>

#include "create_context.h"
#include "probe.h"

extern char** environ;

namespace cmp::sim {
namespace {

// What the calls are made with.
struct Scene {
  CUdeviceptr block = 0;
  CUdeviceptr other_block = 0;
  CUdeviceptr pool_block = 0;
  void* locked = nullptr;
  CUstream stream = nullptr;
  CUevent event = nullptr;  // recorded before
  CUevent timing = nullptr;
  CUevent again = nullptr;
  CUgraphExec graph = nullptr;
  CUarray array = nullptr;
  CUmipmappedArray levels = nullptr;
  CUmodule module = nullptr;
  CUlibrary library = nullptr;
  CUmemoryPool pool = nullptr;
  CUstream last_stream = nullptr;  // for a second call
  CUevent last_event = nullptr;
  CUgraphExec last_graph = nullptr;
  CUarray last_array = nullptr;
  CUmipmappedArray last_levels = nullptr;
  CUmodule last_module = nullptr;
  CUlibrary last_library = nullptr;
  CUmemoryPool last_pool = nullptr;
  // What calls give back.
  CUdeviceptr made = 0;
  void* made_locked = nullptr;
  CUstream made_stream = nullptr;
  CUevent made_event = nullptr;
  CUmodule made_module = nullptr;
  CUlibrary made_library = nullptr;
  CUcontext context = nullptr;
  CUstreamCaptureStatus status{};
  CUdevice device = 0;
  unsigned long long id = 0;
  unsigned number = 0;
  int least = 0;
  size_t bytes = 0;
  float milliseconds = 0;
};

char g_host[64];

// A variable.
const char* Image() {
  return g_simulated
             ? "global x 64"
             : ".version 7.0\n.target sm_70\n.address_size 64\n.visible .global .b8 x[64];\n";
}

CUresult LoadLibrary(CUlibrary* library) {
  return cuLibraryLoadData(library, Image(), nullptr, nullptr, 0, nullptr, nullptr, 0);
}

void SetUpObjects(Scene* s) {
  CUDA_ARRAY_DESCRIPTOR flat = {64, 64, CU_AD_FORMAT_FLOAT, 1};
  CUDA_ARRAY3D_DESCRIPTOR deep = {64, 64, 0, CU_AD_FORMAT_FLOAT, 1, 0};
  CUmemPoolProps pool = {};
  pool.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  pool.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  for (CUarray* array : {&s->array, &s->last_array}) cuArrayCreate(array, &flat);
  for (CUmipmappedArray* levels : {&s->levels, &s->last_levels}) {
    cuMipmappedArrayCreate(levels, &deep, 2);
  }
  for (CUmodule* module : {&s->module, &s->last_module}) cuModuleLoadData(module, Image());
  for (CUlibrary* library : {&s->library, &s->last_library}) LoadLibrary(library);
  for (CUmemoryPool* made : {&s->pool, &s->last_pool}) cuMemPoolCreate(made, &pool);
}

void SetUp(Scene* s) {
  SetUpObjects(s);
  cuMemAlloc(&s->block, 4096);
  cuMemAlloc(&s->other_block, 4096);
  cuMemHostAlloc(&s->locked, 4096, 0);
  cuStreamCreate(&s->stream, CU_STREAM_NON_BLOCKING);
  cuMemAllocAsync(&s->pool_block, 4096, s->stream);
  cuStreamCreate(&s->last_stream, CU_STREAM_NON_BLOCKING);
  cuEventCreate(&s->event, CU_EVENT_DISABLE_TIMING);
  cuEventCreate(&s->last_event, CU_EVENT_DISABLE_TIMING);
  cuEventCreate(&s->timing, 0);
  cuEventCreate(&s->again, CU_EVENT_DISABLE_TIMING);
  cuEventRecord(s->event, s->stream);
  cuEventRecord(s->timing, s->stream);
  cuCtxRecordEvent(g_context, s->again);
  CUgraph graph = nullptr;
  cuStreamBeginCapture(s->stream, CU_STREAM_CAPTURE_MODE_RELAXED);
  cuMemsetD8Async(s->block, 0, 16, s->stream);
  cuStreamEndCapture(s->stream, &graph);
  cuGraphInstantiate(&s->graph, graph, 0);
  cuGraphInstantiate(&s->last_graph, graph, 0);
  cuMemHostRegister(g_host, sizeof g_host, 0);
  cuCtxSynchronize();
}

struct CrashCall {
  const char* name;
  CUresult (*call)(Scene& s);
};

const CrashCall kCalls[] = {
    {"cuMemAlloc", [](Scene& s) { return cuMemAlloc(&s.made, 4096); }},
    {"cuMemAlloc 64 MiB", [](Scene& s) { return cuMemAlloc(&s.made, size_t{64} << 20); }},
    {"cuMemAllocManaged",
     [](Scene& s) { return cuMemAllocManaged(&s.made, 4096, CU_MEM_ATTACH_GLOBAL); }},
    {"cuMemAllocAsync", [](Scene& s) { return cuMemAllocAsync(&s.made, 4096, s.stream); }},
    {"cuMemFreeAsync", [](Scene& s) { return cuMemFreeAsync(s.block, s.stream); }},
    {"cuMemHostAlloc", [](Scene& s) { return cuMemHostAlloc(&s.made_locked, 4096, 0); }},
    {"cuMemHostGetDevicePointer",
     [](Scene& s) { return cuMemHostGetDevicePointer(&s.made, s.locked, 0); }},
    {"cuMemFree", [](Scene& s) { return cuMemFree(s.block); }},
    {"cuMemFree NULL", [](Scene&) { return cuMemFree(0); }},
    {"cuMemFree wild", [](Scene&) { return cuMemFree(12345); }},
    {"cuMemFree of stream-ordered memory", [](Scene& s) { return cuMemFree(s.pool_block); }},
    {"cuMemFreeHost", [](Scene& s) { return cuMemFreeHost(s.locked); }},
    {"cuMemHostUnregister", [](Scene&) { return cuMemHostUnregister(g_host); }},
    {"cuMemGetInfo", [](Scene& s) { return cuMemGetInfo(&s.bytes, &s.bytes); }},
    {"cuMemGetAddressRange",
     [](Scene& s) { return cuMemGetAddressRange(&s.made, &s.bytes, s.other_block); }},
    {"cuPointerGetAttribute",
     [](Scene& s) {
       return cuPointerGetAttribute(&s.number, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, s.other_block);
     }},
    {"cuIpcGetMemHandle",
     [](Scene& s) {
       CUipcMemHandle handle;
       return cuIpcGetMemHandle(&handle, s.other_block);
     }},
    {"cuLaunchHostFunc",
     [](Scene& s) {
       return cuLaunchHostFunc(
           s.stream, [](void*) {}, nullptr);
     }},
    {"cuGraphLaunch", [](Scene& s) { return cuGraphLaunch(s.graph, s.stream); }},
    {"cuMemsetD8", [](Scene& s) { return cuMemsetD8(s.other_block, 0, 16); }},
    {"cuMemsetD8Async", [](Scene& s) { return cuMemsetD8Async(s.other_block, 0, 16, s.stream); }},
    {"cuMemcpyDtoD", [](Scene& s) { return cuMemcpyDtoD(s.other_block, s.other_block + 64, 16); }},
    {"cuMemcpyHtoD", [](Scene& s) { return cuMemcpyHtoD(s.other_block, g_host, 16); }},
    {"cuMemcpyDtoHAsync locked",
     [](Scene& s) { return cuMemcpyDtoHAsync(s.locked, s.other_block, 16, s.stream); }},
    {"cuEventCreate", [](Scene& s) { return cuEventCreate(&s.made_event, 0); }},
    {"cuEventRecord", [](Scene& s) { return cuEventRecord(s.again, s.stream); }},
    {"cuEventQuery of what came before", [](Scene& s) { return cuEventQuery(s.event); }},
    {"cuEventSynchronize of what came before",
     [](Scene& s) { return cuEventSynchronize(s.event); }},
    {"cuEventElapsedTime of what came before",
     [](Scene& s) { return cuEventElapsedTime(&s.milliseconds, s.timing, s.timing); }},
    {"cuEventDestroy",
     [](Scene& s) { return cuEventDestroy(std::exchange(s.event, s.last_event)); }},
    {"cuCtxRecordEvent", [](Scene& s) { return cuCtxRecordEvent(g_context, s.again); }},
    {"cuCtxWaitEvent", [](Scene& s) { return cuCtxWaitEvent(g_context, s.again); }},
    {"cuStreamCreate", [](Scene& s) { return cuStreamCreate(&s.made_stream, 0); }},
    {"cuStreamWaitEvent", [](Scene& s) { return cuStreamWaitEvent(s.stream, s.event, 0); }},
    {"cuStreamQuery of another stream", [](Scene& s) { return cuStreamQuery(s.stream); }},
    {"cuStreamQuery legacy", [](Scene&) { return cuStreamQuery(nullptr); }},
    {"cuStreamSynchronize of another stream",
     [](Scene& s) { return cuStreamSynchronize(s.stream); }},
    {"cuStreamIsCapturing", [](Scene& s) { return cuStreamIsCapturing(s.stream, &s.status); }},
    {"cuStreamGetPriority", [](Scene& s) { return cuStreamGetPriority(s.stream, &s.least); }},
    {"cuStreamGetFlags", [](Scene& s) { return cuStreamGetFlags(s.stream, &s.number); }},
    {"cuStreamGetId", [](Scene& s) { return cuStreamGetId(s.stream, &s.id); }},
    {"cuStreamGetCtx", [](Scene& s) { return cuStreamGetCtx(s.stream, &s.context); }},
    {"cuStreamDestroy",
     [](Scene& s) { return cuStreamDestroy(std::exchange(s.stream, s.last_stream)); }},
    {"cuArrayDestroy",
     [](Scene& s) { return cuArrayDestroy(std::exchange(s.array, s.last_array)); }},
    {"cuMipmappedArrayDestroy",
     [](Scene& s) { return cuMipmappedArrayDestroy(std::exchange(s.levels, s.last_levels)); }},
    {"cuModuleLoadData", [](Scene& s) { return cuModuleLoadData(&s.made_module, Image()); }},
    {"cuModuleUnload",
     [](Scene& s) { return cuModuleUnload(std::exchange(s.module, s.last_module)); }},
    {"cuLibraryLoadData", [](Scene& s) { return LoadLibrary(&s.made_library); }},
    {"cuLibraryUnload",
     [](Scene& s) { return cuLibraryUnload(std::exchange(s.library, s.last_library)); }},
    {"cuGraphExecDestroy",
     [](Scene& s) { return cuGraphExecDestroy(std::exchange(s.graph, s.last_graph)); }},
    {"cuMemPoolTrimTo", [](Scene& s) { return cuMemPoolTrimTo(s.pool, 0); }},
    {"cuMemPoolDestroy",
     [](Scene& s) { return cuMemPoolDestroy(std::exchange(s.pool, s.last_pool)); }},
    {"cuCtxSynchronize", [](Scene&) { return cuCtxSynchronize(); }},
    {"cuCtxGetCurrent", [](Scene& s) { return cuCtxGetCurrent(&s.context); }},
    {"cuCtxGetDevice", [](Scene& s) { return cuCtxGetDevice(&s.device); }},
    {"cuCtxGetId of the current one", [](Scene& s) { return cuCtxGetId(nullptr, &s.id); }},
    {"cuCtxGetId by its handle", [](Scene& s) { return cuCtxGetId(g_context, &s.id); }},
    {"cuCtxGetFlags", [](Scene& s) { return cuCtxGetFlags(&s.number); }},
    {"cuCtxSetCurrent", [](Scene&) { return cuCtxSetCurrent(g_context); }},
    {"cuCtxCreate", [](Scene& s) { return CreateContext(&s.context); }},
    {"cuDevicePrimaryCtxRetain", [](Scene& s) { return cuDevicePrimaryCtxRetain(&s.context, 0); }},
};

}  // namespace

void ProbeCrash(const char* name) {
  for (const CrashCall& each : kCalls) {
    if (std::strcmp(each.name, name) != 0) continue;
    alarm(30);
    Scene scene;
    SetUp(&scene);
    Trap();
    LetPass();
    const CUresult at_first = each.call(scene);
    cuCtxSetCurrent(g_context);
    size_t bytes = 0;
    const bool known = cuMemGetInfo(&bytes, &bytes) != CUDA_SUCCESS;
    cuCtxSynchronize();
    const CUresult then = each.call(scene);
    Say(std::string("crash: ") + name,
        std::string(Name(at_first)) + (known ? ", known" : ", not known") + ", then " + Name(then));
  }
}

void ProbeCrashes(char* self) {
  for (const CrashCall& each : kCalls) {
    std::string name = each.name;
    char crash[] = "crash";
    char* arguments[] = {self, crash, name.data(), nullptr};
    pid_t child = 0;
    int status = -1;
    const bool started =
        posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, arguments, environ) == 0;
    if (!started || waitpid(child, &status, 0) != child || status != 0) {
      Say("crash: " + name, "the process ended with " + std::to_string(status));
    }
  }
}

}  // namespace cmp::sim
