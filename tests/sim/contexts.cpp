#include "contexts.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "device_memory.h"
#include "memory_pools.h"
#include "streams.h"

namespace cmp::sim {
namespace {

// Plain data: calls may still come from destructors of other thread-local objects.
struct ContextStack {
  std::array<CUcontext, 64> handles;
  size_t depth;
};
thread_local ContextStack t_stack{};

}  // namespace

CUcontext CurrentHandle() {
  return t_stack.depth == 0 ? nullptr : t_stack.handles[t_stack.depth - 1];
}

void SetCurrentHandle(CUcontext handle) {
  if (t_stack.depth > 0) --t_stack.depth;
  if (handle != nullptr) t_stack.handles[t_stack.depth++] = handle;
}

bool PushCurrentHandle(CUcontext handle) {
  if (t_stack.depth == t_stack.handles.size()) return false;
  t_stack.handles[t_stack.depth++] = handle;
  return true;
}

bool PopCurrentHandle(CUcontext* handle) {
  if (t_stack.depth == 0) return false;
  --t_stack.depth;
  if (handle != nullptr) *handle = t_stack.handles[t_stack.depth];
  return true;
}

CUresult RequireContext(Simulation& sim, Context** context) {
  return RequireContext(sim, CurrentHandle(), context);
}

CUresult RequireContext(Simulation& sim, CUcontext handle, Context** context) {
  if (handle == nullptr) handle = CurrentHandle();
  if (handle == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *context = sim.contexts.Find(handle);
  if (*context == nullptr) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return (*context)->sticky;
}

CUresult FindOut(Simulation& sim, const Context& context) {
  CUresult failed = CUDA_SUCCESS;
  for (const auto& [handle, part] : sim.contexts.all()) {
    if (context.Includes(*part) && part->failed != CUDA_SUCCESS) failed = part->failed;
  }
  if (failed == CUDA_SUCCESS) return context.sticky;
  for (const auto& [handle, other] : sim.contexts.all()) {
    if (other->device == context.device && other->sticky == CUDA_SUCCESS) other->sticky = failed;
  }
  return context.sticky;
}

namespace {

std::unique_ptr<Context> NewContext(Simulation& sim, int device, unsigned flags) {
  auto context = std::make_unique<Context>();
  context->id = ++sim.last_id;
  context->device = device;
  context->flags = flags;
  return context;
}

// Their memory goes with the context's other allocations.
template <typename Handle, typename Object>
void RemoveThoseOf(uint64_t context_id, HandleTable<Handle, Object>& objects) {
  std::vector<Handle> ended;
  for (const auto& [handle, object] : objects.all()) {
    if (object->context_id == context_id) ended.push_back(handle);
  }
  for (Handle handle : ended) objects.Remove(handle);
}

}  // namespace

Context* CreateContext(Simulation& sim, int device, unsigned flags, unsigned version) {
  const CUcontext handle = sim.contexts.Add(NewContext(sim, device, flags));
  Context* context = sim.contexts.Find(handle);
  context->handle = handle;
  context->version = version;
  return context;
}

Context* ActivatePrimary(Simulation& sim, int device) {
  Device& owner = sim.devices[static_cast<size_t>(device)];
  if (owner.primary_handle == nullptr) owner.primary_handle = sim.contexts.Reserve();
  Context* context = sim.contexts.Find(owner.primary_handle);
  if (context != nullptr) return context;
  sim.contexts.Put(owner.primary_handle, NewContext(sim, device, owner.primary_flags));
  context = sim.contexts.Find(owner.primary_handle);
  context->handle = owner.primary_handle;
  context->primary = true;
  return context;
}

Context* CreateGreenContext(Simulation& sim, int device) {
  Context* whole = ActivatePrimary(sim, device);
  Context* part = CreateContext(sim, device, whole->flags, whole->version);
  part->whole = whole;
  return part;
}

CUresult ReleasePrimary(Simulation& sim, Lock& lock, int device) {
  Device& owner = sim.devices[static_cast<size_t>(device)];
  if (owner.primary_retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--owner.primary_retained == 0) EndContext(sim, lock, owner.primary_handle);
  return CUDA_SUCCESS;
}

void ShowPrinted(Simulation& sim, const Context& context) {
  for (const auto& [handle, part] : sim.contexts.all()) {
    if (!context.Includes(*part)) continue;
    std::fputs(part->printed.c_str(), stdout);
    part->printed.clear();
  }
}

CUresult WaitFor(Simulation& sim, Lock& lock, CUcontext handle, const std::vector<ItemPtr>& items) {
  const Context* context = sim.contexts.Find(handle);
  if (context == nullptr) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  const uint64_t id = context->id;
  sim.scheduler.Wait(lock, items);
  context = sim.contexts.Find(handle);
  if (context == nullptr || context->id != id) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  ShowPrinted(sim, *context);
  return FindOut(sim, *context);
}

CUresult Drain(Simulation& sim, Lock& lock, CUcontext handle) {
  const Context* context = sim.contexts.Find(handle);
  if (context == nullptr) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return WaitFor(sim, lock, handle, sim.scheduler.PendingOf(*context));
}

namespace {

uint64_t WholeId(const Context& context) {
  return context.whole != nullptr ? context.whole->id : context.id;
}

}  // namespace

CUresult DrainForFree(Simulation& sim, Lock& lock, CUcontext handle, const Range& freed) {
  const Context* context = sim.contexts.Find(handle);
  if (context == nullptr) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  const uint64_t id = WholeId(*context);
  const uint64_t thread = ThisThread();
  sim.waiting_frees.push_back({id, thread});
  std::vector<ItemPtr> pending = sim.scheduler.PendingWith(*context);
  std::erase_if(pending, [&](const ItemPtr& item) {
    const auto is_in = [&](const Range& written) { return written.Overlaps(freed); };
    const std::vector<Range>& writes = item->work.writes;
    const bool into_small =
        freed.bytes < kSmallLimit && std::any_of(writes.begin(), writes.end(), is_in);
    return !context->Covers(*item) && !into_small;
  });
  const CUresult result = WaitFor(sim, lock, handle, pending);
  std::erase_if(sim.waiting_frees, [=](const WaitingFree& free) {
    return free.context_id == id && free.thread == thread;
  });
  sim.scheduler.NoteChange();
  return result;
}

void LetFreesPass(Simulation& sim, const Context& context) {
  const uint64_t id = WholeId(context);
  const auto waits = [&](const WaitingFree& free) {
    return free.context_id == id && free.thread != ThisThread();
  };
  sim.scheduler.WaitForCalls(*t_lock, "another thread's free", [&] {
    return std::none_of(sim.waiting_frees.begin(), sim.waiting_frees.end(), waits);
  });
}

void EndContext(Simulation& sim, Lock& lock, CUcontext handle) {
  std::vector<CUcontext> parts;
  for (const auto& [part, object] : sim.contexts.all()) {
    if (object->whole != nullptr && object->whole->handle == handle) parts.push_back(part);
  }
  for (CUcontext part : parts) EndContext(sim, lock, part);
  Context* context = sim.contexts.Find(handle);
  while (context != nullptr) {
    const std::vector<ItemPtr> pending = sim.scheduler.PendingWith(*context);
    if (pending.empty()) break;
    sim.scheduler.Wait(lock, pending);  // nobody is told that it failed
    context = sim.contexts.Find(handle);
  }
  if (context == nullptr) return;
  for (const auto& [other, object] : sim.contexts.all()) object->reachable.erase(context);
  ShowPrinted(sim, *context);
  const std::set<Stream*> streams = context->streams;
  for (Stream* stream : streams) RemoveStream(sim, *stream);
  std::vector<CUevent> events;
  for (const auto& [event, object] : sim.events.all()) {
    if (object->context == context) events.push_back(event);
  }
  for (CUevent event : events) sim.events.Remove(event);
  RemoveThoseOf(context->id, sim.arrays);
  RemoveThoseOf(context->id, sim.mipmapped_arrays);
  RemoveThoseOf(context->id, sim.device_objects);
  RemoveThoseOf(context->id, sim.modules);
  EndPoolsIn(sim, *context);
  sim.allocations.ReleaseContext(context->id);
  sim.contexts.Remove(handle, context->primary);
}

}  // namespace cmp::sim
