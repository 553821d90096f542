// Captures in all modes, forked, abandoned, invalidated, and the graphs that they make.
#include "actor.h"

namespace schedules {

// One operation: a whole capture, with other calls in between.
bool Actor::Capture() {
  std::vector<StreamOf>& streams = contexts_[current_].streams;
  StreamOf& origin = streams[1 + random_.Below(streams.size() - 1)];
  if (settings_.threads > 1 && origin.kind == Kind::kBlocking) return false;
  static constexpr cudaStreamCaptureMode kModes[] = {
      cudaStreamCaptureModeRelaxed, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeGlobal};
  const cudaStreamCaptureMode mode = kModes[random_.Below(settings_.threads > 1 ? 2 : 3)];
  if (!Ok(cudaStreamBeginCapture(origin.handle, mode), "cudaStreamBeginCapture")) return true;
  errors_allowed_ = true;
  origin.capturing = true;
  Graph graph;
  graph.context = current_;
  std::vector<Branch> branches{{&origin, {}}};
  const uint32_t origin_place = origin.place;
  for (uint64_t left = 1 + random_.Below(10); left > 0; --left) {
    bool goes_on = true;
    switch (random_.Below(10)) {
      case 0:
        goes_on = CaptureFork(&graph, &branches);
        break;
      case 1:
      case 2:
        goes_on = CaptureOtherCalls(mode);
        break;
      default:
        goes_on = CaptureStep(&graph, &branches);
        break;
    }
    if (!goes_on) break;
    ++operations_;
  }
  const auto forget_uses = [&] {
    for (const Step& step : graph.steps) {
      for (Block* block : step.reads) --block->graphs;
      for (Block* block : step.writes) --block->graphs;
    }
    for (auto& kernel : graph.kernels) old_kernels_.push_back(std::move(kernel));
  };
  const auto stop_capturing = [&] {
    for (StreamOf& stream : streams) stream.capturing = false;
  };
  StreamOf* begun = StreamAt(origin_place);
  if (begun->own && Chance(10)) {  // abandoned
    stop_capturing();
    DestroyStream(static_cast<size_t>(begun - streams.data()));
    forget_uses();
    errors_allowed_ = false;
    return true;
  }
  if (branches.size() > 1 && !Chance(6)) CaptureFork(&graph, &branches);  // join
  cudaGraph_t made = nullptr;
  const bool ended = Ok(cudaStreamEndCapture(begun->handle, &made), "cudaStreamEndCapture");
  stop_capturing();
  if (ended && graphs_.size() < 3) {
    if (Ok(cudaGraphInstantiate(&graph.executable, made, 0), "cudaGraphInstantiate")) {
      graphs_.push_back(std::move(graph));
    } else {
      forget_uses();
    }
  } else {
    forget_uses();
  }
  if (ended) Ok(cudaGraphDestroy(made), "cudaGraphDestroy");
  errors_allowed_ = false;
  return true;
}

// Work on one of the branches, on blocks that no parallel branch uses.
bool Actor::CaptureStep(Graph* graph, std::vector<Branch>* branches) {
  const size_t which = random_.Below(branches->size());
  Branch& branch = (*branches)[which];
  const auto usable = [&](const Block* block) {
    if (!block->known) return false;
    for (size_t i = 0; i < branches->size(); ++i) {
      const std::vector<Block*>& used = (*branches)[i].used;
      if (i != which && std::find(used.begin(), used.end(), block) != used.end()) return false;
    }
    return true;
  };
  Step step;
  step.id = (static_cast<uint64_t>(number_) << 40) + operations_;
  if (Chance(4)) {
    Block* to = RandomBlock(true, false);
    if (to == nullptr) return true;
    step.what = Step::kSet;
    step.to_last = Chance(2);
    step.value = static_cast<unsigned char>(random_.Next());
    step.writes.push_back(to);
  } else if (Chance(4)) {
    step.what = Step::kHostFunction;
    PickBlocks(&step, true);
  } else {
    PickBlocks(&step, false);
    std::erase_if(step.writes, [](const Block* block) { return !block->known; });
    if (step.writes.empty()) return true;
  }
  for (const auto* list : {&step.reads, &step.writes}) {
    if (!std::all_of(list->begin(), list->end(), usable)) return true;
  }
  std::unique_ptr<Kernel> kernel;
  if (!Ok(Submit(step, branch.stream->handle, &kernel), "a captured submission")) return true;
  if (kernel != nullptr) graph->kernels.push_back(std::move(kernel));
  for (auto* list : {&step.reads, &step.writes}) {
    for (Block* block : *list) {
      ++block->graphs;
      branch.used.push_back(block);
    }
  }
  graph->steps.push_back(std::move(step));
  return true;
}

// A second branch on another stream; or its end.
bool Actor::CaptureFork(Graph*, std::vector<Branch>* branches) {
  cudaEvent_t event = nullptr;
  if (!Ok(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate")) return true;
  StreamOf& origin = *(*branches)[0].stream;
  if (branches->size() == 1) {
    std::vector<StreamOf>& streams = contexts_[current_].streams;
    StreamOf& other = streams[1 + random_.Below(streams.size() - 1)];
    const bool suits =
        !other.capturing && (settings_.threads == 1 || other.kind == Kind::kNonBlocking);
    if (suits && Ok(cudaEventRecord(event, origin.handle), "a captured record") &&
        Ok(cudaStreamWaitEvent(other.handle, event, 0), "a captured wait")) {
      other.capturing = true;
      (*branches)[0].used.clear();
      branches->push_back({&other, {}});
    }
  } else if (Ok(cudaEventRecord(event, (*branches)[1].stream->handle), "a captured record") &&
             Ok(cudaStreamWaitEvent(origin.handle, event, 0), "a captured wait")) {
    // What the origin does from here on comes after the branch, but not the branch's own steps
    // after the origin's: the stream stays in the capture, unused.
    branches->pop_back();
    (*branches)[0].used.clear();
  }
  Ok(cudaEventDestroy(event), "cudaEventDestroy");
  return true;
}

// Calls that are no part of the capture, and that it may not survive.
bool Actor::CaptureOtherCalls(cudaStreamCaptureMode mode) {
  const auto allocate_or_free = [&] {
    if (blocks_.empty() || Chance(2)) return Allocate(RandomSize());
    const size_t index = random_.Below(blocks_.size());
    return MayFree(*blocks_[index]) && Free(index);
  };
  if (Chance(20)) {
    Synchronize();
  } else if (Chance(3)) {
    cudaStreamCaptureMode exchanged = cudaStreamCaptureModeRelaxed;
    if (Ok(cudaThreadExchangeStreamCaptureMode(&exchanged), "an exchange")) {
      for (uint64_t i = random_.Below(4); i > 0; --i) allocate_or_free();
      Ok(cudaThreadExchangeStreamCaptureMode(&exchanged), "an exchange");
    }
  } else if (mode == cudaStreamCaptureModeRelaxed || Chance(8)) {
    for (uint64_t i = random_.Below(4); i > 0; --i) allocate_or_free();
  }
  std::vector<StreamOf>& streams = contexts_[current_].streams;
  StreamOf& other = streams[1 + random_.Below(streams.size() - 1)];
  if (!other.capturing) Launch(other);
  return true;
}

void Actor::DropGraph(size_t index) {
  Graph& graph = graphs_[index];
  for (const Step& step : graph.steps) {
    for (Block* block : step.reads) --block->graphs;
    for (Block* block : step.writes) --block->graphs;
  }
  for (auto& kernel : graph.kernels) old_kernels_.push_back(std::move(kernel));
  Ok(cudaGraphExecDestroy(graph.executable), "cudaGraphExecDestroy");
  graphs_.erase(graphs_.begin() + static_cast<std::ptrdiff_t>(index));
}

// A launch is one submission that does all of the graph's steps.
bool Actor::LaunchGraph() {
  const size_t index = random_.Below(graphs_.size());
  Graph& graph = graphs_[index];
  if (Chance(6)) {
    DropGraph(index);
    return true;
  }
  if (graph.context != current_) return false;
  Step all;
  for (const Step& step : graph.steps) {
    all.reads.insert(all.reads.end(), step.reads.begin(), step.reads.end());
    all.writes.insert(all.writes.end(), step.writes.begin(), step.writes.end());
  }
  const StreamOf& stream = RandomStream();
  const uint32_t place = stream.place;
  const cudaStream_t handle = stream.handle;
  if (!all.MayRun(ordering_.Before(place)) && !MakeOrdered(place, all)) return false;
  if (!Ok(cudaGraphLaunch(graph.executable, handle), "cudaGraphLaunch")) return true;
  all.Note(ordering_.Submit(place, ordering_.Before(place), true));
  for (const Step& step : graph.steps) step.Apply();
  return true;
}

}  // namespace schedules
