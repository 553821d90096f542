#include "copies.h"

#include <cstring>

#include "captures.h"

namespace cmp::sim {
namespace {

enum class Place { kDevice, kManaged, kPageLocked, kPageable, kInvalid };

// Where [start, +bytes) is; kInvalid when it leaves the allocation in which it begins.
Place PlaceOf(Simulation& sim, uintptr_t start, size_t bytes) {
  const Allocation* allocation = sim.allocations.Find(start);
  if (allocation == nullptr) {
    return sim.allocations.DeviceOf(start) >= 0 ? Place::kInvalid : Place::kPageable;
  }
  const bool whole = start + bytes <= allocation->range().end();
  switch (allocation->kind) {
    case MemoryKind::kDevice:
    case MemoryKind::kPool:
    case MemoryKind::kImported:
      return whole ? Place::kDevice : Place::kInvalid;
    case MemoryKind::kManaged:
      return whole ? Place::kManaged : Place::kInvalid;
    case MemoryKind::kHost:
    case MemoryKind::kRegistered:
      break;
  }
  return whole ? Place::kPageLocked : Place::kPageable;
}

bool OnDevice(Place place) { return place == Place::kDevice || place == Place::kManaged; }

bool Suits(Place place, int wanted) {
  if (place == Place::kInvalid) return false;
  // Page-locked memory has a device address, too.
  return wanted != 1 || place != Place::kPageable;
}

uint64_t CopyDuration(size_t bytes, bool crosses_bus) {
  return 1000 + bytes / (crosses_bus ? 25 : 1000);  // 25 GB/s, 1 TB/s
}

CUresult WaitFor(Simulation& sim, Lock& lock, CUcontext context, const ItemPtr& item) {
  if (item == nullptr) return CUDA_SUCCESS;
  sim.scheduler.Wait(lock, {item});
  const Context* after = sim.contexts.Find(context);
  return after == nullptr ? CUDA_ERROR_CONTEXT_IS_DESTROYED : after->sticky;
}

}  // namespace

CUresult Copy(Simulation& sim, Lock& lock, const CopyRequest& request) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, request.stream, request.null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  if (request.bytes == 0) return CUDA_SUCCESS;
  const Place to = PlaceOf(sim, request.to, request.bytes);
  const Place from = PlaceOf(sim, request.from, request.bytes);
  if (!Suits(to, request.to_device) || !Suits(from, request.from_device)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (stream->capture != nullptr) {
    if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (request.synchronous) return Invalidate(*stream->capture);
  }
  const bool captured = stream->capture != nullptr;
  Work work;
  work.what = "copy";
  work.duration_ns = CopyDuration(request.bytes, !OnDevice(to) || !OnDevice(from));
  work.writes = {{request.to, request.bytes}};
  void* target = reinterpret_cast<void*>(request.to);
  const auto* source = reinterpret_cast<const unsigned char*>(request.from);
  const CUcontext context = stream->context->handle;
  // A captured copy reads its source when the graph runs.
  const bool staged = from == Place::kPageable && OnDevice(to) && !captured;
  if (staged) {
    if (request.synchronous) {
      // A synchronous copy comes after the stream's earlier work before it reads its source.
      const CUresult capturing = CheckStreamCall(sim, *stream);
      if (capturing != CUDA_SUCCESS) return capturing;
      sim.scheduler.Wait(lock, TailsToWaitFor(*stream));
      const CUresult again = RequireStream(sim, request.stream, request.null_means, &stream);
      if (again != CUDA_SUCCESS) return again;
    }
    auto copy = std::make_shared<std::vector<unsigned char>>(source, source + request.bytes);
    work.effect = [=](CUresult) { std::memcpy(target, copy->data(), copy->size()); };
  } else {
    work.reads = {{request.from, request.bytes}};
    work.effect = [=, bytes = request.bytes](CUresult) { std::memmove(target, source, bytes); };
  }
  ItemPtr item;
  const CUresult submitted = SubmitWork(sim, *stream, std::move(work), &item);
  if (submitted != CUDA_SUCCESS) return submitted;
  const bool host_to_host = !OnDevice(to) && !OnDevice(from);
  const bool waits = request.synchronous ? !staged && !(OnDevice(to) && OnDevice(from))
                                         : to == Place::kPageable || host_to_host;
  return waits ? WaitFor(sim, lock, context, item) : CUDA_SUCCESS;
}

CUresult Set(Simulation& sim, Lock& lock, const SetRequest& request) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, request.stream, request.null_means, &stream);
  if (result != CUDA_SUCCESS) return result;
  const size_t row = request.width * request.element_bytes;
  if (row == 0 || request.height == 0) return CUDA_SUCCESS;
  if (request.to % request.element_bytes != 0) return CUDA_ERROR_INVALID_VALUE;
  if (request.height > 1 && request.pitch < row) return CUDA_ERROR_INVALID_VALUE;
  const size_t bytes = request.pitch * (request.height - 1) + row;
  const Place place = PlaceOf(sim, request.to, bytes);
  if (!Suits(place, 1)) return CUDA_ERROR_INVALID_VALUE;
  Work work;
  work.what = "set";
  work.duration_ns = CopyDuration(bytes, !OnDevice(place));
  work.writes = {{request.to, bytes}};
  work.effect = [request](CUresult) {
    for (size_t y = 0; y < request.height; ++y) {
      auto* at = reinterpret_cast<unsigned char*>(request.to + y * request.pitch);
      for (size_t x = 0; x < request.width; ++x, at += request.element_bytes) {
        std::memcpy(at, &request.value, request.element_bytes);
      }
    }
  };
  const CUcontext context = stream->context->handle;
  ItemPtr item;
  const CUresult submitted = SubmitWork(sim, *stream, std::move(work), &item);
  if (submitted != CUDA_SUCCESS || !request.synchronous || place == Place::kDevice) {
    return submitted;
  }
  return WaitFor(sim, lock, context, item);  // page-locked or managed memory
}

}  // namespace cmp::sim
