// The interposed entry points of the driver that describe nodes of graphs by the memory that they
// will copy or set. They are the real calls, which refuse what the program has not
// (named_memory.h).
#include "shim/lookup/entry_points.h"
#include "shim/service/named_memory.h"

namespace cmp {

namespace {

using named::Replace;

void ReplaceIn(Replace& replace, const CUDA_MEMCPY3D*& copy) { ForEachNamed(replace, copy); }

// CUDA_MEMSET_NODE_PARAMS
void ReplaceIn(Replace& replace, const void*& parameters) {
  const auto* set = static_cast<const CUDA_MEMSET_NODE_PARAMS*>(parameters);
  ForEachNamed(replace, set);
  parameters = set;
}

// CUgraphNodeParams: of any kind of node, from CUDA 12.2 on.
void ReplaceIn(Replace& replace, void*& parameters) {
  if (parameters == nullptr) return;
  const auto* node = static_cast<const CUgraphNodeParams*>(parameters);
  if (node->type == CU_GRAPH_NODE_TYPE_MEMCPY) {
    const CUDA_MEMCPY3D* const copy = &node->memcpy.copyParams;
    const CUDA_MEMCPY3D* replaced = copy;
    ForEachNamed(replace, replaced);
    if (replaced == copy) return;
    CUgraphNodeParams& changed = replace.Copied(*node);
    changed.memcpy.copyParams = *replaced;
    parameters = &changed;
  } else if (node->type == CU_GRAPH_NODE_TYPE_MEMSET) {
    CUgraphNodeParams changed = *node;
    named::VisitSet(replace, changed.memset);
    if (changed.memset.dst != node->memset.dst) parameters = &replace.Copied(changed);
  }
}

}  // namespace

}  // namespace cmp

// The real function of that name with these arguments, once `memory` names no memory that the
// program has not.
#define CMP_REAL_WITH_REPLACED(memory, name, arguments) \
  CMP_REAL(name);                                       \
  cmp::named::Replace replace;                          \
  cmp::ReplaceIn(replace, memory);                      \
  return real->name arguments

// ---- Copies

CUresult Driver_cuGraphAddMemcpyNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                                     size_t count, const CUDA_MEMCPY3D* copy, CUcontext context) {
  CMP_REAL_WITH_REPLACED(copy, cuGraphAddMemcpyNode, (made, graph, needs, count, copy, context));
}

CUresult Driver_cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D* copy) {
  CMP_REAL_WITH_REPLACED(copy, cuGraphMemcpyNodeSetParams, (node, copy));
}

CUresult Driver_cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                               const CUDA_MEMCPY3D* copy, CUcontext context) {
  CMP_REAL_WITH_REPLACED(copy, cuGraphExecMemcpyNodeSetParams, (exec, node, copy, context));
}

// ---- Sets

CUresult Driver_cuGraphAddMemsetNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                                     size_t count, const void* set, CUcontext context) {
  CMP_REAL_WITH_REPLACED(set, cuGraphAddMemsetNode, (made, graph, needs, count, set, context));
}

CUresult Driver_cuGraphMemsetNodeSetParams(CUgraphNode node, const void* set) {
  CMP_REAL_WITH_REPLACED(set, cuGraphMemsetNodeSetParams, (node, set));
}

CUresult Driver_cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node, const void* set,
                                               CUcontext context) {
  CMP_REAL_WITH_REPLACED(set, cuGraphExecMemsetNodeSetParams, (exec, node, set, context));
}

// ---- Either

CUresult Driver_cuGraphAddNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                               size_t count, void* node) {
  CMP_REAL_WITH_REPLACED(node, cuGraphAddNode, (made, graph, needs, count, node));
}

CUresult Driver_cuGraphAddNode_v2(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                                  const void* edges, size_t count, void* node) {
  CMP_REAL_WITH_REPLACED(node, cuGraphAddNode_v2, (made, graph, needs, edges, count, node));
}

CUresult Driver_cuGraphAddNode_v3(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                                  const void* edges, size_t count, void* node) {
  CMP_REAL_WITH_REPLACED(node, cuGraphAddNode_v3, (made, graph, needs, edges, count, node));
}

CUresult Driver_cuGraphNodeSetParams(CUgraphNode handle, void* node) {
  CMP_REAL_WITH_REPLACED(node, cuGraphNodeSetParams, (handle, node));
}

CUresult Driver_cuGraphNodeSetParams_v2(CUgraphNode handle, void* node) {
  CMP_REAL_WITH_REPLACED(node, cuGraphNodeSetParams_v2, (handle, node));
}

CUresult Driver_cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode handle, void* node) {
  CMP_REAL_WITH_REPLACED(node, cuGraphExecNodeSetParams, (exec, handle, node));
}
