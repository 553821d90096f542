// What an actor submits, and how it establishes an order where there is none yet.
#include "actor.h"
#include "stalls.h"

namespace schedules {

Actor::StreamOf& Actor::RandomStream() {
  std::vector<StreamOf>& streams = contexts_[current_].streams;
  for (;;) {
    StreamOf& stream = streams[random_.Below(streams.size())];
    if (!stream.capturing) return stream;  // the legacy stream never is
  }
}

Actor::StreamOf* Actor::StreamAt(uint32_t place) {
  for (ContextOf& context : contexts_) {
    for (StreamOf& stream : context.streams) {
      if (stream.place == place) return &stream;
    }
  }
  return nullptr;
}

// Makes the block's earlier work come before the stream's next.
bool Actor::MakeOrdered(uint32_t place, const Block& block, bool write) {
  const auto done = [&] {
    const Clock before = ordering_.Before(place);
    return write ? block.MayWrite(before) : block.MayRead(before);
  };
  const size_t context = ordering_.ContextOf(place);
  if (ordering_.FreeOrders() && block.context == context && !Chance(4)) {
    auto* kept = const_cast<Block*>(&block);
    ++kept->graphs;  // not to be freed itself
    FreeAny(context);
    --kept->graphs;
    if (done()) return true;
  }
  std::vector<Submission> all = block.reads;
  all.push_back(block.write);
  for (const Submission& submission : all) {
    if (ordering_.Before(place).Covers(submission)) continue;
    StreamOf* other =
        ordering_.IsDestroyed(submission.stream) ? nullptr : StreamAt(submission.stream);
    const StreamOf* own = StreamAt(place);
    if (other == nullptr || own == nullptr || other->capturing ||
        ordering_.ContextOf(other->place) != current_ || Chance(2)) {
      SynchronizeContextOf(submission.stream);
      if (!ordering_.Before(place).Covers(submission)) return false;
      continue;
    }
    EventOf& event = events_[random_.Below(events_.size())];
    if (event.handle == nullptr || event.context != current_) {
      SynchronizeContextOf(submission.stream);
      if (!ordering_.Before(place).Covers(submission)) return false;
      continue;
    }
    if (!Record(&event, *other)) return false;
    if (!Ok(cudaStreamWaitEvent(own->handle, event.handle, 0), "cudaStreamWaitEvent")) return false;
    Clock before = ordering_.Before(place);
    before.Join(event.clock);
    ordering_.Submit(place, before);
  }
  return done();
}

bool Actor::MakeOrdered(uint32_t place, const Step& step) {
  // A free for one block may end the order of nothing, but may free nothing of the step either.
  const auto keep = [&](int change) {
    for (Block* block : step.reads) block->graphs += change;
    for (Block* block : step.writes) block->graphs += change;
  };
  keep(1);
  for (Block* block : step.reads) {
    if (!block->MayRead(ordering_.Before(place))) MakeOrdered(place, *block, false);
  }
  for (Block* block : step.writes) {
    if (!block->MayWrite(ordering_.Before(place))) MakeOrdered(place, *block, true);
  }
  keep(-1);
  return step.MayRun(ordering_.Before(place));
}

// Makes the block's earlier work known to be done.
bool Actor::MakeOrderedForHost(const Block& block, bool write) {
  const auto done = [&] {
    return write ? block.MayWrite(ordering_.host()) : block.MayRead(ordering_.host());
  };
  if (done()) return true;
  if (ordering_.FreeShowsHost() && ordering_.ContextOf(block.write.stream) == current_ &&
      !Chance(4)) {
    auto* kept = const_cast<Block*>(&block);
    ++kept->graphs;
    FreeAny(current_);
    --kept->graphs;
    if (done()) return true;
  }
  StreamOf* writer =
      ordering_.IsDestroyed(block.write.stream) ? nullptr : StreamAt(block.write.stream);
  if (writer != nullptr && !writer->capturing && !write &&
      ordering_.ContextOf(writer->place) == current_) {
    if (Ok(cudaStreamSynchronize(writer->handle), "cudaStreamSynchronize")) {
      ordering_.HostWaitsForStream(writer->place);
    }
    return done();
  }
  for (const Submission& submission : block.reads) {
    if (write && !ordering_.host().Covers(submission)) SynchronizeContextOf(submission.stream);
  }
  if (!block.MayRead(ordering_.host())) SynchronizeContextOf(block.write.stream);
  return done();
}

// The call for a step. `kept`: a captured one, whose kernel runs again and again.
int Actor::Submit(const Step& step, cudaStream_t stream, std::unique_ptr<Kernel>* kept) {
  if (step.what == Step::kSet) {
    Block& to = *step.writes[0];
    char* at = step.to_last ? to.last() : to.pointer;
    return Chance(2) ? static_cast<int>(cudaMemsetAsync(at, step.value, 8, stream))
                     : static_cast<int>(cuMemsetD8Async(reinterpret_cast<CUdeviceptr>(at),
                                                        step.value, 8, stream));
  }
  if (step.what == Step::kCopy) {
    const Block& from = *step.reads[0];
    const Block& to = *step.writes[0];
    const char* source = step.from_last ? from.last() : from.pointer;
    char* target = step.to_last ? to.last() : to.pointer;
    if (Chance(2) || (from.page_locked && to.page_locked)) {
      return cudaMemcpyAsync(target, source, 8, cudaMemcpyDefault, stream);
    }
    if (to.page_locked) {
      return cuMemcpyDtoHAsync_v2(target, reinterpret_cast<CUdeviceptr>(source), 8, stream);
    }
    if (from.page_locked) {
      return cuMemcpyHtoDAsync_v2(reinterpret_cast<CUdeviceptr>(target), source, 8, stream);
    }
    return cuMemcpyDtoDAsync_v2(reinterpret_cast<CUdeviceptr>(target),
                                reinterpret_cast<CUdeviceptr>(source), 8, stream);
  }
  if (step.what == Step::kWriteValue) {
    Block& to = *step.writes[0];
    char* at = step.to_last ? to.last() : to.pointer;
    return cuStreamWriteValue64(stream, reinterpret_cast<CUdeviceptr>(at), step.word, 0);
  }
  auto kernel = std::make_unique<Kernel>();
  kernel->id = step.id;
  kernel->once = kept == nullptr;
  kernel->expects = kept == nullptr;
  for (const Block* block : step.reads) kernel->Read(*block);
  for (const Block* block : step.writes) kernel->Write(*block);
  int status = 0;
  if (step.what == Step::kHostFunction) {
    status = Chance(2) ? static_cast<int>(cudaLaunchHostFunc(stream, &RunKernel, kernel.get()))
                       : static_cast<int>(cuLaunchHostFunc(stream, &RunKernel, kernel.get()));
  } else {
    std::vector<SimRange> reads;
    std::vector<SimRange> writes;
    for (const Block* block : step.reads) reads.push_back({block->pointer, block->bytes});
    for (const Block* block : step.writes) writes.push_back({block->pointer, block->bytes});
    SimWork work = {};
    work.id = step.id;
    work.duration_ns = Chance(16) ? 300000 : 100 + random_.Below(pace_ns_);
    work.reads = reads.data();
    work.read_count = reads.size();
    work.writes = writes.data();
    work.write_count = writes.size();
    work.effect = &RunKernel;
    work.data = kernel.get();
    status = Chance(2) ? static_cast<int>(program::Launch(stream, work))
                       : static_cast<int>(simLaunch(stream, &work));
  }
  if (status == 0) {
    if (kept == nullptr) {
      kernel.release();  // deletes itself
    } else {
      *kept = std::move(kernel);
    }
  }
  return status;
}

bool Actor::Do(const Step& step, StreamOf& stream) {
  const uint32_t place = stream.place;
  const cudaStream_t handle = stream.handle;
  if (!step.MayRun(ordering_.Before(place)) && !MakeOrdered(place, step)) return false;
  if (!Ok(Submit(step, handle, nullptr), "a submission")) return true;
  step.Note(ordering_.Submit(place, ordering_.Before(place), step.IsVisible()));
  step.Apply();
  return true;
}

bool Actor::Launch(StreamOf& stream) {
  Step step;
  step.what = Step::kKernel;
  step.id = (static_cast<uint64_t>(number_) << 40) + operations_;
  PickBlocks(&step, false);
  return !step.writes.empty() && Do(step, stream);
}

bool Actor::HostFunction() {
  Step step;
  step.what = Step::kHostFunction;
  step.id = (static_cast<uint64_t>(number_) << 40) + operations_;
  PickBlocks(&step, true);
  return Do(step, RandomStream());
}

bool Actor::AsyncCopyOrSet() {
  Step step;
  step.from_last = Chance(2);
  step.to_last = Chance(2);
  Block* to = RandomBlock(true, Chance(4));
  if (to == nullptr) return false;
  step.writes.push_back(to);
  if (!to->page_locked && Chance(4)) {
    step.what = Step::kSet;
    step.value = static_cast<unsigned char>(random_.Next());
  } else {
    step.what = Step::kCopy;
    // Between contexts as well: they share the addresses.
    Block* from = RandomBlock(true, !to->page_locked && Chance(4), Chance(4));
    if (from == nullptr || from == to) return false;
    step.reads.push_back(from);
  }
  return Do(step, RandomStream());
}

// Between a block and page-locked memory, or of the latter alone.
bool Actor::VisibleCopyOrSet() {
  Step step;
  step.from_last = Chance(2);
  step.to_last = Chance(2);
  Block* host = RandomBlock(true, true);
  Block* device = RandomBlock(true, false);
  if (device == nullptr || Chance(4)) {
    step.what = Chance(2) ? Step::kSet : Step::kWriteValue;
    step.value = static_cast<unsigned char>(random_.Next());
    step.word = random_.Next();
    step.writes.push_back(host);
  } else {
    step.what = Step::kCopy;
    const bool to_host = Chance(2);
    step.reads.push_back(to_host ? device : host);
    step.writes.push_back(to_host ? host : device);
  }
  return Do(step, RandomStream());
}

bool Actor::SyncCopyOrSet() {
  StreamOf& legacy = contexts_[current_].streams[0];
  Block* block = RandomBlock(true, false);
  if (block == nullptr) return false;
  if (Chance(2)) return Check(*block);
  if (!block->MayWrite(ordering_.Before(legacy.place)) &&
      !MakeOrdered(legacy.place, *block, true)) {
    return false;
  }
  const auto target = reinterpret_cast<CUdeviceptr>(block->pointer);
  if (Chance(2)) {
    const auto value = static_cast<unsigned char>(random_.Next());
    const int status = Chance(2) ? static_cast<int>(cudaMemset(block->pointer, value, 8))
                                 : static_cast<int>(cuMemsetD8_v2(target, value, 8));
    if (!Ok(status, "a synchronous set")) return true;
    block->words.first = uint64_t{0x0101010101010101} * value;
  } else {
    const uint64_t word = random_.Next();
    const int status =
        Chance(2) ? static_cast<int>(cudaMemcpy(block->pointer, &word, 8, cudaMemcpyHostToDevice))
                  : static_cast<int>(cuMemcpyHtoD_v2(target, &word, 8));
    if (!Ok(status, "a synchronous copy to the device")) return true;
    block->words.first = word;
  }
  block->NoteWrite(ordering_.Submit(legacy.place, ordering_.Before(legacy.place)));
  return true;
}

bool Actor::Record(EventOf* event, const StreamOf& stream) {
  event->recorded = false;
  if (!Ok(cudaEventRecord(event->handle, stream.handle), "cudaEventRecord")) return false;
  event->point = ordering_.Submit(stream.place, ordering_.Before(stream.place));
  event->clock = ordering_.Before(stream.place);
  event->recorded = true;
  return true;
}

bool Actor::RecordEvent() {
  EventOf& event = events_[random_.Below(events_.size())];
  if (event.handle != nullptr && (event.context != current_ || Chance(8))) {
    event.recorded = false;
    Ok(cudaEventDestroy(event.handle), "cudaEventDestroy");
    event.handle = nullptr;
  }
  if (event.handle == nullptr) {
    event.timed = Chance(2);
    const unsigned flags = event.timed ? cudaEventDefault : cudaEventDisableTiming;
    if (!Ok(cudaEventCreateWithFlags(&event.handle, flags), "cudaEventCreate")) {
      event.handle = nullptr;
      return true;
    }
    event.context = current_;
  }
  Record(&event, RandomStream());
  return true;
}

bool Actor::WaitEvent() {
  const EventOf& event = events_[random_.Below(events_.size())];
  if (event.handle == nullptr || !event.recorded) return false;
  if (Chance(4)) {
    if (Ok(cudaEventSynchronize(event.handle), "cudaEventSynchronize")) {
      ordering_.HostWaitsFor(event.clock);
    }
    return true;
  }
  const StreamOf& stream = RandomStream();
  if (!Ok(cudaStreamWaitEvent(stream.handle, event.handle, 0), "cudaStreamWaitEvent")) return true;
  Clock before = ordering_.Before(stream.place);
  before.Join(event.clock);
  ordering_.Submit(stream.place, before);
  return true;
}

bool Actor::Synchronize() {
  if (!Chance(8)) {
    const StreamOf& stream = RandomStream();
    if (Ok(cudaStreamSynchronize(stream.handle), "cudaStreamSynchronize")) {
      ordering_.HostWaitsForStream(stream.place);
    }
    return true;
  }
  return SynchronizeContext();
}

bool Actor::SynchronizeContext() {
  if (settings_.captures && settings_.threads > 1) {  // other threads' captures should live
    for (const StreamOf& stream : contexts_[current_].streams) {
      if (stream.capturing) continue;
      if (Ok(cudaStreamSynchronize(stream.handle), "cudaStreamSynchronize")) {
        ordering_.HostWaitsForStream(stream.place);
      }
    }
    return true;
  }
  const int status =
      Chance(2) ? static_cast<int>(cudaDeviceSynchronize()) : static_cast<int>(cuCtxSynchronize());
  if (Ok(status, "a context's synchronisation")) ordering_.HostWaitsForContext(current_);
  return true;
}

void Actor::SynchronizeContextOf(uint32_t place) {
  const size_t before = current_;
  const size_t context = ordering_.ContextOf(place);
  if (context != before) Enter(context);
  SynchronizeContext();
  if (context != before) Enter(before);
}

// Questions. Where the answer must be that the work is done, the host relies on it; otherwise it
// depends on the time, and is not looked at.
bool Actor::Ask() {
  const EventOf& event = events_[random_.Below(events_.size())];
  switch (random_.Below(5)) {
    case 0:
    case 1:
      return AskStream(RandomStream());
    case 2:
      return AskEvent(event);
    case 3:
      return AskElapsedTime(event, events_[random_.Below(events_.size())]);
    default: {
      size_t free = 0;
      size_t total = 0;
      Ok(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
      return true;
    }
  }
}

bool Actor::IsLate(int status) const {
  return status == cudaErrorNotReady && settings_.threads > 1 && g_stalls.Recent();
}

bool Actor::AskStream(const StreamOf& stream) {
  // Of other threads' blocking streams nothing is known here.
  const bool must = ordering_.IsAnsweredDone(stream.place) &&
                    (stream.kind != Kind::kLegacy || settings_.threads == 1);
  const int status = cudaStreamQuery(stream.handle);
  if (!must && (status == 0 || status == cudaErrorNotReady)) return true;
  if (IsLate(status)) return true;
  if (Ok(status, "a query of a stream") && must) ordering_.HostWaitsForStream(stream.place);
  return true;
}

bool Actor::AskEvent(const EventOf& event) {
  if (event.handle == nullptr) return false;
  const bool must = event.recorded && ordering_.IsAnsweredDone(event.point);
  const int status = cudaEventQuery(event.handle);
  if (!must && (status == 0 || status == cudaErrorNotReady)) return true;
  if (IsLate(status)) return true;
  if (Ok(status, "a query of an event") && must) ordering_.HostWaitsFor(event.clock);
  return true;
}

bool Actor::AskElapsedTime(const EventOf& begin, const EventOf& end) {
  const auto usable = [](const EventOf& event) { return event.recorded && event.timed; };
  if (!usable(begin) || !usable(end) || begin.context != end.context) return false;
  float milliseconds = 0;
  const bool must = ordering_.IsAnsweredDone(begin.point) && ordering_.IsAnsweredDone(end.point);
  const int status = cudaEventElapsedTime(&milliseconds, begin.handle, end.handle);
  if (!must && (status == 0 || status == cudaErrorNotReady)) return true;
  if (IsLate(status)) return true;
  Ok(status, "a question for a time");
  return true;
}

bool Actor::CreateOrDestroyStream() {
  std::vector<StreamOf>& streams = contexts_[current_].streams;
  constexpr size_t kMostStreams = 7;
  if (streams.size() > 2 && (streams.size() == kMostStreams || Chance(2))) {
    return DestroyStream(2 + random_.Below(streams.size() - 2));
  }
  if (ordering_.Full()) return false;
  StreamOf stream;
  const bool blocking = Chance(3);
  const int status = cudaStreamCreateWithFlags(
      &stream.handle, blocking ? cudaStreamDefault : cudaStreamNonBlocking);
  if (!Ok(status, "cudaStreamCreate")) return true;
  stream.kind = blocking ? Kind::kBlocking : Kind::kNonBlocking;
  stream.place = ordering_.AddStream(current_, stream.kind);
  streams.push_back(stream);
  return true;
}

bool Actor::DestroyStream(size_t index) {
  std::vector<StreamOf>& streams = contexts_[current_].streams;
  if (streams[index].capturing) return false;
  ordering_.DestroyStream(streams[index].place);
  Ok(cudaStreamDestroy(streams[index].handle), "cudaStreamDestroy");
  streams.erase(streams.begin() + static_cast<std::ptrdiff_t>(index));
  return true;
}

}  // namespace schedules
