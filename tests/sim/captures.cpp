#include "captures.h"

#include <algorithm>

namespace cmp::sim {
namespace {

thread_local CUstreamCaptureMode t_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

void Finish(Simulation& sim, const std::shared_ptr<Capture>& capture) {
  for (Stream* stream : capture->streams) {
    stream->capture = nullptr;
    stream->capture_tail.clear();
  }
  capture->streams.clear();
  sim.captures.erase(capture);
}

bool IsCapturedIn(const Capture& capture, const Context& context) {
  return std::any_of(capture.streams.begin(), capture.streams.end(),
                     [&](const Stream* stream) { return context.Includes(*stream->context); });
}

// Work of the capture that no stream's tail reaches from the origin: a fork that never joined.
bool HasUnjoinedFork(const Capture& capture) {
  std::set<const Node*> joined;
  std::vector<const Node*> open(capture.origin->capture_tail.begin(),
                                capture.origin->capture_tail.end());
  while (!open.empty()) {
    const Node* node = open.back();
    open.pop_back();
    if (joined.insert(node).second) open.insert(open.end(), node->needs.begin(), node->needs.end());
  }
  const auto is_open = [&](const Node* node) { return joined.count(node) == 0; };
  const auto has_open = [&](const std::vector<Node*>& tail) {
    return std::any_of(tail.begin(), tail.end(), is_open);
  };
  return has_open(capture.abandoned) ||
         std::any_of(capture.streams.begin(), capture.streams.end(),
                     [&](const Stream* stream) { return has_open(stream->capture_tail); });
}

}  // namespace

CUstreamCaptureMode ExchangeThreadMode(CUstreamCaptureMode mode) {
  return std::exchange(t_mode, mode);
}

CUresult Invalidate(Capture& capture) {
  capture.invalidated = true;
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult CheckUnsafeCall(Simulation& sim) {
  if (t_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
  CUresult result = CUDA_SUCCESS;
  for (const auto& capture : sim.captures) {
    const bool mine = capture->thread == ThisThread();
    const bool forbids = mine ? capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED
                              : capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                                    t_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (forbids && !capture->invalidated) result = Invalidate(*capture);
  }
  return result;
}

CUresult CheckContextCall(Simulation& sim, const Context& context) {
  CUresult result = CUDA_SUCCESS;
  for (const auto& capture : sim.captures) {
    if (!capture->invalidated && IsCapturedIn(*capture, context)) result = Invalidate(*capture);
  }
  return result;
}

CUresult CheckLegacyUse(Simulation& sim, const Context& context, bool only_asked) {
  CUresult result = CUDA_SUCCESS;
  for (const auto& capture : sim.captures) {
    const bool blocking = std::any_of(
        capture->streams.begin(), capture->streams.end(),
        [&](const Stream* stream) { return stream->context == &context && stream->blocking(); });
    if (!blocking || capture->invalidated) continue;
    if (!only_asked) capture->invalidated = true;
    result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  return result;
}

CUresult CheckStreamCall(Simulation& sim, Stream& stream) {
  if (stream.capture != nullptr) return Invalidate(*stream.capture);
  if (stream.legacy) {
    const CUresult result = CheckLegacyUse(sim, *stream.context);
    if (result != CUDA_SUCCESS) return result;
  }
  return CheckUnsafeCall(sim);
}

CUresult BeginCapture(Simulation& sim, Stream& stream, CUstreamCaptureMode mode, CUgraph graph) {
  if (stream.legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream.capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  auto capture = std::make_shared<Capture>();
  capture->id = ++sim.last_id;
  capture->mode = mode;
  capture->thread = ThisThread();
  capture->origin = &stream;
  if (graph != nullptr) {
    GraphPtr* target = sim.graphs.Find(graph);
    if (target == nullptr) return CUDA_ERROR_INVALID_VALUE;
    capture->graph = *target;
    capture->graph_handle = graph;
  } else {
    capture->graph = std::make_shared<Graph>();
  }
  capture->streams.insert(&stream);
  stream.capture = capture;
  sim.captures.insert(capture);
  return CUDA_SUCCESS;
}

CUresult EndCapture(Simulation& sim, Stream& stream, CUgraph* graph) {
  if (graph != nullptr) *graph = nullptr;
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != &stream) {
    Invalidate(*capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  }
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != ThisThread()) {
    Finish(sim, capture);  // it is over all the same, as measured
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  const bool unjoined = HasUnjoinedFork(*capture);
  const bool invalidated = capture->invalidated;
  Finish(sim, capture);
  if (invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (unjoined) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  if (graph == nullptr) return CUDA_SUCCESS;
  *graph = capture->graph_handle != nullptr
               ? capture->graph_handle
               : sim.graphs.Add(std::make_unique<GraphPtr>(capture->graph));
  return CUDA_SUCCESS;
}

CUresult AddToCapture(Stream& stream, Work work) {
  Capture& capture = *stream.capture;
  if (capture.invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  auto node = std::make_unique<Node>();
  node->handle = reinterpret_cast<CUgraphNode>(node.get());
  node->work = std::move(work);
  node->needs = stream.capture_tail;
  stream.capture_tail = {node.get()};
  capture.graph->nodes.push_back(std::move(node));
  return CUDA_SUCCESS;
}

CUresult JoinCapture(Stream& stream, const Event& event) {
  const std::shared_ptr<Capture>& capture = event.capture;
  if (capture->streams.empty()) return CUDA_ERROR_INVALID_VALUE;  // it ended
  if (capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (stream.legacy) {
    capture->invalidated = true;
    return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  if (stream.capture == nullptr) {
    stream.capture = capture;
    capture->streams.insert(&stream);
  } else if (stream.capture != capture) {
    Invalidate(*stream.capture);
    Invalidate(*capture);
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  for (Node* node : event.nodes) {
    auto& tail = stream.capture_tail;
    if (std::find(tail.begin(), tail.end(), node) == tail.end()) tail.push_back(node);
  }
  return CUDA_SUCCESS;
}

void LeaveCapture(Simulation& sim, Stream& stream) {
  const std::shared_ptr<Capture> capture = stream.capture;
  if (capture->origin == &stream) {
    Finish(sim, capture);
    return;
  }
  capture->abandoned.insert(capture->abandoned.end(), stream.capture_tail.begin(),
                            stream.capture_tail.end());
  capture->streams.erase(&stream);
  stream.capture = nullptr;
}

}  // namespace cmp::sim
