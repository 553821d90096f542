#include "streams.h"

#include <unistd.h>

#include <mutex>

#include "captures.h"
#include "contexts.h"

namespace cmp::sim {
namespace {

void ForgetDoneOrphans(Context& context) {
  std::erase_if(context.orphans,
                [](const auto& orphan) { return orphan.second->state == ItemState::kDone; });
  std::erase_if(context.guests,
                [](const ItemPtr& guest) { return guest->state == ItemState::kDone; });
}

// The item, or if it runs elsewhere what it comes after.
void AddCovered(const Context& context, const ItemPtr& item, std::vector<ItemPtr>* covered) {
  if (item == nullptr || item->state == ItemState::kDone) return;
  if (context.Covers(*item)) return covered->push_back(item);
  for (const ItemPtr& need : item->needs) AddCovered(context, need, covered);
}

// The last items of the stream and of those that it synchronises with.
std::vector<ItemPtr> EarlierWork(Stream& stream) {
  Context& context = *stream.context;
  std::vector<ItemPtr> needs{stream.tail};
  if (stream.legacy) {
    for (const Stream* other : context.streams) {
      if (other->blocking()) needs.push_back(other->tail);
    }
    ForgetDoneOrphans(context);
    for (const auto& [blocking, tail] : context.orphans) {
      if (blocking) needs.push_back(tail);
    }
  } else if (stream.blocking() && context.legacy != nullptr) {
    needs.push_back(context.legacy->tail);
  }
  return needs;
}

}  // namespace

Stream* CreateStream(Simulation& sim, Context& context, unsigned flags, int priority) {
  const CUstream handle = sim.streams.Add(std::make_unique<Stream>());
  Stream* stream = sim.streams.Find(handle);
  stream->handle = handle;
  stream->id = ++sim.last_id;
  stream->context = &context;
  stream->flags = flags;
  stream->priority = priority;
  context.streams.insert(stream);
  return stream;
}

void RemoveStream(Simulation& sim, Stream& stream) {
  Context& context = *stream.context;
  if (stream.capture != nullptr) LeaveCapture(sim, stream);
  if (stream.tail != nullptr && stream.tail->state != ItemState::kDone) {
    context.orphans.emplace_back(stream.blocking(), stream.tail);
  }
  context.streams.erase(&stream);
  if (context.legacy == &stream) context.legacy = nullptr;
  std::erase_if(context.per_thread, [&](const auto& entry) { return entry.second == &stream; });
  sim.streams.Remove(stream.handle);
}

Stream& LegacyStream(Simulation& sim, Context& context) {
  if (context.legacy == nullptr) {
    context.legacy = CreateStream(sim, context, 0, 0);
    context.legacy->legacy = true;
  }
  return *context.legacy;
}

namespace {

// A thread's own default streams end with it, but for those that capture: whether that ends a
// capture is not known. The main thread's stay, since a process ends in it.
struct OwnStreams {
  uint64_t thread = 0;  // 0: it has none
  ~OwnStreams() {
    if (thread == 0 || InForkedChild()) return;
    Simulation& sim = TheSimulation();
    const std::lock_guard<std::mutex> guard(sim.lock);
    for (const auto& [handle, context] : sim.contexts.all()) {
      const auto own = context->per_thread.find(thread);
      if (own == context->per_thread.end() || own->second->capture != nullptr) continue;
      RemoveStream(sim, *own->second);
    }
  }
};
thread_local OwnStreams t_own_streams;

}  // namespace

Stream& PerThreadStream(Simulation& sim, Context& context) {
  Stream*& stream = context.per_thread[ThisThread()];
  if (stream == nullptr) {
    if (gettid() != getpid()) t_own_streams.thread = ThisThread();
    stream = CreateStream(sim, context, 0, 0);
    stream->per_thread = true;
  }
  return *stream;
}

CUresult RequireStream(Simulation& sim, CUstream handle, DefaultStream null_means,
                       Stream** stream) {
  if (handle == nullptr) {
    handle = null_means == DefaultStream::kLegacy ? CU_STREAM_LEGACY : CU_STREAM_PER_THREAD;
  }
  if (handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    Context* context = nullptr;
    const CUresult result = RequireContext(sim, &context);
    if (result != CUDA_SUCCESS) return result;
    *stream =
        handle == CU_STREAM_LEGACY ? &LegacyStream(sim, *context) : &PerThreadStream(sim, *context);
    return CUDA_SUCCESS;
  }
  *stream = sim.streams.Find(handle);
  if (*stream == nullptr) {
    sim.misuse.Add("a stream handle that is not a live stream's was used");
    return CUDA_ERROR_INVALID_HANDLE;
  }
  return (*stream)->context->sticky;
}

CUresult SubmitWork(Simulation& sim, Stream& stream, Work work, ItemPtr* item, const ItemPtr& after,
                    const std::vector<Context*>& runs_in) {
  if (item != nullptr) *item = nullptr;
  if (!sim.waiting_frees.empty()) {
    const CUstream handle = stream.handle;
    LetFreesPass(sim, *stream.context);
    if (sim.streams.Find(handle) != &stream) return CUDA_ERROR_INVALID_HANDLE;
  }
  return SubmitAtOnce(sim, stream, std::move(work), item, after, runs_in);
}

CUresult SubmitAtOnce(Simulation& sim, Stream& stream, Work work, ItemPtr* item,
                      const ItemPtr& after, const std::vector<Context*>& runs_in) {
  if (item != nullptr) *item = nullptr;
  if (stream.capture != nullptr) return AddToCapture(stream, std::move(work));
  if (stream.legacy) {
    const CUresult result = CheckLegacyUse(sim, *stream.context);
    if (result != CUDA_SUCCESS) return result;
  }
  std::vector<ItemPtr> needs = EarlierWork(stream);
  needs.push_back(stream.context->floor);
  if (stream.context->whole != nullptr) needs.push_back(stream.context->whole->floor);
  needs.push_back(after);
  stream.tail = sim.scheduler.Submit(*stream.context, std::move(work), std::move(needs),
                                     {runs_in.begin(), runs_in.end()});
  for (Context* context : runs_in) {
    if (context == stream.context) continue;
    ForgetDoneOrphans(*context);
    context->guests.push_back(stream.tail);
  }
  if (item != nullptr) *item = stream.tail;
  return CUDA_SUCCESS;
}

std::vector<ItemPtr> AllTails(Simulation& sim, Context& context) {
  std::vector<ItemPtr> tails;
  for (const auto& [handle, part] : sim.contexts.all()) {
    if (!context.Includes(*part)) continue;
    ForgetDoneOrphans(*part);
    for (const Stream* stream : part->streams) AddCovered(context, stream->tail, &tails);
    for (const auto& [blocking, tail] : part->orphans) AddCovered(context, tail, &tails);
    tails.insert(tails.end(), part->guests.begin(), part->guests.end());
  }
  return tails;
}

// The legacy stream has passed when every blocking stream has, too: an item submitted to it now
// would come after them.
//
// What the context was told to wait for is no work of an idle stream, as measured.
std::vector<ItemPtr> TailsToWaitFor(Stream& stream) {
  return stream.legacy ? EarlierWork(stream) : std::vector<ItemPtr>{stream.tail};
}

}  // namespace cmp::sim
