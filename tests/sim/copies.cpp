#include "copies.h"

#include <algorithm>
#include <cstring>

#include "captures.h"
#include "contexts.h"
#include "driver_entry.h"

namespace cmp::sim {
namespace {

// Of pageable memory, so much is staged at the call; a longer asynchronous copy returns when it is
// done. Measured: 1 KiB is staged, 32 MiB are not. The documentation tells 64 KB apart.
constexpr size_t kStagedAtOnce = size_t{64} << 10;

enum class Place { kDevice, kManaged, kPageLocked, kPageable, kInvalid };

// Where [start, +bytes) is; kInvalid when it leaves the allocation in which it begins.
Place PlaceOf(Simulation& sim, uintptr_t start, size_t bytes) {
  if (start == 0) return Place::kInvalid;  // nobody takes it for the host's (measured)
  const Allocation* allocation = sim.allocations.Find(start);
  if (allocation == nullptr) {
    return sim.allocations.IsDeviceAddress(start) ? Place::kInvalid : Place::kPageable;
  }
  const bool whole = sim.allocations.Covers({start, bytes});
  switch (allocation->kind) {
    case MemoryKind::kDevice:
    case MemoryKind::kPool:
    case MemoryKind::kImported:
    case MemoryKind::kMapped:
    case MemoryKind::kExternal:
      if (!whole) return Place::kInvalid;
      return allocation->on_host ? Place::kPageLocked : Place::kDevice;
    case MemoryKind::kManaged:
      return whole ? Place::kManaged : Place::kInvalid;
    case MemoryKind::kArray:  // has no address
      return Place::kInvalid;
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

// The rows of one side, those that touch each other as one.
std::vector<Range> Rows(const CopySide& side, size_t width, size_t height, size_t depth) {
  std::vector<Range> rows;
  for (size_t z = 0; z < depth; ++z) {
    for (size_t y = 0; y < height; ++y) {
      const uintptr_t start = side.start + z * side.slice + y * side.pitch;
      if (!rows.empty() && rows.back().end() == start) {
        rows.back().bytes += width;
      } else {
        rows.push_back({start, width});
      }
    }
  }
  return rows;
}

// From the first byte of the side to behind its last one.
size_t Span(const CopySide& side, const CopyRequest& request) {
  return side.slice * (request.depth - 1) + side.pitch * (request.height - 1) + request.width;
}

bool RowsFit(const CopySide& side, const CopyRequest& request) {
  if (request.height > 1 && side.pitch < request.width) return false;
  return request.depth == 1 || side.slice >= side.pitch * (request.height - 1) + request.width;
}

// Both lists hold the same number of bytes.
void CopyRows(const std::vector<Range>& to, const std::vector<Range>& from) {
  if (to.size() == 1 && from.size() == 1) {
    std::memmove(reinterpret_cast<void*>(to[0].start), reinterpret_cast<void*>(from[0].start),
                 to[0].bytes);
    return;
  }
  size_t row = 0;
  size_t at = 0;  // in from[row]
  for (const Range& target : to) {
    for (size_t done = 0; done < target.bytes;) {
      const size_t bytes = std::min(target.bytes - done, from[row].bytes - at);
      std::memmove(reinterpret_cast<void*>(target.start + done),
                   reinterpret_cast<void*>(from[row].start + at), bytes);
      done += bytes;
      at += bytes;
      if (at == from[row].bytes) {
        ++row;
        at = 0;
      }
    }
  }
}

// The context of device memory; null for other memory.
Context* OwnerOf(Simulation& sim, uintptr_t address) {
  const Allocation* allocation = sim.allocations.Find(address);
  if (allocation == nullptr || allocation->kind != MemoryKind::kDevice) return nullptr;
  Context* context = sim.contexts.Find(allocation->context);
  return context != nullptr && context->id == allocation->context_id ? context : nullptr;
}

// Empty: in that of its stream.
std::vector<Context*> WhereItRuns(Simulation& sim, const CopyRequest& request,
                                  const Context& of_stream) {
  Context* source = OwnerOf(sim, request.from.start);
  Context* target = OwnerOf(sim, request.to.start);
  if (source == nullptr) source = target;
  if (target == nullptr) target = source;
  if (source == nullptr) return {};
  if (source->device == target->device) {
    if (source->device == of_stream.device) return {};
    return {source};
  }
  if (source->reachable.contains(target)) return {source};
  return {source, target};
}

// One side, as the parameters of all these calls describe it.
CUresult SideOf(CUmemorytype type, const void* host, CUdeviceptr device, size_t x, size_t y,
                size_t z, size_t pitch, size_t rows_of_slice, size_t width, CopySide* side) {
  if (type == CU_MEMORYTYPE_ARRAY) return CUDA_ERROR_NOT_SUPPORTED;
  if (type != CU_MEMORYTYPE_HOST && type != CU_MEMORYTYPE_DEVICE && type != CU_MEMORYTYPE_UNIFIED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (pitch != 0 && pitch < x + width) return CUDA_ERROR_INVALID_VALUE;
  side->pitch = pitch;
  side->slice = pitch * rows_of_slice;
  side->on_device = type == CU_MEMORYTYPE_HOST ? 0 : type == CU_MEMORYTYPE_DEVICE ? 1 : -1;
  const uintptr_t base = type == CU_MEMORYTYPE_HOST ? AddressOf(host) : device;
  const size_t offset = z * side->slice + y * side->pitch + x;
  side->start = base + offset;
  if (type == CU_MEMORYTYPE_DEVICE) side->offset = offset;
  return CUDA_SUCCESS;
}

template <typename Box>
CUresult BoxToRequest(const Box& box, CopyRequest* request) {
  request->width = box.WidthInBytes;
  request->height = box.Height;
  request->depth = box.Depth;
  const CUresult result =
      SideOf(box.dstMemoryType, box.dstHost, box.dstDevice, box.dstXInBytes, box.dstY, box.dstZ,
             box.dstPitch, box.dstHeight, box.WidthInBytes, &request->to);
  if (result != CUDA_SUCCESS) return result;
  return SideOf(box.srcMemoryType, box.srcHost, box.srcDevice, box.srcXInBytes, box.srcY, box.srcZ,
                box.srcPitch, box.srcHeight, box.WidthInBytes, &request->from);
}

}  // namespace

CUresult Copy(Simulation& sim, Lock& lock, const CopyRequest& request) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, request.stream, request.null_means, &stream);
  return result != CUDA_SUCCESS ? result : CopyOn(sim, lock, stream, request);
}

CUresult CopyOn(Simulation& sim, Lock& lock, Stream* stream, const CopyRequest& request) {
  const size_t bytes = request.width * request.height * request.depth;
  if (bytes == 0) return CUDA_SUCCESS;
  if (!RowsFit(request.to, request) || !RowsFit(request.from, request)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  const auto place_of = [&](const CopySide& side) {
    return PlaceOf(sim, side.start - side.offset, side.offset + Span(side, request));
  };
  const Place to = place_of(request.to);
  const Place from = place_of(request.from);
  if (!Suits(to, request.to.on_device) || !Suits(from, request.from.on_device)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (stream->capture != nullptr) {
    if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (request.synchronous) return Invalidate(*stream->capture);
  }
  const bool captured = stream->capture != nullptr;
  Work work;
  work.what = "copy";
  work.duration_ns = CopyDuration(bytes, !OnDevice(to) || !OnDevice(from));
  work.writes = Rows(request.to, request.width, request.height, request.depth);
  const auto source = Rows(request.from, request.width, request.height, request.depth);
  const CUcontext context = stream->context->handle;
  // A captured copy reads its source when the graph runs.
  const bool as_usual = request.source_read == SourceRead::kAsUsual;
  const bool staged =
      from == Place::kPageable && OnDevice(to) && !captured &&
      (as_usual || (request.source_read != SourceRead::kInOrder && bytes <= kStagedAtOnce));
  if (staged) {
    if (request.synchronous) {
      // A synchronous copy comes after the stream's earlier work before it reads its source.
      const CUresult capturing = CheckStreamCall(sim, *stream);
      if (capturing != CUDA_SUCCESS) return capturing;
      const CUresult waited = WaitFor(sim, lock, stream->context->handle, TailsToWaitFor(*stream));
      if (waited != CUDA_SUCCESS) return waited;
      const CUresult again = RequireStream(sim, request.stream, request.null_means, &stream);
      if (again != CUDA_SUCCESS) return again;
    }
    auto copy = std::make_shared<std::vector<unsigned char>>(bytes);
    const std::vector<Range> staging{{reinterpret_cast<uintptr_t>(copy->data()), bytes}};
    CopyRows(staging, source);
    work.effect = [=, target = work.writes](CUresult) {
      CopyRows(target, {{reinterpret_cast<uintptr_t>(copy->data()), copy->size()}});
    };
  } else {
    work.reads = source;
    work.effect = [=, target = work.writes](CUresult) { CopyRows(target, source); };
  }
  ItemPtr item;
  const CUresult submitted = SubmitWork(sim, *stream, std::move(work), &item, nullptr,
                                        WhereItRuns(sim, request, *stream->context));
  if (submitted != CUDA_SUCCESS) return submitted;
  const bool host_to_host = !OnDevice(to) && !OnDevice(from);
  bool waits = false;
  switch (request.source_read) {
    case SourceRead::kAsUsual:
      waits = request.synchronous
                  ? !staged && !(OnDevice(to) && OnDevice(from))
                  : to == Place::kPageable || host_to_host || (staged && bytes > kStagedAtOnce);
      break;
    case SourceRead::kInOrder:
      waits = from == Place::kPageable;
      break;
    case SourceRead::kAnyTime:
      break;
    case SourceRead::kDuringCall:
      waits = from != Place::kPageable && !host_to_host;
      break;
  }
  return waits && !captured ? WaitFor(sim, lock, context, {item}) : CUDA_SUCCESS;
}

CUresult Set(Simulation& sim, Lock& lock, const SetRequest& request) {
  Stream* stream = nullptr;
  const CUresult result = RequireStream(sim, request.stream, request.null_means, &stream);
  return result != CUDA_SUCCESS ? result : SetOn(sim, lock, *stream, request);
}

CUresult SetOn(Simulation& sim, Lock& lock, Stream& stream, const SetRequest& request) {
  const size_t row = request.width * request.element_bytes;
  if (row == 0 || request.height == 0) return CUDA_SUCCESS;
  if (request.to % request.element_bytes != 0) return CUDA_ERROR_INVALID_VALUE;
  if (request.height > 1 && request.pitch < row) return CUDA_ERROR_INVALID_VALUE;
  const size_t bytes = request.pitch * (request.height - 1) + row;
  const Place place = PlaceOf(sim, request.to, bytes);
  const bool suits = Suits(place, 1);
  if (!suits && (stream.capture == nullptr || request.synchronous)) return CUDA_ERROR_INVALID_VALUE;
  Work work;
  if (!suits) work.refused = Work::Refused::kWhenMade;
  work.what = "set";
  work.duration_ns = CopyDuration(bytes, !OnDevice(place));
  work.writes = Rows({request.to, 1, request.pitch, 0}, row, request.height, 1);
  work.effect = [request, row](CUresult) {
    for (size_t y = 0; y < request.height; ++y) {
      auto* at = reinterpret_cast<unsigned char*>(request.to + y * request.pitch);
      std::memcpy(at, &request.value, request.element_bytes);
      for (size_t done = request.element_bytes; done < row;) {  // twice as much each time
        const size_t more = std::min(done, row - done);
        std::memcpy(at + done, at, more);
        done += more;
      }
    }
  };
  const CUcontext context = stream.context->handle;
  ItemPtr item;
  const CUresult submitted = SubmitWork(sim, stream, std::move(work), &item);
  if (submitted != CUDA_SUCCESS || !request.synchronous || place == Place::kDevice) {
    return submitted;
  }
  return WaitFor(sim, lock, context, {item});  // page-locked or managed memory
}

CUresult ToRequest(const CUDA_MEMCPY2D& box, CopyRequest* request) {
  request->width = box.WidthInBytes;
  request->height = box.Height;
  const CUresult result = SideOf(box.dstMemoryType, box.dstHost, box.dstDevice, box.dstXInBytes,
                                 box.dstY, 0, box.dstPitch, 0, box.WidthInBytes, &request->to);
  if (result != CUDA_SUCCESS) return result;
  return SideOf(box.srcMemoryType, box.srcHost, box.srcDevice, box.srcXInBytes, box.srcY, 0,
                box.srcPitch, 0, box.WidthInBytes, &request->from);
}
CUresult ToRequest(const CUDA_MEMCPY3D& box, CopyRequest* request) {
  return BoxToRequest(box, request);
}
CUresult ToRequest(const CUDA_MEMCPY3D_PEER& box, CopyRequest* request) {
  return BoxToRequest(box, request);
}

}  // namespace cmp::sim
