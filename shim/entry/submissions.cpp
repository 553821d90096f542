// The interposed entry points of the driver that give the GPU work: generated from the table of
// them all in submissions.inc. Each is the real call, with the submission noted around it.
#include <string.h>

#include <algorithm>

#include "core/base/rules.h"
#include "shim/lookup/entry_points.h"
#include "shim/lookup/lookup.h"
#include "shim/record/held_up.h"
#include "shim/service/named_memory.h"
#include "shim/shake/shake.h"
#include "shim/state/captures.h"
#include "shim/visible/copied_memory.h"
#include "shim/visible/visible_memory.h"
#include "shim/work/copied_devices.h"
#include "shim/work/host_wait.h"

namespace cmp {

namespace {

// Streams in structures of the program's; a null pointer is the real call's to refuse.
CUstream StreamOf(const CUlaunchConfig* config) {
  return config == nullptr ? nullptr : config->hStream;
}
CUstream StreamOf(const CUDA_GRAPH_INSTANTIATE_PARAMS* parameters) {
  return parameters == nullptr ? nullptr : parameters->hUploadStream;
}
CUstream StreamOf(const CUstream* stream) { return stream == nullptr ? nullptr : *stream; }
StreamName AnyStream() { return kSeveralStreams; }

// Does the call with these arguments submit anything? If not, what says its stream may be anything.
template <typename... Arguments>
constexpr bool Submits(const Arguments&...) {
  return true;
}
// An instantiation submits the graph's upload, where it is asked for.
bool Submits(void*, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS* parameters) {
  return parameters != nullptr && (parameters->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0;
}

// For the tests of the rules: a copy or set without a stream parameter.
[[maybe_unused]] bool IsSynchronous(const char* stream) {
  return strstr(stream, "nullptr") != nullptr;
}

// What the host could see of a submission, under CMP_FREE_SYNC=auto.
bool IsTracked() { return g_tracks_visible.load(std::memory_order_acquire); }
Visible VisibleIf(Visible what, Rule rule) {
  return IsTracked() && RuleIsOn(rule) ? what : Visible::kNothing;
}
Visible CopiesIf(bool seen) {
  return seen ? VisibleIf(Visible::kCopies, Rule::kVisibleCopies) : Visible::kNothing;
}

// ---- Does an argument of a copy or set name page-locked memory?

bool IsPageLocked(CUdeviceptr address) { return g_visible_memory.IsPageLocked(address); }
bool IsPageLocked(const void* address) {
  return g_visible_memory.IsPageLocked(reinterpret_cast<uintptr_t>(address));
}
bool IsPageLocked(void* address) { return IsPageLocked(const_cast<const void*>(address)); }

bool IsSidePageLocked(CUmemorytype type, const void* host, CUdeviceptr device, size_t offset) {
  if (type == CU_MEMORYTYPE_HOST) device = reinterpret_cast<CUdeviceptr>(host);
  return type != CU_MEMORYTYPE_ARRAY && IsPageLocked(device + offset);
}
template <typename Box>
bool IsBoxPageLocked(const Box* box) {
  return box != nullptr &&
         (IsSidePageLocked(box->srcMemoryType, box->srcHost, box->srcDevice, SourceOffset(*box)) ||
          IsSidePageLocked(box->dstMemoryType, box->dstHost, box->dstDevice, TargetOffset(*box)));
}
bool IsPageLocked(const CUDA_MEMCPY2D* box) { return IsBoxPageLocked(box); }
bool IsPageLocked(const CUDA_MEMCPY3D* box) { return IsBoxPageLocked(box); }
bool IsPageLocked(const CUDA_MEMCPY3D_PEER* box) { return IsBoxPageLocked(box); }

// Arrays, contexts, streams, numbers.
template <typename Other>
constexpr bool IsPageLocked(const Other&) {
  return false;
}

// ---- What is particular about each kind
//
//   kNamesMemory  do the arguments name memory that the program must have? (named_memory.h)
//   kWorks        does it read or write memory?
//   IsUsual       is there nothing to note if the stream is quiet?
//   Submit        the real call, call(), with everything noted
//   Waits         does it return only once it is done? (none of those that have no answer)
//
// Copies run in the contexts of the memory, whichever's stream they are on (measured:
// tests/gpu/two_gpus_probe). Kernels and sets run in their stream's.

constexpr auto AnyDeviceIf(bool elsewhere) {
  return [elsewhere] { return elsewhere ? kAnyDevice : 0; };
}

struct Plain {
  static constexpr bool kNamesMemory = false;
  static constexpr bool kWorks = false;
  template <typename... Arguments>
  static constexpr bool IsUsual(const ContextWork&, const Arguments&...) {
    return true;
  }
  template <typename Call, typename... Arguments>
  static CUresult Submit(StreamName to, Call call, const Arguments&...) {
    const bool elsewhere = to == kSeveralStreams;
    const SubmissionElsewhere others(to, Visible::kNothing, AnyDeviceIf(elsewhere));
    const Submission submission(to, elsewhere);
    return call();
  }
};

struct Copy : Plain {
  static constexpr bool kNamesMemory = true;
  static constexpr bool kWorks = true;
  template <typename Call, typename... Arguments>
  static CUresult Submit(StreamName to, Call call, const Arguments&... arguments) {
    const SubmissionElsewhere others(to, Visible::kNothing,
                                     [&] { return DevicesOfCopy(to, arguments...); });
    return Plain::Submit(to, call);
  }
};
struct Set : Plain {
  static constexpr bool kNamesMemory = true;
  static constexpr bool kWorks = true;
};
using EventWait = Plain;
using Other = Plain;

// A launch with programmatic dependencies may begin before earlier work of its own stream has ended
// (CUDA programming guide, "Programmatic Dependent Launch"). One that records an event makes it
// stand for something else than before.
struct Launch {
  static constexpr bool kNamesMemory = false;
  static constexpr bool kWorks = true;
  // The event that an attribute records, or nullptr.
  static CUevent EventOf(const CUlaunchAttribute& attribute) {
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT) {
      return attribute.value.programmaticEvent.event;
    }
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT) {
      return attribute.value.launchCompletionEvent.event;
    }
    return nullptr;
  }
  static bool Overtakes(const CUlaunchAttribute& attribute) {
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) {
      return attribute.value.programmaticStreamSerializationAllowed != 0;
    }
    return attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT;
  }

  template <typename Is, typename... Arguments>
  static constexpr bool HasAttribute(Is, const Arguments&...) {
    return false;
  }
  template <typename Is>
  static bool HasAttribute(Is is, const CUlaunchConfig* config, CUfunction, void**, void**) {
    if (config == nullptr || config->attrs == nullptr) return false;
    return std::any_of(config->attrs, config->attrs + config->numAttrs, is);
  }
  template <typename... Arguments>
  static void ForgetEvents(const Arguments&... arguments) {
    HasAttribute(
        [](const CUlaunchAttribute& attribute) {
          const CUevent event = EventOf(attribute);
          if (event != nullptr) g_events.Forget(event);
          return false;  // on to the next
        },
        arguments...);
  }

  template <typename... Arguments>
  static bool IsUsual(const ContextWork&, const Arguments&... arguments) {
    return !HasAttribute(
        [](const CUlaunchAttribute& attribute) {
          const CUevent event = EventOf(attribute);
          return Overtakes(attribute) || (event != nullptr && g_events.MayKnow(event));
        },
        arguments...);
  }
  template <typename Call, typename... Arguments>
  static CUresult Submit(StreamName to, Call call, const Arguments&... arguments) {
    const bool elsewhere = to == kSeveralStreams;
    const SubmissionElsewhere others(to, Visible::kNothing, AnyDeviceIf(elsewhere));
    const bool overtakes = HasAttribute(
        [](const CUlaunchAttribute& attribute) { return Overtakes(attribute); }, arguments...);
    const Submission submission(to, elsewhere || overtakes);
    // Before: who asks about it meanwhile learns nothing. After: another thread may have recorded
    // it meanwhile.
    ForgetEvents(arguments...);
    const CUresult status = call();
    ForgetEvents(arguments...);
    return status;
  }
};

// A copy of nothing need not wait for anything; one whose target is memory of the device after all
// waits for nothing (measured).
struct CopyToHost {
  static constexpr bool kNamesMemory = true;
  static constexpr bool kWorks = true;
  template <typename... Arguments>
  static constexpr bool IsUsual(const ContextWork&, const Arguments&...) {
    return false;
  }
  static bool Waits(void* target, CUdeviceptr, size_t bytes) {
    return bytes != 0 && !IsOnDevice(reinterpret_cast<CUdeviceptr>(target));
  }
  template <typename Call>
  static CUresult Submit(StreamName to, Call call, void* target, CUdeviceptr source, size_t bytes) {
    if (Waits(target, source, bytes)) return SubmitAndWait(to, call);
    return Copy::Submit(to, call, target, source);
  }
};

// Work that the host could see the end of, if Derived::What(arguments...) says so.
template <typename Derived>
struct MaybeVisible {
  static constexpr bool kNamesMemory = false;
  static constexpr bool kWorks = true;
  // In which contexts besides the stream's may it run?
  template <typename... Arguments>
  static Devices Where(StreamName, const Arguments&...) {
    return 0;
  }
  template <typename... Arguments>
  static bool IsUsual(const ContextWork&, const Arguments&... arguments) {
    return Derived::What(arguments...) == Visible::kNothing;
  }
  template <typename Call, typename... Arguments>
  static CUresult Submit(StreamName to, Call call, const Arguments&... arguments) {
    const Visible what = Derived::What(arguments...);
    const SubmissionElsewhere others(to, what, [&] { return Derived::Where(to, arguments...); });
    const Submission submission(to, to == kSeveralStreams, what);
    return call();
  }
};

struct AsyncSet : MaybeVisible<AsyncSet> {
  static constexpr bool kNamesMemory = true;
  template <typename... Arguments>
  static Visible What(const Arguments&... arguments) {
    return CopiesIf(IsTracked() && (IsPageLocked(arguments) || ...));
  }
};
struct AsyncCopy : MaybeVisible<AsyncCopy> {
  static constexpr bool kNamesMemory = true;
  template <typename... Arguments>
  static Devices Where(StreamName to, const Arguments&... arguments) {
    return DevicesOfCopy(to, arguments...);
  }
  template <typename... Arguments>
  static Visible What(const Arguments&... arguments) {
    return AsyncSet::What(arguments...);
  }
  // With attributes.
  static Visible What(CUdeviceptr to, CUdeviceptr from, size_t, void*, CUstream) {
    return CopiesIf(IsTracked() && MayBeSeen(&to, &from, 1));
  }
};

struct CopyList : MaybeVisible<CopyList> {
  static constexpr bool kNamesMemory = true;
  template <typename... Arguments>
  static Devices Where(StreamName, const Arguments&...) {
    g_device_links.Link(kAnyDevice);
    return kAnyDevice;
  }
  template <typename... More>
  static Visible What(CUdeviceptr* to, CUdeviceptr* from, size_t*, size_t count, const More&...) {
    return CopiesIf(IsTracked() && MayBeSeen(to, from, count));
  }
  template <typename... More>
  static Visible What(size_t count, void* boxes, const More&...) {
    return CopiesIf(IsTracked() && MayBeSeen(boxes, count));
  }
  static Visible What(void* box, unsigned long long, CUstream) {
    return CopiesIf(IsTracked() && MayBeSeen(box, 1));
  }
};

struct OpaqueCopyList : MaybeVisible<OpaqueCopyList> {
  template <typename... Arguments>
  static Devices Where(StreamName, const Arguments&...) {
    g_device_links.Link(kAnyDevice);
    return kAnyDevice;
  }
  template <typename... Arguments>
  static Visible What(const Arguments&...) {
    return CopiesIf(IsTracked());
  }
};

struct HostFunction : MaybeVisible<HostFunction> {
  template <typename... Arguments>
  static Visible What(const Arguments&...) {
    return VisibleIf(Visible::kHostFunctions, Rule::kVisibleHostFunctions);
  }
};

struct StreamMemoryOperation : MaybeVisible<StreamMemoryOperation> {
  static constexpr bool kNamesMemory = true;
  static constexpr bool kWorks = false;
  template <typename... Arguments>
  static Visible What(const Arguments&...) {
    return VisibleIf(Visible::kStreamMemory, Rule::kVisibleStreamMemory);
  }
};

// A graph may also record events, and run in other contexts, anywhere in its work.
struct GraphLaunch : MaybeVisible<GraphLaunch> {
  template <typename... Arguments>
  static Devices Where(StreamName, const Arguments&...) {
    return kAnyDevice;
  }
  template <typename... Arguments>
  static Visible What(const Arguments&...) {
    return VisibleIf(Visible::kGraphs, Rule::kVisibleGraphs);
  }
  template <typename Call, typename... Arguments>
  static CUresult Submit(StreamName to, Call call, const Arguments&... arguments) {
    g_events.ForgetAll();
    const CUresult status = MaybeVisible::Submit(to, call, arguments...);
    g_events.ForgetAll();
    return status;
  }
};

// Records of events, and waits for them, touch no memory, but a program learns from them that
// earlier work is done: they are submissions like all others.
struct EventRecord {
  static constexpr bool kNamesMemory = false;
  static constexpr bool kWorks = false;
  // The event, and on which stream it is recorded; one of a whole context is not followed.
  struct Target {
    CUevent event;
    bool followed;
  };
  template <typename... Flags>
  static Target TargetOf(CUevent event, CUstream, const Flags&...) {
    return {event, true};
  }
  static Target TargetOf(const void*, CUevent event) { return {event, false}; }

  template <typename... Arguments>
  static bool IsUsual(const ContextWork& work, const Arguments&... arguments) {
    return !work.MayHaveVisible() && !g_events.MayKnow(TargetOf(arguments...).event);
  }
  template <typename Call, typename... Arguments>
  static CUresult Submit(StreamName to, Call call, const Arguments&... arguments) {
    const Target target = TargetOf(arguments...);
    // It stands for nothing until it is recorded: who asks about it meanwhile learns nothing.
    g_events.Forget(target.event);
    // One that is captured is not recorded yet: a graph will do it.
    const bool followed = target.followed && !g_captures.UnderWay();
    const RecordedPoint point = followed ? OwnerOf(to).work().PointOf(to) : RecordedPoint{};
    const CUresult status = Plain::Submit(to, call);
    // Of the context whose work it is now: the record is not another one's that was used again.
    if (status == CUDA_SUCCESS && point.work != nullptr && OwnerOf(to).Is(point.work)) {
      g_events.Recorded(target.event, point);
    }
    return status;
  }
};

// What the one who tries the order (CMP_SHAKE) is to know of the submission.
template <typename Kind, typename... Arguments>
ShakenSubmission AsShaken(const char* name, StreamName to, const Arguments&... arguments) {
  ShakenSubmission shaken = {name, to, Kind::kWorks, false, false};
  if constexpr (requires { Kind::What(arguments...); }) {
    shaken.visible = Kind::What(arguments...) != Visible::kNothing;
  }
  if constexpr (requires { Kind::Waits(arguments...); }) shaken.waits = Kind::Waits(arguments...);
  return shaken;
}

// Is any memory refused that the arguments of a call of this kind name?
template <typename Kind, typename... Arguments>
bool IsAnyRefused(Arguments... arguments) {
  if constexpr (Kind::kNamesMemory) return NamesRefused(arguments...);
  return false;
}
// The arguments name the null pointer in its place. `replace` lives across the real call.
template <typename Kind, typename... Arguments>
void ReplaceRefused(named::Replace& replace, Arguments&... arguments) {
  if constexpr (Kind::kNamesMemory) named::ForEachNamed(replace, arguments...);
}

}  // namespace

}  // namespace cmp

// The usual submission changes nothing of what is known. Whatever else there may be to do is left
// to a function of the same arguments, so that nothing has to be kept for it here. While calls are
// observed, no context has a pool and no stream is quiet (MakeNoStreamQuiet).
#define CMP_LIST(...) __VA_ARGS__
#define CMP_DEFINE(kind, name, need, parameters, arguments, stream)                               \
  namespace {                                                                                     \
  [[gnu::noinline, gnu::cold]] CUresult Observed_##name parameters {                              \
    CMP_REAL(name);                                                                               \
    const cmp::BesideAllocations beside;                                                          \
    return real->name arguments;                                                                  \
  }                                                                                               \
  [[gnu::noinline]] CUresult Slow_##name parameters {                                             \
    CMP_REAL(name);                                                                               \
    if (!cmp::Submits(CMP_LIST arguments)) return real->name arguments;                           \
    if (!cmp::RuleIsOn(cmp::Rule::kOrderBeforeSynchronousCopy) && cmp::IsSynchronous(#stream)) {  \
      return real->name arguments;                                                                \
    }                                                                                             \
    cmp::named::Replace replace;                                                                  \
    cmp::ReplaceRefused<cmp::kind>(replace, CMP_LIST arguments);                                  \
    return cmp::kind::Submit(                                                                     \
        stream, [&] { return real->name arguments; }, CMP_LIST arguments);                        \
  }                                                                                               \
  [[gnu::noinline, gnu::cold]] CUresult Shaken_##name parameters {                                \
    const cmp::Shaken shaken(cmp::AsShaken<cmp::kind>(#name, stream, CMP_LIST arguments));        \
    return Slow_##name arguments;                                                                 \
  }                                                                                               \
  }                                                                                               \
  CUresult Driver_##name parameters {                                                             \
    const cmp::DriverCalls* real = cmp::g_driver_calls.load(std::memory_order_acquire);           \
    const cmp::WorkOwner owner = cmp::g_owner_of_all.load(std::memory_order_acquire);             \
    if (real == nullptr || real->name == nullptr || !cmp::Submits(CMP_LIST arguments))            \
        [[unlikely]]                                                                              \
      return Slow_##name arguments;                                                               \
    const cmp::StreamName to = stream;                                                            \
    if (!owner.IsQuiet(to) || !cmp::kind::IsUsual(owner.work(), CMP_LIST arguments) ||            \
        cmp::IsAnyRefused<cmp::kind>(CMP_LIST arguments) || cmp::kRulesMayBeOff) [[unlikely]] {   \
      if (owner.IsNone() && cmp::IsObserved()) return Observed_##name arguments;                  \
      if (cmp::TheShaker() != nullptr && cmp::t_inside_real == 0) return Shaken_##name arguments; \
      return Slow_##name arguments;                                                               \
    }                                                                                             \
    const CUresult status = real->name arguments;                                                 \
    if (cmp::IsToBeNoted(owner, owner, to)) [[unlikely]]                                          \
      cmp::NoteSubmitted(owner, owner, to);                                                       \
    return status;                                                                                \
  }
CMP_SUBMISSIONS(CMP_DEFINE)
