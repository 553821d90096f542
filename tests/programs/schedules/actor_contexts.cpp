// Contexts that an actor makes, enters and destroys.
#include <thread>

#include "actor.h"
#include "create_context.h"

namespace schedules {
namespace {

void MustDriver(CUresult result, const char* what, const char* file = __builtin_FILE(),
                int line = __builtin_LINE()) {
  program::Must(static_cast<cudaError_t>(result), what, file, line);
}

}  // namespace

// The first is the device's primary one, the others the actor's own.
void Actor::MakeContext() {
  const size_t number = contexts_.size();
  ContextOf made;
  if (number > 0) {
    MustDriver(CreateContext(&made.handle), "cuCtxCreate");
    CUcontext popped = nullptr;
    MustDriver(cuCtxPopCurrent(&popped), "cuCtxPopCurrent");
    MustDriver(cuCtxSetCurrent(made.handle), "cuCtxSetCurrent");
  } else {
    MustDriver(cuCtxGetCurrent(&made.handle), "cuCtxGetCurrent");
  }
  StreamOf legacy;
  legacy.kind = Kind::kLegacy;
  legacy.own = false;
  legacy.place = ordering_.AddStream(number, Kind::kLegacy);
  StreamOf per_thread;
  per_thread.handle = cudaStreamPerThread;
  per_thread.kind = Kind::kBlocking;
  per_thread.own = false;
  per_thread.place = ordering_.AddStream(number, Kind::kBlocking);
  made.streams = {legacy, per_thread};
  contexts_.push_back(made);
  current_ = number;
}

void Actor::Enter(size_t context) {
  MustDriver(cuCtxSetCurrent(contexts_[context].handle), "cuCtxSetCurrent");
  current_ = context;
}

bool Actor::SwitchContext() {
  if (contexts_.size() < settings_.contexts && !ordering_.Full() && Chance(2)) {
    SettleEverything();  // leaves the places of two streams
    MakeContext();
    return true;
  }
  if (contexts_.size() > 1 && Chance(8)) return DestroyContext(contexts_.size() - 1);
  Enter(random_.Below(contexts_.size()));
  return true;
}

// What waits for the context's events waits no longer; its blocks go with it.
bool Actor::DestroyContext(size_t context) {
  if (context != contexts_.size() - 1) return false;
  for (size_t i = graphs_.size(); i-- > 0;) {
    if (graphs_[i].context == context) DropGraph(i);
  }
  SettleEverything();
  Enter(0);
  for (size_t i = blocks_.size(); i-- > 0;) {
    if (blocks_[i]->context != context) continue;
    simNoteFree(blocks_[i]->pointer);
    blocks_[i] = std::move(blocks_.back());
    blocks_.pop_back();
  }
  for (EventOf& event : events_) {
    if (event.context != context) continue;
    if (event.handle != nullptr) Ok(cudaEventDestroy(event.handle), "cudaEventDestroy");
    event = EventOf{};
  }
  for (const StreamOf& stream : contexts_[context].streams) ordering_.DestroyStream(stream.place);
  MustDriver(cuCtxDestroy(contexts_[context].handle), "cuCtxDestroy");
  contexts_.pop_back();
  SettleEverything();
  return true;
}

// Waits for all work, and begins all clocks anew.
void Actor::SettleEverything() {
  const size_t before = current_;
  for (size_t context = 0; context < contexts_.size(); ++context) {
    if (context != current_) Enter(context);
    // Fails while another thread captures, whose capture ends by it.
    while (!Ok(cudaDeviceSynchronize(), "cudaDeviceSynchronize")) std::this_thread::yield();
    ordering_.HostWaitsForContext(context);
  }
  if (current_ != before) Enter(before);
  ordering_.Forget();
  for (const auto& block : blocks_) block->Settled();
  for (const auto& block : page_locked_) block->Settled();
  for (EventOf& event : events_) {
    event.clock = Clock{};
    event.point = {};
  }
  if (graphs_.empty()) old_kernels_.clear();
}

}  // namespace schedules
