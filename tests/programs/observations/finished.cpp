// Synchronisations that finish less than they seem to: what was submitted after they began, or to
// another stream, is pending, and a free waits for it.
#include "scene.h"

namespace observations {
namespace {

// Page-locked memory, and copies to it behind long work.
struct Copies {
  char* device = DeviceWord();
  char* host = PageLocked();
  uint64_t value = 0;

  void Submit(cudaStream_t stream, uint64_t duration_ns = kLong) {
    value = NextValue();
    SetHostWord(host, 0);
    WriteWord(stream, device, value, duration_ns);
    MUST(cudaMemcpyAsync(host, device, 8, cudaMemcpyDeviceToHost, stream));
  }
  void FreeAndSee(const char* what) const {
    FreeUnrelated();
    See(what, HostWord(host), value);
    MUST(cudaDeviceSynchronize());
  }
};

// ---- Another thread submits once the synchronisation has taken effect, before it returns.

void Nothing() {}

// `call` makes a call of one of the entry points `names`; the other thread submits a copy and does
// `more` meanwhile; `afterwards` is done when the call has returned.
void Meanwhile(const std::vector<const char*>& names, cudaStream_t submits_to,
               const std::function<void()>& call, const std::function<void()>& more = Nothing,
               const std::function<void()>& afterwards = Nothing) {
  Copies copies;
  Helper helper;
  for (int round = 0; round < 3; ++round) {
    AtPlace at{std::this_thread::get_id(), helper,
               [&] {
                 copies.Submit(submits_to);
                 more();
               },
               false};
    for (const char* name : names) simOnCall(name, SIM_AFTER_CALL, &AtPlace::Called, &at);
    call();
    for (const char* name : names) simOnCall(name, SIM_AFTER_CALL, nullptr, nullptr);
    helper.Wait();
    printf("submitted meanwhile: %d\n", at.done ? 1 : 0);
    afterwards();
    copies.FreeAndSee("copied");
  }
}

void StreamSynchronize() {
  const cudaStream_t stream = NonBlockingStream();
  Meanwhile({"cuStreamSynchronize"}, stream, [&] {
    WriteWord(stream, DeviceWord(), 1, kShort);
    MUST(cudaStreamSynchronize(stream));
  });
}

cudaEvent_t UntimedEvent() {
  cudaEvent_t event = nullptr;
  MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

// There was work, else nobody would have to be told of the answer; it is done when it is asked for.
void StreamQuery() {
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  Meanwhile({"cuStreamQuery"}, stream, [&] {
    WriteWord(stream, DeviceWord(), 1, kShort);
    MUST(cudaEventRecord(event, stream));
    MUST(cudaEventSynchronize(event));
    MUST(cudaStreamQuery(stream));
  });
}

void ContextSynchronize() {
  const cudaStream_t stream = NonBlockingStream();
  char* word = DeviceWord();
  Meanwhile({"cuCtxSynchronize", "cuCtxSynchronize_v2"}, stream, [&] {
    WriteWord(stream, word, 1, kShort);
    MUST(cudaDeviceSynchronize());
  });
}

void SynchronousCopy() {
  char* source = DeviceWord();
  Meanwhile({"cuMemcpyDtoH_v2"}, nullptr, [&] { WordOf(source); });
}

// An event behind a copy that is soon done. `again`: it is recorded once more, meanwhile.
void EventSynchronize(bool again) {
  Copies before;
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  Meanwhile(
      {"cuEventSynchronize"}, stream,
      [&] {
        before.Submit(stream, kShort);
        MUST(cudaEventRecord(event, stream));
        MUST(cudaEventSynchronize(event));
      },
      [&] {
        if (again) MUST(cudaEventRecord(event, stream));
      });
}

void EventQuery(bool again) {
  Copies before;
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  Meanwhile(
      {"cuEventQuery"}, stream,
      [&] {
        before.Submit(stream, kShort);
        MUST(cudaEventRecord(event, stream));
        MUST(cudaStreamSynchronize(stream));
        MUST(cudaEventQuery(event));
      },
      [&] {
        if (again) MUST(cudaEventRecord(event, stream));
      });
}

void EventRecord() {
  Copies before;
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  Meanwhile(
      {"cuEventRecord"}, stream,
      [&] {
        before.Submit(stream, kShort);
        MUST(cudaEventRecord(event, stream));
      },
      Nothing, [&] { MUST(cudaEventSynchronize(event)); });
}

// ---- Another stream, another event

void EventRecordedBefore() {
  Copies copies;
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  for (const bool by_query : {false, true}) {
    copies.Submit(stream, kShort);
    MUST(cudaEventRecord(event, stream));
    MUST(cudaStreamSynchronize(stream));
    copies.Submit(stream);
    MUST(by_query ? cudaEventQuery(event) : cudaEventSynchronize(event));
    copies.FreeAndSee("copied after the event");
  }
}

// The first of two copies is done, the second is not.
void EventBetween() {
  Copies first;
  Copies second;
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  first.Submit(stream, kShort);
  MUST(cudaEventRecord(event, stream));
  second.Submit(stream);
  MUST(cudaEventSynchronize(event));
  printf("first copy: %d\n", HostWord(first.host) == first.value ? 1 : 0);
  second.FreeAndSee("second copy");
}

void EventRecordedElsewhere() {
  Copies copies;
  const cudaStream_t stream = NonBlockingStream();
  const cudaStream_t other = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  copies.Submit(stream);
  MUST(cudaEventRecord(event, stream));
  MUST(cudaEventRecord(event, other));
  MUST(cudaEventSynchronize(event));
  copies.FreeAndSee("copied before the event's first record");
}

// A launch on another stream records it, by an attribute.
void EventRecordedByLaunch(CUlaunchAttributeID id) {
  Copies copies;
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  CUlaunchAttribute attribute = {};
  attribute.id = id;
  if (id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT) {
    attribute.value.programmaticEvent = {event, 0, 1};
  } else {
    attribute.value.launchCompletionEvent = {event, 0};
  }
  CUlaunchConfig config = {};
  config.gridDimX = config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = config.blockDimY = config.blockDimZ = 1;
  config.hStream = NonBlockingStream();
  config.attrs = &attribute;
  config.numAttrs = 1;
  SimWork work = {};
  work.duration_ns = kShort;
  const SimWork* pointer = &work;
  void* arguments[] = {&pointer};
  for (const bool by_query : {false, true}) {
    copies.Submit(stream);
    MUST(cudaEventRecord(event, stream));
    MUST_DRIVER(cuLaunchKernelEx(&config, simFunction(), arguments, nullptr));
    if (by_query) {
      while (cudaEventQuery(event) != cudaSuccess) cudaGetLastError();
    } else {
      MUST(cudaEventSynchronize(event));
    }
    copies.FreeAndSee("copied before the event's first record");
  }
}

// A destroyed event's handle stands for another event.
void EventHandleReused() {
  Copies copies;
  const cudaStream_t stream = NonBlockingStream();
  const cudaStream_t other = NonBlockingStream();
  cudaEvent_t event = UntimedEvent();
  copies.Submit(stream);
  MUST(cudaEventRecord(event, stream));
  const void* before = event;
  MUST(cudaEventDestroy(event));
  event = UntimedEvent();
  printf("the same handle: %d\n", before == event ? 1 : 0);
  MUST(cudaEventSynchronize(event));  // never recorded
  copies.FreeAndSee("copied before the old event");
  copies.Submit(stream);
  MUST(cudaEventRecord(event, other));
  MUST(cudaEventSynchronize(event));
  copies.FreeAndSee("copied on another stream");
}

void OtherStream() {
  Copies copies;
  cudaStream_t blocking = nullptr;
  MUST(cudaStreamCreate(&blocking));
  const cudaStream_t stream = NonBlockingStream();
  const cudaStream_t others[] = {NonBlockingStream(), blocking, nullptr, cudaStreamPerThread};
  for (const cudaStream_t other : others) {
    for (const bool by_query : {false, true}) {
      copies.Submit(stream);
      MUST(by_query ? cudaStreamQuery(other) : cudaStreamSynchronize(other));
      copies.FreeAndSee("copied on a non-blocking stream");
    }
  }
  for (const cudaStream_t other : {others[0], cudaStream_t{cudaStreamPerThread}}) {
    copies.Submit(blocking);
    MUST(cudaStreamSynchronize(other));
    copies.FreeAndSee("copied on a blocking stream");
  }
  copies.Submit(nullptr);
  MUST(cudaStreamSynchronize(others[0]));
  copies.FreeAndSee("copied on the legacy stream");
  copies.Submit(stream);
  WordOf(copies.device + 64);
  copies.FreeAndSee("copied on a non-blocking stream, before a synchronous copy");
}

// The per-thread streams of two threads.
void OtherThreadsStream() {
  Copies copies;
  Helper helper;
  helper.Do([&] { copies.Submit(cudaStreamPerThread); });
  helper.Wait();
  MUST(cudaStreamSynchronize(cudaStreamPerThread));
  copies.FreeAndSee("copied on another thread's stream");
}

void DestroyedStream() {
  Copies copies;
  const cudaStream_t stream = NonBlockingStream();
  copies.Submit(stream);
  MUST(cudaStreamDestroy(stream));
  copies.FreeAndSee("copied on a stream that is gone");
}

void StreamHandleReused() {
  Copies copies;
  for (const bool by_query : {false, true}) {
    const cudaStream_t stream = NonBlockingStream();
    copies.Submit(stream);
    MUST(cudaStreamDestroy(stream));
    const cudaStream_t fresh = NonBlockingStream();
    printf("the same handle: %d\n", fresh == stream ? 1 : 0);
    MUST(by_query ? cudaStreamQuery(fresh) : cudaStreamSynchronize(fresh));
    copies.FreeAndSee("copied on a stream that is gone");
    MUST(cudaStreamDestroy(fresh));
  }
}

// A stream that has much to do says that it is not ready: nothing is finished by that.
void UnsuccessfulQuery() {
  Copies copies;
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  copies.Submit(stream);
  MUST(cudaEventRecord(event, stream));
  printf("stream %d, event %d\n", static_cast<int>(cudaStreamQuery(stream)),
         static_cast<int>(cudaEventQuery(event)));
  cudaGetLastError();
  copies.FreeAndSee("copied");
}

// A synchronisation that is not allowed while the thread captures.
void FailedSynchronisation() {
  Copies copies;
  const cudaStream_t stream = NonBlockingStream();
  const cudaStream_t captured = NonBlockingStream();
  copies.Submit(stream);
  cudaGraph_t graph = nullptr;
  MUST(cudaStreamBeginCapture(captured, cudaStreamCaptureModeRelaxed));
  printf("refused: %d\n", static_cast<int>(cudaDeviceSynchronize()));
  cudaGetLastError();
  printf("ended: %d\n", static_cast<int>(cudaStreamEndCapture(captured, &graph)));
  cudaGetLastError();
  copies.FreeAndSee("copied");
}

// One copy is finished, those of other streams are not.
void OneOfSeveral() {
  Copies first;
  Copies second;
  const cudaStream_t streams[] = {NonBlockingStream(), NonBlockingStream()};
  first.Submit(streams[0], kShort);
  second.Submit(streams[1]);
  MUST(cudaStreamSynchronize(streams[0]));
  second.FreeAndSee("copied on the other stream");
}

// A record that is captured is a graph's to make: what the event says until then is older.
void EventRecordedByGraph() {
  Copies copies;
  const cudaStream_t stream = NonBlockingStream();
  const cudaEvent_t event = UntimedEvent();
  for (int round = 0; round < 3; ++round) {
    copies.Submit(stream);
    MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    MUST_DRIVER(cuEventRecordWithFlags(event, stream, CU_EVENT_RECORD_EXTERNAL));
    cudaGraph_t graph = nullptr;
    MUST(cudaStreamEndCapture(stream, &graph));
    Check("event", static_cast<uint64_t>(cudaEventQuery(event)), 0);
    copies.FreeAndSee("copied before the capture");
  }
}

}  // namespace

std::vector<Scenario> FinishedScenarios() {
  std::vector<Scenario> scenarios;
  const auto add = [&](const char* rule, const char* name, const std::function<void()>& run) {
    scenarios.push_back({Expect::kVisible, rule, name, run});
  };
  constexpr const char* kBegun = "finished_if_begun_after";
  add(kBegun, "submitted-during-stream-synchronize", StreamSynchronize);
  add(kBegun, "submitted-during-stream-query", StreamQuery);
  add(kBegun, "submitted-during-context-synchronize", ContextSynchronize);
  add(kBegun, "submitted-during-synchronous-copy", SynchronousCopy);
  add(kBegun, "submitted-during-event-synchronize", [] { EventSynchronize(false); });
  add(kBegun, "submitted-during-event-query", [] { EventQuery(false); });
  add(kBegun, "submitted-during-event-record", EventRecord);
  add(kBegun, "event-recorded-before", EventRecordedBefore);
  add(kBegun, "event-between", EventBetween);
  constexpr const char* kCopies = "visible_copies";
  add(kCopies, "recorded-during-event-synchronize", [] { EventSynchronize(true); });
  add(kCopies, "recorded-during-event-query", [] { EventQuery(true); });
  add(kCopies, "event-recorded-elsewhere", EventRecordedElsewhere);
  add(kCopies, "event-recorded-by-graph", EventRecordedByGraph);
  add(kCopies, "event-recorded-by-launch",
      [] { EventRecordedByLaunch(CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT); });
  add(kCopies, "event-recorded-by-programmatic-launch",
      [] { EventRecordedByLaunch(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT); });
  add(kCopies, "event-handle-reused", EventHandleReused);
  add(kCopies, "other-stream-synchronized", OtherStream);
  add(kCopies, "other-threads-stream", OtherThreadsStream);
  add(kCopies, "stream-destroyed", DestroyedStream);
  add(kCopies, "stream-handle-reused", StreamHandleReused);
  add(kCopies, "unsuccessful-query", UnsuccessfulQuery);
  add(kCopies, "failed-synchronisation", FailedSynchronisation);
  add(kCopies, "one-of-several", OneOfSeveral);
  return scenarios;
}

}  // namespace observations
