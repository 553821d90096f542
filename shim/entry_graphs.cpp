// The interposed entry points of the driver that describe nodes of graphs by the memory that they
// will copy or set. They are the real calls, which refuse what the program has not
// (named_memory.h).
#include "shim/entry_driver.h"
#include "shim/named_memory.h"

namespace cmp {

namespace {

using named::Replace;

// Of any kind of node, as CUDA 12.2 and later describe it (CUgraphNodeParams).
void ReplaceInNode(Replace& replace, void*& parameters) {
  if (parameters == nullptr) return;
  const auto* node = static_cast<const CUgraphNodeParams*>(parameters);
  if (node->type == CU_GRAPH_NODE_TYPE_MEMCPY) {
    const CUDA_MEMCPY3D* const copy = &node->memcpy.copyParams;
    const CUDA_MEMCPY3D* replaced = copy;
    named::ForEachNamed(replace, replaced);
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

using cmp::named::ForEachNamed;
using cmp::named::Replace;

// ---- Copies

CUresult Driver_cuGraphAddMemcpyNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                                     size_t count, const CUDA_MEMCPY3D* copy, CUcontext context) {
  CMP_REAL(cuGraphAddMemcpyNode);
  Replace replace;
  ForEachNamed(replace, copy);
  return real->cuGraphAddMemcpyNode(made, graph, needs, count, copy, context);
}

CUresult Driver_cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D* copy) {
  CMP_REAL(cuGraphMemcpyNodeSetParams);
  Replace replace;
  ForEachNamed(replace, copy);
  return real->cuGraphMemcpyNodeSetParams(node, copy);
}

CUresult Driver_cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                               const CUDA_MEMCPY3D* copy, CUcontext context) {
  CMP_REAL(cuGraphExecMemcpyNodeSetParams);
  Replace replace;
  ForEachNamed(replace, copy);
  return real->cuGraphExecMemcpyNodeSetParams(exec, node, copy, context);
}

// ---- Sets: CUDA_MEMSET_NODE_PARAMS

CUresult Driver_cuGraphAddMemsetNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                                     size_t count, const void* set, CUcontext context) {
  CMP_REAL(cuGraphAddMemsetNode);
  const auto* of_node = static_cast<const CUDA_MEMSET_NODE_PARAMS*>(set);
  Replace replace;
  ForEachNamed(replace, of_node);
  return real->cuGraphAddMemsetNode(made, graph, needs, count, of_node, context);
}

CUresult Driver_cuGraphMemsetNodeSetParams(CUgraphNode node, const void* set) {
  CMP_REAL(cuGraphMemsetNodeSetParams);
  const auto* of_node = static_cast<const CUDA_MEMSET_NODE_PARAMS*>(set);
  Replace replace;
  ForEachNamed(replace, of_node);
  return real->cuGraphMemsetNodeSetParams(node, of_node);
}

CUresult Driver_cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node, const void* set,
                                               CUcontext context) {
  CMP_REAL(cuGraphExecMemsetNodeSetParams);
  const auto* of_node = static_cast<const CUDA_MEMSET_NODE_PARAMS*>(set);
  Replace replace;
  ForEachNamed(replace, of_node);
  return real->cuGraphExecMemsetNodeSetParams(exec, node, of_node, context);
}

// ---- Either

CUresult Driver_cuGraphAddNode(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                               size_t count, void* node) {
  CMP_REAL(cuGraphAddNode);
  Replace replace;
  cmp::ReplaceInNode(replace, node);
  return real->cuGraphAddNode(made, graph, needs, count, node);
}

CUresult Driver_cuGraphAddNode_v2(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                                  const void* edges, size_t count, void* node) {
  CMP_REAL(cuGraphAddNode_v2);
  Replace replace;
  cmp::ReplaceInNode(replace, node);
  return real->cuGraphAddNode_v2(made, graph, needs, edges, count, node);
}

CUresult Driver_cuGraphAddNode_v3(CUgraphNode* made, CUgraph graph, const CUgraphNode* needs,
                                  const void* edges, size_t count, void* node) {
  CMP_REAL(cuGraphAddNode_v3);
  Replace replace;
  cmp::ReplaceInNode(replace, node);
  return real->cuGraphAddNode_v3(made, graph, needs, edges, count, node);
}

CUresult Driver_cuGraphNodeSetParams(CUgraphNode handle, void* node) {
  CMP_REAL(cuGraphNodeSetParams);
  Replace replace;
  cmp::ReplaceInNode(replace, node);
  return real->cuGraphNodeSetParams(handle, node);
}

CUresult Driver_cuGraphNodeSetParams_v2(CUgraphNode handle, void* node) {
  CMP_REAL(cuGraphNodeSetParams_v2);
  Replace replace;
  cmp::ReplaceInNode(replace, node);
  return real->cuGraphNodeSetParams_v2(handle, node);
}

CUresult Driver_cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode handle, void* node) {
  CMP_REAL(cuGraphExecNodeSetParams);
  Replace replace;
  cmp::ReplaceInNode(replace, node);
  return real->cuGraphExecNodeSetParams(exec, handle, node);
}
