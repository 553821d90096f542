// Driver entry points for single nodes of graphs: copies and sets. A node is what the call would
// submit, captured.
#include <algorithm>

#include "captures.h"
#include "contexts.h"
#include "copies.h"
#include "driver_entry.h"

namespace cmp::sim {
namespace {

GraphPtr GraphOf(Simulation& sim, CUgraph handle) {
  const GraphPtr* graph = sim.graphs.Find(handle);
  return graph == nullptr ? nullptr : *graph;
}

Node* FindIn(const GraphPtr& graph, CUgraphNode handle) {
  for (const auto& node : graph->nodes) {
    if (node->handle == handle) return node.get();
  }
  return nullptr;
}

// What submit(stream) puts into a capture, which has one node then.
template <typename Submit>
CUresult Describe(Simulation& sim, Submit submit, Work* work) {
  Stream stream;
  stream.context = sim.contexts.Find(CurrentHandle());
  if (stream.context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  stream.capture = std::make_shared<Capture>();
  stream.capture->graph = std::make_shared<Graph>();
  const CUresult status = submit(stream);
  if (status != CUDA_SUCCESS) return status;
  const auto& nodes = stream.capture->graph->nodes;
  if (nodes.size() != 1) return CUDA_ERROR_INVALID_VALUE;
  *work = std::move(nodes[0]->work);
  return work->refused == Work::Refused::kNever ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult Describe(Simulation& sim, Lock& lock, const CUDA_MEMCPY3D* copy, Work* work) {
  if (copy == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CopyRequest request;
  const CUresult status = ToRequest(*copy, &request);
  if (status != CUDA_SUCCESS) return status;
  return Describe(
      sim, [&](Stream& stream) { return CopyOn(sim, lock, &stream, request); }, work);
}

CUresult Describe(Simulation& sim, Lock& lock, const CUDA_MEMSET_NODE_PARAMS* set, Work* work) {
  if (set == nullptr) return CUDA_ERROR_INVALID_VALUE;
  SetRequest request;
  request.to = set->dst;
  request.pitch = set->pitch;
  request.value = set->value;
  request.element_bytes = set->elementSize;
  request.width = set->width;
  request.height = set->height;
  return Describe(
      sim, [&](Stream& stream) { return SetOn(sim, lock, stream, request); }, work);
}

// Of any kind: those that there are.
CUresult Describe(Simulation& sim, Lock& lock, const CUgraphNodeParams* node, Work* work) {
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (node->type == CU_GRAPH_NODE_TYPE_MEMCPY) {
    return Describe(sim, lock, &node->memcpy.copyParams, work);
  }
  if (node->type != CU_GRAPH_NODE_TYPE_MEMSET) return CUDA_ERROR_NOT_SUPPORTED;
  const CUDA_MEMSET_NODE_PARAMS_v2& of = node->memset;
  const CUDA_MEMSET_NODE_PARAMS set{of.dst,         of.pitch, of.value,
                                    of.elementSize, of.width, of.height};
  return Describe(sim, lock, &set, work);
}

template <typename Parameters>
CUresult Add(Simulation& sim, Lock& lock, CUgraphNode* made, CUgraph handle,
             const CUgraphNode* needs, size_t count, const Parameters* parameters) {
  const GraphPtr graph = GraphOf(sim, handle);
  if (graph == nullptr || made == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto node = std::make_unique<Node>();
  for (size_t i = 0; i < count; ++i) {
    node->needs.push_back(FindIn(graph, needs[i]));
    if (node->needs.back() == nullptr) return CUDA_ERROR_INVALID_VALUE;
  }
  const CUresult status = Describe(sim, lock, parameters, &node->work);
  if (status != CUDA_SUCCESS) return status;
  node->handle = reinterpret_cast<CUgraphNode>(node.get());
  *made = node->handle;
  graph->nodes.push_back(std::move(node));
  return CUDA_SUCCESS;
}

template <typename Parameters>
CUresult Change(Simulation& sim, Lock& lock, Node* node, const Parameters* parameters) {
  if (node == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Work work;
  const CUresult status = Describe(sim, lock, parameters, &work);
  if (status == CUDA_SUCCESS) node->work = std::move(work);
  return status;
}

template <typename Parameters>
CUresult ChangeIn(Simulation& sim, Lock& lock, CUgraphNode handle, const Parameters* parameters) {
  Node* node = nullptr;
  for (const auto& [graph, held] : sim.graphs.all()) {
    if (node == nullptr) node = FindIn(*held, handle);
  }
  return Change(sim, lock, node, parameters);
}

template <typename Parameters>
CUresult ChangeMade(Simulation& sim, Lock& lock, CUgraphExec exec, CUgraphNode handle,
                    const Parameters* parameters) {
  const GraphExec* found = sim.graph_execs.Find(exec);
  if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return Change(sim, lock, FindIn(found->graph, handle), parameters);
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuGraphAddMemcpyNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                              size_t count, const CUDA_MEMCPY3D* copy, CUcontext) {
  return Enter("cuGraphAddMemcpyNode", [&](Simulation& sim, Lock& lock) {
    return Add(sim, lock, made, graph, needs, count, copy);
  });
}

CUresult cuGraphAddMemsetNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                              size_t count, const CUDA_MEMSET_NODE_PARAMS* set, CUcontext) {
  return Enter("cuGraphAddMemsetNode", [&](Simulation& sim, Lock& lock) {
    return Add(sim, lock, made, graph, needs, count, set);
  });
}

CUresult cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D* copy) {
  return Enter("cuGraphMemcpyNodeSetParams",
               [&](Simulation& sim, Lock& lock) { return ChangeIn(sim, lock, node, copy); });
}

CUresult cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS* set) {
  return Enter("cuGraphMemsetNodeSetParams",
               [&](Simulation& sim, Lock& lock) { return ChangeIn(sim, lock, node, set); });
}

CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                        const CUDA_MEMCPY3D* copy, CUcontext) {
  return Enter("cuGraphExecMemcpyNodeSetParams", [&](Simulation& sim, Lock& lock) {
    return ChangeMade(sim, lock, exec, node, copy);
  });
}

CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                        const CUDA_MEMSET_NODE_PARAMS* set, CUcontext) {
  return Enter("cuGraphExecMemsetNodeSetParams",
               [&](Simulation& sim, Lock& lock) { return ChangeMade(sim, lock, exec, node, set); });
}

#undef cuGraphAddNode
CUresult cuGraphAddNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs, size_t count,
                        CUgraphNodeParams* node) {
  return Enter("cuGraphAddNode", [&](Simulation& sim, Lock& lock) {
    return Add(sim, lock, made, graph, needs, count, node);
  });
}

CUresult cuGraphAddNode_v2(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                           const CUgraphEdgeData*, size_t count, CUgraphNodeParams* node) {
  return Enter("cuGraphAddNode_v2", [&](Simulation& sim, Lock& lock) {
    return Add(sim, lock, made, graph, needs, count, node);
  });
}

CUresult cuGraphNodeSetParams(CUgraphNode handle, CUgraphNodeParams* node) {
  return Enter("cuGraphNodeSetParams",
               [&](Simulation& sim, Lock& lock) { return ChangeIn(sim, lock, handle, node); });
}

CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode handle, CUgraphNodeParams* node) {
  return Enter("cuGraphExecNodeSetParams", [&](Simulation& sim, Lock& lock) {
    return ChangeMade(sim, lock, exec, handle, node);
  });
}

CUresult cuGraphDestroyNode(CUgraphNode handle) {
  return Enter("cuGraphDestroyNode", [&](Simulation& sim, Lock&) {
    CUresult status = CUDA_ERROR_INVALID_VALUE;
    for (const auto& [graph, held] : sim.graphs.all()) {
      Node* node = FindIn(*held, handle);
      if (node == nullptr) continue;
      auto& nodes = (*held)->nodes;
      for (const auto& other : nodes) std::erase(other->needs, node);
      std::erase_if(nodes, [&](const auto& other) { return other.get() == node; });
      status = CUDA_SUCCESS;
    }
    return status;
  });
}

}  // extern "C"
