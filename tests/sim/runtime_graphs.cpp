// Runtime entry points about captures and graphs.
#include "runtime_driver.h"

using namespace cmp::sim;

extern "C" {

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return Call("cudaThreadExchangeStreamCaptureMode", Needs::kDriver,
              [&](const Driver& driver) -> cudaError_t {
                if (mode == nullptr) return cudaErrorInvalidValue;
                auto exchanged = static_cast<CUstreamCaptureMode>(*mode);
                const CUresult result = driver.legacy.cuThreadExchangeStreamCaptureMode(&exchanged);
                *mode = static_cast<cudaStreamCaptureMode>(exchanged);
                return FromDriver(result);
              });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return CallDriver("cudaStreamBeginCapture", [&](const Driver& driver) {
    return driver.legacy.cuStreamBeginCapture(stream, static_cast<CUstreamCaptureMode>(mode));
  });
}

cudaError_t cudaStreamBeginCapture_ptsz(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return CallDriver("cudaStreamBeginCapture_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamBeginCapture(stream, static_cast<CUstreamCaptureMode>(mode));
  });
}

cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                          const cudaGraphNode_t* nodes, const cudaGraphEdgeData*,
                                          size_t count, cudaStreamCaptureMode mode) {
  return CallDriver("cudaStreamBeginCaptureToGraph", [&](const Driver& driver) {
    return driver.legacy.cuStreamBeginCaptureToGraph(stream, graph, nodes, nullptr, count,
                                                     static_cast<CUstreamCaptureMode>(mode));
  });
}

cudaError_t cudaStreamBeginCaptureToGraph_ptsz(cudaStream_t stream, cudaGraph_t graph,
                                               const cudaGraphNode_t* nodes,
                                               const cudaGraphEdgeData*, size_t count,
                                               cudaStreamCaptureMode mode) {
  return CallDriver("cudaStreamBeginCaptureToGraph_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamBeginCaptureToGraph(stream, graph, nodes, nullptr, count,
                                                         static_cast<CUstreamCaptureMode>(mode));
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return CallDriver("cudaStreamEndCapture", [&](const Driver& driver) {
    return driver.legacy.cuStreamEndCapture(stream, graph);
  });
}

cudaError_t cudaStreamEndCapture_ptsz(cudaStream_t stream, cudaGraph_t* graph) {
  return CallDriver("cudaStreamEndCapture_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamEndCapture(stream, graph);
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return CallDriver("cudaStreamIsCapturing", [&](const Driver& driver) {
    return driver.legacy.cuStreamIsCapturing(stream,
                                             reinterpret_cast<CUstreamCaptureStatus*>(status));
  });
}

cudaError_t cudaStreamIsCapturing_ptsz(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return CallDriver("cudaStreamIsCapturing_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamIsCapturing(stream,
                                                 reinterpret_cast<CUstreamCaptureStatus*>(status));
  });
}

#if CUDART_VERSION >= 13000

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** nodes, const cudaGraphEdgeData**,
                                     size_t* count) {
  return CallDriver("cudaStreamGetCaptureInfo", [&](const Driver& driver) {
    return driver.legacy.cuStreamGetCaptureInfo(
        stream, reinterpret_cast<CUstreamCaptureStatus*>(status), reinterpret_cast<cuuint64_t*>(id),
        graph, nodes, count);
  });
}

cudaError_t cudaStreamGetCaptureInfo_ptsz(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                          unsigned long long* id, cudaGraph_t* graph,
                                          const cudaGraphNode_t** nodes, const cudaGraphEdgeData**,
                                          size_t* count) {
  return CallDriver("cudaStreamGetCaptureInfo_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamGetCaptureInfo(
        stream, reinterpret_cast<CUstreamCaptureStatus*>(status), reinterpret_cast<cuuint64_t*>(id),
        graph, nodes, count);
  });
}

#else

cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                        unsigned long long* id, cudaGraph_t* graph,
                                        const cudaGraphNode_t** nodes, size_t* count) {
  return CallDriver("cudaStreamGetCaptureInfo_v2", [&](const Driver& driver) {
    return driver.legacy.cuStreamGetCaptureInfo(
        stream, reinterpret_cast<CUstreamCaptureStatus*>(status), reinterpret_cast<cuuint64_t*>(id),
        graph, nodes, count);
  });
}

cudaError_t cudaStreamGetCaptureInfo_v2_ptsz(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                             unsigned long long* id, cudaGraph_t* graph,
                                             const cudaGraphNode_t** nodes, size_t* count) {
  return CallDriver("cudaStreamGetCaptureInfo_v2_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuStreamGetCaptureInfo(
        stream, reinterpret_cast<CUstreamCaptureStatus*>(status), reinterpret_cast<cuuint64_t*>(id),
        graph, nodes, count);
  });
}

#endif

cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned int flags) {
  return CallDriver("cudaGraphCreate", [&](const Driver& driver) {
    return driver.legacy.cuGraphCreate(graph, flags);
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return CallDriver("cudaGraphDestroy",
                    [&](const Driver& driver) { return driver.legacy.cuGraphDestroy(graph); });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return CallDriver("cudaGraphGetNodes", [&](const Driver& driver) {
    return driver.legacy.cuGraphGetNodes(graph, nodes, count);
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                 unsigned long long flags) {
  return CallDriver("cudaGraphInstantiate", [&](const Driver& driver) {
    return driver.legacy.cuGraphInstantiateWithFlags(exec, graph, flags);
  });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long flags) {
  return CallDriver("cudaGraphInstantiateWithFlags", [&](const Driver& driver) {
    return driver.legacy.cuGraphInstantiateWithFlags(exec, graph, flags);
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return CallDriver("cudaGraphExecDestroy",
                    [&](const Driver& driver) { return driver.legacy.cuGraphExecDestroy(exec); });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
  return CallDriver("cudaGraphUpload", [&](const Driver& driver) {
    return driver.legacy.cuGraphUpload(exec, stream);
  });
}

cudaError_t cudaGraphUpload_ptsz(cudaGraphExec_t exec, cudaStream_t stream) {
  return CallDriver("cudaGraphUpload_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuGraphUpload(exec, stream);
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return CallDriver("cudaGraphLaunch", [&](const Driver& driver) {
    return driver.legacy.cuGraphLaunch(exec, stream);
  });
}

cudaError_t cudaGraphLaunch_ptsz(cudaGraphExec_t exec, cudaStream_t stream) {
  return CallDriver("cudaGraphLaunch_ptsz", [&](const Driver& driver) {
    return driver.per_thread.cuGraphLaunch(exec, stream);
  });
}

}  // extern "C"
