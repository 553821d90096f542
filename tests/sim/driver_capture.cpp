// Driver entry points about stream capture.
#include "driver_entry.h"

namespace cmp::sim {
namespace {

CUresult Begin(Simulation& sim, CUstream handle, DefaultStream null_means, CUstreamCaptureMode mode,
               CUgraph graph = nullptr) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  return result != CUDA_SUCCESS ? result : BeginCapture(sim, *stream, mode, graph);
}

// Into a graph that was captured before: its nodes are captured anew.
CUresult BeginAgain(Simulation& sim, CUstream handle, DefaultStream null_means,
                    CUstreamCaptureMode mode, CUgraph graph) {
  GraphPtr* target = sim.graphs.Find(graph);
  if (target == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = Begin(sim, handle, null_means, mode, graph);
  if (result == CUDA_SUCCESS) (*target)->nodes.clear();
  return result;
}

CUresult End(Simulation& sim, CUstream handle, DefaultStream null_means, CUgraph* graph) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  return result != CUDA_SUCCESS ? result : EndCapture(sim, *stream, graph);
}

CUresult IsCapturing(Simulation& sim, CUstream handle, DefaultStream null_means,
                     CUstreamCaptureStatus* status, cuuint64_t* id = nullptr,
                     CUgraph* graph = nullptr, const CUgraphNode** nodes = nullptr,
                     size_t* node_count = nullptr) {
  if (status == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  *status = CU_STREAM_CAPTURE_STATUS_NONE;
  if (graph != nullptr) *graph = nullptr;
  if (nodes != nullptr) *nodes = nullptr;
  if (node_count != nullptr) *node_count = 0;
  if (stream->capture == nullptr) {
    // Asking about the legacy stream is refused like a use of it.
    return stream->legacy ? CheckLegacyUse(sim, *stream->context, true) : CUDA_SUCCESS;
  }
  Capture& capture = *stream->capture;
  *status =
      capture.invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  if (id != nullptr) *id = capture.id;
  if (graph != nullptr && !capture.invalidated) {
    if (capture.graph_handle == nullptr) {
      capture.graph_handle = sim.graphs.Add(std::make_unique<GraphPtr>(capture.graph));
    }
    *graph = capture.graph_handle;
  }
  static thread_local std::vector<CUgraphNode> handles;
  handles.clear();
  for (const Node* node : stream->capture_tail) handles.push_back(node->handle);
  if (nodes != nullptr) *nodes = handles.data();
  if (node_count != nullptr) *node_count = handles.size();
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  return Enter("cuThreadExchangeStreamCaptureMode", Needs::kOnlyInitialisation,
               [&](Simulation&, Lock&) -> CUresult {
                 if (mode == nullptr || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
                   return CUDA_ERROR_INVALID_VALUE;
                 *mode = ExchangeThreadMode(*mode);
                 return CUDA_SUCCESS;
               });
}

// Version 10000 had no mode: global.
CUresult cuStreamBeginCapture(CUstream stream) {
  return Enter("cuStreamBeginCapture", [&](Simulation& sim, Lock&) {
    return Begin(sim, stream, kLegacy, CU_STREAM_CAPTURE_MODE_GLOBAL);
  });
}

CUresult cuStreamBeginCapture_ptsz(CUstream stream) {
  return Enter("cuStreamBeginCapture_ptsz", [&](Simulation& sim, Lock&) {
    return Begin(sim, stream, kPerThread, CU_STREAM_CAPTURE_MODE_GLOBAL);
  });
}

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  return Enter("cuStreamBeginCapture_v2",
               [&](Simulation& sim, Lock&) { return Begin(sim, stream, kLegacy, mode); });
}

CUresult cuStreamBeginCapture_v2_ptsz(CUstream stream, CUstreamCaptureMode mode) {
  return Enter("cuStreamBeginCapture_v2_ptsz",
               [&](Simulation& sim, Lock&) { return Begin(sim, stream, kPerThread, mode); });
}

CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph, const CUgraphNode*,
                                     const CUgraphEdgeData*, size_t, CUstreamCaptureMode mode) {
  return Enter("cuStreamBeginCaptureToGraph",
               [&](Simulation& sim, Lock&) { return Begin(sim, stream, kLegacy, mode, graph); });
}

CUresult cuStreamBeginCaptureToGraph_ptsz(CUstream stream, CUgraph graph, const CUgraphNode*,
                                          const CUgraphEdgeData*, size_t,
                                          CUstreamCaptureMode mode) {
  return Enter("cuStreamBeginCaptureToGraph_ptsz",
               [&](Simulation& sim, Lock&) { return Begin(sim, stream, kPerThread, mode, graph); });
}

CUresult cuStreamBeginRecaptureToGraph(CUstream stream, CUstreamCaptureMode mode, CUgraph graph,
                                       CUgraphRecaptureCallback, void*) {
  return Enter("cuStreamBeginRecaptureToGraph", [&](Simulation& sim, Lock&) {
    return BeginAgain(sim, stream, kLegacy, mode, graph);
  });
}
CUresult cuStreamBeginRecaptureToGraph_ptsz(CUstream stream, CUstreamCaptureMode mode,
                                            CUgraph graph, CUgraphRecaptureCallback, void*) {
  return Enter("cuStreamBeginRecaptureToGraph_ptsz", [&](Simulation& sim, Lock&) {
    return BeginAgain(sim, stream, kPerThread, mode, graph);
  });
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  return Enter("cuStreamEndCapture",
               [&](Simulation& sim, Lock&) { return End(sim, stream, kLegacy, graph); });
}

CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph* graph) {
  return Enter("cuStreamEndCapture_ptsz",
               [&](Simulation& sim, Lock&) { return End(sim, stream, kPerThread, graph); });
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  return Enter("cuStreamIsCapturing", Needs::kOnlyInitialisation,
               [&](Simulation& sim, Lock&) { return IsCapturing(sim, stream, kLegacy, status); });
}

CUresult cuStreamIsCapturing_ptsz(CUstream stream, CUstreamCaptureStatus* status) {
  return Enter("cuStreamIsCapturing_ptsz", Needs::kOnlyInitialisation, [&](Simulation& sim, Lock&) {
    return IsCapturing(sim, stream, kPerThread, status);
  });
}

CUresult cuStreamGetCaptureInfo(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t* id) {
  return Enter("cuStreamGetCaptureInfo", [&](Simulation& sim, Lock&) {
    return IsCapturing(sim, stream, kLegacy, status, id);
  });
}

CUresult cuStreamGetCaptureInfo_ptsz(CUstream stream, CUstreamCaptureStatus* status,
                                     cuuint64_t* id) {
  return Enter("cuStreamGetCaptureInfo_ptsz", [&](Simulation& sim, Lock&) {
    return IsCapturing(sim, stream, kPerThread, status, id);
  });
}

CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t* id,
                                   CUgraph* graph, const CUgraphNode** nodes, size_t* count) {
  return Enter("cuStreamGetCaptureInfo_v2", [&](Simulation& sim, Lock&) {
    return IsCapturing(sim, stream, kLegacy, status, id, graph, nodes, count);
  });
}

CUresult cuStreamGetCaptureInfo_v2_ptsz(CUstream stream, CUstreamCaptureStatus* status,
                                        cuuint64_t* id, CUgraph* graph, const CUgraphNode** nodes,
                                        size_t* count) {
  return Enter("cuStreamGetCaptureInfo_v2_ptsz", [&](Simulation& sim, Lock&) {
    return IsCapturing(sim, stream, kPerThread, status, id, graph, nodes, count);
  });
}

CUresult cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus* status, cuuint64_t* id,
                                   CUgraph* graph, const CUgraphNode** nodes,
                                   const CUgraphEdgeData** edges, size_t* count) {
  return Enter("cuStreamGetCaptureInfo_v3", [&](Simulation& sim, Lock&) {
    if (edges != nullptr) *edges = nullptr;
    return IsCapturing(sim, stream, kLegacy, status, id, graph, nodes, count);
  });
}

CUresult cuStreamGetCaptureInfo_v3_ptsz(CUstream stream, CUstreamCaptureStatus* status,
                                        cuuint64_t* id, CUgraph* graph, const CUgraphNode** nodes,
                                        const CUgraphEdgeData** edges, size_t* count) {
  return Enter("cuStreamGetCaptureInfo_v3_ptsz", [&](Simulation& sim, Lock&) {
    if (edges != nullptr) *edges = nullptr;
    return IsCapturing(sim, stream, kPerThread, status, id, graph, nodes, count);
  });
}

}  // extern "C"
