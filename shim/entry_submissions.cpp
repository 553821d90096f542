// The interposed entry points of the driver that give the GPU work: generated from the table of
// them all in submissions.inc. Each is the real call, with the submission noted around it.
#include <string.h>

#include "core/rules.h"
#include "shim/entry_driver.h"
#include "shim/lookup.h"
#include "shim/work.h"

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

// May the work begin before earlier work of its own stream has ended? A launch with programmatic
// dependencies may (CUDA programming guide, "Programmatic Dependent Launch").
template <typename... Arguments>
constexpr bool Overtakes(const Arguments&...) {
  return false;
}
bool Overtakes(const CUlaunchConfig* config, CUfunction, void**, void**) {
  if (config == nullptr || config->attrs == nullptr) return false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const CUlaunchAttributeID id = config->attrs[i].id;
    if (id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION ||
        id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT) {
      return true;
    }
  }
  return false;
}

// Does the call return only once the work is done? Copies to the host without a stream do, if there
// is anything to copy: a copy of nothing need not wait for anything.
constexpr bool IsHostWait(const char* symbol) {
  const auto begins = [symbol](const char* with) {
    for (const char* at = symbol; *with != '\0'; ++at, ++with) {
      if (*at != *with) return false;
    }
    return true;
  };
  return begins("cuMemcpyDtoH") && !begins("cuMemcpyDtoHAsync");
}

bool CopiesSomething(void*, CUdeviceptr, size_t bytes) { return bytes != 0; }
template <typename... Arguments>
constexpr bool CopiesSomething(const Arguments&...) {
  return false;
}

// For the tests of the rules: a copy or set without a stream parameter.
[[maybe_unused]] bool IsSynchronous(const char* stream) {
  return strstr(stream, "nullptr") != nullptr;
}

}  // namespace

}  // namespace cmp

// The usual submission changes nothing of what is known. Whatever else there may be to do is left
// to a function of the same arguments, so that nothing has to be kept for it here.
#define CMP_SUBMIT(name, parameters, arguments, stream)                                          \
  namespace {                                                                                    \
  [[gnu::noinline]] CUresult Slow_##name parameters {                                            \
    const cmp::DriverCalls* real = cmp::RealDriver();                                            \
    if (real == nullptr || real->name == nullptr) return CUDA_ERROR_NOT_INITIALIZED;             \
    if (!cmp::RuleIsOn(cmp::Rule::kOrderBeforeSynchronousCopy) && cmp::IsSynchronous(#stream)) { \
      return real->name arguments;                                                               \
    }                                                                                            \
    const cmp::StreamName to = stream;                                                           \
    if (cmp::IsHostWait(#name) && cmp::CopiesSomething arguments) {                              \
      return cmp::SubmitAndWait(to, [&] { return real->name arguments; });                       \
    }                                                                                            \
    const bool overtakes = to == cmp::kSeveralStreams || cmp::Overtakes arguments;               \
    const cmp::Submission submission(to, overtakes);                                             \
    return real->name arguments;                                                                 \
  }                                                                                              \
  }                                                                                              \
  CUresult Driver_##name parameters {                                                            \
    const cmp::DriverCalls* real = cmp::g_driver_calls.load(std::memory_order_acquire);          \
    cmp::ContextWork* work = cmp::g_only_work.load(std::memory_order_acquire);                   \
    if (real == nullptr || real->name == nullptr || work == nullptr) [[unlikely]]                \
      return Slow_##name arguments;                                                              \
    const cmp::StreamName to = stream;                                                           \
    if (!work->IsQuiet(to) || cmp::Overtakes arguments || cmp::IsHostWait(#name) ||              \
        cmp::kRulesMayBeOff) [[unlikely]]                                                        \
      return Slow_##name arguments;                                                              \
    const CUresult status = real->name arguments;                                                \
    if (cmp::IsToBeNoted(work, work, to)) [[unlikely]]                                           \
      cmp::NoteSubmitted(work, work, to);                                                        \
    return status;                                                                               \
  }

// Records of events, and waits for them, touch no memory, but a program learns from them that
// earlier work is done: they are submissions like all others.
#define CMP_Launch CMP_SUBMIT
#define CMP_Copy CMP_SUBMIT
#define CMP_Set CMP_SUBMIT
#define CMP_GraphLaunch CMP_SUBMIT
#define CMP_HostFunction CMP_SUBMIT
#define CMP_StreamMemoryOperation CMP_SUBMIT
#define CMP_EventRecord CMP_SUBMIT
#define CMP_EventWait CMP_SUBMIT
#define CMP_Other CMP_SUBMIT
#define CMP_DEFINE(kind, name, parameters, arguments, stream) \
  CMP_##kind(name, parameters, arguments, stream)
CMP_SUBMISSIONS(CMP_DEFINE)
