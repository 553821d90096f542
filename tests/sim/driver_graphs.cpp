// Driver entry points about graphs: made by captures, launched, destroyed.
//
// A launch turns each node into an item behind the stream's earlier work; the stream's later work
// comes after all of them.
#include "driver_entry.h"

namespace cmp::sim {
namespace {

CUresult Instantiate(Simulation& sim, CUgraphExec* exec, CUgraph graph, unsigned long long flags) {
  if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const GraphPtr* source = sim.graphs.Find(graph);
  if (source == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto made = std::make_shared<Graph>();
  std::map<const Node*, Node*> copies;
  for (const auto& node : (*source)->nodes) {
    if (node->work.refused == Work::Refused::kWhenMade) return CUDA_ERROR_INVALID_VALUE;
    auto copy = std::make_unique<Node>(*node);
    for (Node*& need : copy->needs) need = copies.at(need);
    copies[node.get()] = copy.get();
    made->nodes.push_back(std::move(copy));
  }
  *exec = sim.graph_execs.Add(std::make_unique<GraphExec>(GraphExec{std::move(made), flags}));
  return CUDA_SUCCESS;
}

// A graph inside a graph: the nodes are captured once more.
CUresult CaptureNodes(Stream& stream, const Graph& graph) {
  for (const auto& node : graph.nodes) {
    const CUresult result = AddToCapture(stream, node->work);  // in order: stricter than needed
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult Launch(Simulation& sim, CUgraphExec handle, CUstream stream_handle,
                DefaultStream null_means) {
  const GraphExec* exec = sim.graph_execs.Find(handle);
  if (exec == nullptr) {
    sim.misuse.Add("a graph handle that is not a live executable graph's was launched");
    return CUDA_ERROR_INVALID_VALUE;
  }
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, stream_handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (stream->capture != nullptr) return CaptureNodes(*stream, *exec->graph);
  for (const auto& node : exec->graph->nodes) {
    if (node->work.refused == Work::Refused::kWhenLaunched) return CUDA_ERROR_INVALID_VALUE;
  }
  Work begin;
  begin.what = "graph begin";
  ItemPtr first;
  const CUresult submitted = SubmitWork(sim, *stream, std::move(begin), &first);
  if (submitted != CUDA_SUCCESS) return submitted;
  std::map<const Node*, ItemPtr> items;
  std::vector<ItemPtr> all{first};
  for (const auto& node : exec->graph->nodes) {
    std::vector<ItemPtr> needs{first};
    for (const Node* need : node->needs) needs.push_back(items.at(need));
    items[node.get()] = sim.scheduler.Submit(*stream->context, node->work, std::move(needs));
    all.push_back(items[node.get()]);
  }
  Work end;
  end.what = "graph end";
  stream->tail = sim.scheduler.Submit(*stream->context, std::move(end), std::move(all));
  return CUDA_SUCCESS;
}

// Touches no memory of the program's.
CUresult Upload(Simulation& sim, CUgraphExec exec, CUstream handle, DefaultStream null_means) {
  if (sim.graph_execs.Find(exec) == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, handle, null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (stream->capture != nullptr) return Invalidate(*stream->capture);
  Work work;
  work.what = "graph upload";
  work.duration_ns = 1000;
  return SubmitWork(sim, *stream, std::move(work));
}

}  // namespace
}  // namespace cmp::sim

using namespace cmp::sim;

extern "C" {

CUresult cuGraphCreate(CUgraph* graph, unsigned int flags) {
  return Enter("cuGraphCreate", [&](Simulation& sim, Lock&) -> CUresult {
    if (graph == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    *graph = sim.graphs.Add(std::make_unique<GraphPtr>(std::make_shared<Graph>()));
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphDestroy(CUgraph graph) {
  return Enter("cuGraphDestroy", [&](Simulation& sim, Lock&) -> CUresult {
    return sim.graphs.Remove(graph) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
  return Enter("cuGraphGetNodes", [&](Simulation& sim, Lock&) -> CUresult {
    const GraphPtr* found = sim.graphs.Find(graph);
    if (found == nullptr || count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const auto& all = (*found)->nodes;
    for (size_t i = 0; nodes != nullptr && i < *count; ++i) {
      nodes[i] = i < all.size() ? all[i]->handle : nullptr;
    }
    if (nodes == nullptr || *count > all.size()) *count = all.size();
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphInstantiate(CUgraphExec* exec, CUgraph graph, CUgraphNode*, char*, size_t) {
  return Enter("cuGraphInstantiate",
               [&](Simulation& sim, Lock&) { return Instantiate(sim, exec, graph, 0); });
}

CUresult cuGraphInstantiate_v2(CUgraphExec* exec, CUgraph graph, CUgraphNode*, char*, size_t) {
  return Enter("cuGraphInstantiate_v2",
               [&](Simulation& sim, Lock&) { return Instantiate(sim, exec, graph, 0); });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long flags) {
  return Enter("cuGraphInstantiateWithFlags",
               [&](Simulation& sim, Lock&) { return Instantiate(sim, exec, graph, flags); });
}

CUresult cuGraphInstantiateWithParams(CUgraphExec* exec, CUgraph graph,
                                      CUDA_GRAPH_INSTANTIATE_PARAMS* params) {
  return Enter("cuGraphInstantiateWithParams", [&](Simulation& sim, Lock&) -> CUresult {
    if (params == nullptr) return CUDA_ERROR_INVALID_VALUE;
    params->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return Instantiate(sim, exec, graph, params->flags);
  });
}

CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec* exec, CUgraph graph,
                                           CUDA_GRAPH_INSTANTIATE_PARAMS* params) {
  return Enter("cuGraphInstantiateWithParams_ptsz", [&](Simulation& sim, Lock&) -> CUresult {
    if (params == nullptr) return CUDA_ERROR_INVALID_VALUE;
    params->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return Instantiate(sim, exec, graph, params->flags);
  });
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
  return Enter("cuGraphExecDestroy", [&](Simulation& sim, Lock&) -> CUresult {
    Context* context = nullptr;
    // It says nothing of a crash; calls after it do. (Not after one of empty nodes alone.)
    if (RequireContext(sim, &context) == CUDA_SUCCESS) FindOut(sim, *context);
    return sim.graph_execs.Remove(exec) == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
  });
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
  return Enter("cuGraphUpload",
               [&](Simulation& sim, Lock&) { return Upload(sim, exec, stream, kLegacy); });
}

CUresult cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream) {
  return Enter("cuGraphUpload_ptsz",
               [&](Simulation& sim, Lock&) { return Upload(sim, exec, stream, kPerThread); });
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  return Enter("cuGraphLaunch",
               [&](Simulation& sim, Lock&) { return Launch(sim, exec, stream, kLegacy); });
}

CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream) {
  return Enter("cuGraphLaunch_ptsz",
               [&](Simulation& sim, Lock&) { return Launch(sim, exec, stream, kPerThread); });
}

}  // extern "C"
